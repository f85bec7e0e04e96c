"""What reaches a simulated process, and what is in the way of it.

What reaches a process while it is held (it is paused, say) waits until it goes on; what reaches one
that is dead is lost. On a slow CPU each turn takes its time.

On a disk that makes operations wait, whatever may touch it is done in a greenlet. The writer of the
log and the work aside wait there alone, as the threads that they stand for; when the engine itself
waits for the disk, nothing else happens in the process.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labrys.control.sim.machine import Machine


class Hold(Enum):
    """Why nothing happens in a process."""

    PAUSE = auto()
    FREEZE = auto()
    CPU = auto()
    """What was begun takes its time."""
    DISK = auto()
    """The engine waits for it."""


class Inbox(ABC):
    """Takes in what is for a process, in its order."""

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine
        self.is_alive = True
        self.holds: set[Hold] = set()
        self._world = machine.world
        self._held: deque[tuple[Callable[..., None], Callable[..., object], tuple[Any, ...]]]
        self._held = deque()
        """How to deliver it, and what."""
        self.reconsider()

    def deliver(self, call: Callable[..., object], *args: Any) -> None:
        """Something has come for the process."""
        if not self.is_alive:
            return
        if self._is_hindered:
            self._deliver_hindered(call, args)
            return
        try:
            call(*args)
        except Exception as error:
            self._meet(error)

    def deliver_beside(self, call: Callable[..., object], *args: Any) -> None:
        """The same for work that may wait for the disk while the engine goes on."""
        if not self.is_alive:
            return
        if self.holds - {Hold.DISK}:
            self._keep(self.deliver_beside, call, args)
        elif self.machine.makes_wait:
            self._world.spawn(partial(self._carry_out, call, args))
        else:
            self._carry_out(call, args)

    def hold(self, hold: Hold) -> None:
        """Let nothing happen."""
        self.holds.add(hold)
        self.reconsider()

    def release(self, hold: Hold) -> None:
        """Take what has come in the meantime, in its order, if nothing else is in the way."""
        if hold in self.holds:
            self.holds.discard(hold)
            self.reconsider()
            self._world.call_soon(self._catch_up)

    def reconsider(self) -> None:
        """Look whether anything is in the way of what comes."""
        machine = self.machine
        self._is_hindered = bool(
            self.holds or self._held or machine.makes_wait or machine.cpu is not None
        )

    def _catch_up(self) -> None:
        while self._held and not self.holds:
            deliver, call, args = self._held.popleft()
            deliver(call, *args)
        self.reconsider()

    def _deliver_hindered(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        if self.holds or self._held:
            self._keep(self._act, call, args)
        else:
            self._act(call, *args)

    def _keep(
        self, deliver: Callable[..., None], call: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        self._held.append((deliver, call, args))
        if Hold.CPU in self.holds and self.machine.cpu is not None:
            self.machine.cpu.waits += 1

    def _act(self, call: Callable[..., object], *args: Any) -> None:
        if self.machine.makes_wait:
            self._world.spawn(partial(self._take_turn, call, args))
        else:
            self._carry_out(call, args)

    def _take_turn(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        """Something for the engine, in a greenlet: what comes before it is done waits."""
        if not self.is_alive:
            return
        if self.holds:
            self._keep(self._act, call, args)
            return
        self.hold(Hold.DISK)
        try:
            self._carry_out(call, args)
        finally:
            self.release(Hold.DISK)

    def _carry_out(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        if self.is_alive:
            self._compute()
            try:
                call(*args)
            except Exception as error:
                self._meet(error)

    def _compute(self) -> None:
        """Let a turn take its time on a slow CPU."""
        cpu = self.machine.cpu
        if cpu is not None:
            self.hold(Hold.CPU)
            self._world.call_at(self._world.now_ns + cpu.turn_ns, self.release, Hold.CPU)

    @abstractmethod
    def _meet(self, error: Exception) -> None:
        """What was done for the process raised an error."""
