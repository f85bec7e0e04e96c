"""Whom a fault is for: drawn from the random stream, the leader looked up at the last moment."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrys.control.nemesis.targets import TARGETS, choose, needs_leader, settle

FIVE = ("n1", "n2", "n3", "n4", "n5")

clusters = st.integers(3, 9).map(lambda count: tuple(f"n{i}" for i in range(1, count + 1)))
seeds = st.integers(0, 10**6)


@given(clusters, seeds, st.sampled_from(TARGETS))
def test_choice_is_of_existing_nodes_in_order_and_without_repeats(
    nodes: Sequence[str], seed: int, target: str
) -> None:
    chosen = settle(choose(target, nodes, random.Random(seed)), [])["nodes"]
    assert chosen
    assert chosen == sorted(set(chosen) & set(nodes))


@pytest.mark.parametrize(
    ("target", "count", "size"),
    [
        ("one", 5, 1),
        ("minority", 5, 2),
        ("majority", 5, 3),
        ("all", 5, 5),
        ("leader", 5, 1),
        ("minority", 4, 1),
        ("majority", 4, 3),
        ("minority", 3, 1),
        ("majority", 3, 2),
        ("majority", 2, 2),
        ("majority", 1, 1),
    ],
)
def test_sizes(target: str, count: int, size: int) -> None:
    nodes = [f"n{i}" for i in range(count)]
    assert len(settle(choose(target, nodes, random.Random(1)), [])["nodes"]) == size


def test_subset_takes_every_size() -> None:
    sizes = {len(choose("subset", FIVE, random.Random(seed))["nodes"]) for seed in range(100)}
    assert sizes == {1, 2, 3, 4, 5}


def test_one_takes_every_node() -> None:
    nodes = {choose("one", FIVE, random.Random(seed))["nodes"][0] for seed in range(100)}
    assert nodes == set(FIVE)


@given(clusters, seeds, st.sampled_from(TARGETS))
def test_same_stream_gives_the_same_choice(nodes: Sequence[str], seed: int, target: str) -> None:
    assert choose(target, nodes, random.Random(seed)) == choose(target, nodes, random.Random(seed))


def test_named_nodes_are_taken_as_they_are() -> None:
    plan = choose(["n4", "n2"], FIVE, random.Random(1))
    assert plan == {"targets": "named", "nodes": ["n2", "n4"]}
    assert not needs_leader(plan)


def test_leader_is_left_open_until_somebody_says_who_leads() -> None:
    plan = choose("leader", FIVE, random.Random(1))
    assert needs_leader(plan)
    settled = settle(plan, ["n5", "n1"])
    assert settled["nodes"] == ["n5"], "the newest of two who claim it"
    assert "note" not in settled
    assert not needs_leader(settled)


def test_without_a_leader_one_random_node_takes_its_place_and_the_plan_says_so() -> None:
    settled = settle(choose("leader", FIVE, random.Random(1)), [])
    assert len(settled["nodes"]) == 1
    assert settled["note"] == f"no leader answered; {settled['nodes'][0]} in its place"


def test_settled_plan_stays_as_it_is() -> None:
    settled = settle(choose("leader", FIVE, random.Random(1)), ["n5"])
    assert settle(settled, ["n1"]) == settled
