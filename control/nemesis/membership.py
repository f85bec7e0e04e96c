"""Changes of members: some nodes are removed from the cluster, and come back as members later.

Their processes go on: what a removed server says and hears must do the others no harm. The
evidence is the configuration that the cluster itself reports.
"""

from collections.abc import Sequence
from typing import Final

from labrys.control.environments.base import Environment
from labrys.control.errors import ClusterError, UsageError
from labrys.control.names import known
from labrys.control.nemesis.aimed import TargetedFault
from labrys.control.nemesis.package import Options, Outcome, Planned
from labrys.control.systems.base import System

TARGETS: Final = ("one", "leader", "minority")
"""Whom to remove; with a majority gone the rest would be another cluster."""

CHANGE_TIMEOUT_S: Final = 1.5
"""Other faults wait for this one, and a cluster without a majority agrees on nothing: it is better
to give up and to leave it to the next undo."""
HEAL_TIMEOUT_S: Final = 10.0
"""At the end it has to succeed: a leader must be elected and members must catch up first."""


class MembershipOptions(Options, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of `faults: {membership: ...}`."""

    targets: tuple[str, ...] = TARGETS

    def check(self, nodes: Sequence[str] | None) -> None:
        """Raise UsageError for a target that does not exist, and where nobody can be spared."""
        super().check(nodes)
        if not self.targets:
            raise UsageError(f"targets: name at least one of {', '.join(TARGETS)}")
        for target in self.targets:
            known("target", target, TARGETS)
        if nodes is not None and len(nodes) < 3:
            raise UsageError(f"of {len(nodes)} node(s) none can be removed; use 3 nodes or more")


class Membership(TargetedFault):
    """Removes members and adds them again."""

    kind = "membership"
    start_f = "remove"
    stop_f = "add"
    undo_order = 3
    """Last: without a network or processes there is nobody to agree on it."""
    strike_order = 1
    shade = "#8fc7b5"
    mechanism = "the system removes members"
    evidence = "the members afterwards"
    cure_word = "making all nodes members"
    options_type = MembershipOptions

    def __init__(self, env: Environment, system: System, options: MembershipOptions) -> None:
        super().__init__(env, system, options)
        self._groups = [(target,) for target in options.targets]

    def apply(self, planned: Planned) -> Outcome:
        """Remove the targets, all in one change.

        A cluster that is being hurt otherwise may refuse: then nothing bit, and nothing is wrong.
        """
        try:
            members = self.system.change_members(CHANGE_TIMEOUT_S, remove=planned.targets)
        except ClusterError as error:
            found = self.system.members()
            return Outcome(
                done=dict.fromkeys(planned.targets, f"not removed: {error}"),
                observed={"members": found},
                bit=found is not None and not {*planned.targets} & {*found},
            )
        return Outcome(
            done=dict.fromkeys(planned.targets, "removed"),
            observed={"members": members},
            bit=not {*planned.targets} & {*members},
        )

    def undo(self) -> Outcome:
        """Make every node a member again, if the cluster can agree on it now."""
        return self._add_all(CHANGE_TIMEOUT_S)

    def undo_for_good(self) -> Outcome:
        """Make every node a member again."""
        return self._add_all(HEAL_TIMEOUT_S)

    def _add_all(self, timeout_s: float) -> Outcome:
        try:
            members = self.system.change_members(timeout_s, add=self.env.nodes)
        except ClusterError as error:
            return Outcome(errors={"cluster": str(error)})
        return Outcome(done=dict.fromkeys(members, "is a member"))

    def set_up(self) -> None:
        """Nothing to prepare: every node begins as a member."""

    def tear_down(self) -> None:
        """Nothing to put in order: who is a member ends with the cluster."""
