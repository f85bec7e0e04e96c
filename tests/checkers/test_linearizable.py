"""The linearizability checker over keys, budgets and evidence."""

import random

import msgspec
import pytest
from tests.checkers.generate import as_history, simulated, with_stale_read
from tests.checkers.oracle import Act

from labrys.checkers import linearizable
from labrys.checkers.checker import Evidence, Limits
from labrys.checkers.history import History, HistoryError
from labrys.checkers.linearizable import Linearizable
from labrys.checkers.op import NEMESIS, Op, OpType
from labrys.checkers.verdict import CheckResult, Verdict

INVOKE, OK, FAIL, INFO = OpType.INVOKE, OpType.OK, OpType.FAIL, OpType.INFO


def keyed(parts: dict[str, list[Act]]) -> History:
    """Let the acts of all keys happen one key after the other."""
    ops: list[Op] = []
    for key, acts in parts.items():
        process = sum(op.type is INVOKE for op in ops)
        for op in as_history(acts).ops:
            assert isinstance(op.process, int)
            renamed = msgspec.structs.replace(
                op, index=-1, time=-1, key=key, process=process + op.process
            )
            ops.append(renamed)
    return History(ops)


def check(history: History, limits: Limits | None = None) -> CheckResult:
    return Linearizable("cas-register").check(history, Evidence(limits=limits or Limits()))


GOOD = [Act("write", 1, 0, 1), Act("read", 1, 2, 3)]
BAD = [Act("write", 1, 0, 1), Act("read", 2, 2, 3)]


def test_one_bad_key_among_good_ones_is_found_and_named() -> None:
    result = check(keyed({"a": GOOD, "b": BAD, "c": GOOD}))
    assert result.verdict is Verdict.INVALID
    assert result.data["keys"] == 3
    assert result.data["ops"] == 6
    assert result.data["invalid_keys"] == ["b"]
    assert result.data["per_key"] == {"b": {"verdict": "invalid", "ops": 2}}
    assert result.summary == '1 of 3 keys not linearizable ("b"); 6 operations'
    (finding,) = result.findings
    assert finding.key == "b"
    assert set(finding.data) >= {"key", "window", "prefix", "state", "rejected", "core"}
    msgspec.json.encode(result)


def test_good_keys_are_valid() -> None:
    result = check(keyed({"a": GOOD, "b": GOOD}))
    assert result.verdict is Verdict.VALID
    assert result.findings == ()
    assert result.summary == "all 2 keys linearizable; 4 operations"


def test_keys_do_not_see_each_other() -> None:
    assert check(keyed({"a": GOOD, "b": [Act("read", 1, 0, 1)]})).verdict is Verdict.INVALID


def test_pairs_as_values_are_not_taken_for_keys() -> None:
    acts = [Act("write", ["a", 1], 0, 1), Act("write", ["b", 2], 2, 3), Act("read", ["b", 2], 4, 5)]
    result = check(as_history(acts))
    assert result.verdict is Verdict.VALID
    assert result.data["keys"] == 1


def test_failed_ops_did_not_happen_and_crashed_ones_may_have() -> None:
    def history(outcome: OpType, seen: object) -> History:
        return History(
            [
                Op(INVOKE, 0, "write", value=1),
                Op(outcome, 0, "write", value=1),
                Op(INVOKE, 1, "read"),
                Op(OK, 1, "read", value=seen),
            ]
        )

    assert check(history(FAIL, None)).verdict is Verdict.VALID
    assert check(history(FAIL, 1)).verdict is Verdict.INVALID
    assert check(history(INFO, None)).verdict is Verdict.VALID
    assert check(history(INFO, 1)).verdict is Verdict.VALID
    assert check(history(OK, None)).verdict is Verdict.INVALID


@pytest.mark.parametrize("outcome", [FAIL, INFO])
def test_reads_without_an_answer_say_nothing(outcome: OpType) -> None:
    ops = [Op(INVOKE, 9, "read"), Op(outcome, 9, "read", value=77), *as_history(GOOD).ops]
    bare = [msgspec.structs.replace(op, index=-1, time=-1) for op in ops]
    assert check(History(bare)).verdict is Verdict.VALID


def test_nemesis_ops_are_no_operations() -> None:
    ops: list[Op] = [Op(INFO, NEMESIS, "kill", value="n1")] * 2
    ops += [msgspec.structs.replace(op, index=-1, time=-1) for op in as_history(GOOD).ops]
    result = check(History(ops))
    assert result.verdict is Verdict.VALID
    assert result.data["ops"] == 2


@pytest.mark.parametrize(
    ("acts", "reason"),
    [
        ([], "no operation succeeded"),
        ([Act("write", 1, 0, None)], "no operation succeeded"),
        ([Act("write", 1, 0, 1), Act("write", 2, 2, 3)], "no read succeeded"),
    ],
)
def test_nothing_observed_is_unknown_not_valid(acts: list[Act], reason: str) -> None:
    result = check(as_history(acts))
    assert result.verdict is Verdict.UNKNOWN
    assert reason in result.summary
    assert result.hint


def test_appends_that_nobody_reads_are_unknown_and_an_impossible_one_is_invalid() -> None:
    def judged(*acts: Act) -> Verdict:
        return Linearizable("kv").check(as_history(list(acts)), Evidence()).verdict

    append = Act("append", "a", 0, 1)
    assert judged(append, Act("write", "b", 2, 3)) is Verdict.UNKNOWN
    assert judged(append, Act("read", "a", 2, 3)) is Verdict.VALID
    assert judged(Act("write", 5, 0, 1), Act("append", "a", 2, 3)) is Verdict.INVALID


