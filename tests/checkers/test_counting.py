"""The checkers that count: each with planted violations, near misses, and an obvious oracle."""

import random
from collections import Counter
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest

import labrys.checkers
from labrys.checkers.catalogue import checker_for
from labrys.checkers.checker import Evidence
from labrys.checkers.history import History, HistoryError
from labrys.checkers.op import Op, OpType
from labrys.checkers.verdict import CheckResult, Verdict

VALID, INVALID, UNKNOWN = Verdict.VALID, Verdict.INVALID, Verdict.UNKNOWN


def ran(*steps: tuple[Any, ...], key: str | None = None) -> list[Op]:
    """Return operations one after the other: (f, argument, result), or (..., "info" or "fail")."""
    ops = []
    for number, (f, asked, answered, *outcome) in enumerate(steps):
        kind = OpType(outcome[0]) if outcome else OpType.OK
        process = number * 7
        ops += [
            Op(OpType.INVOKE, process, f, value=asked, key=key, time=2 * number * 10**6),
            Op(kind, process, f, value=answered, key=key, time=(2 * number + 1) * 10**6),
        ]
    return ops


def under(key: str | None, ops: Sequence[Op]) -> list[Op]:
    """Return the same operations by other processes, on another key and without times."""
    return [Op(op.type, int(op.process) + 100, op.f, key=key, value=op.value) for op in ops]


def overlapping(*steps: tuple[Any, ...]) -> list[Op]:
    """Return operations that all overlap: every call comes before every return."""
    ops = under(None, ran(*steps))
    return sorted(ops, key=lambda op: op.type is not OpType.INVOKE)


def judged(ops: Sequence[Op], model: str, **how: Any) -> CheckResult:
    return labrys.checkers.check(History(ops), model, **how)


def assert_told(result: CheckResult, verdict: Verdict, words: str) -> None:
    assert result.verdict is verdict, result.summary
    assert words in result.summary


def add(value: Any, outcome: str = "ok") -> tuple[Any, ...]:
    return "add", value, value, outcome


def read(*values: Any) -> tuple[Any, ...]:
    return "read", None, list(values)


SETS = [
    ([add(1), read(1)], "eventual", VALID, "1 stable of 1 elements"),
    ([add(1), read()], "eventual", INVALID, "1 lost of 1 elements"),
    ([add(1), read(1), read()], "eventual", INVALID, "1 lost"),
    ([add(1), read(), read(1)], "eventual", VALID, "1 stale"),
    ([add(1), read(), read(1)], "linearizable", INVALID, "1 stale"),
    ([add(1), read(1, 1)], "eventual", INVALID, "1 stable, 1 duplicated"),
    ([add(1), read(1, 2)], "eventual", INVALID, "1 unexpected"),
    ([add(2, "fail"), add(1), read(1, 2)], "eventual", INVALID, "1 unexpected"),
    ([add(1), read(1, 2), add(2)], "eventual", INVALID, "1 unexpected"),
    ([add(1), add(2, "info"), read(1)], "eventual", VALID, "1 stable of 2 elements"),
    ([add(1), add(2, "info"), read(1, 2), read(1)], "eventual", INVALID, "1 stable, 1 lost"),
    ([add(1), read(1), add(2)], "eventual", VALID, "1 stable, 1 never read"),
    ([add(1), read(True)], "eventual", INVALID, "1 lost, 1 unexpected"),
]


@pytest.mark.parametrize(("steps", "level", "verdict", "words"), SETS)
def test_sets(steps: Any, level: str, verdict: Verdict, words: str) -> None:
    assert_told(judged(ran(*steps), "set-full", level=level), verdict, words)


def test_set_reads_that_overlap_cannot_say_what_came_last() -> None:
    ops = [*ran(add(1)), *overlapping(read(1), read())]
    assert judged(ops, "set-full").verdict is VALID
    assert judged(ops, "set-full", level="linearizable").verdict is INVALID


