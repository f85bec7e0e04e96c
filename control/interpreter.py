"""The interpreter: plays a generator against real clients and a real nemesis, and records it.

One loop, in the calling thread, owns the generator, the context and the history. Each client thread
of the generator has a worker, usually a thread of its own, and so has the nemesis; all answer into
one place. What the loop takes care of, in this order:

1. Completions that are there are recorded before anything new begins. Otherwise ops would look
   concurrent that were not, and a checker would have to excuse what it should condemn.
2. An op whose deadline has passed is completed here as unknown (`fail` if it only reads), whether
   or not its worker ever comes back. The worker is abandoned and replaced, its late answer dropped.
3. The generator is asked. An invocation is recorded before its worker sees it, a completion after
   it came back: the recorded interval contains the real one, never the other way round.
4. With nothing to begin, the loop sleeps until the generator's next due time or the next
   completion. Only for deadlines and the stop signal it looks up every so often.

Times come from the caller's monotonic clock and never decrease from one record to the next.
"""

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from labrys.checkers.op import NEMESIS, Op, OpType
from labrys.control.errors import InternalError
from labrys.control.worker import Answer, ByClient, ByNemesis, Crew, ThreadCrew, Worker
from labrys.workloads.client import Client, IndefiniteError, completion_of_error
from labrys.workloads.context import NEMESIS_MASK, Mask, bits_of, context
from labrys.workloads.generator import (
    MARKS,
    NEVER,
    Pending,
    Source,
    begin,
    end,
    generator,
)

POLL_NS: Final = 50_000_000
"""How long a stop request or a passed deadline may go unnoticed."""

JOIN_S: Final = 1.0
"""How long all idle workers together may take to close their clients at the end."""

ABANDONED_MAX: Final = 500
"""How many wedged worker threads may pile up. Each one is a client without a timeout of its own."""


class Summary(msgspec.Struct, frozen=True):
    """What the interpreter saw in one run. The history has the rest."""

    ok: int
    fail: int
    info: int
    """How many client ops ended so."""
    is_stopped: bool
    """Whether `stop` cut the generator short."""
    abandoned: int
    """How many workers were given up because their op passed its deadline."""
    nemesis_errors: tuple[str, ...]
    """What the nemesis raised, in order."""


