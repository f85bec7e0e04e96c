"""What kills and pauses have in common: a signal to the database process of some nodes.

The evidence is the state of the process before and after. A fault bites where the state changed:
killing what was dead already is no error, and no evidence either.
"""

import random
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from labrys.control.environments.base import Environment
from labrys.control.errors import ClusterError, UsageError
from labrys.control.names import known
from labrys.control.nemesis import targets
from labrys.control.nemesis.package import (
    FaultPackage,
    Options,
    Outcome,
    Planned,
    deal,
    each,
)
from labrys.control.process import State
from labrys.control.systems.base import System

SETTLE_TIMEOUT_S: Final = 2.0
"""How long a signal may take to show. A process in the middle of an fsync reacts after it."""
_POLL_S: Final = 0.01

GROUPS: Final = (("leader",), ("one",), ("minority",), ("majority", "all", "subset"))
"""Each group has its turn once per round. Without a majority nothing can succeed, and a history of
failures shows little: hence one turn in four."""


class ProcessOptions(Options, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of `faults: {kill: ...}` and `faults: {pause: ...}`."""

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


class ProcessFault(FaultPackage):
    """Hurts the database process of some nodes, and cures that of all."""

    options_type = ProcessOptions
    choices = "targets"

    hurt_state: ClassVar[State]
    """What the process of a hurt node is doing."""
    hurt_word: ClassVar[str]

    def __init__(self, env: Environment, system: System, options: ProcessOptions) -> None:
        super().__init__(env, system, options)
        options.check(env.nodes)
        named = [(target,) for target in options.targets if not isinstance(target, str)]
        by_name = [
            [name for name in group if name in options.targets and self._is_possible(name)]
            for group in GROUPS
        ]
        self._groups: list[Sequence[str | tuple[str, ...]]] = [*filter(None, by_name), *named]
        if not self._groups:
            raise UsageError(f"{self.kind}: of {len(env.nodes)} node(s) none is a minority")

    @abstractmethod
    def hurt(self, node: str) -> None:
        """Do it to one node."""

    @abstractmethod
    def cure(self, node: str) -> None:
        """Undo it on one node; nothing to undo is fine."""

    def plan(self, turn: int, seed: str) -> dict[str, Any]:
        """Return whom to hurt, as `targets.choose` does."""
        target = deal(self._groups, turn, seed)
        return targets.choose(target, self.env.nodes, random.Random(f"{seed}/{turn}"))

    def settle(self, plan: Mapping[str, Any]) -> Planned:
        """Find the leader if the plan is about it."""
        settled = targets.settle(plan, self.leaders() if targets.needs_leader(plan) else ())
        return Planned(targets=tuple(settled["nodes"]), plan=settled)

    def apply(self, planned: Planned) -> Outcome:
        """Hurt the targets, in parallel."""

        def hurt(node: str) -> tuple[State, State]:
            before = self.system.state(node)
            self.hurt(node)
            return before, self._settled(node, before)

        found, errors = each(planned.targets, hurt)
        bitten = {
            node: before is not self.hurt_state and after is self.hurt_state
            for node, (before, after) in found.items()
        }
        return Outcome(
            done={
                node: self.hurt_word if bitten[node] else f"is {after}, was {before}"
                for node, (before, after) in found.items()
            },
            observed={
                node: {"before": before, "after": after} for node, (before, after) in found.items()
            },
            bit=any(bitten.values()),
            errors=errors,
        )

    def undo(self) -> Outcome:
        """Cure all nodes, in parallel, and look whether it helped."""

        def cure(node: str) -> str:
            before = self.system.state(node)
            self.cure(node)
            after = self.system.state(node)
            if before is self.hurt_state:
                after = self._left(node)
            return f"is {after}, was {before}" if before is not after else f"is {after}"

        done, errors = each(self.env.nodes, cure)
        return Outcome(done=done, errors=errors)

    def _is_possible(self, target: str) -> bool:
        return target != "minority" or len(self.env.nodes) > 2

    def _settled(self, node: str, before: State) -> State:
        """Return the state once the signal shows, or the last one seen."""
        state = self.system.state(node)
        if before is State.DEAD:
            return state  # no signal reached anybody
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while state is not self.hurt_state and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            state = self.system.state(node)
        return state

    def _left(self, node: str) -> State:
        """Return the state once it is no longer the hurt one; raises ClusterError if it stays."""
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while (state := self.system.state(node)) is self.hurt_state:
            if time.monotonic() >= deadline:
                raise ClusterError(f"{node}: the process is still {state} after it was undone")
            time.sleep(_POLL_S)
        return state
