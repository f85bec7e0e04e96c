"""Agreement, raft and perf: what the nodes tell, each with a planted fault and a near miss."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from labrys.checkers.agreement import Agreement
from labrys.checkers.checker import Evidence
from labrys.checkers.fault import FaultEvent, FaultStage
from labrys.checkers.history import MAIN, PHASE, History
from labrys.checkers.op import NEMESIS, Op, OpType
from labrys.checkers.perf import Perf
from labrys.checkers.quantiles import quantile, quantiles_ms
from labrys.checkers.raft_log import RaftLog
from labrys.checkers.verdict import CheckResult, Verdict

EMPTY = History([])


def ended(**states: tuple[int, str] | None) -> CheckResult:
    told = {
        node: None if state is None else {"applied": state[0], "state_hash": state[1]}
        for node, state in states.items()
    }
    return Agreement().check(EMPTY, Evidence(end_states=told))


def test_nodes_that_hold_the_same_agree() -> None:
    result = ended(n1=(9, "aa"), n2=(9, "aa"), n3=(9, "aa"))
    assert result.verdict is Verdict.VALID
    assert result.summary == "3 nodes hold the same at index 9"


def test_nodes_that_hold_different_states_after_the_same_entries_diverged() -> None:
    result = ended(n1=(9, "aa"), n2=(9, "bb"), n3=(9, "aa"))
    assert result.verdict is Verdict.INVALID
    assert result.findings[0].message == (
        "at index 9 the nodes hold different states: n1 n3 aa, n2 bb"
    )


@pytest.mark.parametrize("last", [None, (8, "bb")])
def test_node_that_is_silent_or_behind_has_shown_nothing(last: tuple[int, str] | None) -> None:
    result = ended(n1=(9, "aa"), n2=(9, "aa"), n3=last)
    assert result.verdict is Verdict.UNKNOWN
    assert result.summary == "not comparable at the end: n3"


def test_divergence_is_told_even_if_others_are_behind() -> None:
    assert ended(n1=(9, "aa"), n2=(8, "bb"), n3=(8, "cc")).verdict is Verdict.INVALID


def test_no_state_and_one_alone_are_unknown() -> None:
    assert ended().verdict is Verdict.UNKNOWN
    assert ended(n1=None, n2=None).verdict is Verdict.UNKNOWN
    assert ended(n1=(9, "aa")).verdict is Verdict.UNKNOWN
    strange = Agreement().check(EMPTY, Evidence(end_states={"n1": {"role": "leader"}}))
    assert strange.verdict is Verdict.UNKNOWN


def logged(logs: Mapping[str, Sequence[str]], faults: Sequence[FaultEvent] = ()) -> CheckResult:
    """Judge logs of which only what follows the node's name is given."""
    lines = {
        node: [
            f"2026-01-01T00:00:00.000Z mono_ms={10 * i} {node} {line}" for i, line in enumerate(log)
        ]
        for node, log in logs.items()
    }
    return RaftLog().check(EMPTY, Evidence(logs=lines, faults=faults))


def role(name: str, term: int) -> str:
    return f"role={name} term={term} leader=- last_index=5"


def commit(index: int, term: int) -> str:
    return f"event=commit commit={index} applied={index} term={term}"


def state(digit: str) -> str:
    return f"event=state index=1000 state_hash={digit * 16}"


def test_logs_of_a_sound_cluster_are_valid() -> None:
    result = logged(
        {
            "n1": ["event=boot term=0 commit=0", role("leader", 1), commit(4, 1)],
            "n2": [role("follower", 1), role("leader", 2), state("a")],
            "n3": [role("follower", 2), state("a")],
        }
    )  # fmt: skip
    assert result.verdict is Verdict.VALID
    assert (
        result.summary == "one leader in each of 2 terms; 2 commit indexes rise; 1 states compared"
    )
    assert result.data["leaders"] == {"1": ["n1"], "2": ["n2"]}


def test_node_that_comes_to_another_state_after_a_restart_contradicts_itself() -> None:
    again = [state("a"), "event=boot term=1 commit=0", state("a")]
    assert logged({"n1": again}).verdict is Verdict.VALID
    result = logged({"n1": [*again, state("b")]})
    assert result.verdict is Verdict.INVALID
    assert f"after index 1000 n1 had {'b' * 16} (its log, line 4) and n1 before" in (
        result.findings[0].message
    )


def test_torn_lines_say_nothing() -> None:
    torn = {"n1": [role("leader", 12), "role=leader term=1"], "n2": [role("leader", 1)]}
    assert logged(torn).verdict is Verdict.VALID
    run_into = f"role=leader te2026-01-01T00:00:00.000Z mono_ms=7 n1 {commit(3, 1)}"
    assert logged({"n1": [run_into, commit(4, 12)], "n2": [role("leader", 1)]}).verdict is (
        Verdict.VALID
    )


