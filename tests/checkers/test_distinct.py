"""Checks without a search: registers against an oracle, and planted violations of each kind."""

import random

import pytest
from tests.checkers.distinct_histories import distinct_register
from tests.checkers.generate import as_history
from tests.checkers.oracle import Act, is_linearizable_wgl

from labrys.checkers.distinct import bag, counter, fifo, owned_mutex, register, whole_reads
from labrys.checkers.distinct import stack as stacks
from labrys.checkers.distinct.outcome import Linearizable, NotApplicable, Outcome, Violation


def test_register_agrees_with_wing_gong_lowe(histories: int) -> None:
    verdicts = []
    for seed in range(histories):
        acts = distinct_register(random.Random(f"register {seed}"))
        outcome = register.check(as_history(acts).operations)
        assert not isinstance(outcome, NotApplicable)
        expected = is_linearizable_wgl(None, acts)
        assert isinstance(outcome, Linearizable) is expected, f"seed {seed}: {acts}: {outcome}"
        if isinstance(outcome, Violation):
            assert outcome.ops
            assert set(outcome.ops) <= {act.call for act in acts}
        verdicts.append(expected)
    assert 0.2 < sum(verdicts) / len(verdicts) < 0.8


@pytest.mark.parametrize(
    ("acts", "words"),
    [
        ([("write", 1, 0, 1), ("write", 2, 2, 3), ("read", 1, 4, 5)], "1 was there"),
        ([("read", 5, 0, 1), ("write", 5, 2, 3)], "op 0 had 5 at hand"),
        ([("write", 1, 0, 1), ("read", 7, 2, 3)], "op 2 found 7, which no operation ever leaves"),
        (
            [("write", 1, 0, 1), ("cas", [1, 2], 2, 4), ("cas", [1, 3], 3, 5)],
            "op 2 and op 3 both replaced 1",
        ),
    ],
)
def test_register_names_the_operations_that_contradict(
    acts: list[tuple[str, object, int, int]], words: str
) -> None:
    outcome = register.check(as_history([Act(*act) for act in acts]).operations)
    assert isinstance(outcome, Violation)
    assert words in outcome.message


def test_register_says_when_it_does_not_apply_even_if_something_looks_wrong() -> None:
    twice = [Act("write", 1, 0, 1), Act("cas", [1, 2], 2, 3), Act("cas", [1, 3], 4, 5)]
    assert isinstance(register.check(as_history(twice).operations), Violation)
    twice.append(Act("write", 1, 6, 7))
    assert isinstance(register.check(as_history(twice).operations), NotApplicable)


def test_register_whose_first_value_is_written_again_is_left_to_the_search() -> None:
    acts = [Act("cas", [0, 2], 0, 4), Act("cas", [0, 1], 1, 6), Act("write", 0, 2, 5)]
    operations = as_history(acts).operations
    assert isinstance(register.check(operations, 0), NotApplicable)
    assert isinstance(register.check(operations[:2], 0), Violation)


def test_one_true_and_one_point_zero_are_three_values() -> None:
    for written, read in ((1, True), (1, 1.0), (1.0, 1), ("1", 1)):
        acts = [Act("write", written, 0, 1), Act("read", read, 2, 3)]
        assert isinstance(register.check(as_history(acts).operations), Violation)


def queue(*acts: tuple[str, object, int, int | None]) -> Outcome:
    return fifo.check(as_history([Act(*act) for act in acts]).operations)


def test_queue_out_of_order_lost_and_falsely_empty() -> None:
    both = (("enqueue", 1, 0, 1), ("enqueue", 2, 2, 3))
    swapped = queue(*both, ("dequeue", 2, 4, 5), ("dequeue", 1, 6, 7))
    assert isinstance(swapped, Violation)
    assert swapped.ops == (0, 2, 4, 6)
    lost = queue(*both, ("dequeue", 2, 4, 5))
    assert isinstance(lost, Violation)
    assert "never did" in lost.message
    empty = queue(*both, ("dequeue", None, 4, 5))
    assert isinstance(empty, Violation)
    assert "found it empty, though 1 was inside" in empty.message