def test_set_tells_the_time_until_an_element_was_seen_by_everybody() -> None:
    result = judged(ran(add(1), read(), read(), read(1)), "set-full")
    assert result.data["visible_after_ms"] == {"p50": 3.0, "p95": 3.0, "p99": 3.0, "max": 3.0}
    assert result.data["stale"] == 1


def test_set_lost_element_is_told_with_its_ops() -> None:
    (finding,) = judged(ran(add(1), add(2), read(2, 1), read(2)), "set-full").findings
    assert finding.message == (
        "1 is lost: added by op 0, there since event 1, last read by op 4, and no more by op 6"
    )
    assert finding.data["core"] == [0, 4, 6]


def lost_by_brute_force(ops: Sequence[Op]) -> set[Any]:
    """Return what is lost by trying every pair of reads: obviously right and slow."""
    history = History(ops)
    reads = [o for o in history.operations if o.f == "read" and o.is_ok]
    lost = set()
    for element in {o.invoke.value for o in history.operations if o.f == "add" and not o.is_fail}:
        known = [
            o.ret
            for o in history.operations
            if o.is_ok and (o.invoke.value == element if o.f == "add" else element in o.value)
        ]
        for absent in reads:
            if element in absent.value or not known or absent.call < min(r for r in known if r):
                continue
            if all((r.ret or 0) < absent.call for r in reads if element in r.value):
                lost.add(element)
    return lost


def test_sets_agree_with_brute_force() -> None:
    seen: Counter[bool] = Counter()
    for seed in range(3_000):
        rng = random.Random(seed)
        ops = random_ops(rng, random_set_op)
        result = judged(ops, "set-full")
        lost = lost_by_brute_force(ops)
        counted = int(result.data.get("lost", 0))
        if result.verdict is not UNKNOWN:
            assert counted == len(lost), seed
        seen[bool(lost)] += 1
    assert min(seen.values()) > 300


def random_set_op(rng: random.Random) -> tuple[Any, ...]:
    if rng.random() < 0.5:
        return add(rng.randint(1, 3), rng.choice(["ok", "ok", "info", "fail"]))
    return read(*rng.sample(range(1, 4), rng.randint(0, 3)))


def random_ops(rng: random.Random, step: Any) -> list[Op]:
    """Return up to eight operations that overlap at random."""
    running: list[tuple[int, tuple[Any, ...]]] = []
    ops: list[Op] = []
    todo = rng.randint(2, 8)
    process = 0
    while todo or running:
        if todo and (not running or rng.random() < 0.5):
            f, asked, answered, *outcome = step(rng)
            ops.append(Op(OpType.INVOKE, process, f, value=asked))
            running.append((process, (f, answered, *outcome)))
            process, todo = process + 1, todo - 1
        else:
            who, (f, answered, *outcome) = running.pop(rng.randrange(len(running)))
            ops.append(Op(OpType(outcome[0] if outcome else "ok"), who, f, value=answered))
    return ops


def put(value: Any, outcome: str = "ok") -> tuple[Any, ...]:
    return "enqueue", value, value, outcome


def take(value: Any = None, outcome: str = "ok") -> tuple[Any, ...]:
    return "dequeue", None, value, outcome


def drain(*values: Any) -> tuple[Any, ...]:
    return "drain", None, list(values)


QUEUES = [
    ([put(1), take(1)], None, VALID, "1 put in, 1 taken out"),
    ([put(1), put(2), take(2), take()], None, INVALID, "1 lost"),
    ([put(1), put(2), take(2), drain()], None, INVALID, "1 lost"),
    ([put(1), put(2), take(2), drain(1)], None, VALID, "2 put in, 2 taken out"),
    ([put(1), put(2), take(2)], None, UNKNOWN, "1 not seen again"),
    ([put(1), take(None, "info"), put(2), take(2), drain()], None, VALID, "taken by crashed"),
    ([put(1), put(3), take(None, "info"), put(2), take(2), drain()], None, INVALID, "2 lost"),
    ([put(1, "info"), put(2), take(2), drain()], None, VALID, "2 put in, 1 taken out"),
    ([put(1, "fail"), put(2), take(2), take(1)], None, INVALID, "1 unexpected"),
    ([take(1), put(1)], None, INVALID, "1 unexpected"),
    ([put(1), take(1), take(1)], None, VALID, "1 came out more than once"),
    ([put(1), take(1), take(1)], "exactly-once", INVALID, "1 duplicated"),
    ([put(1), put(1), take(1), take(1)], "exactly-once", VALID, "2 put in"),
    ([put(1), take(), put(2), take(1), take(2)], None, VALID, "2 taken out"),
]


