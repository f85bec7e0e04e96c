"""The interpreter: plays a generator against real clients and a real nemesis, and records it.

One loop, in the calling thread, owns the generator, the context and the history. Each client thread
of the generator has a worker thread with a one-slot inbox, and so has the nemesis; all answer into
one outbox. What the loop takes care of, in this order:

1. Completions that are there are recorded before anything new begins. Otherwise ops would look
   concurrent that were not, and a checker would have to excuse what it should condemn.
2. An op whose deadline has passed is completed here as unknown (`fail` if it only reads), whether
   or not its worker ever comes back. The worker is abandoned and replaced, its late answer dropped.
3. The generator is asked. An invocation is recorded before its worker sees it, a completion after
   it came back: the recorded interval contains the real one, never the other way round.
4. With nothing to begin, the loop sleeps until the generator's next due time, the next deadline or
   the next completion. It does not poll; only the stop signal is looked at every so often.

Times come from the caller's monotonic clock and never decrease from one record to the next.
"""

import queue
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from labrys.checkers.op import NEMESIS, Op, OpType
from labrys.control.errors import InternalError
from labrys.workloads.client import Client, DefiniteError, IndefiniteError, completion_of_error
from labrys.workloads.context import NEMESIS_MASK, Context, Mask, bits_of, context
from labrys.workloads.generator import (
    MARKS,
    NEVER,
    Generator,
    Pending,
    Source,
    begin,
    end,
    generator,
)

STOP_POLL_NS: Final = 50_000_000
"""How long a stop request may go unnoticed."""

JOIN_S: Final = 1.0
"""How long all idle workers together may take to close their clients at the end."""

ABANDONED_MAX: Final = 500
"""How many wedged worker threads may pile up. Each one is a client without a timeout of its own."""


class Summary(msgspec.Struct, frozen=True):
    """What the interpreter saw. The history has the rest."""

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
    processes: tuple[int, ...]
    """The next free process of each client thread: pass it on to the next `run` of this history."""


def run(
    source: Source,
    *,
    clients: Callable[[int, str], Client],
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
    processes: Sequence[int] | None = None,
) -> Summary:
    """Play `source` until it is exhausted or `stop` is set, and all that began has ended.

    `clients(thread, node)` makes the client of a client thread; thread i talks to
    `nodes[i % len(nodes)]`. It is opened by the first op that needs it, and made anew after any
    outcome that leaves its connection in doubt. `nemesis(op)` carries out an op of the nemesis and
    returns it with a value; what it raises becomes the op's error, and the run goes on. `record`
    appends an op to the history and returns it with its index; whatever it raises ends the run.
    `clock` gives monotonic nanoseconds since the run began. `op_timeout_s` and
    `nemesis_timeout_s` are the hard deadlines of one op; a client should have a somewhat shorter
    timeout of its own. `processes` goes on with those of an earlier run of the same history.

    Raises InternalError when the generator waits for an event that cannot come, or when more than
    ABANDONED_MAX workers are wedged at once.
    """
    return _Run(
        generator=generator(source),
        context=context(concurrency, rng, processes=processes),
        clients=clients,
        nodes=tuple(nodes),
        nemesis=nemesis,
        record=record,
        clock=clock,
        op_timeout_ns=round(op_timeout_s * 1e9),
        nemesis_timeout_ns=round(nemesis_timeout_s * 1e9),
        is_read=is_read,
        stop=stop,
    ).play()


# --- Workers --------------------------------------------------------------------------------------


class _Worker:
    """A thread that carries out one op at a time and lives until told to end."""

    def __init__(self, name: str, carry_out: "_CarryOut", outbox: "queue.SimpleQueue[_Answer]"):
        self._inbox: queue.SimpleQueue[Op | None] = queue.SimpleQueue()
        self._carry_out = carry_out
        self._outbox = outbox
        # A daemon: a wedged client must not keep the program from ending.
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)
        self.thread.start()

    def give(self, op: Op) -> None:
        self._inbox.put(op)

    def end(self) -> None:
        """Have the worker end once it is done with its op, if it ever is."""
        self._inbox.put(None)

    def _work(self) -> None:
        while (op := self._inbox.get()) is not None:
            self._outbox.put((self, self._carry_out(op)))
        self._carry_out.close()


class _CarryOut:
    """Carries out ops somehow and never raises."""

    def __call__(self, op: Op) -> "tuple[Op, str | None]":
        """Return the completion, and what the nemesis raised."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of everything. Never raises."""


_Answer = tuple[_Worker, tuple[Op, str | None]]


