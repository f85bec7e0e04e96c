"""The interpreter with in-memory clients: real threads, real time, every way an op can end."""

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable

import msgspec
import pytest

from labrys.checkers.op import NEMESIS, Op, OpType
from labrys.control.errors import InternalError
from labrys.control.interpreter import Interpreter, Summary
from labrys.control.worker import ThreadCrew
from labrys.workloads import generator as gen
from labrys.workloads.client import Client, DefiniteError, IndefiniteError
from labrys.workloads.context import Context
from labrys.workloads.generator import PENDING, Generator, Source, Step, template

R = template("read")
W = template("write", 1)
GATE_S = 30.0
"""Longer than any test takes: what waits so long was never released."""


class Fake:
    """A client whose ops do what a function says; counts how often it was opened and closed."""

    def __init__(self, node: str, behave: Callable[[Op], Op], rig: "Rig") -> None:
        self.node = node
        self._behave = behave
        self._rig = rig

    def open(self) -> None:
        self._rig.opened[self.node] += 1
        if self._rig.open_fails(self.node):
            raise ConnectionRefusedError("nobody home")

    def invoke(self, op: Op) -> Op:
        assert op.index >= 0, "an op reached its client before it was recorded"
        return self._behave(op)

    def close(self) -> None:
        self._rig.closed[self.node] += 1
        self._rig.closers.append(threading.current_thread())


def ok(op: Op) -> Op:
    return msgspec.structs.replace(op, type=OpType.OK)


class Rig:
    """An interpreter with everything around it in memory."""

    def __init__(
        self,
        behave: Callable[[Op], Op] = ok,
        *,
        concurrency: int = 1,
        nodes: tuple[str, ...] = ("n1", "n2", "n3"),
        nemesis: Callable[[Op], Op] = ok,
        open_fails: Callable[[str], bool] = lambda node: False,
        op_timeout_s: float = GATE_S,
        nemesis_timeout_s: float = GATE_S,
        record: Callable[[Op], None] = lambda op: None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.history: list[Op] = []
        self.opened: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.closers: list[threading.Thread] = []
        self.open_fails = open_fails
        self.stop = threading.Event()
        self._on_record = record
        began = clock()

        def make(node: str) -> Client:
            return Fake(node, behave, self)

        self.interpreter = Interpreter(
            clients=make,
            nodes=nodes,
            concurrency=concurrency,
            nemesis=nemesis,
            record=self._record,
            clock=lambda: clock() - began,
            rng=random.Random(7),
            op_timeout_s=op_timeout_s,
            nemesis_timeout_s=nemesis_timeout_s,
            is_read=lambda op: op.f == "read",
            stop=self.stop,
        )

    def run(self, source: Source) -> Summary:
        return self.interpreter.run(source)

    def _record(self, op: Op) -> Op:
        assert op.index == -1, "an op was recorded twice"
        self._on_record(op)
        self.history.append(msgspec.structs.replace(op, index=len(self.history)))
        return self.history[-1]

    def told(self) -> list[tuple[int | str, str, str]]:
        """The history as (process, type, f)."""
        return [(op.process, op.type.value, op.f) for op in self.history]

    def completions(self) -> list[Op]:
        return [op for op in self.history if op.is_client and op.type is not OpType.INVOKE]


def assert_wellformed(history: list[Op]) -> None:
    in_flight: dict[int | str, Op] = {}
    retired: set[int | str] = set()
    for earlier, later in itertools.pairwise(history):
        assert earlier.time <= later.time
    for op in history:
        if not op.is_client:
            continue
        if op.type is OpType.INVOKE:
            assert op.process not in retired
            assert op.process not in in_flight
            in_flight[op.process] = op
        else:
            invoke = in_flight.pop(op.process)
            assert (invoke.f, invoke.key, invoke.node) == (op.f, op.key, op.node)
            if op.type is OpType.INFO:
                retired.add(op.process)


def test_an_op_is_recorded_when_it_begins_and_when_it_ends() -> None:
    rig = Rig(lambda op: msgspec.structs.replace(op, type=OpType.OK, value=42))
    summary = rig.run(template("read", key="k7"))
    invoke, completion = rig.history
    assert (invoke.type, invoke.value, invoke.key, invoke.node) == ("invoke", None, "k7", "n1")
    assert (completion.type, completion.value, completion.key) == ("ok", 42, "k7")
    assert 0 < invoke.time <= completion.time
    assert summary == Summary(
        ok=1, fail=0, info=0, is_stopped=False, abandoned=0, nemesis_errors=()
    )


def test_workers_are_spread_over_the_nodes() -> None:
    rig = Rig(concurrency=5)
    rig.run(gen.clients(gen.each_thread(R)))
    assert {(op.process, op.node) for op in rig.history} == {
        (0, "n1"), (1, "n2"), (2, "n3"), (3, "n1"), (4, "n2"),
    }  # fmt: skip


def test_ops_of_different_workers_run_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=GATE_S)

    def meet(op: Op) -> Op:
        meeting.wait()
        return ok(op)

    rig = Rig(meet, concurrency=3)
    assert rig.run(gen.limit(6, gen.repeat(R))).ok == 6
    assert_wellformed(rig.history)