@pytest.mark.parametrize(("steps", "level", "verdict", "words"), QUEUES)
def test_queues(steps: Any, level: str | None, verdict: Verdict, words: str) -> None:
    assert_told(judged(ran(*steps), "total-queue", level=level), verdict, words)


def test_queue_excuses_nothing_that_a_bag_could_not_have_done() -> None:
    """What the search for an unordered queue accepts, this accepts too."""
    invalid = 0
    for seed in range(3_000):
        rng = random.Random(seed)
        ops = random_ops(rng, random_queue_op)
        exact = judged(ops, "unordered-queue").verdict
        counted = judged(ops, "total-queue", level="exactly-once").verdict
        assert not (counted is INVALID and exact is VALID), seed
        invalid += counted is INVALID
    assert invalid > 500


def random_queue_op(rng: random.Random) -> tuple[Any, ...]:
    outcome = rng.choice(["ok", "ok", "ok", "info"])
    if rng.random() < 0.5:
        return put(rng.randint(1, 3), outcome)
    return take(rng.choice([None, 1, 2, 3]), outcome)


def test_ids() -> None:
    given = [("generate", None, 5), ("generate", None, 7)]
    assert judged(ran(*given), "unique-ids").verdict is VALID
    result = judged(ran(*given, ("generate", None, 5)), "unique-ids")
    assert result.verdict is INVALID
    assert result.findings[0].message == "5 was given out 2 times: op 0, op 4"
    assert judged(ran(*given, ("generate", None, "5")), "unique-ids").verdict is VALID
    assert judged(ran(*given, ("generate", None, None, "info")), "unique-ids").verdict is VALID
    assert judged(ran(given[0]), "unique-ids").verdict is UNKNOWN


COUNTERS = [
    ([("add", 5, 5), ("read", None, 5)], VALID),
    ([("add", 5, 5), ("read", None, 4)], INVALID),
    ([("add", 5, 5, "info"), ("read", None, 0), ("read", None, 5)], VALID),
    ([("add", 5, 5, "info"), ("read", None, 6)], INVALID),
    ([("add", -5, -5, "info"), ("read", None, -5)], VALID),
    ([("add", 5, 5, "fail"), ("read", None, 5)], INVALID),
    ([("dec", 2, 2), ("read", None, -2)], VALID),
    ([("add", 2, 2)], UNKNOWN),
]


@pytest.mark.parametrize(("steps", "verdict"), COUNTERS)
def test_counters(steps: Any, verdict: Verdict) -> None:
    assert judged(ran(*steps), "counter-bounds").verdict is verdict


def test_counter_bounds_move_while_a_read_is_under_way() -> None:
    ops = overlapping(("add", 5, 5), ("add", -3, -3), ("read", None, 5))
    assert judged(ops, "counter-bounds").verdict is VALID
    ops = overlapping(("add", 5, 5), ("add", -3, -3), ("read", None, 6))
    assert judged(ops, "counter-bounds").verdict is INVALID
    assert judged(ran(("read", None, 7)), "counter-bounds", initial=7).verdict is VALID


def test_counter_bounds_convict_nothing_that_is_linearizable() -> None:
    convicted = 0
    for seed in range(3_000):
        rng = random.Random(seed)
        ops = random_ops(rng, random_counter_op)
        exact = judged(ops, "counter").verdict
        bounds = judged(ops, "counter-bounds").verdict
        assert not (bounds is INVALID and exact is VALID), seed
        convicted += bounds is INVALID
    assert convicted > 500