class Interpreter:
    """Plays generators one after the other, all into the same history."""

    def __init__(
        self,
        *,
        clients: Callable[[str], Client],
        nodes: Sequence[str],
        concurrency: int,
        nemesis: Callable[[Op], Op],
        record: Callable[[Op], Op],
        clock: Callable[[], int],
        rng: random.Random,
        op_timeout_s: float,
        is_read: Callable[[Op], bool],
        stop: threading.Event,
        nemesis_timeout_s: float = 60.0,
        crew: Callable[[], Crew] = ThreadCrew,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Say who does what; nothing happens before `run`.

        - `clients(node)` makes a client for one worker; worker i talks to `nodes[i % len(nodes)]`.
          It is opened by the first op that needs it, and replaced by a new one after any outcome
          that leaves its connection in doubt.
        - `nemesis(op)` carries out an op of the nemesis and returns it with a value. What it raises
          becomes the error of the op, and the run goes on.
        - `record` appends an op to the history and returns it with its index. What it raises ends
          the run.
        - `clock` gives monotonic nanoseconds since the run began.
        - `op_timeout_s` and `nemesis_timeout_s` are hard deadlines: past them the worker is given
          up. A client should have a shorter timeout of its own, since giving up costs a thread.
        - `is_read(op)`: whether an op has no effect on the database, whatever becomes of it.
        - `stop`: no op begins once it is set; those in flight are awaited and recorded.
        - `crew` makes the workers of one run; `sleep` lets one of them wait.
        """
        self._clients = clients
        self._nodes = tuple(nodes)
        self._nemesis = nemesis
        self._record = record
        self._clock = clock
        self._op_timeout_ns = round(op_timeout_s * 1e9)
        self._nemesis_timeout_ns = round(nemesis_timeout_s * 1e9)
        self._is_read = is_read
        self._stop = stop
        self._make_crew = crew
        self._sleep = sleep
        # The context outlives a run: a process that was retired in one must not come back in the
        # next, which writes into the same history.
        self._context = context(concurrency, rng)
        self._now = 0

    def run(self, source: Source) -> Summary:
        """Play `source` until it is exhausted or stopped, and all that began has ended.

        Raises InternalError when the generator waits for an event that cannot come, or when more
        than ABANDONED_MAX workers are wedged; and whatever generator and `record` raise. Ops that
        are in flight then stay without a completion.
        """
        self._generator = generator(source)
        self._workers: dict[Mask, Worker] = {}
        self._in_flight: dict[Worker, _InFlight] = {}
        self._crew = self._make_crew()
        self._abandoned: list[Worker] = []
        self._nemesis_errors: list[str] = []
        self._counts = dict.fromkeys(OpType, 0)
        try:
            for bit in bits_of(self._context.threads):
                self._workers[bit] = self._worker(bit)
            is_stopped = self._loop()
        except BaseException:
            # Ops in flight stay open for ever, and their processes with them.
            self._context = self._context.afresh()
            raise
        finally:
            self._end_workers()
        return Summary(
            ok=self._counts[OpType.OK],
            fail=self._counts[OpType.FAIL],
            info=self._counts[OpType.INFO],
            is_stopped=is_stopped,
            abandoned=len(self._abandoned),
            nemesis_errors=tuple(self._nemesis_errors),
        )

    def _loop(self) -> bool:
        """Return whether `stop` ended it."""
        is_stopped = is_exhausted = False
        while True:
            self._complete_all()
            self._expire()
            if not is_exhausted and not is_stopped:
                is_stopped = self._stop.is_set()
            until = NEVER
            if not is_exhausted and not is_stopped:
                step = self._generator.op(self._context.at(self._tick()))
                if step is None:
                    is_exhausted = True
                else:
                    op, self._generator = step
                    if not isinstance(op, Pending):
                        self._begin(op)
                        continue
                    until = op.until
                    if until == NEVER and not self._in_flight:
                        raise InternalError(
                            "the generator waits for an op to end, but none is in flight: "
                            f"{self._generator!r:.500}"
                        )
            elif not self._in_flight:
                return is_stopped
            self._wait(until)

    def _tick(self) -> int:
        self._now = max(self._now, self._clock())
        return self._now

    def _begin(self, op: Op) -> None:
        bit = self._context.bit_of(op.process)
        if isinstance(op.process, int):
            op = msgspec.structs.replace(op, node=self._node_of(bit))
        op = self._record(op)
        self._generator, self._context = begin(self._generator, self._context, op)
        if op.f in MARKS:
            return
        is_fault = op.process == NEMESIS
        timeout_ns = self._nemesis_timeout_ns if is_fault else self._op_timeout_ns
        worker = self._workers[bit]
        assert worker not in self._in_flight, f"worker of {op.process} has an op in flight"
        self._in_flight[worker] = _InFlight(op, op.time + timeout_ns)
        worker.give(op)

    def _complete_all(self) -> None:
        """Record what has come back. The count bounds it: nothing new begins meanwhile."""
        while self._in_flight:
            answer = self._crew.take()
            if answer is None:
                return
            self._complete(answer)

    def _complete(self, answer: Answer) -> None:
        worker, (completion, nemesis_error) = answer
        flight = self._in_flight.pop(worker, None)
        if flight is None:
            return  # the late answer of an abandoned worker
        if nemesis_error is not None:
            self._nemesis_errors.append(nemesis_error)
        self._end(flight.op, completion)

    def _end(self, op: Op, completion: Op) -> None:
        completion = self._record(
            msgspec.structs.replace(
                op,
                type=completion.type,
                time=self._tick(),
                index=-1,
                value=completion.value,
                error=completion.error,
            )
        )
        self._generator, self._context = end(self._generator, self._context, completion)
        if completion.is_client:
            self._counts[completion.type] += 1

    def _expire(self) -> None:
        """Give up on ops that are past their deadline, and on the workers stuck in them."""
        if not self._in_flight:
            return
        now = self._tick()
        for worker, flight in list(self._in_flight.items()):
            if flight.deadline > now:
                continue
            del self._in_flight[worker]
            op = flight.op
            bit = self._context.bit_of(op.process)
            late = IndefiniteError(
                "deadline", f"no answer after {(now - op.time) / 1e9:.1f} s; gave up the worker"
            )
            if op.process == NEMESIS:
                completion = msgspec.structs.replace(op, error=[late.code, late.message])
                self._nemesis_errors.append(f"{op.f}: {late}")
            else:
                completion = completion_of_error(op, late, only_reads=self._is_read(op))
            worker.end()
            self._abandoned.append(worker)
            wedged = sum(each.is_alive for each in self._abandoned)
            if wedged > ABANDONED_MAX:
                raise InternalError(
                    f"{wedged} client threads are stuck in ops past their deadline: the client "
                    "needs a timeout of its own, shorter than op_timeout_s"
                )
            self._workers[bit] = self._worker(bit)
            self._end(op, completion)

    def _wait(self, until: int) -> None:
        """Sleep until a completion (and record it), the time `until` or the next poll."""
        now = self._tick()
        until = min(until, now + POLL_NS)
        if until <= now:
            return
        answer = self._crew.wait((until - now) / 1e9)
        if answer is not None:
            self._complete(answer)

    def _worker(self, bit: Mask) -> Worker:
        if bit == NEMESIS_MASK:
            return self._crew.worker("labrys-nemesis", ByNemesis(self._nemesis))
        node = self._node_of(bit)
        by_client = ByClient(lambda: self._clients(node), self._is_read, self._sleep)
        return self._crew.worker(f"labrys-client-{_number_of(bit)}", by_client)

    def _node_of(self, bit: Mask) -> str:
        return self._nodes[_number_of(bit) % len(self._nodes)]

    def _end_workers(self) -> None:
        for worker in self._workers.values():
            worker.end()
        self._crew.dismiss(tuple(self._workers.values()), JOIN_S)


class _InFlight(msgspec.Struct):
    op: Op
    deadline: int


def _number_of(bit: Mask) -> int:
    """The number of the one client thread in the mask `bit`."""
    return bit.bit_length() - 2