def test_a_completion_that_is_there_is_recorded_before_the_next_op_begins() -> None:
    second_may_end = threading.Event()

    def behave(op: Op) -> Op:
        if op.value == 2:
            assert second_may_end.wait(GATE_S)
        return ok(op)

    def when_the_first_ends(op: Op) -> None:
        if (op.type, op.value) == (OpType.OK, 1):
            second_may_end.set()
            # No public name says that an answer waits; without it the test would be a gamble.
            crew = rig.interpreter._crew
            assert isinstance(crew, ThreadCrew)
            while not crew._outbox.qsize():
                time.sleep(0.001)

    rig = Rig(behave, concurrency=2, record=when_the_first_ends)
    both_begin = [template("write", 2), template("write", 1)]
    rig.run([both_begin, gen.limit(3, gen.repeat(R))])
    assert [(op.type.value, op.value) for op in rig.history[:4]] == [
        ("invoke", 2), ("invoke", 1), ("ok", 1), ("ok", 2),
    ]  # fmt: skip


def test_recorded_times_never_decrease_even_if_the_clock_does() -> None:
    rng = random.Random(5)
    rig = Rig(concurrency=3, clock=lambda: rng.randrange(10**6))
    rig.run(gen.limit(30, gen.repeat(W)))
    assert_wellformed(rig.history)


# --- clients that fail ----------------------------------------------------------------------------


def raising(error: Exception) -> Callable[[Op], Op]:
    def behave(op: Op) -> Op:
        raise error

    return behave


@pytest.mark.parametrize(
    ("f", "error", "kind"),
    [
        ("write", IndefiniteError("timeout"), OpType.INFO),
        ("read", IndefiniteError("timeout"), OpType.FAIL),
        ("write", DefiniteError("no-leader"), OpType.FAIL),
        ("read", DefiniteError("no-leader"), OpType.FAIL),
        ("write", ZeroDivisionError("oops"), OpType.INFO),
        ("read", ZeroDivisionError("oops"), OpType.FAIL),
    ],
)
def test_what_a_client_raises_decides_the_outcome(f: str, error: Exception, kind: OpType) -> None:
    rig = Rig(raising(error))
    rig.run(template(f))
    assert [op.type for op in rig.history] == [OpType.INVOKE, kind]


def test_an_uncaught_exception_is_recorded_and_the_worker_lives_on() -> None:
    rig = Rig(raising(ZeroDivisionError("oops")))
    summary = rig.run([W, W, W])
    assert [op.error for op in rig.completions()] == [["ZeroDivisionError", "oops"]] * 3
    assert (summary.info, summary.abandoned) == (3, 0)


def test_after_an_unknown_outcome_the_worker_goes_on_as_a_new_process_with_a_new_client() -> None:
    rig = Rig(raising(IndefiniteError("timeout")), concurrency=2)
    rig.run(gen.on_threads([1], [W, W, W]))
    assert [op.process for op in rig.completions()] == [1, 3, 5]
    assert rig.opened["n2"] == 3
    assert rig.closed["n2"] == 3
    assert_wellformed(rig.history)


