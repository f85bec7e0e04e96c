"""Independent keys: groups of threads, one key after the other."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrys.checkers.op import Op, OpType
from labrys.workloads import generator as gen
from labrys.workloads.context import Context
from labrys.workloads.generator import PENDING, Generator, Source, Step, template
from labrys.workloads.keys import default_threads_per_key, divide_threads, independent_keys
from labrys.workloads.simulate import simulate


def reads(key: str) -> Source:
    return gen.repeat(template("read"))


def run(
    count: int, *, clients: int, threads_per_key: int, ops_per_key: int, seed: int = 0
) -> list[Op]:
    source = independent_keys(reads, threads_per_key=threads_per_key, ops_per_key=ops_per_key)
    history = simulate(gen.clients(gen.limit(count, source)), clients=clients, seed=seed)
    return [op for op in history if op.type is OpType.INVOKE]


def test_each_group_of_threads_works_on_a_key_of_its_own() -> None:
    ops = run(40, clients=6, threads_per_key=3, ops_per_key=1000)
    by_key: dict[str | None, set[int | str]] = {}
    for op in ops:
        by_key.setdefault(op.key, set()).add(op.process)
    assert by_key == {"k0": {0, 1, 2}, "k1": {3, 4, 5}}


def test_keys_are_numbered_without_gaps_and_never_used_by_two_groups() -> None:
    ops = run(500, clients=4, threads_per_key=2, ops_per_key=10)
    keys = list(dict.fromkeys(op.key for op in ops))
    assert set(keys) == {f"k{number}" for number in range(len(keys))}
    for key in keys:
        groups = {int(op.process) // 2 for op in ops if op.key == key}
        assert len(groups) == 1


@given(ops_per_key=st.integers(1, 60), seed=st.integers(0, 50))
def test_each_key_gets_90_to_100_percent_of_its_ops(ops_per_key: int, seed: int) -> None:
    ops = run(300, clients=2, threads_per_key=1, ops_per_key=ops_per_key, seed=seed)
    count = Counter(op.key for op in ops)
    unfinished = {op.process: op.key for op in ops}.values()
    for key, used in count.items():
        if key not in unfinished:
            assert round(0.9 * ops_per_key) <= used <= ops_per_key


def test_groups_do_not_all_change_keys_at_the_same_moment() -> None:
    ops = run(4000, clients=10, threads_per_key=1, ops_per_key=100)
    lengths = Counter(Counter(op.key for op in ops).values())
    assert len(lengths) > 5


def test_no_group_starves_when_the_rate_is_limited() -> None:
    source = independent_keys(reads, threads_per_key=2, ops_per_key=10**6)
    history = simulate(gen.clients(gen.limit(1000, gen.delay(1, source))), clients=4)
    share = Counter(op.key for op in history if op.type is OpType.INVOKE)
    assert 400 < share["k0"] < 600


def test_keys_are_a_field_and_values_stay_what_they_are() -> None:
    source = independent_keys(lambda key: template("cas", [1, 2]), threads_per_key=1, ops_per_key=5)
    first = simulate(gen.limit(1, source), clients=1)[0]
    assert (first.key, first.value) == ("k0", [1, 2])
    assert msgspec.json.decode(msgspec.json.encode(first), type=Op) == first


def test_threads_that_do_not_divide_are_refused_with_advice() -> None:
    with pytest.raises(ValueError, match="use concurrency 8 or 12, or threads_per_key 1, 2, 5, 10"):
        divide_threads(10, 4)


def test_groups_larger_than_the_concurrency_are_refused_with_advice() -> None:
    with pytest.raises(ValueError, match="threads_per_key may be 1, 2, 4"):
        divide_threads(4, 5)


def test_threads_that_do_not_divide_are_refused_by_the_generator_too() -> None:
    with pytest.raises(ValueError, match="do not form groups of 3"):
        run(1, clients=4, threads_per_key=3, ops_per_key=5)


@pytest.mark.parametrize(("clients", "size"), [(10, 5), (4, 4), (12, 4), (7, 1), (6, 3), (1, 1)])
def test_the_default_group_size_always_fits(clients: int, size: int) -> None:
    assert default_threads_per_key(clients) == size
    assert divide_threads(clients, size) * size == clients


def test_keys_without_ops_are_an_error_and_not_an_endless_loop() -> None:
    source = independent_keys(lambda key: None, threads_per_key=1, ops_per_key=5)
    with pytest.raises(RuntimeError, match="keys in a row without an op"):
        simulate(source, clients=1)


class _EndsWithFirstEvent(Generator, frozen=True):
    """One op; then counts what it hears, and fails on events of another key."""

    key: str
    begun: bool = False

    def op(self, ctx: Context) -> Step | None:
        if self.begun:
            return None
        op = gen.assign(ctx, template("read"))
        return op, (self if op is PENDING else _EndsWithFirstEvent(self.key, True))

    def update(self, ctx: Context, event: Op) -> Generator:
        assert event.key == self.key, f"{self.key} heard of {event}"
        return self


def test_a_straggler_is_not_told_to_the_next_key() -> None:
    # Each key ends after one op, while that op is still in flight on another thread of the group.
    source = independent_keys(_EndsWithFirstEvent, threads_per_key=3, ops_per_key=5)
    history = simulate(gen.limit(60, source), clients=3)
    assert len({op.key for op in history}) == 60
