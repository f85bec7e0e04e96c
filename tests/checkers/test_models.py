"""Every model against an oracle that tries all orders, with and without distinct values."""

import random
from collections import Counter

import pytest
from tests.checkers.generate import as_history, messy_of
from tests.checkers.oracle import Act, is_possible

from labrys.checkers.budget import Budget
from labrys.checkers.checker import Limits
from labrys.checkers.decide import decide
from labrys.checkers.distinct.outcome import Linearizable, NotApplicable, Violation
from labrys.checkers.history import History, HistoryError
from labrys.checkers.models import MODELS, Action, Illegal, described
from labrys.checkers.op import Op, OpType
from labrys.checkers.search import Stuck, Survived
from labrys.checkers.subject import subjects

FAMILIES = (
    "fifo-queue",
    "unordered-queue",
    "stack",
    "set",
    "counter",
    "append",
    "mutex",
    "owned-mutex",
    "fenced-lock",
    "txn",
    "multi-register",
)
WITHOUT_SEARCH = (
    "fifo-queue",
    "unordered-queue",
    "stack",
    "set",
    "counter",
    "append",
    "owned-mutex",
)


def searched(family: str, acts: list[Act]) -> bool:
    """Judge by the search alone, part by part as the checker does."""
    for subject in subjects(MODELS[family](), {None: list(as_history(acts).operations)}):
        budget = Budget(Limits())
        outcome = decide(subject.search(budget), budget)
        assert isinstance(outcome, Survived | Stuck)
        if isinstance(outcome, Stuck):
            assert outcome.exact
            return False
    return True


@pytest.mark.parametrize("family", FAMILIES)
def test_search_agrees_with_all_orders(family: str, histories: int) -> None:
    verdicts = []
    for seed in range(histories):
        rng = random.Random(f"{family} {seed}")
        acts = messy_of(rng, family, distinct=rng.random() < 0.4)
        expected = is_possible(family, acts)
        assert searched(family, acts) is expected, f"seed {seed}: {acts}"
        verdicts.append(expected)
    assert 0.02 < sum(verdicts) / len(verdicts) < 0.98, "nearly all are of one kind"


@pytest.mark.parametrize("family", WITHOUT_SEARCH)
def test_checks_without_a_search_agree_with_all_orders(family: str, histories: int) -> None:
    verdicts = []
    skipped = 0
    for seed in range(histories):
        rng = random.Random(f"distinct {family} {seed}")
        acts = messy_of(rng, family, distinct=True)
        (operations,) = as_history(acts).operations_by_key().values()
        outcome = MODELS[family]().distinct(
            [op for op in operations if op.is_ok or op.f not in ("read", "contains")]
        )
        if isinstance(outcome, NotApplicable):
            skipped += 1
            continue
        expected = is_possible(family, acts)
        assert isinstance(outcome, Linearizable) is expected, f"seed {seed}: {acts}: {outcome}"
        if isinstance(outcome, Violation):
            core = [act for act in acts if act.call in set(outcome.ops)]
            assert len(core) == len(set(outcome.ops)) <= 8
            assert not is_possible(family, core), f"seed {seed}: {outcome} in {acts}"
        verdicts.append(expected)
    assert skipped < 0.9 * histories
    assert 0.02 < sum(verdicts) / len(verdicts) < 0.98, "nearly all are of one kind"


@pytest.mark.parametrize("family", ["fifo-queue", "unordered-queue", "stack"])
def test_values_put_in_again_are_judged_rightly_or_left_to_the_search(
    family: str, histories: int
) -> None:
    answers: Counter[str] = Counter()
    for seed in range(histories):
        acts = messy_of(random.Random(f"again {family} {seed}"), family)
        outcome = MODELS[family]().distinct(as_history(acts).operations)
        answers[type(outcome).__name__] += 1
        if not isinstance(outcome, NotApplicable):
            expected = is_possible(family, acts)
            assert isinstance(outcome, Linearizable) is expected, f"seed {seed}: {acts}: {outcome}"
    assert min(answers["Linearizable"], answers["Violation"]) > 0.1 * histories, answers


@pytest.mark.parametrize("family", ["txn", "multi-register"])
@pytest.mark.parametrize("micro", [["r"], [["r"], "x", 1], [{"r": 1}, "x", 1], [1, "x", 1], "r"])
def test_what_is_no_micro_operation_is_named(family: str, micro: object) -> None:
    ops = [Op(OpType.INVOKE, 0, "txn", value=[micro]), Op(OpType.OK, 0, "txn", value=[micro])]
    with pytest.raises(HistoryError, match='op 0: txn needs \\["r"'):
        MODELS[family]().action(History(ops).operations[0])


def test_only_lists_may_be_empty_before_anything_was_written() -> None:
    empty, nothing = Action("look", (("r", '"x"', "[]"),)), Action("look", (("r", '"x"', "null"),))
    txn, registers = MODELS["txn"](), MODELS["multi-register"]()
    assert txn.step(txn.initial, empty) == txn.step(txn.initial, nothing) == frozenset()
    assert isinstance(registers.step(registers.initial, empty), Illegal)
    written = txn.step(frozenset(), Action("txn", (("w", '"x"', "[]"),)))
    assert txn.step(written, empty) == written
    assert isinstance(txn.step(written, nothing), Illegal)
    (append,) = History([Op(OpType.INVOKE, 0, "txn", value=[["append", "x", 1]])]).operations
    with pytest.raises(HistoryError, match='txn needs \\["r"\\|"w", key, value'):
        registers.action(append)


def test_transactions_are_told_as_they_stand_in_the_history() -> None:
    action = Action("txn", (("r", '"x"', None), ("w", '"y"', '"a"')))
    assert described(action) == 'txn [["r","x",null],["w","y","a"]]'
    assert described(Action("read", None, ("1", '"a"'))) == 'read -> [1,"a"]'


@pytest.mark.parametrize("answer", [1, [2, True], [1], "true"])
def test_contains_answers_about_what_was_asked(answer: object) -> None:
    ops = [Op(OpType.INVOKE, 0, "contains", value=1), Op(OpType.OK, 0, "contains", value=answer)]
    with pytest.raises(HistoryError, match="op 0: contains needs true or false as its result"):
        MODELS["set"]().action(History(ops).operations[0])
