"""Changes of members that a cluster can stand, and the way in which a node is replaced.

A removal is legal if those who stay can agree with each other, and those who are there now can
agree on it: a majority of each must be whole, that is answer and know all that they ever promised.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from labrys.control.environments.base import on_nodes
from labrys.control.systems.base import System

CHANGE_TIMEOUT_S: Final = 1.5
"""Other faults wait for a change, and a cluster without a majority agrees on nothing: it is better
to give up and to leave it to the next undo."""


def removable(
    voters: Sequence[str], whole: Collection[str], wanted: Iterable[str], *, least: int = 1
) -> tuple[str, ...]:
    """Return as many of the first of `wanted` as can go while at least `least` voters stay."""
    chosen: list[str] = []
    if not _can_agree(voters, whole):
        return ()
    for node in wanted:
        rest = [voter for voter in voters if voter not in chosen and voter != node]
        if node not in voters or node in chosen or len(rest) < least:
            continue
        if _can_agree(rest, whole):
            chosen.append(node)
    return tuple(chosen)


def _can_agree(voters: Sequence[str], whole: Collection[str]) -> bool:
    return 2 * sum(voter in whole for voter in voters) > len(voters)


def whole_nodes(system: System, nodes: Iterable[str]) -> frozenset[str]:
    """Return which of the nodes take full part."""
    found = on_nodes(nodes, system.is_whole)
    return frozenset(node for node, is_whole in found.items() if is_whole)


def replace(system: System, node: str, timeout_s: float) -> None:
    """Remove a node that is of no use any more, and let a new one take its place and name.

    Each step may have been done before. Its data goes only when it is no member any more: what it
    ever promised counts for nothing from then on. Raises ClusterError when a step is not done in
    `timeout_s`; then another attempt goes on from there.
    """
    system.kill(node)
    system.change_members(timeout_s, remove=(node,))
    system.make_newcomer(node)
    admit(system, node, timeout_s)


def admit(system: System, node: str, timeout_s: float) -> None:
    """Start a node that is no member, and make it one: first a learner, then it votes."""
    system.start(node)
    system.change_members(timeout_s, add=(node,))
