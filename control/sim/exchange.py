"""What passes between a client and a simulated process."""

from typing import TYPE_CHECKING

from labrys.control.sim.world import Signal
from labrys.node.answers import Answer
from labrys.node.api import Call

if TYPE_CHECKING:
    from labrys.control.sim.process import Process


class Exchange:
    """A client's request to a process, and the answer or the broken connection that it gets."""

    def __init__(self, process: "Process") -> None:
        self._process = process
        self.answer: Answer | None = None
        self.done = Signal()
        self._must_know = 0
        """Up to which index the answer must know the log."""

    def begin(self, call: Call) -> None:
        """Hand the request to the engine."""
        engine = self._process.engine
        assert engine is not None, "nobody connects to a process that does not listen"
        self._must_know = self._process.machine.watch.ask(call)
        engine.api.handle(call, self._respond)

    def _respond(self, answer: Answer) -> None:
        process = self._process
        if self in process.exchanges:
            del process.exchanges[self]
            self.answer = answer
            if process.engine is not None:
                process.machine.watch.answer(process.engine.raft, self._must_know, answer)
            process.machine.world.call_at(process.client_due_ns(), self._finish)

    def break_off(self) -> None:
        """The process is gone: no answer comes any more, and the client is told."""
        self._process.machine.world.call_at(self._process.client_due_ns(), self._finish)

    def _finish(self) -> None:
        self._process.machine.world.set(self.done)
