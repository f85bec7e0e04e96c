"""Suites: a matrix of tests, run within a budget and summed up for CI."""
