"""Partitions as data: a grudge says, for each node, whose packets it drops.

Packets are dropped where they arrive. A link is cut in both directions only if both of its ends
hold a grudge; one end alone makes a one-way cut. (Over TCP even that stalls the connection, since
either the data or the acknowledgements are lost; but what arrives before it stalls is different,
and so is what a node believes about its peers.)

Everything here is pure: no cluster, no clock, and randomness only from the argument.
"""

import random
from collections.abc import Collection, Iterable, Mapping, Sequence

Grudge = Mapping[str, frozenset[str]]
"""For each node, the nodes whose packets it drops. A node without grudges may be absent."""


def majority(count: int) -> int:
    """Return the least number of nodes that is more than half of `count`."""
    return count // 2 + 1


def complete(components: Iterable[Collection[str]]) -> Grudge:
    """Cut every link between different components, in both directions."""
    groups = [frozenset(component) for component in components]
    everybody = frozenset[str]().union(*groups)
    assert len(everybody) == sum(map(len, groups)), f"components overlap: {groups}"
    return _tidy({node: everybody - group for group in groups for node in group})


def invert(nodes: Collection[str], grudge: Grudge) -> Grudge:
    """Return the grudge that drops just what `grudge` lets through, a node's own packets aside."""
    everybody = frozenset(nodes)
    return _tidy({node: everybody - {node} - _drops(grudge, node) for node in nodes})


def union(*grudges: Grudge) -> Grudge:
    """Return the grudge that drops what any of `grudges` drops."""
    nodes = {node for grudge in grudges for node in grudge}
    return _tidy(
        {node: frozenset[str]().union(*(_drops(g, node) for g in grudges)) for node in nodes}
    )


def halves(nodes: Sequence[str]) -> Grudge:
    """Cut the nodes, in their order, into two halves; of an odd number the first is smaller."""
    middle = len(nodes) // 2
    return complete([nodes[:middle], nodes[middle:]])


def random_halves(nodes: Sequence[str], rng: random.Random) -> Grudge:
    """Cut the nodes into two halves at random."""
    return halves(_shuffled(nodes, rng))


def minority(nodes: Sequence[str], rng: random.Random) -> Grudge:
    """Cut a minority of random size, at least one, off the rest."""
    size = rng.randint(1, max(1, len(nodes) - majority(len(nodes))))
    shuffled = _shuffled(nodes, rng)
    return complete([shuffled[:size], shuffled[size:]])


def isolate(nodes: Sequence[str], alone: str) -> Grudge:
    """Cut one node off all others."""
    return complete([[alone], [node for node in nodes if node != alone]])


def isolate_one(nodes: Sequence[str], rng: random.Random) -> Grudge:
    """Cut one node, chosen at random, off all others."""
    return isolate(nodes, rng.choice(nodes))


def bridge(nodes: Sequence[str], rng: random.Random) -> Grudge:
    """Cut the nodes into two groups that do not hear each other, and one node that hears both.

    With five nodes both groups see a majority, and the two majorities meet in the bridge alone.
    """
    if len(nodes) < 3:
        return {}
    shuffled = _shuffled(nodes, rng)
    middle = len(shuffled) // 2
    return complete([shuffled[:middle], shuffled[middle + 1 :]])


def majorities_ring(nodes: Sequence[str], rng: random.Random) -> Grudge:
    """Let every node see a majority, but no two nodes the same one.

    The nodes stand in a ring in random order and each hears its next neighbours on either side. If
    a majority takes an odd number of others, opposite nodes are joined too; of an odd number of
    nodes one then has a link more than needed, because an odd number of ends makes no whole links.
    All links are whole: Jepsen's ring of three cuts each of its links in one direction, and over
    TCP that isolates everybody. Below three nodes nothing can be cut.
    """
    ring = _shuffled(nodes, rng)
    count = len(ring)
    others = majority(count) - 1
    links = {(i, (i + step) % count) for i in range(count) for step in range(1, others // 2 + 1)}
    if others % 2 == 1:
        links |= {(i, (i + count // 2) % count) for i in range((count + 1) // 2)}
    heard = {node: {node} for node in ring}
    for one, other in links:
        heard[ring[one]].add(ring[other])
        heard[ring[other]].add(ring[one])
    return _tidy({node: frozenset(set(ring) - heard[node]) for node in ring})


def deaf(nodes: Sequence[str], node: str) -> Grudge:
    """Let `node` hear nobody while everybody hears it."""
    return _tidy({node: frozenset(nodes) - {node}})


def mute(nodes: Sequence[str], node: str) -> Grudge:
    """Let nobody hear `node` while it hears everybody."""
    return {other: frozenset([node]) for other in nodes if other != node}


def only_at(grudge: Grudge, side: Collection[str]) -> Grudge:
    """Keep only what the nodes of `side` drop: makes one-way cuts of whole ones."""
    return _tidy({node: drops for node, drops in grudge.items() if node in side})


def one_way(nodes: Sequence[str], rng: random.Random) -> Grudge:
    """Cut a random minority off in one direction: it does not hear the others, or they not it."""
    size = rng.randint(1, max(1, len(nodes) - majority(len(nodes))))
    shuffled = _shuffled(nodes, rng)
    few, rest = shuffled[:size], shuffled[size:]
    return only_at(complete([few, rest]), rng.choice([few, rest]))


def cut_off(nodes: Sequence[str], grudge: Grudge) -> tuple[str, ...]:
    """Return the nodes that `grudge` hurts most, in order.

    These are the nodes that can no longer talk with a majority (both ways, themselves included);
    if all still can, as in a ring or over a bridge, those that drop anything.
    """

    def hears_and_is_heard(node: str, other: str) -> bool:
        return other not in _drops(grudge, node) and node not in _drops(grudge, other)

    reach = {n: sum(hears_and_is_heard(n, other) for other in nodes) for n in nodes}
    alone = tuple(node for node in nodes if reach[node] < majority(len(nodes)))
    return alone or tuple(node for node in nodes if _drops(grudge, node))


def to_json(grudge: Grudge) -> dict[str, list[str]]:
    """Return the grudge as a JSON value: sorted, without empty entries."""
    return {node: sorted(grudge[node]) for node in sorted(grudge) if grudge[node]}


def from_json(value: Mapping[str, Iterable[str]]) -> Grudge:
    """Return the grudge that `to_json` wrote."""
    return {node: frozenset(drops) for node, drops in value.items()}


def _drops(grudge: Grudge, node: str) -> frozenset[str]:
    return grudge.get(node, frozenset())


def _tidy(grudge: Grudge) -> Grudge:
    for node, drops in grudge.items():
        assert node not in drops, f"{node} would drop its own packets"
    return {node: drops for node, drops in grudge.items() if drops}


def _shuffled(nodes: Sequence[str], rng: random.Random) -> list[str]:
    shuffled = list(nodes)
    rng.shuffle(shuffled)
    return shuffled