def random_counter_op(rng: random.Random) -> tuple[Any, ...]:
    if rng.random() < 0.6:
        by = rng.choice([1, 2, -1])
        return "add", by, by, rng.choice(["ok", "ok", "info", "fail"])
    return "read", None, rng.randint(-1, 4)


MOVE = ("transfer", {"from": "a", "to": "b", "amount": 3}, None)


def balances(**shown: Any) -> tuple[Any, ...]:
    return "read", None, shown


BANKS = [
    ([MOVE, balances(a=7, b=13)], 20, VALID, "1 reads, all of them with 20"),
    ([MOVE, balances(a=7, b=10)], 20, INVALID, "1 wrong-total"),
    ([balances(a=10, b=10), MOVE, balances(a=7, b=10)], None, INVALID, "1 wrong-total in 2"),
    ([MOVE, balances(a=-1, b=21)], 20, INVALID, "1 negative-balance"),
    ([MOVE, balances(a=20)], {"a": 10, "b": 10}, INVALID, "1 missing-account"),
    ([MOVE, balances(a=20, b=None)], {"a": 10, "b": 10}, INVALID, "1 missing-account"),
    ([MOVE, balances(a=10, b=5, c=5)], {"a": 10, "b": 10}, INVALID, "1 unknown-account"),
    ([MOVE, ("read", None, [["a", 7], ["b", 13]])], {"a": 10, "b": 10}, VALID, "1 reads"),
    ([balances(a=10, b=10)], 20, UNKNOWN, "no transfer succeeded"),
    ([MOVE], 20, UNKNOWN, "no read succeeded"),
]


@pytest.mark.parametrize(("steps", "initial", "verdict", "words"), BANKS)
def test_banks(steps: Any, initial: Any, verdict: Verdict, words: str) -> None:
    assert_told(judged(ran(*steps), "bank", initial=initial), verdict, words)


def test_bank_may_allow_overdrafts() -> None:
    from labrys.checkers.counting.bank import Bank

    history = History(ran(MOVE, balances(a=-1, b=21)))
    assert Bank(initial=20, negative=True).check(history, Evidence()).verdict is VALID


def view(**keys: Any) -> tuple[Any, ...]:
    return "txn", None, [["r", key, value] for key, value in keys.items()]


def wrote(key: str) -> tuple[Any, ...]:
    return "txn", [["w", key, 1]], [["w", key, 1]]


FORKS = [
    ([wrote("x"), wrote("y"), view(x=1, y=None), view(x=None, y=1)], INVALID, "1 long-fork"),
    ([wrote("x"), wrote("y"), view(x=1, y=None), view(x=1, y=1)], VALID, "2 reads agree"),
    ([wrote("x"), wrote("y"), view(x=1, y=None), view(z=None, y=1)], VALID, "2 reads agree"),
    ([wrote("x"), view(x=1, y=2)], INVALID, "1 unexpected"),
    ([view(x=1, y=None), wrote("x")], INVALID, "1 unexpected"),
    ([wrote("x"), wrote("y"), view(x=1, y=1)], UNKNOWN, "some were written and some not yet"),
    (
        [*map(wrote, "xyz"), view(x=1, y=None, z=1), view(w=None, x=None, y=1)],
        INVALID,
        "1 long-fork",
    ),
]


@pytest.mark.parametrize(("steps", "verdict", "words"), FORKS)
def test_forks(steps: Any, verdict: Verdict, words: str) -> None:
    filled = [(f, asked or [[m, k, None] for m, k, _ in done], done) for f, asked, done in steps]
    assert_told(judged(ran(*filled), "long-fork"), verdict, words)


def test_fork_is_found_whoever_names_the_keys() -> None:
    """A read need not say beforehand of what; 1 and 1.0 are two keys."""
    forked = [("txn", None, [["r", 1, 5], ["r", 2, None]]), ("txn", None, [["r", 2, 6], ["r", 1]])]
    writes = [("write", [["w", 1, 5]], [["w", 1, 5]]), ("write", [["w", 2, 6]], [["w", 2, 6]])]
    assert_told(judged(ran(*writes, *forked), "long-fork"), INVALID, "1 long-fork in 2 reads")
    crashed = ("read", None, None, "info")
    assert judged(ran(*writes, crashed, forked[0]), "long-fork").verdict is VALID
    other = ("txn", None, [["r", 1.0, 5], ["r", 2, None]])
    assert_told(judged(ran(*writes, other), "long-fork"), INVALID, "1 unexpected")


