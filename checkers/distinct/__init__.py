"""Checks without a search, for histories in which no value is written twice."""
