"""Workers of a simulated run: greenlets, where a real run has threads."""

from collections import deque
from collections.abc import Sequence

from labrys.checkers.op import Op
from labrys.control.sim.world import SECOND_NS, Signal, World
from labrys.control.worker import Answer, CarryOut


class GreenletWorker:
    """Carries out one op at a time, each in a greenlet."""

    def __init__(self, world: World, carry_out: CarryOut, crew: "GreenletCrew") -> None:
        self._world = world
        self._carry_out = carry_out
        self._crew = crew
        self._has_to_end = False
        self.is_alive = True
        self._is_busy = False

    def give(self, op: Op) -> None:
        """Begin with an op."""
        self._is_busy = True
        self._world.spawn(lambda: self._work(op))

    def end(self) -> None:
        """End once the op is done, if it ever is."""
        self._has_to_end = True
        if not self._is_busy:
            self._close()

    def _work(self, op: Op) -> None:
        self._crew.put((self, self._carry_out(op)))
        self._is_busy = False
        if self._has_to_end:
            self._close()

    def _close(self) -> None:
        self.is_alive = False
        self._carry_out.close()


class GreenletCrew:
    """Implements `labrys.control.worker.Crew`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._answers: deque[Answer] = deque()
        self._news = Signal()

    def worker(self, name: str, carry_out: CarryOut) -> GreenletWorker:
        """See `Crew`."""
        return GreenletWorker(self._world, carry_out, self)

    def put(self, answer: Answer) -> None:
        """An op is done."""
        self._answers.append(answer)
        self._world.set(self._news)

    def take(self) -> Answer | None:
        """See `Crew`."""
        return self._answers.popleft() if self._answers else None

    def wait(self, seconds: float) -> Answer | None:
        """See `Crew`."""
        if not self._answers:
            self._news = Signal()
            self._world.wait(self._news, round(seconds * SECOND_NS))
        return self.take()

    def dismiss(self, workers: Sequence[object], seconds: float) -> None:
        """See `Crew`: nothing to wait for."""
