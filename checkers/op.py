"""The op: one event of a history."""

from enum import StrEnum
from typing import Any, Final

import msgspec

NEMESIS: Final = "nemesis"
"""The process of every op that is not a client's: faults and phase marks."""


class OpType(StrEnum):
    """What an event says about an operation."""

    INVOKE = "invoke"
    OK = "ok"
    """It happened."""
    FAIL = "fail"
    """It certainly did not happen."""
    INFO = "info"
    """Nobody knows."""


class Op(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One event: an invocation, its completion, or a remark of the nemesis.

    `time` is in nanoseconds since the run began, on a monotonic clock. `key` names the object in
    workloads over many independent objects and is None where there is only one.
    """

    type: OpType
    process: int | str
    f: str
    index: int = -1
    time: int = -1
    key: str | None = None
    value: Any = None
    error: Any = None
    """On completions that are not ok: a short code or `[code, message]`."""
    node: str | None = None
    """The node that the client of this process talks to."""

    @property
    def is_client(self) -> bool:
        """Whether a client did this (and not the nemesis or the rig)."""
        return isinstance(self.process, int)
