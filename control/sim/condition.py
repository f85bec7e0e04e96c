"""What is wrong with a simulated disk: operations fail, or wait.

The modes are those of the real faulty disk (`labrys.control.disks.fuse`), and so is what they hit.
An operation that waits holds up the greenlet that it is called in.
"""

import errno
import os
from collections.abc import Mapping
from typing import Any, Final

from labrys.control.disks import fuse
from labrys.control.sim.disk import Crash
from labrys.control.sim.world import SECOND_NS, Signal, World

_KINDS: Final[Mapping[str, frozenset[str]]] = {
    "append": frozenset({fuse.WRITE}),
    "cut": frozenset({fuse.WRITE, fuse.FSYNC}),
    "flush": frozenset({fuse.FSYNC}),
    "flush_directory": frozenset({fuse.FSYNC}),
    "create": frozenset({fuse.NAME}),
    "rename": frozenset({fuse.NAME}),
    "remove": frozenset({fuse.NAME}),
    "read": frozenset({fuse.READ}),
    "open": frozenset(),
}
"""What the operations of a `SimDisk` are to a file system. Opening a file to write to it shows only
on a disk that cannot be written to."""


class _Wait(Signal):
    """An operation that has to wait."""

    __slots__ = ("is_crash",)

    def __init__(self) -> None:
        super().__init__()
        self.is_crash = False


class Condition(fuse.Condition):
    """A fault of a disk and what came of it."""

    def __init__(self, world: World, wish: Mapping[str, Any]) -> None:
        """`wish` is what a real disk would be told."""
        super().__init__(dict(wish), 0)
        self._world = world
        self._waits: dict[_Wait, None] = {}

    @property
    def makes_wait(self) -> bool:
        """Whether operations may have to wait, and so must be called in a greenlet."""
        return self.mode in (fuse.SLOW, fuse.HANG)

    @property
    def waiting(self) -> int:
        """How many operations wait now."""
        return len(self._waits)

    def meet(self, what: str) -> None:
        """Let an operation fail or wait if it has to; raises OSError, or Crash."""
        if self.mode == fuse.READONLY:
            if what != "read":
                self._fail(errno.EROFS)
        elif self.operations & _KINDS[what]:
            if self.mode == fuse.ERROR:
                self._fail(errno.EIO)
            if self.mode == fuse.HANG:
                self._wait(float("inf"))
            if self.mode == fuse.SLOW:
                self._wait(self.delay_s * SECOND_NS)

    def let_go(self) -> None:
        """Let go on what waits."""
        for wait in self._waits:
            self._world.set(wait)

    def crash(self) -> None:
        """The process is gone: what waits here is never done."""
        for wait in self._waits:
            wait.is_crash = True
            self._world.set(wait)

    def _fail(self, number: int) -> None:
        self.failed += 1
        raise OSError(number, os.strerror(number))

    def _wait(self, timeout_ns: float) -> None:
        wait = _Wait()
        self.held += 1
        self._waits[wait] = None
        try:
            self._world.wait(wait, timeout_ns)
        finally:
            del self._waits[wait]
        if wait.is_crash:
            raise Crash