def test_initial_value_and_null_reads_are_read_as_told() -> None:
    history = as_history([Act("read", None, 0, 1), Act("read", 0, 2, 3)])
    for initial, nil_read, expected in (
        (0, "any", Verdict.VALID),
        (0, "absent", Verdict.INVALID),
        (None, "absent", Verdict.INVALID),
        (None, "any", Verdict.INVALID),
    ):
        checker = Linearizable("cas-register", initial=initial, nil_read=nil_read)
        assert checker.check(history, Evidence()).verdict is expected, (initial, nil_read)


def test_history_of_another_model_is_an_error_that_names_the_op() -> None:
    history = History([Op(INVOKE, 0, "append", value=1)])
    result = check(history)
    assert result.verdict is Verdict.ERROR
    assert "op 0: 'append' is not one of read, write, cas" in result.summary
    with pytest.raises(HistoryError, match="op 0"):
        Linearizable("cas-register").assert_fits(history)


@pytest.mark.parametrize("value", [3, None, [1], [1, 2, 3], {"from": 1}])
def test_cas_without_a_pair_is_refused(value: object) -> None:
    history = History([Op(INVOKE, 4, "cas", value=value), Op(OK, 4, "cas", value=value)])
    with pytest.raises(HistoryError, match=r"op 0: cas needs \[expected, new\]"):
        Linearizable("cas-register").assert_fits(history)


def test_unknown_model_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="no model 'regster': choose from register, cas-register"):
        Linearizable("regster")


@pytest.mark.parametrize("initial", ["locked", 0, True, ["free"]])
def test_mutex_in_no_state_is_refused(initial: object) -> None:
    with pytest.raises(ValueError, match='a mutex is "free" or "held" at first, not'):
        Linearizable("mutex", initial=initial)


@pytest.mark.parametrize(
    ("initial", "expected"), [(None, "valid"), ("free", "valid"), ("held", "invalid")]
)
def test_mutex_begins_as_told(initial: object, expected: str) -> None:
    history = as_history([Act("acquire", None, 0, 1)])
    result = Linearizable("mutex", initial=initial).check(history, Evidence())
    assert result.verdict.value == expected


def hard_history() -> History:
    return as_history(simulated(random.Random(5), 300, 10, values=5, crash_rate=0.2))


def test_deadline_ends_in_unknown_with_where_what_and_the_knob() -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1.0
        return now

    result = check(hard_history(), Limits(seconds=2.5, clock=clock))
    assert result.verdict is Verdict.UNKNOWN
    assert result.hint == "raise --check-timeout (seconds); of labrys check: --timeout"
    (finding,) = result.findings
    assert "reached 2.5 s of checking at op" in finding.message
    assert "to be placed there:" in finding.message
    assert result.data["unknown_keys"] == [None]


def test_memory_bound_ends_in_unknown_with_the_knob() -> None:
    limits = Limits(memory_mib=100, memory_used_mib=lambda: 101.0)
    result = check(hard_history(), limits)
    assert result.verdict is Verdict.UNKNOWN
    assert result.hint == "raise --check-memory (MiB); of labrys check: --memory"
    assert "reached 100 MiB of memory (101 in use)" in result.findings[0].message


def test_generous_limits_change_nothing() -> None:
    limits = Limits(clock=lambda: 0.0, memory_used_mib=lambda: 10.0)
    assert check(hard_history(), limits).verdict is Verdict.VALID


def test_hard_key_that_eats_the_budget_does_not_hide_an_easy_violation() -> None:
    polls = 0

    def clock() -> float:
        nonlocal polls
        polls += 1
        return 0.0 if polls < 6 else 100.0

    hard = simulated(random.Random(5), 300, 10, values=5, crash_rate=0.2)
    result = check(keyed({"hard": hard, "bad": BAD}), Limits(seconds=50, clock=clock))
    assert result.verdict is Verdict.INVALID
    assert result.data["invalid_keys"] == ["bad"]
    assert result.data["unknown_keys"] == ["hard"]


def test_fault_in_the_explanation_does_not_hide_the_violation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no pen")

    monkeypatch.setattr(linearizable, "explain", broken)
    result = check(as_history(BAD))
    assert result.verdict is Verdict.INVALID
    assert "no pen" in result.findings[0].message


def test_only_so_many_keys_are_explained_but_all_are_counted() -> None:
    result = check(keyed({f"k{i}": BAD for i in range(25)}))
    assert len(result.findings) == 10
    assert len(result.data["invalid_keys"]) == 25


@pytest.mark.parametrize("crash_rate", [0, 0.05, 0.2])
def test_planted_stale_read_is_caught_and_the_history_without_it_is_valid(
    crash_rate: float,
) -> None:
    caught = 0
    for seed in range(20):
        acts = simulated(random.Random(f"planted {seed}"), 150, 10, crash_rate=crash_rate)
        assert check(as_history(acts)).verdict is Verdict.VALID, f"seed {seed}"
        stale = with_stale_read(acts, 10)
        if stale is not None:
            caught += check(as_history(stale)).verdict is Verdict.INVALID
    assert caught >= 15