class _ByClient(_CarryOut):
    """Carries out ops with a client, which it opens, closes and replaces."""

    def __init__(self, make: Callable[[], Client], is_read: Callable[[Op], bool]):
        self._make = make
        self._is_read = is_read
        self._client: Client | None = None
        self._process: int | str | None = None

    def __call__(self, op: Op) -> tuple[Op, str | None]:
        if op.process != self._process:
            self.close()  # the old process may still be busy inside the database
            self._process = op.process
        if self._client is None:
            client = None
            try:
                client = self._make()
                client.open()
            except Exception as error:  # any failure here is definite: nothing was sent
                if client is not None:
                    _close_quietly(client)
                return completion_of_error(op, _as_open_failure(error), only_reads=True), None
            self._client = client
        only_reads = self._is_read(op)
        try:
            return _checked(op, self._client.invoke(op), only_reads), None
        except Exception as error:  # a client may raise anything; none of it may end the worker
            if not isinstance(error, DefiniteError):
                # The late answer to this op could still arrive and be taken for the next one's.
                self.close()
            return completion_of_error(op, error, only_reads=only_reads), None

    def close(self) -> None:
        if self._client is not None:
            _close_quietly(self._client)
            self._client = None


def _close_quietly(client: Client) -> None:
    try:
        client.close()
    except Exception:
        # close() promises not to raise. One that does has nothing to tell that the history,
        # which has the outcome of every op, does not know better.
        return


def _as_open_failure(error: Exception) -> DefiniteError:
    if isinstance(error, DefiniteError):
        return error
    return DefiniteError("open-failed", f"{type(error).__name__}: {error}")


def _checked(op: Op, completion: Op, only_reads: bool) -> Op:
    """Return `completion`, made to be one of `op`. Raises if it cannot be."""
    kind = completion.type
    if kind is OpType.INVOKE or (completion.process, completion.f) != (op.process, op.f):
        raise IndefiniteError("bad-completion", f"the client answered {op} with {completion}")
    if kind is OpType.INFO and only_reads:
        return msgspec.structs.replace(completion, type=OpType.FAIL)
    return completion


class _ByNemesis(_CarryOut):
    """Carries out ops with the nemesis. Its ops are `info` whatever happens."""

    def __init__(self, nemesis: Callable[[Op], Op]):
        self._nemesis = nemesis

    def __call__(self, op: Op) -> tuple[Op, str | None]:
        try:
            done = self._nemesis(op)
        except Exception as error:  # the run goes on; the caller hears of it in the summary
            failed = msgspec.structs.replace(op, error=[type(error).__name__, str(error)])
            return failed, f"{op.f}: {type(error).__name__}: {error}"
        return msgspec.structs.replace(done, type=OpType.INFO), None


# --- The loop -------------------------------------------------------------------------------------


class _InFlight(msgspec.Struct):
    op: Op
    deadline: int


