"""The client: how one worker talks to one node, and how it says what became of an op.

A client returns the completed op, or raises. What a raise means is decided in one place, by
`completion_of_error`: `DefiniteError` says that the op certainly had no effect (`fail`); anything
else leaves the outcome open: `info` for ops that may have written, `fail` for ops that only read,
since a read without an answer has no effect on anybody.
"""

from typing import Protocol

import msgspec

from labrys.checkers.op import Op, OpType


class DefiniteError(Exception):
    """The op certainly had no effect. `code` is short and stable, `message` is for people."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message


class UnavailableError(DefiniteError):
    """The node certainly did nothing because it cannot serve at all at the moment.

    The worker then waits a little, as any client does. Otherwise the workers of dead nodes, which
    are refused at once, use up the rate that all workers share.
    """


class IndefiniteError(Exception):
    """Nobody knows what became of the op: a timeout, a broken connection, an unclear answer."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message


class Client(Protocol):
    """One worker's connection to one node. Opening and closing never touch the data."""

    def open(self) -> None:
        """Connect. A raise here is definite: the op that asked for it was never sent."""

    def invoke(self, op: Op) -> Op:
        """Perform `op` and return its completion (`ok` or `fail`); raise when neither is known."""

    def close(self) -> None:
        """Disconnect. Never raises."""


def completion_of_error(op: Op, error: Exception, *, only_reads: bool) -> Op:
    """Return the completion of `op` after `error`: `fail` if it had no effect, else `info`."""
    definite = isinstance(error, DefiniteError)
    if isinstance(error, DefiniteError | IndefiniteError):
        described = [error.code, error.message] if error.message else error.code
    else:
        described = [type(error).__name__, str(error)]
    kind = OpType.FAIL if definite or only_reads else OpType.INFO
    return msgspec.structs.replace(op, type=kind, error=described)
