"""History and op types, verdicts, models and the checkers that judge a history."""
