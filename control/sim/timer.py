"""Timers of a simulated process."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from labrys.control.sim.world import SECOND_NS

if TYPE_CHECKING:
    from labrys.control.sim.process import Process


class ProcessTimer:
    """A timer of a process, by its machine's clock."""

    __slots__ = ("_begun_ns", "_callback", "_process", "_when_s")

    def __init__(self, process: "Process", delay_s: float, callback: Callable[[], object]) -> None:
        clock = process.machine.clock
        self._process = process
        self._callback: Callable[[], object] | None = callback
        self._when_s = clock.now_s() + delay_s
        self._wait(delay_s)

    def cancel(self) -> None:
        """See `Timer`."""
        self._callback = None

    def when(self) -> float:
        """See `Timer`."""
        return self._when_s

    def _wait(self, delay_s: float) -> None:
        world = self._process.machine.world
        self._begun_ns = world.now_ns
        # Rounded up: a timer that fires a nanosecond early would be asked again and again.
        due_ns = world.now_ns + int(delay_s * SECOND_NS / self._process.machine.clock.rate) + 1
        world.call_at(due_ns, self._fire)

    def _fire(self) -> None:
        if self._callback is None:
            return
        clock = self._process.machine.clock
        if clock.set_at_ns > self._begun_ns:
            # A wait that has begun keeps its length; if it was too short by now, it goes on.
            left_s = self._when_s - clock.now_s()
            if left_s > 0:
                self._wait(left_s)
                return
        self._process.deliver(self._call)

    def _call(self) -> None:
        if self._callback is not None:
            self._callback()
