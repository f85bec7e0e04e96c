"""Changes of members, by the system's own API and by legal steps only.

    remove     some nodes are removed, all in one change
    shrink     nodes are removed one after the other, until the fewest are left that can agree when
               one of them fails
    replace    a node dies, is removed, and loses all its data; later a new one takes its name
    leader     whoever leads is removed, and whoever leads then, and so on

The undo makes every node a member again; after steps it does so step by step, so the cluster grows
as it shrank. Processes of removed nodes go on, unless they died: what a removed server says and
hears must do the others no harm. The evidence is the configuration that the cluster itself reports.

Whom to think of is drawn from the seed alone. Who goes in the end depends on the members of the
moment: never so many that those who stay, as far as they are alive, could not agree any more.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from labrys.control.environments.base import Environment
from labrys.control.errors import ClusterError, UsageError
from labrys.control.names import known
from labrys.control.nemesis import targets
from labrys.control.nemesis.grudge import majority
from labrys.control.nemesis.members import CHANGE_TIMEOUT_S, removable, whole_nodes
from labrys.control.nemesis.package import FaultPackage, Options, Outcome, Planned, deal, each
from labrys.control.process import State
from labrys.control.systems.base import System

REMOVE: Final = "remove"
SHRINK: Final = "shrink"
REPLACE: Final = "replace"
LEADER: Final = "leader"
MODES: Final = (REMOVE, SHRINK, REPLACE, LEADER)
TARGETS: Final = ("one", "leader", "minority")
"""Whom to remove; with a majority gone the rest would be another cluster."""

HEAL_TIMEOUT_S: Final = 10.0
"""At the end it has to succeed: a leader must be elected and members must catch up first."""
TIMES_MAX: Final = 10
_SETTLE_TIMEOUT_S: Final = 0.5
_POLL_S: Final = 0.05


class MembershipOptions(Options, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of `faults: {membership: ...}`."""

    modes: tuple[str, ...] = MODES
    """How members change; each has its turn."""
    targets: tuple[str, ...] = TARGETS
    """Of `remove`."""
    times: int = 2
    """How many leaders `leader` removes, one after the other; fewer where too few members stay."""

    def check(self, nodes: Sequence[str] | None) -> None:
        """Raise UsageError for what does not exist, and where nobody can be spared."""
        super().check(nodes)
        for name, given, names in (
            ("modes", self.modes, MODES),
            ("targets", self.targets, TARGETS),
        ):
            if not given:
                raise UsageError(f"{name}: name at least one of {', '.join(names)}")
            for word in given:
                known(name[:-1], word, names)
        if not 1 <= self.times <= TIMES_MAX:
            raise UsageError(f"times: a number from 1 to {TIMES_MAX}, not {self.times}")
        if nodes is not None and len(nodes) < 3:
            raise UsageError(f"of {len(nodes)} node(s) none can be removed; use 3 nodes or more")