@dataclass
class _Run:
    """The state of one call of `run`, touched by the calling thread only."""

    generator: Generator
    context: Context
    clients: Callable[[int, str], Client]
    nodes: tuple[str, ...]
    nemesis: Callable[[Op], Op]
    record: Callable[[Op], Op]
    clock: Callable[[], int]
    op_timeout_ns: int
    nemesis_timeout_ns: int
    is_read: Callable[[Op], bool]
    stop: threading.Event
    now: int = 0
    workers: dict[Mask, _Worker] = field(default_factory=dict)
    """By thread."""
    in_flight: dict[_Worker, _InFlight] = field(default_factory=dict)
    abandoned: list[_Worker] = field(default_factory=list)
    outbox: "queue.SimpleQueue[_Answer]" = field(default_factory=queue.SimpleQueue)
    counts: dict[OpType, int] = field(default_factory=lambda: dict.fromkeys(OpType, 0))
    nemesis_errors: list[str] = field(default_factory=list)

    def play(self) -> Summary:
        bits = bits_of(self.context.threads)
        try:
            self.workers = {bit: self._worker(bit) for bit in bits}
            is_stopped = self._loop()
        finally:
            self._end_workers()
        return Summary(
            ok=self.counts[OpType.OK],
            fail=self.counts[OpType.FAIL],
            info=self.counts[OpType.INFO],
            is_stopped=is_stopped,
            abandoned=len(self.abandoned),
            nemesis_errors=tuple(self.nemesis_errors),
            processes=tuple(p for p in self.context.processes if isinstance(p, int)),
        )

    def _loop(self) -> bool:
        """Return whether `stop` ended it."""
        is_stopped = is_exhausted = False
        while True:
            self._complete_all()
            self._expire()
            if not is_exhausted and not is_stopped:
                is_stopped = self.stop.is_set()
            until = NEVER
            if not is_exhausted and not is_stopped:
                step = self.generator.op(self.context.at(self._tick()))
                if step is None:
                    is_exhausted = True
                else:
                    op, self.generator = step
                    if not isinstance(op, Pending):
                        self._begin(op)
                        continue
                    until = op.until
                    if until == NEVER and not self.in_flight:
                        raise InternalError(
                            "the generator waits for an op to end, but none is in flight: "
                            f"{self.generator!r:.500}"
                        )
            elif not self.in_flight:
                return is_stopped
            self._wait(until)

    def _tick(self) -> int:
        self.now = max(self.now, self.clock())
        return self.now

    def _begin(self, op: Op) -> None:
        bit = self.context.bit_of(op.process)
        if isinstance(op.process, int):
            op = msgspec.structs.replace(op, node=self._node_of(bit))
        op = self.record(op)
        self.generator, self.context = begin(self.generator, self.context, op)
        if op.f in MARKS:
            return
        is_fault = op.process == NEMESIS
        timeout_ns = self.nemesis_timeout_ns if is_fault else self.op_timeout_ns
        worker = self.workers[bit]
        assert worker not in self.in_flight, f"worker of {op.process} has an op in flight"
        self.in_flight[worker] = _InFlight(op, op.time + timeout_ns)
        worker.give(op)

    def _complete_all(self) -> None:
        """Record what has come back. The count bounds it: nothing new begins meanwhile."""
        while self.in_flight:
            try:
                answer = self.outbox.get_nowait()
            except queue.Empty:
                return
            self._complete(answer)

    def _complete(self, answer: _Answer) -> None:
        worker, (completion, nemesis_error) = answer
        flight = self.in_flight.pop(worker, None)
        if flight is None:
            return  # the late answer of an abandoned worker
        if nemesis_error is not None:
            self.nemesis_errors.append(nemesis_error)
        self._end(flight.op, completion)

    def _end(self, op: Op, completion: Op) -> None:
        completion = self.record(
            msgspec.structs.replace(
                op,
                type=completion.type,
                time=self._tick(),
                index=-1,
                value=completion.value,
                error=completion.error,
            )
        )
        self.generator, self.context = end(self.generator, self.context, completion)
        if completion.is_client:
            self.counts[completion.type] += 1

    def _expire(self) -> None:
        """Give up on ops that are past their deadline, and on the workers stuck in them."""
        if not self.in_flight:
            return
        now = self._tick()
        for worker, flight in list(self.in_flight.items()):
            if flight.deadline > now:
                continue
            del self.in_flight[worker]
            op = flight.op
            bit = self.context.bit_of(op.process)
            late = IndefiniteError(
                "deadline", f"no answer after {(now - op.time) / 1e9:.1f} s; gave up the worker"
            )
            if op.process == NEMESIS:
                completion = msgspec.structs.replace(op, error=[late.code, late.message])
                self.nemesis_errors.append(f"{op.f}: {late}")
            else:
                completion = completion_of_error(op, late, only_reads=self.is_read(op))
            worker.end()
            self.abandoned.append(worker)
            wedged = sum(each.thread.is_alive() for each in self.abandoned)
            if wedged > ABANDONED_MAX:
                raise InternalError(
                    f"{wedged} client threads are stuck in ops past their deadline: the client "
                    "needs a timeout of its own, shorter than op_timeout_s"
                )
            self.workers[bit] = self._worker(bit)
            self._end(op, completion)

    def _wait(self, until: int) -> None:
        """Sleep until a completion (and record it), the time `until`, a deadline or a stop poll."""
        now = self._tick()
        until = min(until, now + STOP_POLL_NS)
        for flight in self.in_flight.values():
            until = min(until, flight.deadline)
        if until <= now:
            return
        try:
            answer = self.outbox.get(timeout=(until - now) / 1e9)
        except queue.Empty:
            return
        self._complete(answer)

    def _worker(self, bit: Mask) -> _Worker:
        if bit == NEMESIS_MASK:
            return _Worker("labrys-nemesis", _ByNemesis(self.nemesis), self.outbox)
        thread, node = _number_of(bit), self._node_of(bit)
        by_client = _ByClient(lambda: self.clients(thread, node), self.is_read)
        return _Worker(f"labrys-client-{thread}", by_client, self.outbox)

    def _node_of(self, bit: Mask) -> str:
        return self.nodes[_number_of(bit) % len(self.nodes)]

    def _end_workers(self) -> None:
        for worker in self.workers.values():
            worker.end()
        budget_s = JOIN_S
        for worker in self.workers.values():
            began = self.clock()
            worker.thread.join(timeout=max(budget_s, 0.0))
            budget_s -= (self.clock() - began) / 1e9


def _number_of(bit: Mask) -> int:
    """The number of the one client thread in the mask `bit`."""
    return bit.bit_length() - 2


def no_nemesis(op: Op) -> Op:
    """The nemesis of a run without faults: has nothing it could do, and says so."""
    raise InternalError(f"a run without faults was asked for {op.f}")