@pytest.mark.parametrize(
    ("logs", "message"),
    [
        (
            {"n1": [role("leader", 3)], "n2": [role("follower", 2), role("leader", 3)]},
            "two-leaders: n2 led in term 3 (its log, line 2), and so did n1",
        ),
        (
            {"n1": [role("follower", 3), "event=stop code=0 term=3", "event=boot term=2 commit=0"]},
            "term-fell: n1 log line 3: term 2 after term 3",
        ),
        (
            {"n1": [commit(9, 1), commit(8, 1)]},
            "commit-fell: n1 log line 2: commit index 8 after 9",
        ),
        (
            {
                "n1": [role("leader", 1), state("a")],
                "n2": [state("b")],
            },
            f"states-differ: after index 1000 n2 had {'b' * 16} (its log, line 1) "
            f"and n1 {'a' * 16}",
        ),
        (
            {"n1": [role("leader", 1), 'event=violation what="log matching: n1 has another 3"']},
            "violation: n1 log line 2: log matching: n1 has another 3",
        ),
    ],
)  # fmt: skip
def test_broken_invariants_are_found(logs: dict[str, list[str]], message: str) -> None:
    result = logged(logs)
    assert result.verdict is Verdict.INVALID
    assert [finding.message for finding in result.findings] == [message]


def test_a_broken_promise_is_told_by_its_name() -> None:
    said = 'event=violation what="leader completeness: n1 leads term 2 with () at 3"'
    (finding,) = logged({"n1": [role("leader", 1), said]}).findings
    assert (finding.data["anomaly"], finding.data["promise"]) == (
        "violation", "leader completeness",
    )  # fmt: skip


def test_one_finding_of_each_kind_is_told_before_a_second_one() -> None:
    falling = [role("follower", term) for term in (9, 8, 7)]
    result = logged({"n1": falling, "n2": [commit(9, 1), commit(8, 1)]})
    kinds = [finding.data["anomaly"] for finding in result.findings]
    assert kinds == ["term-fell", "commit-fell", "term-fell"]


@pytest.mark.parametrize(
    "log",
    [
        [role("leader", 3), role("follower", 3), role("leader", 3)],
        [commit(9, 1), "event=boot term=1 commit=0", commit(2, 1)],
        [commit(9, 1), commit(9, 2)],
        [role("leader", 3), "event=members voters=n1 term=2", "warning=role=leader term=1"],
        [role("leader", 3), "event=installed index=9 term=2"],
    ],
)  # fmt: skip
def test_near_misses_are_no_violations(log: list[str]) -> None:
    assert logged({"n1": log}).verdict is Verdict.VALID


def test_term_may_fall_only_at_a_start_of_a_node_whose_data_a_fault_took() -> None:
    fault = FaultEvent(1, FaultStage.PLANNED, 0, "corrupt", targets=("n1",), plan={"forgets": True})
    boot = "event=boot term=0 commit=0"
    log = [role("follower", 3), boot, role("follower", 1)]
    assert logged({"n1": log}, [fault]).verdict is Verdict.VALID
    assert logged({"n1": log}).verdict is Verdict.INVALID
    assert logged({"n2": log}, [fault]).verdict is Verdict.INVALID
    assert logged({"n1": [log[0], log[2]]}, [fault]).verdict is Verdict.INVALID
    harmless = msgspec.structs.replace(fault, plan={})
    assert logged({"n1": log}, [harmless]).verdict is Verdict.INVALID


def test_line_that_was_torn_by_a_kill_is_no_evidence() -> None:
    torn = "2026-01-01T00:00:00.000Z mono_ms=5 n1 role=leader term="
    result = RaftLog().check(EMPTY, Evidence(logs={"n1": [torn]}))
    assert result.verdict is Verdict.UNKNOWN
    assert logged({"n1": [], "n2": ["hello"]}).verdict is Verdict.UNKNOWN


def timed(*durations_ms: int, outcome: OpType = OpType.OK) -> list[Op]:
    ops: list[Op] = [Op(OpType.INFO, NEMESIS, PHASE, value=MAIN, time=0)]
    now = 0
    for process, took in enumerate(durations_ms):
        ops.append(Op(OpType.INVOKE, process, "read", time=now))
        now += took * 1_000_000
        ops.append(Op(outcome, process, "read", time=now, value=None))
    return ops


def test_perf_tells_quantiles_and_throughput() -> None:
    result = Perf().check(History(timed(*range(1, 101))), Evidence())
    assert result.verdict is Verdict.VALID
    assert result.data["latency_ms"]["read"]["ok"] == {
        "count": 100, "p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0,
    }  # fmt: skip
    assert result.data["ok_per_s"] == round(100 / 5.05, 1)
    assert result.summary == "20 ok/s; median and 99 % of those: read 50/99 ms"


def test_perf_leaves_out_what_did_not_return_and_other_phases() -> None:
    ops: list[Any] = [
        Op(OpType.INVOKE, 7, "read", time=0),
        Op(OpType.OK, 7, "read", time=0),
        *timed(5, outcome=OpType.FAIL),
        Op(OpType.INVOKE, 8, "read", time=5_000_000),
    ]
    result = Perf().check(History(ops), Evidence())
    assert result.data["latency_ms"] == {
        "read": {"fail": {"count": 1, "p50": 5.0, "p95": 5.0, "p99": 5.0, "max": 5.0}}
    }
    assert result.summary == "nothing succeeded"
    assert Perf().check(EMPTY, Evidence()).summary == "nothing was timed in the main phase"


def test_quantiles_are_values_that_were_measured() -> None:
    assert [quantile([1, 2, 3, 4], share) for share in (0.0, 0.25, 0.26, 0.5, 1.0)] == [
        1,
        1,
        2,
        2,
        4,
    ]
    assert quantiles_ms([7_000_000]) == {"p50": 7.0, "p95": 7.0, "p99": 7.0, "max": 7.0}