def test_queue_near_misses_are_accepted() -> None:
    overlapping = (("enqueue", 1, 0, 2), ("enqueue", 2, 1, 3))
    assert queue(*overlapping, ("dequeue", 2, 4, 5), ("dequeue", 1, 6, 7)) == Linearizable()
    both = (("enqueue", 1, 0, 1), ("enqueue", 2, 2, 3))
    assert queue(*both, ("dequeue", None, 4, None), ("dequeue", 2, 5, 6)) == Linearizable()


def stack(*acts: tuple[str, object, int, int | None]) -> Outcome:
    return stacks.check(as_history([Act(*act) for act in acts]).operations)


def test_stack_first_in_first_out_is_told_by_its_four_operations() -> None:
    both = (("push", 1, 0, 1), ("push", 2, 2, 3))
    swapped = stack(*both, ("pop", 1, 4, 5), ("pop", 2, 6, 7))
    assert isinstance(swapped, Violation)
    assert swapped.ops == (0, 2, 4, 6)
    assert "none of 1 (op 0, popped by op 4), 2 (op 2, popped by op 6) can have been at" in (
        swapped.message
    )
    buried = stack(*both, ("pop", 1, 4, 5))
    assert isinstance(buried, Violation)
    assert "2 (op 2, never popped)" in buried.message


def test_stack_near_misses_are_accepted() -> None:
    both = (("push", 1, 0, 1), ("push", 2, 2, 3))
    assert stack(*both, ("pop", 2, 4, 5), ("pop", 1, 6, 7)) == Linearizable()
    assert stack(*both, ("pop", 1, 4, 7), ("pop", 2, 5, 6)) == Linearizable()
    assert stack(*both, ("pop", None, 4, None), ("pop", 1, 5, 6)) == Linearizable()


def test_stack_that_is_deep_takes_no_longer_than_a_shallow_one() -> None:
    """Two to the power of its depth would be the price of a search."""
    size = 20_000
    acts = [("push", value, 2 * value, 2 * value + 1) for value in range(size)]
    acts += [
        ("pop", value, 4 * size - 2 * value, 4 * size - 2 * value + 1) for value in range(size)
    ]
    assert stack(*acts) == Linearizable()
    one, two = acts[size + 5_000], acts[size + 5_001]
    acts[size + 5_000], acts[size + 5_001] = (*two[:2], *one[2:]), (*one[:2], *two[2:])
    violation = stack(*acts)
    assert isinstance(violation, Violation)
    assert len(violation.ops) == 4


def test_bag_is_found_empty_only_when_it_may_be() -> None:
    put, took = Act("enqueue", 1, 0, 1), Act("dequeue", 1, 4, 7)
    early = as_history([put, Act("dequeue", None, 2, 3), took]).operations
    assert isinstance(bag.check(early), Violation)
    later = as_history([put, Act("dequeue", None, 3, 5), took]).operations
    assert bag.check(later) == Linearizable()


def test_list_and_set_reads_that_lose_an_element() -> None:
    acts = [Act("append", 1, 0, 1), Act("append", 2, 2, 3), Act("read", [2], 4, 5)]
    outcome = whole_reads.check_list(as_history(acts).operations)
    assert isinstance(outcome, Violation)
    assert "1 was in (op 0) before op 4 began, and no read has it" in outcome.message
    acts = [Act("add", 1, 0, 1), Act("read", [], 2, 3)]
    assert isinstance(whole_reads.check_set(as_history(acts).operations), Violation)
    assert whole_reads.check_set(as_history([acts[0]._replace(ret=9), acts[1]]).operations) == (
        Linearizable()
    )


def test_mutex_held_twice_and_counter_that_fell() -> None:
    held = [Act("acquire", None, 0, 1, 0), Act("acquire", None, 2, 3, 1)]
    assert isinstance(owned_mutex.check(as_history(held).operations), Violation)
    assert isinstance(
        owned_mutex.check(as_history([held[0], held[1]._replace(ret=None)]).operations),
        NotApplicable,
    )
    fell = [Act("add", 1, 0, 1), Act("read", 1, 2, 3), Act("read", 0, 4, 5)]
    outcome = counter.check(as_history(fell).operations)
    assert isinstance(outcome, Violation)
    assert outcome.ops[-1] == 4
