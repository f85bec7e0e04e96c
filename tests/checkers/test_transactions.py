"""Transactions: every anomaly planted and found, a near miss accepted, and no false alarm."""

import random
from typing import Any

import pytest
from tests.checkers.generate import as_history
from tests.checkers.oracle import UNKNOWN, Act, is_possible

from labrys.checkers.checker import Evidence
from labrys.checkers.history import History
from labrys.checkers.op import Op, OpType
from labrys.checkers.transactions.checker import Transactions
from labrys.checkers.transactions.levels import LEVELS, ruled_out, survivors
from labrys.checkers.verdict import CheckResult, Verdict

INVOKE, OK, FAIL, INFO = OpType.INVOKE, OpType.OK, OpType.FAIL, OpType.INFO


class Recorder:
    """Writes transactions down; those between `begin` and `end` overlap."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self._open: dict[int, Any] = {}

    def begin(self, process: int, *micros: list[Any]) -> None:
        asked = [[f, key, None if f == "r" else value] for f, key, value in micros]
        self.ops.append(Op(INVOKE, process, "txn", value=asked))
        self._open[process] = list(micros)

    def end(self, process: int, outcome: OpType = OK) -> None:
        self.ops.append(Op(outcome, process, "txn", value=self._open.pop(process)))

    def txn(self, process: int, *micros: list[Any], outcome: OpType = OK) -> None:
        self.begin(process, *micros)
        self.end(process, outcome)

    def check(self, data: str = "list-append", level: str = "strict-serializable") -> CheckResult:
        return Transactions(data, level).check(History(self.ops), Evidence())


def together(*txns: tuple[list[Any], ...]) -> Recorder:
    """Let all transactions overlap."""
    recorder = Recorder()
    for process, micros in enumerate(txns):
        recorder.begin(process, *micros)
    for process in range(len(txns)):
        recorder.end(process)
    return recorder


def r(key: str, value: Any) -> list[Any]:
    return ["r", key, value]


def a(key: str, value: Any) -> list[Any]:
    return ["append", key, value]


def w(key: str, value: Any) -> list[Any]:
    return ["w", key, value]


PLANTED: dict[str, Recorder] = {
    "G0": together(
        (a("x", 1), a("y", 1)), (a("x", 2), a("y", 2)), (r("x", [1, 2]), r("y", [2, 1]))
    ),
    "G1c": together((a("x", 1), r("y", [1])), (a("y", 1), r("x", [1]))),
    "G-single": together(
        (r("x", []), r("y", [1])), (a("x", 1), a("y", 1)), (r("x", [1]), r("y", [1]))
    ),
    "G-nonadjacent": together(
        (r("x", []), r("y", [1])),
        (a("x", 1), a("q", 1)),
        (r("q", [1]), r("z", [])),
        (a("z", 1), a("y", 1)),
        (r("x", [1]), r("z", [1])),
    ),
    "G2-item": together(
        (r("x", []), a("y", 1)), (r("y", []), a("x", 1)), (r("x", [1]), r("y", [1]))
    ),
    "lost-update": together((r("x", []), a("x", 1)), (r("x", []), a("x", 2)), (r("x", [1, 2]),)),
    "G1b": together((a("x", 1), a("x", 2)), (r("x", [1]),), (r("x", [1, 2]),)),
    "internal": together((a("x", 1), r("x", [2])), (a("x", 2),)),
    "duplicate-elements": together((a("x", 1),), (r("x", [1, 1]),)),
    "incompatible-order": together(
        (a("x", 1),), (a("x", 2),), (r("x", [1, 2]),), (r("x", [2, 1]),)
    ),
    "future-read": together(
        (r("x", [1]), a("x", 1)),
    ),
    "phantom-element": together(
        (r("x", [7]),),
    ),
    "fractured-read": together((a("x", 1), a("y", 1)), (r("x", [1]), r("y", [])), (r("y", [1]),)),
    "causal-violation": together(
        (a("x", 1),),
        (r("x", [1]), a("y", 1)),
        (r("y", [1]), r("x", [])),
    ),
}


@pytest.mark.parametrize("anomaly", PLANTED)
def test_planted_anomaly_is_found_and_told(anomaly: str) -> None:
    result = PLANTED[anomaly].check()
    assert result.verdict is Verdict.INVALID
    assert anomaly in result.data["anomalies"], result.data["anomalies"]
    finding = next(f for f in result.findings if f.data["anomaly"] == anomaly)
    assert finding.message.startswith(f"{anomaly}: ")
    assert finding.ops
    assert "bug in labrys" not in finding.message


@pytest.mark.parametrize("anomaly", PLANTED)
def test_level_is_broken_iff_it_forbids_what_was_found(anomaly: str) -> None:
    recorder = PLANTED[anomaly]
    found = set(recorder.check().data["anomalies"])
    for level, forbidden in LEVELS.items():
        expected = Verdict.INVALID if forbidden & found else Verdict.VALID
        assert recorder.check(level=level).verdict is expected, level


@pytest.mark.parametrize(
    ("anomaly", "holds"),
    [
        ("G2-item", "snapshot-isolation"),
        ("G-single", "read-committed"),
        ("causal-violation", "read-atomic"),
        ("fractured-read", "read-committed"),
        ("G1c", "read-uncommitted"),
        ("internal", "repeatable-read"),
    ],
)
def test_weaker_level_survives(anomaly: str, holds: str) -> None:
    assert PLANTED[anomaly].check(level=holds).verdict is Verdict.VALID


def test_aborted_append_that_is_read_is_g1a_and_dirty_when_built_upon() -> None:
    recorder = Recorder()
    recorder.txn(0, a("x", 1), outcome=FAIL)
    recorder.txn(1, a("x", 2))
    recorder.txn(2, r("x", [1, 2]))
    assert set(recorder.check().data["anomalies"]) == {"G1a", "dirty-update"}
    assert recorder.check(level="read-uncommitted").verdict is Verdict.VALID


def test_append_of_unknown_outcome_may_be_read_or_not() -> None:
    for seen in ([], [1]):
        recorder = Recorder()
        recorder.txn(0, a("x", 1), outcome=INFO)
        recorder.txn(1, r("x", seen))
        assert recorder.check().verdict is Verdict.VALID


def test_lost_append_breaks_strict_serializability_only() -> None:
    recorder = Recorder()
    recorder.txn(0, a("x", 1))
    recorder.txn(1, a("x", 2))
    recorder.txn(2, r("x", [1]))
    result = recorder.check()
    assert result.verdict is Verdict.INVALID
    assert "G-single-realtime" in result.data["anomalies"]
    assert recorder.check(level="serializable").verdict is Verdict.VALID
    message = result.findings[0].message
    assert "T1 --rw--> T2 --realtime--> T1" in message
    assert 'it read [1] of key "x", without 2, which T2 appended' in message
    assert "had returned" in message


def test_stale_read_of_ones_own_append_breaks_the_session_level() -> None:
    recorder = Recorder()
    recorder.txn(0, a("x", 1))
    recorder.txn(0, r("x", []))
    recorder.txn(1, r("x", [1]))
    assert recorder.check(level="strong-session-read-atomic").verdict is Verdict.INVALID
    assert recorder.check(level="serializable").verdict is Verdict.VALID


def test_order_of_real_time_alone_is_no_anomaly() -> None:
    recorder = Recorder()
    recorder.txn(0, a("x", 1))
    recorder.txn(1, r("x", [1]), a("y", 1))
    recorder.txn(0, r("y", [1]), r("x", [1]))
    result = recorder.check()
    assert result.verdict is Verdict.VALID
    assert result.data["survives"] == ["strict-serializable"]


def test_crashed_transaction_of_which_somebody_saw_a_part_happened_as_a_whole() -> None:
    """The last one saw what the crashed one appended to x, and not what it appended to y."""
    recorder = Recorder()
    recorder.txn(0, a("x", 1), a("y", 1), outcome=INFO)
    recorder.txn(1, r("x", [1]), r("y", []))
    assert "G-single" in recorder.check().data["anomalies"]
    registers = Recorder()
    registers.txn(0, w("x", 1), w("y", 1), outcome=INFO)
    registers.txn(1, r("x", 1), r("y", None))
    broken = registers.check("rw-register", "serializable")
    assert broken.verdict is Verdict.INVALID
    assert "G-single" in broken.data["anomalies"]
    near = Recorder()
    near.txn(0, a("x", 1), a("y", 1), outcome=INFO)
    near.txn(1, r("x", []), r("y", []))
    near.txn(1, r("x", [1]), r("y", [1]))
    assert near.check().verdict is Verdict.VALID


def test_nothing_read_is_unknown() -> None:
    recorder = Recorder()
    recorder.txn(0, a("x", 1))
    assert recorder.check().verdict is Verdict.UNKNOWN
    assert Transactions("list-append").check(History([]), Evidence()).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("x", "a transaction is a list of"),
        ([["w", "x", 1]], "a transaction is a list of"),
        ([[["r"], "x", 1]], "a transaction is a list of"),
        ([["append", "x", 1], ["append", "x", 1]], "appended to key"),
    ],
)
def test_what_is_no_list_append_is_an_error_with_its_op(value: Any, reason: str) -> None:
    history = History([Op(INVOKE, 0, "txn", value=value), Op(OK, 0, "txn", value=value)])
    result = Transactions("list-append").check(history, Evidence())
    assert result.verdict is Verdict.ERROR
    assert "op 0" in result.summary
    assert reason in result.summary


def test_registers_lost_update_and_cyclic_versions_and_write_skew() -> None:
    lost = together((r("x", None), w("x", 1)), (r("x", None), w("x", 2)))
    assert "lost-update" in lost.check("rw-register").data["anomalies"]
    cyclic = together((r("x", 1), w("x", 2)), (r("x", 2), w("x", 1)))
    assert "cyclic-versions" in cyclic.check("rw-register").data["anomalies"]
    skew = together((r("x", None), w("y", 1)), (r("y", None), w("x", 1)))
    assert set(skew.check("rw-register").data["anomalies"]) == {"G2-item"}
    assert skew.check("rw-register", "snapshot-isolation").verdict is Verdict.VALID


def random_txns(rng: random.Random, update: str) -> list[Act]:
    """Overlapping transactions on two keys, with results that are often right."""
    state: dict[str, Any] = {}
    acts: list[Act] = []
    running: list[tuple[int, int]] = []
    event, fresh, process = 0, 0, 0
    count = rng.randint(2, 6)
    while process < count or running:
        if process < count and (not running or rng.random() < 0.5):
            running.append((event, process))
            process += 1
        else:
            call, who = running.pop(rng.randrange(len(running)))
            micros: list[tuple[str, str, Any]] = []
            for _ in range(rng.randint(1, 3)):
                key = rng.choice("xy")
                if rng.random() < 0.5:
                    fresh += 1
                    now = state.get(key)
                    state[key] = (*(now or ()), fresh) if update == "append" else fresh
                    micros.append((update, key, fresh))
                else:
                    seen = state.get(key)
                    if rng.random() < 0.2 and isinstance(seen, tuple):
                        seen = seen[: rng.randint(0, len(seen))] or None
                    elif rng.random() < 0.2 and fresh:
                        seen = rng.choice([None, seen]) if update == "append" else fresh
                    micros.append(("r", key, seen))
            crashed = rng.random() < 0.1
            if crashed:
                micros = [(f, k, UNKNOWN if f == "r" else v) for f, k, v in micros]
            acts.append(Act("txn", micros, call, None if crashed else event, who))
        event += 1
    return acts


@pytest.mark.parametrize(("data", "update"), [("list-append", "append"), ("rw-register", "w")])
def test_agrees_with_all_orders_on_strict_serializability(
    data: str, update: str, histories: int
) -> None:
    verdicts = []
    missed = 0
    for seed in range(histories):
        acts = random_txns(random.Random(f"{data} {seed}"), update)
        result = Transactions(data).check(as_history(acts), Evidence())
        if result.verdict is Verdict.UNKNOWN:
            continue
        possible = is_possible("txn", acts)
        if result.verdict is Verdict.INVALID:
            assert not possible, f"seed {seed}: {result.summary} of {acts}"
        else:
            assert result.verdict is Verdict.VALID
            missed += not possible
        verdicts.append(possible)
    assert 0.1 < sum(verdicts) / len(verdicts) < 0.9
    # Elements that nobody read have no known order among themselves.
    assert missed <= 0.002 * histories


def test_levels_form_an_order() -> None:
    assert survivors([]) == ["strict-serializable"]
    assert ruled_out(["G0"]) == ["read-uncommitted"]
    assert LEVELS["read-committed"] < LEVELS["snapshot-isolation"] < LEVELS["serializable"]
    for name, forbidden in LEVELS.items():
        assert forbidden <= LEVELS["strict-serializable"], name
