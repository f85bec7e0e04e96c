"""Stats, errors, logs, coverage and availability: each with a planted fault and a near miss."""

from collections.abc import Sequence
from typing import Any

import pytest

from labrys.checkers.availability import Availability
from labrys.checkers.checker import Evidence
from labrys.checkers.coverage import FaultCoverage
from labrys.checkers.errors import UnhandledErrors
from labrys.checkers.fault import FaultEvent, FaultStage
from labrys.checkers.history import FINAL, HEAL, MAIN, PHASE, History
from labrys.checkers.logs import LogPatterns
from labrys.checkers.op import NEMESIS, Op, OpType
from labrys.checkers.stats import OK_MIN, Stats
from labrys.checkers.verdict import CheckResult, Verdict

INVOKE, OK, FAIL, INFO = OpType.INVOKE, OpType.OK, OpType.FAIL, OpType.INFO
SECOND = 1_000_000_000


class Recorder:
    """Builds a history, one operation after the other."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.now = 0
        self._process = 0

    def op(self, f: str, outcome: OpType, error: Any = None, node: str | None = None) -> None:
        self._process += 1
        self.ops.append(Op(INVOKE, self._process, f, time=self.now, node=node))
        self.now += 1_000_000
        self.ops.append(Op(outcome, self._process, f, time=self.now, error=error, node=node))

    def mark(self, phase: str) -> None:
        self.ops.append(Op(INFO, NEMESIS, PHASE, time=self.now, value=phase))

    def history(self) -> History:
        return History(self.ops)


def stats(recorder: Recorder) -> CheckResult:
    return Stats().check(recorder.history(), Evidence())


def busy(recorder: Recorder, count: int = OK_MIN) -> None:
    for i in range(count):
        recorder.op("write" if i % 2 else "read", OK)


def test_run_with_enough_successes_of_every_kind_is_valid() -> None:
    run = Recorder()
    run.mark(MAIN)
    busy(run)
    run.op("cas", FAIL, ["mismatch", "it is 4"])
    run.op("cas", INFO, "timeout")
    result = stats(run)
    assert result.verdict is Verdict.VALID
    assert result.data["phases"][MAIN]["cas"] == {"ok": 0, "fail": 1, "info": 1}
    assert result.data["main"] == {"ok": 10, "fail": 1, "info": 1}


@pytest.mark.parametrize("error", ["no-leader", ["timeout", "5 s"], None])
def test_kind_of_operation_that_never_got_an_answer_is_vacuous(error: object) -> None:
    run = Recorder()
    run.mark(MAIN)
    busy(run)
    run.op("cas", FAIL, error)
    result = stats(run)
    assert result.verdict is Verdict.UNKNOWN
    assert result.summary == "vacuous: no cas succeeded (1 tried) in the main phase"
    assert result.hint


def test_too_few_successes_are_vacuous() -> None:
    run = Recorder()
    run.mark(MAIN)
    busy(run, OK_MIN - 1)
    assert stats(run).verdict is Verdict.UNKNOWN


def test_only_the_main_phase_counts() -> None:
    run = Recorder()
    busy(run, 50)
    run.mark(MAIN)
    run.op("read", OK)
    run.mark(FINAL)
    busy(run, 50)
    result = stats(run)
    assert result.verdict is Verdict.UNKNOWN
    assert "only 1 operations succeeded" in result.summary


def test_nemesis_is_no_client_of_the_stats() -> None:
    run = Recorder()
    run.mark(MAIN)
    busy(run)
    plain = stats(run)
    run.ops += [Op(INFO, NEMESIS, "kill", time=run.now)] * 2
    assert stats(run) == plain


def test_errors_are_grouped_by_code_and_never_a_violation() -> None:
    run = Recorder()
    run.op("write", INFO, ["timeout", "after 5 s"], node="n2")
    run.op("read", FAIL, ["timeout", "after 5 s"])
    run.op("read", FAIL, "no-leader")
    run.op("read", INFO)
    run.op("read", FAIL, {"odd": 1})
    run.op("read", OK)
    result = UnhandledErrors().check(run.history(), Evidence())
    assert result.verdict is Verdict.VALID
    assert result.summary == "5 operations without success, 4 kinds of error"
    assert result.data["kinds"]["timeout"] == {"count": 2, "fail": 1, "info": 1, "example": 1}
    assert next(iter(result.data["kinds"])) == "timeout"
    assert result.findings[0].message == (
        "timeout: 2 times (1 fail, 1 info), first at op 1, process 1 write on n2: after 5 s"
    )


def test_run_without_errors_says_so() -> None:
    run = Recorder()
    run.op("read", OK)
    assert UnhandledErrors().check(run.history(), Evidence()).summary == "no errors"


def logs(lines: Sequence[str]) -> CheckResult:
    return LogPatterns().check(History([]), Evidence(logs={"n1": ["all is well"], "n3": lines}))


@pytest.mark.parametrize(
    "line",
    [
        "panic: runtime error: index out of range",
        "thread 'main' panicked at src/log.rs:12",
        "2026-01-01 12:00:00 ERROR AssertionError: commit 5 beyond log end 4",
        "node: raft.c:88: Assertion failed: term >= 0",
        "fatal error: all goroutines are asleep - deadlock!",
        "Segmentation fault (core dumped)",
        "Fatal Python error: Aborted",
    ],
)
def test_panic_or_failed_assertion_in_a_log_is_invalid(line: str) -> None:
    result = logs(["started", line])
    assert result.verdict is Verdict.INVALID
    (finding,) = result.findings
    assert finding.message == f"n3 log line 2: {line}"
    assert finding.data == {"node": "n3", "line": 2, "text": line}


@pytest.mark.parametrize(
    "line",
    [
        "no panic, just a slow disk",
        "panicked clients reconnect in 3 ms",
        "all assertions passed",
        "traceback disabled",
        "term 3: asserted leadership",
    ],
)
def test_harmless_line_of_a_log_is_valid(line: str) -> None:
    assert logs(["started", line]).verdict is Verdict.VALID


def test_traceback_is_one_finding_with_the_error_it_ends_in() -> None:
    result = logs(
        [
            "started",
            "Traceback (most recent call last):",
            '  File "raft.py", line 3, in step',
            "    assert False",
            "AssertionError: term moved back",
            "stopped",
        ]
    )
    (finding,) = result.findings
    assert finding.message == (
        "n3 log line 2: Traceback (most recent call last): ... AssertionError: term moved back"
    )


def test_traceback_cut_off_at_the_end_of_the_log_still_counts() -> None:
    result = logs(["Traceback (most recent call last):", '  File "raft.py"'])
    assert result.verdict is Verdict.INVALID
    assert "(the log ends here)" in result.findings[0].message


def test_flood_of_panics_is_counted_but_not_all_told() -> None:
    result = logs(["panic: again"] * 500)
    assert len(result.findings) == 10
    assert result.data["nodes"] == {"n1": 0, "n3": 500}


def fault(
    kind: str, id: int, stage: FaultStage, *, bit: bool | None = None, time: int = 0
) -> FaultEvent:
    return FaultEvent(id, stage, time, kind, bit=bit)


def coverage(planned: tuple[str, ...], *events: FaultEvent) -> CheckResult:
    return FaultCoverage().check(History([]), Evidence(faults=events, planned_faults=planned))


def test_every_planned_fault_that_bit_is_valid() -> None:
    result = coverage(
        ("partition", "kill"),
        fault("partition", 1, FaultStage.APPLIED),
        fault("partition", 1, FaultStage.EVIDENCE, bit=True),
        fault("partition", 1, FaultStage.EVIDENCE, bit=True),
        fault("partition", 2, FaultStage.EVIDENCE, bit=False),
        fault("kill", 3, FaultStage.EVIDENCE, bit=True),
    )
    assert result.verdict is Verdict.VALID
    assert result.summary == "seen to bite: partition once, kill once"


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ((), "planned, but never applied"),
        ((fault("kill", 1, FaultStage.APPLIED),), "applied once, but no node was seen"),
        (
            (
                fault("kill", 1, FaultStage.APPLIED),
                fault("kill", 1, FaultStage.EVIDENCE, bit=False),
            ),
            "applied once, but no node was seen",
        ),
        ((fault("kill", 1, FaultStage.EVIDENCE, bit=None),), "planned, but never applied"),
        ((fault("kill", 1, FaultStage.FAILED),), "could not be applied (1 attempts)"),
    ],
)
def test_planned_fault_that_was_not_seen_to_bite_is_vacuous(
    events: tuple[FaultEvent, ...], why: str
) -> None:
    bitten = fault("pause", 9, FaultStage.EVIDENCE, bit=True)
    result = coverage(("pause", "kill"), bitten, *events)
    assert result.verdict is Verdict.UNKNOWN
    assert result.summary == "vacuous: never seen to bite: kill"
    assert why in result.findings[0].message


def test_run_without_planned_faults_is_covered() -> None:
    assert coverage(()).verdict is Verdict.VALID


def run_with_heal(*, final_outcome: OpType) -> Recorder:
    run = Recorder()
    run.mark(MAIN)
    busy(run)
    run.now = SECOND
    run.op("write", INFO, "timeout", node="n1")
    run.op("write", FAIL, ["mismatch", ""], node="n2")
    run.now = 2 * SECOND
    busy(run)
    run.now = 3 * SECOND
    run.mark(HEAL)
    run.now = 5 * SECOND
    run.mark(FINAL)
    run.op("read", final_outcome)
    return run


def test_recovery_is_measured_from_the_last_heal() -> None:
    history = run_with_heal(final_outcome=OK).history()
    undone = fault("kill", 1, FaultStage.UNDONE, time=4 * SECOND)
    torn_down = fault("kill", 1, FaultStage.UNDONE, time=9 * SECOND)
    result = Availability().check(history, Evidence(faults=(undone, torn_down)))
    assert result.verdict is Verdict.VALID
    assert result.data["healed_at_s"] == 4.0
    assert result.data["recovery_s"] == pytest.approx(1.001)
    assert result.data["worst_second"] == {"second": 1, "ok": 0, "ops": 2}
    assert result.data["ok_rate"] == pytest.approx(20 / 22)
    assert result.data["answered_rate"] == pytest.approx(21 / 22)
    assert result.data["nodes"]["n1"] == {"ops": 1, "ok": 0, "answered_rate": 0.0}


def test_heal_mark_stands_in_for_a_ledger() -> None:
    result = Availability().check(run_with_heal(final_outcome=OK).history(), Evidence())
    assert result.data["recovery_s"] == pytest.approx(2.001)


def killed_run() -> Recorder:
    run = Recorder()
    run.mark(MAIN)
    run.now = SECOND
    busy(run)
    return run


def killed_evidence(*later: FaultEvent) -> Evidence:
    events = (fault("kill", 1, FaultStage.UNDONE), fault("kill", 2, FaultStage.APPLIED), *later)
    return Evidence(faults=events, planned_faults=("kill",))


@pytest.mark.parametrize("later", [(), (fault("kill", 2, FaultStage.UNDONE),)])
def test_run_that_ended_before_its_heal_has_not_recovered(later: tuple[FaultEvent, ...]) -> None:
    # `labrys heal` closes the ledger of a dead run: what succeeded since then is no recovery.
    result = Availability().check(killed_run().history(), killed_evidence(*later))
    assert result.verdict is Verdict.UNKNOWN
    assert "the run ended before its faults were healed" in result.summary
    assert "recovery_s" not in result.data


def test_fault_that_was_never_undone_leaves_no_recovery() -> None:
    run = killed_run()
    run.mark(HEAL)
    busy(run)
    result = Availability().check(run.history(), killed_evidence())
    assert result.verdict is Verdict.UNKNOWN
    assert "faults never undone: 1" in result.summary
    undone = killed_evidence(fault("kill", 2, FaultStage.UNDONE))
    assert Availability().check(run.history(), undone).verdict is Verdict.VALID


@pytest.mark.parametrize("outcome", [FAIL, INFO])
def test_cluster_that_never_came_back_is_vacuous(outcome: OpType) -> None:
    history = run_with_heal(final_outcome=outcome).history()
    result = Availability().check(history, Evidence())
    assert result.verdict is Verdict.UNKNOWN
    assert "no operation succeeded after the last heal" in result.summary


def test_history_without_clock_or_faults_has_figures_all_the_same() -> None:
    history = History([Op(INVOKE, 0, "read"), Op(OK, 0, "read"), Op(INVOKE, 1, "read")])
    result = Availability().check(history, Evidence())
    assert result.verdict is Verdict.VALID
    assert result.data["ok_rate"] == 0.5
    assert result.data["worst_second"] is None


def test_empty_history_has_nothing_to_measure() -> None:
    result = Availability().check(History([]), Evidence())
    assert result.verdict is Verdict.VALID
    assert result.summary == "nothing was tried"