class Membership(FaultPackage):
    """Removes members and adds them again."""

    kind = "membership"
    start_f = "remove"
    stop_f = "add"
    undo_order = 4
    """Last: without a network or processes there is nobody to agree on it."""
    strike_order = 1
    shade = "#8fc7b5"
    mechanism = "the system removes members"
    evidence = "the members afterwards"
    cure_word = "making all nodes members"
    options_type = MembershipOptions
    choices = "modes"

    def __init__(self, env: Environment, system: System, options: MembershipOptions) -> None:
        super().__init__(env, system, options)
        self._options = options
        self._least = majority(len(env.nodes))
        """The fewest members that steps lead to."""
        self._grows_by_steps = False

    def plan(self, turn: int, seed: str) -> dict[str, Any]:
        """Return the mode, and whom to think of."""
        mode = deal([(each,) for each in self._options.modes], turn, seed)
        rng = random.Random(f"{seed}/{turn}")
        nodes = self.env.nodes
        match mode:
            case "shrink":
                return {"mode": mode, "order": rng.sample(nodes, len(nodes))}
            case "leader":
                return {"mode": mode, "times": self._options.times}
            case "replace":
                target = rng.choice(("one", "leader"))
            case _:
                target = deal([(each,) for each in self._options.targets], turn, f"{seed}/whom")
        return {"mode": mode, **targets.choose(target, nodes, rng)}

    def settle(self, plan: Mapping[str, Any]) -> Planned:
        """Find out whom the members of the moment can spare."""
        mode = plan.get("mode", REMOVE)
        settled = dict(plan)
        if targets.needs_leader(plan):
            settled = targets.settle(plan, self.leaders())
        wanted: Sequence[str] = settled["order"] if mode == SHRINK else settled.get("nodes", ())
        if mode == LEADER:
            wanted = self.leaders()[:1]
        members = self._members()
        whole = whole_nodes(self.system, self.env.nodes)
        if mode == REPLACE:
            whole -= {*wanted}  # it dies before it is removed
        least = self._least if mode == SHRINK else 1
        chosen = removable(members, whole, wanted, least=least)
        settled |= {"members": list(members), "nodes": list(chosen)}
        if mode == REPLACE:
            settled["forgets"] = True
        return Planned(chosen, settled)

    def _members(self) -> tuple[str, ...]:
        """Return who votes; nobody if no leader can say so soon."""
        deadline = self.system.monotonic_s() + _SETTLE_TIMEOUT_S
        while (members := self.system.members()) is None and self.system.monotonic_s() < deadline:
            self.system.sleep(_POLL_S)
        return members or ()

    # ---- hurting ------------------------------------------------------------------------------

    def apply(self, planned: Planned) -> Outcome:
        """Remove the targets.

        A cluster that is being hurt otherwise may refuse: then nothing bit, and nothing is wrong.
        """
        if not planned.targets:
            return Outcome(done={"cluster": "nobody can be removed now"}, bit=False)
        match planned.plan.get("mode", REMOVE):
            case "shrink":
                return self._remove_by_steps(planned.targets)
            case "leader":
                return self._remove_leaders(planned.plan["times"])
            case "replace":
                return self._lose(planned.targets)
            case _:
                return self._remove(planned.targets)

    def _remove(self, nodes: Sequence[str]) -> Outcome:
        try:
            members = self.system.change_members(CHANGE_TIMEOUT_S, remove=nodes)
        except ClusterError as error:
            found = self.system.members()
            return Outcome(
                done=dict.fromkeys(nodes, f"not removed: {error}"),
                observed={"members": found},
                bit=found is not None and not {*nodes} & {*found},
            )
        return Outcome(
            done=dict.fromkeys(nodes, "removed"),
            observed={"members": members},
            bit=not {*nodes} & {*members},
        )

    def _remove_by_steps(self, nodes: Iterable[str]) -> Outcome:
        """Remove one after the other, until the cluster refuses."""
        self._grows_by_steps = True
        done: dict[str, str] = {}
        steps: list[tuple[str, ...]] = []
        for node in nodes:
            outcome = self._remove((node,))
            done |= outcome.done
            if not outcome.bit:
                break
            steps.append(outcome.observed["members"])
        return Outcome(done=done, observed={"steps": steps}, bit=bool(steps))

    def _remove_leaders(self, times: int) -> Outcome:
        """Remove whoever leads, so many times."""
        self._grows_by_steps = True
        done: dict[str, str] = {}
        steps: list[tuple[str, ...]] = []
        for _ in range(times):
            members = self._members()
            whole = whole_nodes(self.system, self.env.nodes)
            going = removable(members, whole, self.leaders()[:1])
            if not going or len(members) <= self._least:
                done["cluster"] = "no more leaders can be removed now"
                break
            outcome = self._remove(going)
            done |= outcome.done
            if not outcome.bit:
                break
            steps.append(outcome.observed["members"])
        return Outcome(done=done, observed={"steps": steps}, bit=bool(steps))

    def _lose(self, nodes: Sequence[str]) -> Outcome:
        """Let nodes die, remove them, and only then take their data: nobody counts on it then."""
        killed, errors = each(nodes, self.system.kill)
        outcome = self._remove(tuple(killed))
        if not outcome.bit:
            _, start_errors = each(killed, self.system.start)
            return Outcome(outcome.done, outcome.observed, False, errors | start_errors)
        emptied, more = each(killed, self.system.make_newcomer)
        return Outcome(
            done=dict.fromkeys(emptied, "died, removed, and lost its data"),
            observed=outcome.observed,
            bit=True,
            errors=errors | more,
        )

    # ---- undoing ------------------------------------------------------------------------------

    def undo(self) -> Outcome:
        """Make every node a member again, if the cluster can agree on it now."""
        return self._add_all(CHANGE_TIMEOUT_S)

    def undo_for_good(self) -> Outcome:
        """Make every node a member again."""
        return self._add_all(HEAL_TIMEOUT_S)

    def _add_all(self, timeout_s: float) -> Outcome:
        members = self.system.members()
        missing = [] if members is None else [n for n in self.env.nodes if n not in members]
        # Who died as a member was started by nobody else, if it was started at all.
        _, errors = each(missing, self.system.start)
        states, state_errors = each(self.env.nodes, self.system.state)
        coming = [node for node, state in states.items() if state is not State.DEAD]
        errors |= state_errors
        errors |= {
            node: "is dead, and cannot become a member"
            for node in missing
            if states.get(node) is State.DEAD
        }
        steps = [[node] for node in coming if node in missing] if self._grows_by_steps else []
        try:
            for step in [*steps, coming]:
                members = self.system.change_members(timeout_s, add=step)
        except ClusterError as error:
            return Outcome(errors=errors | {"cluster": str(error)})
        self._grows_by_steps = False
        return Outcome(done=dict.fromkeys(members or (), "is a member"), errors=errors)

    def set_up(self) -> None:
        """Nothing to prepare: every node begins as a member."""

    def tear_down(self) -> None:
        """Nothing to put in order: who is a member ends with the cluster."""
