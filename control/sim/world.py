"""Virtual time: what happens next, and who waits for it.

Everything in a simulation is an event: a call that is due at a time. Events of one time happen in
the order in which they were planned. While an event is carried out no time passes.

Code that waits like ordinary code (a client's request, a nemesis that sleeps) runs in a greenlet:
it is left where it waits and gone on with by an event. The greenlet that made the world carries out
the events, whenever it waits itself; no other one does. There are no threads.
"""

import contextvars
import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import greenlet

from labrys.control.errors import InternalError
from labrys.control.spec import stream

SECOND_NS: Final = 1_000_000_000
MS_NS: Final = 1_000_000


class Timer:
    """An event that can be called off."""

    __slots__ = ("at_ns", "call")

    def __init__(self, at_ns: int, call: Callable[[], object]) -> None:
        self.at_ns = at_ns
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """Do not make the call."""
        self.call = None

    def fire(self) -> None:
        """Make the call, if it was not called off."""
        call, self.call = self.call, None
        if call is not None:
            call()


class Signal:
    """Something that one greenlet waits for; see `World.wait`."""

    __slots__ = ("is_set", "waiter")

    def __init__(self) -> None:
        self.is_set = False
        self.waiter: greenlet.greenlet | None = None


class World:
    """The events of one simulation."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now_ns = 0
        self.events = 0
        """How many were carried out."""
        self._heap: list[tuple[int, int, Callable[..., object], tuple[Any, ...]]] = []
        self._ready: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._planned = 0
        self._main = greenlet.getcurrent()
        self._greenlets: dict[greenlet.greenlet, None] = {}
        """Those that have not ended."""

    def stream(self, name: str) -> random.Random:
        """The random stream of one part of the world."""
        return stream(self.seed, f"sim/{name}")

    # ---- events -------------------------------------------------------------------------------

    def call_soon(self, call: Callable[..., object], *args: Any) -> None:
        """Plan a call for now, behind those that are planned for now already."""
        self._ready.append((call, args))

    def call_at(self, at_ns: int, call: Callable[..., object], *args: Any) -> None:
        """Plan a call for a time, now at the earliest."""
        self._planned += 1
        heapq.heappush(self._heap, (max(at_ns, self.now_ns), self._planned, call, args))

    def timer(self, at_ns: int, call: Callable[[], object]) -> Timer:
        """Plan a call that may be called off."""
        timer = Timer(at_ns, call)
        self.call_at(at_ns, timer.fire)
        return timer

    # ---- greenlets ----------------------------------------------------------------------------

    def spawn(self, work: Callable[[], object]) -> None:
        """Begin to do `work` in a greenlet of its own, as an event."""

        def run() -> None:
            try:
                work()
            finally:
                self._greenlets.pop(greenlet.getcurrent(), None)

        made = greenlet.greenlet(run, self._main)
        made.gr_context = contextvars.copy_context()
        self._greenlets[made] = None
        self.call_soon(made.switch)

    def wait(self, signal: Signal, timeout_ns: float = math.inf) -> bool:
        """Wait until the signal is set, or the time is over; whether it was set."""
        if signal.is_set:
            return True
        me = greenlet.getcurrent()
        if me is self._main:
            return self._run(signal, self.now_ns + timeout_ns)
        signal.waiter = me
        if timeout_ns != math.inf:
            self.call_at(self.now_ns + round(timeout_ns), self._give_up, signal, me)
        self._main.switch()
        return signal.is_set

    def set(self, signal: Signal) -> None:
        """Set a signal and go on with who waits for it."""
        signal.is_set = True
        waiter, signal.waiter = signal.waiter, None
        if waiter is not None:
            self._ready.append((waiter.switch, ()))

    def sleep(self, seconds: float) -> None:
        """Let so much time pass."""
        self.wait(Signal(), round(seconds * SECOND_NS))

    def all_of(self, pieces: Sequence[Callable[[], object]]) -> None:
        """Do all pieces side by side, each in a greenlet, and wait for their end."""
        done = Signal()
        left = len(pieces)

        def run(piece: Callable[[], object]) -> None:
            nonlocal left
            try:
                piece()
            finally:
                left -= 1
                if not left:
                    self.set(done)

        for piece in pieces:
            self.spawn(partial(run, piece))
        if pieces:
            self.wait(done)

    def end(self) -> None:
        """Carry out no more events, and end the greenlets that wait for some."""
        self._heap.clear()
        self._ready.clear()
        for waiting in list(self._greenlets):
            if waiting:
                waiting.throw(greenlet.GreenletExit)
        self._greenlets.clear()

    def _give_up(self, signal: Signal, waiter: greenlet.greenlet) -> None:
        if signal.waiter is waiter:
            signal.waiter = None
            waiter.switch()

    def _run(self, signal: Signal, until_ns: float) -> bool:
        """Carry out events until the signal is set or it is `until_ns`; whether it was set."""
        ready, heap, pop = self._ready, self._heap, heapq.heappop
        events = 0
        try:
            while not signal.is_set:
                if ready:
                    call, args = ready.popleft()
                elif heap and heap[0][0] <= until_ns:
                    self.now_ns, _, call, args = pop(heap)
                elif until_ns == math.inf:
                    raise InternalError("the simulation waits, and nothing is going to happen")
                else:
                    self.now_ns = max(self.now_ns, int(until_ns))
                    return False
                events += 1
                call(*args)
        finally:
            self.events += events
        return True