def test_fork_takes_two_keys() -> None:
    both = ("txn", None, [["r", "x", 1], ["r", "x", None], ["r", "y", None]])
    assert judged(ran(wrote("x"), both, both), "long-fork").data["long-fork"] == 0


def test_fork_of_keys_that_are_written_twice_is_refused() -> None:
    with pytest.raises(HistoryError, match='op 2: "x" was written by op 0 already'):
        checker_for("long-fork").assert_fits(History(ran(wrote("x"), wrote("x"))))


WENT_BACK = [("write", 1, 0), ("write", 2, 1), ("read", 1, 2), ("read", 2, 2), ("read", 1, 2)]
"""(f, value, process)"""


def session(*steps: tuple[str, Any, int]) -> list[Op]:
    ops = []
    for f, value, process in steps:
        ops.append(Op(OpType.INVOKE, process, f, value=None if f == "read" else value))
        ops.append(Op(OpType.OK, process, f, value=value))
    return ops


@pytest.mark.parametrize(
    ("steps", "violated"),
    [
        (WENT_BACK, ["monotonic-reads"]),
        ([("write", 1, 0), ("read", None, 0)], ["read-your-writes"]),
        ([("cas", [None, 3], 2), ("write", 1, 0), ("cas", [1, 2], 1), ("read", 2, 2)], []),
        # process 0 wrote 1 and then 2, yet 1 came of 2 by cas
        ([("cas", [2, 1], 0), ("write", 2, 0)], ["monotonic-writes", "writes-follow-reads"]),
        # process 2 saw 4, which came of 3, and wrote 3
        ([("cas", [3, 4], 1), ("read", 4, 2), ("write", 3, 2)], ["writes-follow-reads"]),
        ([("write", 3, 1), ("cas", [3, 4], 1), ("read", 4, 2), ("write", 5, 2)], []),
    ],
)
def test_sessions(steps: Any, violated: list[str]) -> None:
    result = judged(session(*steps), "sessions")
    named = [guarantee for guarantee in result.data["violated"] if guarantee != "all"]
    assert named == violated, result.summary
    assert result.verdict is (INVALID if violated else VALID)
    for level in ("monotonic-reads", "read-your-writes", "writes-follow-reads"):
        one = judged(session(*steps), "sessions", level=level)
        is_bad = level in violated or "out of nowhere" in one.summary
        assert (one.verdict is INVALID) is is_bad, level


def test_sessions_that_hold_one_by_one_may_not_hold_together() -> None:
    """Process 0 says 1 before 2 by its writes, process 1 says 2 before 1 by its reads."""
    steps = [("write", 1, 0), ("write", 2, 0), ("read", 2, 1), ("read", 1, 1)]
    result = judged(session(*steps), "sessions")
    assert (result.verdict, result.data["violated"]) == (INVALID, ["all"])
    assert "versions go in a circle" in result.findings[0].message
    assert judged(session(*steps), "sessions", level="monotonic-reads").verdict is VALID


def test_session_that_went_back_is_told_step_by_step() -> None:
    result = judged(session(*WENT_BACK), "sessions", level="monotonic-reads")
    (finding,) = result.findings
    assert finding.message.splitlines()[1:] == [
        "  1 before 2: process 2 found the one and later the other (op 6)",
        "  2 before 1: process 2 found the one and later the other (op 8)",
    ]


def test_session_values_from_nowhere_and_values_written_twice() -> None:
    result = judged(session(("write", 1, 0), ("read", 2, 1)), "sessions")
    assert result.verdict is INVALID
    assert "op 2 found 2, which nobody wrote" in result.findings[0].message
    early = judged(session(("read", 1, 1), ("write", 1, 0)), "sessions")
    assert early.verdict is INVALID
    assert early.findings[0].message == "op 0 found 1 before op 2 began to write it"
    twice = judged(session(("write", 1, 0), ("write", 1, 1), ("read", 1, 1)), "sessions")
    assert twice.verdict is UNKNOWN
    assert "1 is written twice (again by op 2)" in twice.summary


