"""Partition maths, tested as data."""

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrys.control.nemesis import grudge as g
from labrys.control.nemesis.grudge import Grudge
from labrys.control.nemesis.partition import LEADER_SHAPES, RANDOM_SHAPES

FIVE = ("n1", "n2", "n3", "n4", "n5")

Shape = Callable[[Sequence[str], random.Random], Grudge]
WHOLE_SHAPES = ("halves", "random-halves", "minority", "isolate-one", "majorities-ring", "bridge")

clusters = st.integers(2, 15).map(lambda count: tuple(f"n{i}" for i in range(1, count + 1)))
rngs = st.integers(0, 10**6).map(random.Random)
shapes = st.sampled_from(sorted(RANDOM_SHAPES)).map(RANDOM_SHAPES.__getitem__)


def drops(grudge: Grudge, at: str, source: str) -> bool:
    return source in grudge.get(at, frozenset())


def view(nodes: Sequence[str], grudge: Grudge, node: str) -> frozenset[str]:
    return frozenset(n for n in nodes if not drops(grudge, node, n))


@given(clusters, rngs, shapes)
def test_nobody_drops_its_own_packets_or_those_of_strangers(
    nodes: Sequence[str], rng: random.Random, shape: Shape
) -> None:
    for node, dropped in shape(nodes, rng).items():
        assert node in nodes
        assert node not in dropped
        assert dropped <= frozenset(nodes)
        assert dropped, "no empty entries"


@given(clusters, rngs, st.sampled_from(WHOLE_SHAPES))
def test_whole_cuts_are_symmetric(nodes: Sequence[str], rng: random.Random, name: str) -> None:
    grudge = RANDOM_SHAPES[name](nodes, rng)
    for one in nodes:
        for other in nodes:
            assert drops(grudge, one, other) == drops(grudge, other, one)


@given(clusters, rngs)
def test_one_way_cuts_no_link_in_both_directions(nodes: Sequence[str], rng: random.Random) -> None:
    grudge = g.one_way(nodes, rng)
    cut = [(a, b) for a in nodes for b in nodes if drops(grudge, a, b)]
    assert cut
    assert not [pair for pair in cut if pair[::-1] in cut]


@given(st.integers(3, 15), st.integers(0, 10**6), shapes)
def test_every_shape_cuts_something_in_clusters_of_three_and_more(
    count: int, seed: int, shape: Shape
) -> None:
    assert shape([f"n{i}" for i in range(count)], random.Random(seed))


