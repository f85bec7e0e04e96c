"""Faults that are aimed at nodes: one, a minority, the leader, ... by choice or by name."""

import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

from labrys.control.environments.base import Environment
from labrys.control.errors import UsageError
from labrys.control.names import known
from labrys.control.nemesis import targets
from labrys.control.nemesis.package import FaultPackage, Options, Planned, deal
from labrys.control.systems.base import System

GROUPS: Final = (("leader",), ("one",), ("minority",), ("majority", "all", "subset"))
"""Each group has its turn once per round. Without a majority nothing can succeed, and a history of
failures shows little: hence one turn in four."""


class AimedOptions(Options, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of faults that are aimed at nodes."""

    targets: tuple[str | tuple[str, ...], ...] = targets.TARGETS
    """Choices by name (one, minority, leader, ...), or lists of nodes: `[leader, [n1, n3]]`."""

    def check(self, nodes: Sequence[str] | None) -> None:
        """Raise UsageError for a target that does not exist."""
        super().check(nodes)
        if not self.targets:
            raise UsageError(f"targets: name at least one of {', '.join(targets.TARGETS)}")
        for target in self.targets:
            if isinstance(target, str):
                known("target", target, targets.TARGETS)
            elif not target:
                raise UsageError("targets: a list of nodes is empty")
            elif nodes is not None:
                for node in target:
                    known("node", node, nodes)


class TargetedFault(FaultPackage):
    """Chooses its nodes out of `_groups`; a subclass says which those are."""

    choices = "targets"
    _groups: Sequence[Sequence[str | tuple[str, ...]]]

    def plan(self, turn: int, seed: str) -> dict[str, Any]:
        """Return whom to hurt, as `targets.choose` does."""
        target = deal(self._groups, turn, seed)
        return targets.choose(target, self.env.nodes, random.Random(f"{seed}/{turn}"))

    def settle(self, plan: Mapping[str, Any]) -> Planned:
        """Find the leader if the plan is about it."""
        settled = targets.settle(plan, self.leaders() if targets.needs_leader(plan) else ())
        return Planned(targets=tuple(settled["nodes"]), plan=settled)


class AimedFault(TargetedFault):
    """Hurts any nodes; what is done to them is a subclass's."""

    options_type = AimedOptions

    def __init__(self, env: Environment, system: System, options: AimedOptions) -> None:
        super().__init__(env, system, options)
        named = [(target,) for target in options.targets if not isinstance(target, str)]
        by_name = [
            [name for name in group if name in options.targets and self._is_possible(name)]
            for group in GROUPS
        ]
        self._groups = [*filter(None, by_name), *named]
        if not self._groups:
            raise UsageError(f"{self.kind}: of {len(env.nodes)} node(s) none is a minority")

    def _is_possible(self, target: str) -> bool:
        return target != "minority" or len(self.env.nodes) > 2
