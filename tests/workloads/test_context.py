"""The context: threads, processes and who is free."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrys.checkers.op import NEMESIS
from labrys.workloads.context import (
    CLIENTS_MASK,
    NEMESIS_MASK,
    Context,
    Thread,
    bits_of,
    context,
    mask_of,
)


def start(clients: int = 3) -> Context:
    return context(clients, random.Random(0))


def test_at_the_start_thread_i_is_process_i_and_all_are_free() -> None:
    ctx = start()
    assert ctx.processes == (NEMESIS, 0, 1, 2)
    assert ctx.free == ctx.threads == mask_of([NEMESIS, 0, 1, 2])


def test_a_retired_process_is_replaced_by_its_number_plus_the_number_of_clients() -> None:
    ctx = start().busy(5, 1).freed(9, 1).retired(1)
    assert ctx.processes == (NEMESIS, 0, 4, 2)
    assert ctx.time == 9
    assert ctx.thread_of(1) == ctx.thread_of(4) == 1


def test_a_process_cannot_be_retired_twice() -> None:
    with pytest.raises(AssertionError, match="retired before"):
        start().retired(1).retired(1)


def test_a_busy_process_cannot_begin_an_op() -> None:
    with pytest.raises(AssertionError, match="while it was busy"):
        start().busy(0, 1).busy(0, 1)


def test_a_free_process_cannot_end_an_op() -> None:
    with pytest.raises(AssertionError, match="while it was free"):
        start().freed(0, 1)


def test_there_is_no_free_process_when_all_clients_are_busy() -> None:
    assert start(1).busy(0, 0).free_process() is None


def test_the_nemesis_is_chosen_only_in_a_view_without_clients() -> None:
    assert {start(1).free_process() for _ in range(20)} == {0}
    assert start().only(NEMESIS_MASK).free_process() == NEMESIS


def test_free_processes_are_chosen_fairly() -> None:
    ctx = start(5).busy(0, 2)
    drawn = Counter(ctx.free_process() for _ in range(4000))
    assert set(drawn) == {0, 1, 3, 4}
    assert all(900 < count < 1100 for count in drawn.values())


def test_a_view_hides_the_other_threads() -> None:
    view = start(4).busy(0, 3).only(mask_of([1, 3]))
    assert view.threads == mask_of([1, 3])
    assert view.free == mask_of([1])


@given(threads=st.sets(st.integers(0, 40)), with_nemesis=st.booleans())
def test_masks_are_taken_apart_into_what_they_were_made_of(
    threads: set[int], with_nemesis: bool
) -> None:
    members: list[Thread] = [*([NEMESIS] if with_nemesis else []), *sorted(threads)]
    assert bits_of(mask_of(members)) == [mask_of([member]) for member in members]
    assert mask_of(members) & CLIENTS_MASK == mask_of(threads)


@given(clients=st.integers(1, 9), crashes=st.lists(st.integers(0, 8), max_size=30))
def test_process_numbers_are_never_used_twice(clients: int, crashes: list[int]) -> None:
    ctx = start(clients)
    used: list[int | str] = list(ctx.processes)
    for thread in crashes:
        bit = mask_of([thread % clients])
        process = ctx.process_of(bit)
        assert isinstance(process, int)
        ctx = ctx.retired(process)
        used.append(ctx.process_of(bit))
    assert len(used) == len(set(used))


def test_afresh_all_threads_are_free_under_new_numbers() -> None:
    ctx = start().retired(1).busy(7, 0).afresh()
    assert ctx.processes == (NEMESIS, 3, 7, 5)
    assert ctx.free == ctx.threads


def test_a_run_without_clients_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one client thread"):
        start(0)


def test_processes_that_belong_to_other_threads_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit 2 threads"):
        context(2, random.Random(0), processes=[1, 2])
