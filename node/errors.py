"""What stops a node, sorted by who must act; the exit code sits on the class."""

from typing import ClassVar


class NodeError(Exception):
    """Base of everything the node reports in one clear line before it stops."""

    exit_code: ClassVar[int] = 4


class UsageError(NodeError):
    """The command line is wrong; the message says which flag and what to write instead."""

    exit_code = 2


class MachineError(NodeError):
    """The machine refused something: a port, a directory, a write, an fsync."""


class DiskFull(MachineError):
    """There is no room; nothing was written, and the same may succeed later."""


class CorruptLog(MachineError):
    """The log holds bytes that no crash explains: names file, offset and what to do."""


class Refused(Exception):
    """A request that this node will certainly not carry out; `code` is the API's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