def test_crashed_cas_count_only_where_somebody_found_what_they_left() -> None:
    circle = [("cas", [1, 2], None, "info"), ("cas", [2, 1], None, "info")]
    unseen = judged(ran(*circle, ("read", None, None)), "sessions")
    assert (unseen.verdict, unseen.data["violated"]) == (VALID, [])
    assert judged(ran(*circle, ("read", None, 1)), "sessions").verdict is INVALID
    nowhere = judged(ran(("cas", [9, 2], None, "info"), ("read", None, 2)), "sessions")
    assert nowhere.verdict is INVALID
    assert nowhere.findings[0].message == (
        "op 0 must have found 9, for its 2 was found, and nobody wrote that"
    )
    last = [("write", 5, 5, "info"), ("cas", [5, 6], None, "info"), ("read", None, 6)]
    assert judged(ran(*last), "sessions").verdict is VALID


def holds(ops: Sequence[Op], guarantees: Sequence[str]) -> bool:
    """Try every order of the versions against the words of each guarantee."""
    history = History(ops)
    written = [o.invoke.value[-1] if o.f == "cas" else o.invoke.value for o in history.operations]
    versions = [v for o, v in zip(history.operations, written, strict=True) if o.f != "read"]
    for order in permutations(versions):
        place = {version: number for number, version in enumerate((None, *order))}
        if all(_holds(history, place, guarantee) for guarantee in guarantees) and all(
            place[o.invoke.value[0]] < place[o.invoke.value[1]]
            for o in history.operations
            if o.f == "cas" and o.invoke.value[0] in place
        ):
            return True
    return False


def _holds(history: History, place: dict[Any, int], guarantee: str) -> bool:
    sessions: dict[Any, list[tuple[str, Any]]] = {}
    for o in history.operations:
        done = sessions.setdefault(o.process, [])
        if o.f == "cas":
            done += [("read", o.invoke.value[0]), ("write", o.invoke.value[1])]
        else:
            done.append((o.f, o.value))
    first, second = {
        "monotonic-reads": ("read", "read"),
        "read-your-writes": ("write", "read"),
        "monotonic-writes": ("write", "write"),
        "writes-follow-reads": ("read", "write"),
    }[guarantee]
    return all(
        place[a] < place[b] or (a == b and second == "read")
        for done in sessions.values()
        for i, (f, a) in enumerate(done)
        for g, b in done[i + 1 :]
        if (f, g) == (first, second)
    )


def test_sessions_agree_with_every_order_of_versions() -> None:
    seen: Counter[tuple[str, bool]] = Counter()
    for seed in range(2_500):
        rng = random.Random(seed)
        values = rng.sample(range(1, 5), rng.randint(2, 4))
        unwritten = list(values)
        steps: list[tuple[str, Any, int]] = []
        while unwritten or rng.random() < 0.7:
            process = rng.randint(0, 2)
            if unwritten and rng.random() < 0.5:
                value = unwritten.pop()
                if rng.random() < 0.3:
                    steps.append(("cas", [rng.choice([None, *values]), value], process))
                    continue
                steps.append(("write", value, process))
            else:
                steps.append(("read", rng.choice([None, *values]), process))
        steps = [s for s in steps if s[0] != "cas" or s[1][0] != s[1][1]]
        written = {s[1][1] if s[0] == "cas" else s[1] for s in steps if s[0] != "read"} | {None}
        steps = [s for s in steps if (s[1][0] if s[0] == "cas" else s[1]) in written]
        ops = session(*steps)
        result = judged(ops, "sessions")
        versions = {None, *(s[1][1] if s[0] == "cas" else s[1] for s in steps if s[0] != "read")}
        found = {s[1][0] if s[0] == "cas" else s[1] for s in steps if s[0] != "write"}
        if result.verdict is UNKNOWN or not found <= versions:
            continue
        levels = ("monotonic-reads", "read-your-writes", "monotonic-writes", "writes-follow-reads")
        for level in levels:
            expected = holds(ops, [level])
            assert (level not in result.data["violated"]) is expected, (seed, level)
            seen[level, expected] += 1
        assert ("all" not in result.data["violated"]) is holds(ops, levels), seed
    assert len(seen) == 8
    assert min(seen.values()) > 100