def test_a_read_without_an_answer_keeps_its_process_but_not_its_connection() -> None:
    # The late answer must not be taken for the answer to the next op.
    rig = Rig(raising(IndefiniteError("timeout")))
    rig.run([R, R])
    assert [op.process for op in rig.completions()] == [0, 0]
    assert rig.opened["n1"] == 2


def test_a_definite_failure_keeps_process_and_connection() -> None:
    rig = Rig(raising(DefiniteError("mismatch")))
    rig.run([W, W])
    assert [op.process for op in rig.completions()] == [0, 0]
    assert rig.opened["n1"] == 1


def test_a_client_that_cannot_be_opened_is_a_definite_failure_and_keeps_its_process() -> None:
    rig = Rig(open_fails=lambda node: True)
    rig.run([W, W])
    assert [(op.process, op.type) for op in rig.completions()] == [(0, OpType.FAIL)] * 2
    assert rig.completions()[0].error == ["open-failed", "ConnectionRefusedError: nobody home"]
    assert rig.closed["n1"] == 2, "a half-open client was left open"


def test_a_client_that_cannot_be_opened_is_tried_again_by_the_next_op() -> None:
    rig = Rig(open_fails=lambda node: rig.opened[node] < 3)
    rig.run([W, W, W, W])
    assert [op.type.value for op in rig.completions()] == ["fail", "fail", "ok", "ok"]


def test_a_client_that_answers_another_op_is_not_believed() -> None:
    rig = Rig(lambda op: msgspec.structs.replace(op, type=OpType.OK, f="other"))
    rig.run(W)
    (completion,) = rig.completions()
    assert (completion.type, completion.f) == (OpType.INFO, "write")
    assert completion.error[0] == "bad-completion"


def test_a_client_that_answers_info_to_a_read_has_failed() -> None:
    rig = Rig(lambda op: msgspec.structs.replace(op, type=OpType.INFO))
    rig.run([R, W])
    assert [op.type.value for op in rig.completions()] == ["fail", "info"]


def test_a_client_that_answers_info_to_a_write_is_replaced_with_its_process() -> None:
    rig = Rig(lambda op: msgspec.structs.replace(op, type=OpType.INFO))
    rig.run([W, W])
    assert [op.process for op in rig.completions()] == [0, 1]
    assert rig.opened["n1"] == rig.closed["n1"] == 2


# --- ops that never come back ---------------------------------------------------------------------


