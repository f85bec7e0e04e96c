"""Which nodes a fault is for: one, a minority, a majority, all, the leader, ...

A choice is made in two steps. `choose` draws it when the fault is planned, from the random stream
alone, so a seed gives the same choices whatever the cluster does. Who leads is known only at the
moment of the act, so a choice of the leader stays open, with a substitute, until `settle` is told.
Both are pure, and both speak JSON values, which the history and the ledger keep:

    {"targets": "minority", "nodes": ["n2", "n5"]}
    {"targets": "leader", "fallback": "n3"}  ->  {..., "nodes": ["n1"]}
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

from labrys.control.nemesis.grudge import majority

LEADER: Final = "leader"
TARGETS: Final = ("one", "subset", "minority", "majority", "all", LEADER)
"""The names of choices. `minority` and `majority` are as large and as small as they can be;
`subset` is any nodes, at least one."""

Plan = Mapping[str, Any]


def choose(target: str | Sequence[str], nodes: Sequence[str], rng: random.Random) -> dict[str, Any]:
    """Return the plan for a target: a name of `TARGETS`, or the names of nodes."""
    if not isinstance(target, str):
        return {"targets": "named", "nodes": [node for node in nodes if node in target]}
    if target == LEADER:
        return {"targets": LEADER, "fallback": rng.choice(nodes)}
    counts = {
        "one": 1,
        "subset": rng.randint(1, len(nodes)),
        "minority": len(nodes) - majority(len(nodes)),
        "majority": majority(len(nodes)),
        "all": len(nodes),
    }
    chosen = rng.sample(nodes, counts[target])
    return {"targets": target, "nodes": [node for node in nodes if node in chosen]}


def needs_leader(plan: Plan) -> bool:
    """Whether the plan is open until somebody says who leads."""
    return "fallback" in plan and "nodes" not in plan


def settle(plan: Plan, leaders: Sequence[str]) -> dict[str, Any]:
    """Return the plan with its nodes: the first of `leaders` if that is what was left open.

    Without a leader the substitute takes its place, and a note says so.
    """
    if not needs_leader(plan):
        return dict(plan)
    if leaders:
        return {**plan, "nodes": [leaders[0]]}
    fallback = plan["fallback"]
    return {**plan, "nodes": [fallback], "note": f"no leader answered; {fallback} in its place"}
