"""Faults: what to break, when, how it is undone and how we know that it bit."""