@given(clusters, rngs)
def test_halves_differ_by_at_most_one(nodes: Sequence[str], rng: random.Random) -> None:
    for grudge in (g.halves(nodes), g.random_halves(nodes, rng)):
        views = {view(nodes, grudge, node) for node in nodes}
        assert (
            sorted(map(len, views))
            == sorted([len(nodes) // 2, len(nodes) - len(nodes) // 2])[-len(views) :]
        )
        assert frozenset().union(*views) == frozenset(nodes)


def test_halves_of_five_are_two_against_three() -> None:
    assert g.to_json(g.halves(FIVE)) == {
        "n1": ["n3", "n4", "n5"],
        "n2": ["n3", "n4", "n5"],
        "n3": ["n1", "n2"],
        "n4": ["n1", "n2"],
        "n5": ["n1", "n2"],
    }


@given(clusters, rngs)
def test_minority_leaves_a_majority_alone(nodes: Sequence[str], rng: random.Random) -> None:
    grudge = g.minority(nodes, rng)
    sizes = sorted({len(view(nodes, grudge, node)) for node in nodes})
    assert sizes[-1] >= g.majority(len(nodes)) or len(nodes) == 2
    assert sizes[0] < g.majority(len(nodes))


@given(clusters, rngs)
def test_isolated_node_hears_and_is_heard_by_nobody(
    nodes: Sequence[str], rng: random.Random
) -> None:
    alone = rng.choice(nodes)
    grudge = g.isolate(nodes, alone)
    assert view(nodes, grudge, alone) == {alone}
    for other in nodes:
        if other != alone:
            assert view(nodes, grudge, other) == frozenset(nodes) - {alone}


@given(st.integers(3, 15), st.integers(0, 10**6))
def test_ring_gives_every_node_a_majority_of_its_own(count: int, seed: int) -> None:
    nodes = [f"n{i}" for i in range(count)]
    grudge = g.majorities_ring(nodes, random.Random(seed))
    views = [view(nodes, grudge, node) for node in nodes]
    sizes = sorted(map(len, views))
    assert len(set(views)) == count, "no two see the same"
    least = g.majority(count)
    # Exact, but for the one node that takes the loose end where no exact ring of links exists.
    is_exact_possible = count * (least - 1) % 2 == 0
    assert sizes == [least] * (count - 1) + [least if is_exact_possible else least + 1]


def test_ring_of_five_hears_the_next_neighbours() -> None:
    class Unshuffled(random.Random):
        def shuffle(self, x: object) -> None: ...

    assert g.to_json(g.majorities_ring(FIVE, Unshuffled())) == {
        "n1": ["n3", "n4"],
        "n2": ["n4", "n5"],
        "n3": ["n1", "n5"],
        "n4": ["n1", "n2"],
        "n5": ["n2", "n3"],
    }


@given(st.integers(3, 15), st.integers(0, 10**6))
def test_bridge_hears_all_and_joins_two_groups_that_do_not(count: int, seed: int) -> None:
    nodes = [f"n{i}" for i in range(count)]
    grudge = g.bridge(nodes, random.Random(seed))
    bridges = [node for node in nodes if view(nodes, grudge, node) == frozenset(nodes)]
    assert len(bridges) == 1
    groups = {view(nodes, grudge, node) for node in nodes if node not in bridges}
    assert len(groups) == 2
    assert frozenset.intersection(*groups) == frozenset(bridges)


@pytest.mark.parametrize("leader", FIVE)
def test_shapes_around_a_leader_cut_the_leader_only(leader: str) -> None:
    others = frozenset(FIVE) - {leader}
    deaf, mute = LEADER_SHAPES["leader-deaf"], LEADER_SHAPES["leader-mute"]
    assert deaf(FIVE, leader) == {leader: others}
    assert mute(FIVE, leader) == dict.fromkeys(others, frozenset([leader]))
    whole = LEADER_SHAPES["isolate-leader"](FIVE, leader)
    assert whole == g.union(deaf(FIVE, leader), mute(FIVE, leader))


@given(clusters, rngs, shapes)
def test_inverting_twice_changes_nothing(
    nodes: Sequence[str], rng: random.Random, shape: Shape
) -> None:
    grudge = shape(nodes, rng)
    inverse = g.invert(nodes, grudge)
    assert g.invert(nodes, inverse) == grudge
    assert g.union(grudge, inverse) == g.invert(nodes, {})


@given(clusters, rngs, shapes, shapes)
def test_union_drops_what_either_drops(
    nodes: Sequence[str], rng: random.Random, one: Shape, other: Shape
) -> None:
    a, b = one(nodes, rng), other(nodes, rng)
    both = g.union(a, b)
    assert both == g.union(b, a)
    assert g.union(a) == a == g.union(a, a)
    for at in nodes:
        for source in nodes:
            assert drops(both, at, source) == (drops(a, at, source) or drops(b, at, source))


@given(clusters, rngs, shapes)
def test_both_one_way_sides_together_are_the_whole_cut(
    nodes: Sequence[str], rng: random.Random, shape: Shape
) -> None:
    grudge = shape(nodes, rng)
    side = rng.sample(nodes, rng.randint(0, len(nodes)))
    rest = frozenset(nodes) - frozenset(side)
    assert g.union(g.only_at(grudge, side), g.only_at(grudge, rest)) == grudge


@given(clusters, rngs, shapes)
def test_grudge_survives_json(nodes: Sequence[str], rng: random.Random, shape: Shape) -> None:
    grudge = shape(nodes, rng)
    assert g.from_json(g.to_json(grudge)) == grudge


def test_overlapping_components_are_refused() -> None:
    with pytest.raises(AssertionError, match="overlap"):
        g.complete([["n1", "n2"], ["n2", "n3"]])


@pytest.mark.parametrize(
    ("grudge", "expected"),
    [
        (g.isolate(FIVE, "n4"), ("n4",)),
        (g.halves(FIVE), ("n1", "n2")),
        (g.deaf(FIVE, "n2"), ("n2",)),
        (g.mute(FIVE, "n2"), ("n2",)),
        (g.complete([["n1"], ["n2"], ["n3"], ["n4", "n5"]]), FIVE),
        # Nobody lost the majority: those that drop something.
        (g.complete([["n1", "n2"], ["n4", "n5"]]), ("n1", "n2", "n4", "n5")),
        ({"n3": frozenset(["n1"])}, ("n3",)),
        ({}, ()),
    ],
)
def test_cut_off_names_those_who_lost_the_majority(
    grudge: Grudge, expected: tuple[str, ...]
) -> None:
    assert g.cut_off(FIVE, grudge) == expected
