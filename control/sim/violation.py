"""The end of a simulation that has found something."""


class Violation(AssertionError):
    """A promise of Raft was broken."""