class Hang:
    """Behaves well but for writes of 13: they hang until released."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.returned = threading.Event()

    def __call__(self, op: Op) -> Op:
        if op.value == 13:
            assert self.release.wait(GATE_S)
            self.returned.set()
            return msgspec.structs.replace(op, type=OpType.OK, value="late")
        return ok(op)


@pytest.mark.parametrize(("f", "kind"), [("write", OpType.INFO), ("read", OpType.FAIL)])
def test_an_op_past_its_deadline_is_completed_without_its_worker(f: str, kind: OpType) -> None:
    hang = Hang()
    rig = Rig(hang, op_timeout_s=0.1)
    summary = rig.run([template(f, 13), W])
    first, second = rig.completions()
    assert (first.type, first.error[0]) == (kind, "deadline")
    assert 0.1e9 <= first.time - rig.history[0].time < 5e9
    assert second.type is OpType.OK
    assert summary.abandoned == 1
    assert_wellformed(rig.history)
    hang.release.set()


def test_the_late_answer_of_an_abandoned_worker_is_dropped_and_its_client_closed() -> None:
    hang = Hang()
    rig = Rig(hang, op_timeout_s=0.1)

    def when_the_late_answer_is_in(ctx: Context) -> Source:
        hang.release.set()
        assert hang.returned.wait(GATE_S)
        return None

    more = gen.limit(50, gen.repeat(W))
    rig.run(gen.phases(template("write", 13), [when_the_late_answer_is_in, more]))
    assert "late" not in {op.value for op in rig.history}
    assert len(rig.completions()) == 51
    abandoned = [thread for thread in threading.enumerate() if "labrys-client" in thread.name]
    for thread in abandoned:
        thread.join(GATE_S)
    assert rig.opened["n1"] == rig.closed["n1"] == 2


def test_a_time_limit_does_not_wait_for_ever_for_a_hanging_op() -> None:
    hang = Hang()
    rig = Rig(hang, op_timeout_s=0.1, concurrency=2)
    began = time.monotonic()
    rig.run(gen.time_limit(0.05, [template("write", 13), gen.delay(0.01, gen.repeat(W))]))
    assert time.monotonic() - began < 5
    assert_wellformed(rig.history)
    assert len(rig.completions()) * 2 == len(rig.history)
    hang.release.set()


# --- the nemesis ----------------------------------------------------------------------------------


def test_a_fault_is_a_pair_of_info_ops() -> None:
    rig = Rig(nemesis=lambda op: msgspec.structs.replace(op, value={"n1": "killed"}))
    rig.run(gen.nemesis([template("kill", "one"), template("start")]))
    assert [(op.type.value, op.f, op.value) for op in rig.history] == [
        ("info", "kill", "one"), ("info", "kill", {"n1": "killed"}),
        ("info", "start", None), ("info", "start", {"n1": "killed"}),
    ]  # fmt: skip
    assert {op.process for op in rig.history} == {NEMESIS}


def test_a_nemesis_that_raises_is_recorded_and_reported_and_the_run_goes_on() -> None:
    rig = Rig(nemesis=raising(OSError("no iptables")))
    summary = rig.run(gen.any_of(gen.nemesis([template("kill"), template("start")]), [W, W]))
    assert summary.nemesis_errors == ("kill: OSError: no iptables", "start: OSError: no iptables")
    assert summary.ok == 2
    errors = [op.error for op in rig.history if op.process == NEMESIS]
    assert errors == [None, ["OSError", "no iptables"], None, ["OSError", "no iptables"]]


def test_a_nemesis_that_hangs_is_replaced_and_reported() -> None:
    release = threading.Event()

    def nemesis(op: Op) -> Op:
        if op.f == "kill":
            assert release.wait(GATE_S)
        return op

    rig = Rig(nemesis=nemesis, nemesis_timeout_s=0.1)
    summary = rig.run(gen.nemesis([template("kill"), template("start")]))
    assert [op.f for op in rig.history] == ["kill", "kill", "start", "start"]
    assert rig.history[1].error[0] == "deadline"
    assert rig.history[3].error is None
    assert len(summary.nemesis_errors) == 1
    release.set()


def test_clients_go_on_while_the_nemesis_is_busy() -> None:
    enough = threading.Event()

    def nemesis(op: Op) -> Op:
        assert enough.wait(GATE_S)
        return op

    def client(op: Op) -> Op:
        if len(rig.history) > 50:
            enough.set()
        return ok(op)

    rig = Rig(client, nemesis=nemesis, concurrency=2)
    faults = gen.nemesis(template("kill"))
    rig.run(gen.any_of(faults, gen.clients(gen.limit(100, gen.repeat(W)))))
    first, last = [op.index for op in rig.history if op.process == NEMESIS]
    assert last - first > 40


def test_marks_are_recorded_and_not_carried_out() -> None:
    rig = Rig(nemesis=raising(AssertionError("a mark is no fault")))
    summary = rig.run([gen.mark("phase", "main"), W])
    assert rig.told() == [
        (NEMESIS, "info", "phase"), (0, "invoke", "write"), (0, "ok", "write"),
    ]  # fmt: skip
    assert summary.nemesis_errors == ()


# --- stopping -------------------------------------------------------------------------------------


def test_stop_ends_issuing_and_records_what_is_in_flight() -> None:
    def behave(op: Op) -> Op:
        rig.stop.set()
        time.sleep(0.02)  # so that the loop sees the request while this is in flight
        return ok(op)

    rig = Rig(behave, concurrency=3)
    summary = rig.run(gen.repeat(W))
    assert summary.is_stopped
    assert summary.ok >= 1
    assert len(rig.completions()) * 2 == len(rig.history)


def test_stop_is_noticed_during_a_long_pause() -> None:
    rig = Rig()
    threading.Timer(0.05, rig.stop.set).start()
    began = time.monotonic()
    assert rig.run([W, gen.sleep(GATE_S), W]).is_stopped
    assert time.monotonic() - began < GATE_S / 2
    assert len(rig.completions()) == 1


def test_stop_before_the_first_op_begins_nothing() -> None:
    rig = Rig()
    rig.stop.set()
    assert rig.run(gen.repeat(W)).is_stopped
    assert rig.history == []


def test_stop_waits_for_a_hanging_op_up_to_its_deadline() -> None:
    hang = Hang()
    rig = Rig(hang, op_timeout_s=0.2)
    threading.Timer(0.05, rig.stop.set).start()
    assert rig.run([template("write", 13), gen.repeat(W)]).is_stopped
    assert [op.error[0] for op in rig.completions()] == ["deadline"]
    hang.release.set()


# --- the run as a whole ---------------------------------------------------------------------------


def test_processes_that_were_retired_do_not_come_back_in_the_next_run() -> None:
    rig = Rig(lambda op: ok(op) if op.f == "read" else raising(IndefiniteError("timeout"))(op))
    rig.run([W, W])
    rig.run(R)
    assert [op.process for op in rig.completions()] == [0, 1, 2]
    assert_wellformed(rig.history)


def test_a_failure_to_record_ends_the_run_and_its_workers() -> None:
    def full(op: Op) -> None:
        if len(rig.history) == 5:
            raise OSError("no space left on device")

    rig = Rig(record=full, concurrency=2)
    with pytest.raises(OSError, match="no space left"):
        rig.run(gen.repeat(W))
    assert len(rig.history) == 5
    assert sum(rig.closed.values()) == sum(rig.opened.values())


def test_processes_of_a_run_that_broke_off_do_not_come_back_in_the_next() -> None:
    breaks = True

    def break_once(op: Op) -> None:
        nonlocal breaks
        if breaks and len(rig.history) == 5:
            breaks = False
            raise OSError("a hiccup")

    rig = Rig(record=break_once, concurrency=2)
    with pytest.raises(OSError, match="a hiccup"):
        rig.run(gen.repeat(W))
    rig.run(gen.clients(gen.each_thread(R)))
    assert {op.process for op in rig.history if op.f == "read"} == {2, 3}


class _Stuck(Generator, frozen=True):
    def op(self, ctx: Context) -> Step | None:
        return PENDING, self


def test_a_generator_that_waits_for_what_cannot_come_is_an_error_and_not_a_hang() -> None:
    rig = Rig()
    with pytest.raises(InternalError, match="none is in flight"):
        rig.run([W, _Stuck()])
    assert len(rig.completions()) == 1


def test_every_client_is_closed_by_its_own_worker_at_the_end() -> None:
    rig = Rig(concurrency=4)
    rig.run(gen.clients(gen.each_thread([W, R])))
    assert sum(rig.opened.values()) == sum(rig.closed.values()) == 4
    assert threading.main_thread() not in rig.closers


def test_a_busy_run_with_every_outcome_is_a_wellformed_history() -> None:
    rng = random.Random(3)
    outcomes: list[Callable[[Op], Op]] = [
        ok, ok, ok, raising(IndefiniteError("timeout")), raising(DefiniteError("no-leader")),
        raising(KeyError("bug")),
    ]  # fmt: skip

    rig = Rig(lambda op: rng.choice(outcomes)(op), concurrency=10, nemesis=raising(OSError()))
    source = gen.any_of(
        gen.nemesis(gen.limit(20, gen.repeat([template("kill"), template("start")]))),
        gen.clients(gen.limit(2000, gen.mix(gen.repeat(R), gen.repeat(W)))),
    )
    summary = rig.run(source)
    assert_wellformed(rig.history)
    assert summary.ok + summary.fail + summary.info == len(rig.completions()) == 2000
    assert len(summary.nemesis_errors) == 20


class _CountsAsks(Generator, frozen=True):
    asks: list[int]

    def op(self, ctx: Context) -> Step | None:
        self.asks.append(ctx.time)
        return (PENDING, self) if ctx.time < 500_000_000 else None


def test_the_loop_sleeps_while_nothing_can_happen() -> None:
    def slow(op: Op) -> Op:
        time.sleep(0.5)
        return ok(op)

    rig = Rig(slow)
    asks: list[int] = []
    rig.run(gen.any_of(W, _CountsAsks(asks)))
    assert len(asks) < 20, "the scheduler polls while it waits"
