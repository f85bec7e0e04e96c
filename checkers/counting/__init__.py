"""Checkers that count what went in and what came out, and need no order of operations."""