def test_keys_are_judged_each_by_itself() -> None:
    ops = [*ran(add(1), read(1), key="a"), *under("b", ran(add(1), read()))]
    result = judged(ops, "set-full")
    assert result.verdict is INVALID
    assert result.summary == '1 of 2 keys invalid: "b": 1 lost of 1 elements'
    assert [finding.key for finding in result.findings] == ["b"]


def test_keys_that_saw_too_little_are_counted_and_do_not_hide_the_others() -> None:
    ops = [*ran(add(1), read(1), key="a"), *under("b", ran(add(1)))]
    result = judged(ops, "set-full")
    assert (result.verdict, result.summary) == (
        VALID,
        "all 1 keys valid; 1 keys saw too little (no read succeeded)",
    )


@pytest.mark.parametrize(
    ("model", "steps", "message"),
    [
        ("set-full", [("read", None, 5)], "op 0: read needs a list of elements"),
        ("total-queue", [("drain", None, 5)], "op 0: drain needs a list of values"),
        ("unique-ids", [("generate", None, None)], "op 0: generate needs an id"),
        ("counter-bounds", [("add", "x", "x")], "op 0: add needs an integer"),
        ("bank", [("read", None, 5)], 'op 0: read needs {"account": balance}'),
        ("bank", [("read", None, {"a": "b"})], "op 0: read needs integers as balances"),
        ("bank", [("transfer", [1], None)], 'op 0: transfer needs {"from": A'),
        ("bank", [("read", None, [["a", 1], ["a", 1]])], "op 0: read needs every account only"),
        ("long-fork", [("txn", [["q", 1, 2]], [["q", 1, 2]])], "op 0: txn needs"),
        ("long-fork", [("txn", [["w", 1]], [["w", 1]])], "op 0: txn needs"),
        ("long-fork", [("txn", None, None)], "op 0: txn needs a list of micro-operations"),
        ("sessions", [("cas", 3, 3)], "op 0: cas needs"),
        ("set-full", [("push", 1, 1)], "op 0: 'push' is not one of add, read"),
    ],
)
def test_operations_of_another_kind_are_named(model: str, steps: Any, message: str) -> None:
    with pytest.raises(HistoryError) as refused:
        checker_for(model).assert_fits(History(ran(*steps)))
    assert message in str(refused.value)
    result = judged(ran(*steps), model)
    assert result.verdict is Verdict.ERROR
    assert message in result.summary


@pytest.mark.parametrize("model", ["set-full", "total-queue", "unique-ids", "bank", "sessions"])
def test_nothing_is_vacuous(model: str) -> None:
    result = judged([], model)
    assert result.verdict is UNKNOWN
    assert result.summary.startswith("vacuous")


@pytest.mark.parametrize(
    ("model", "how", "message"),
    [
        ("set-full", {"level": "serializable"}, "choose from eventual, linearizable"),
        ("unique-ids", {"level": "eventual"}, "unique-ids has one level"),
        ("set-full", {"initial": [1]}, "set-full starts empty"),
        ("bank", {"initial": "x"}, "a bank starts with a total"),
        ("bank", {"initial": {"a": "x"}}, "balances are integers"),
    ],
)
def test_options_that_mean_nothing_are_refused(model: str, how: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checker_for(model, **how)


def test_sessions_of_many_operations_make_few_demands() -> None:
    """Quadratic ones would be 10 million a session."""
    steps: list[tuple[str, Any, int]] = []
    for number in range(1, 10_001):
        steps += [("write", number, number % 3), ("read", number, 3 + number % 2)]
    assert judged(session(*steps), "sessions").verdict is VALID
