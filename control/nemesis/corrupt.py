"""Damage to what nodes have on disk: flipped bits, lost ends, and all data lost.

The process is killed, its files are damaged, and it is started on what is left. What a correct
cluster must stand is bounded, and all of this stays within the bounds:

- Never more nodes than may lose their data at once. Whoever was hurt counts until it knows again
  all that it ever promised, and it is marked by a file in its home until then.
- A flipped bit in the middle of a file can be noticed for certain. The node is started on it and
  should refuse; one that takes it is left alone, for it claims to be right.
- A log that lost its end at the border of two records cannot be told from one to which less was
  written. A node that acknowledged what is gone, and votes all the same, may elect a leader without
  it, and no correct node can help that. So it is removed from the members first, while it is dead,
  and its word counts for nothing when it starts on the rest, once all others know of the removal.
- A node without any data is started as the system prescribes for a member that lost it.

The undo replaces who refuses to start: removed, emptied, and added as a new node. `beyond` gives
up all these bounds, and then a cluster that loses data may be a correct one.
"""

import random
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from labrys.control.environments.base import Environment, check, on_nodes
from labrys.control.errors import ClusterError, UsageError
from labrys.control.names import known
from labrys.control.nemesis.aimed import AimedFault, AimedOptions
from labrys.control.nemesis.damage import (
    FLIP,
    MIDDLE,
    TRUNCATE,
    damage,
    draw_cut,
    draw_flips,
)
from labrys.control.nemesis.members import (
    CHANGE_TIMEOUT_S,
    admit,
    removable,
    replace,
    whole_nodes,
)
from labrys.control.nemesis.package import Outcome, Planned, deal, each
from labrys.control.process import State
from labrys.control.systems.base import System

LOSE: Final = "lose-data"
DAMAGES: Final = (FLIP, TRUNCATE, LOSE)
FILES: Final[Mapping[str, int]] = {"log": 3, "snapshot": 1, "meta": 1}
"""Kinds of files and how often each is drawn, where all are wanted."""
TARGETS: Final = ("one", "leader", "minority")
SERVES: Final = "serves"
REFUSES: Final = "refuses to start"
MARK: Final = "damaged"
"""The file in a node's home that says: what this node knows may be less than what it promised."""

START_TIMEOUT_S: Final = 15.0
"""How long a node may take to read its data and either serve or refuse."""
HEAL_TIMEOUT_S: Final = 60.0
"""At the end everybody must come back: leaders are elected, and logs copied, before that."""
MEND_TIMEOUT_S: Final = 3.0
"""How long the change of members of one replacement may take while other faults wait."""
CHANGE_HEAL_TIMEOUT_S: Final = 5.0
"""How long it may take at the end, before the next attempt."""
_SETTLE_TIMEOUT_S: Final = 0.3
_POLL_S: Final = 0.05
_SAID_CHARS_MAX: Final = 300


class CorruptOptions(AimedOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of `faults: {corrupt: ...}`."""

    targets: tuple[str | tuple[str, ...], ...] = TARGETS
    damages: tuple[str, ...] = DAMAGES
    """What is done to the files; each has its turn."""
    files: tuple[str, ...] = tuple(FILES)
    """Whose bits are flipped and whose end is cut off."""
    bits: tuple[int, ...] = (1, 16)
    """How many bits are flipped, one of these."""
    cut_percent: tuple[float, ...] = (1, 50, 100)
    """How much of a file is cut off its end, one of these."""
    beyond: bool = False
    """Whether to go beyond what any correct cluster has to stand."""

    def check(self, nodes: Sequence[str] | None) -> None:
        """Raise UsageError for what does not exist, and for what cannot be."""
        super().check(nodes)
        for name, given, names in (
            ("damages", self.damages, DAMAGES),
            ("files", self.files, tuple(FILES)),
        ):
            if not given:
                raise UsageError(f"{name}: name at least one of {', '.join(names)}")
            for word in given:
                known(name[:-1], word, names)
        if not self.bits or not all(1 <= count <= 10_000 for count in self.bits):
            raise UsageError(f"bits: numbers from 1 to 10000, not {_shown(self.bits)}")
        if not self.cut_percent or not all(0 < part <= 100 for part in self.cut_percent):
            raise UsageError(
                f"cut_percent: more than 0 and at most 100, not {_shown(self.cut_percent)}"
            )
        if nodes is not None and len(nodes) < 3 and not self.beyond:
            raise UsageError(
                f"of {len(nodes)} node(s) none may lose its data; use 3 nodes or more, or "
                "beyond: true"
            )


def _shown(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values) or "nothing"


class Corrupt(AimedFault):
    """Damages files of dead nodes, starts them on what is left, and replaces who refuses."""

    kind = "corrupt"
    start_f = "corrupt"
    stop_f = "mend"
    undo_order = 3
    """After the network and processes: a replacement has to be agreed on."""
    strike_order = 2
    shade = "#d9b38c"
    mechanism = "files changed while the process is dead"
    evidence = "bytes changed, and what the node says of them"
    cure_word = "replacing who refuses to start"
    options_type = CorruptOptions
    choices = "damages"

    def __init__(self, env: Environment, system: System, options: CorruptOptions) -> None:
        super().__init__(env, system, options)
        self._options = options

    def plan(self, turn: int, seed: str) -> dict[str, Any]:
        """Return whom to hurt and how."""
        options = self._options
        rng = random.Random(f"{seed}/{turn}/damage")
        kind = deal([(each,) for each in options.damages], turn, f"{seed}/damages")
        plan = {"damage": kind, **super().plan(turn, seed)}
        if kind == LOSE:
            return plan
        weights = [FILES[name] for name in options.files]
        plan["file"] = rng.choices(options.files, weights)[0]
        drawn = (
            draw_flips(rng.choice(options.bits), rng)
            if kind == FLIP
            else draw_cut(rng.choice(options.cut_percent), rng)
        )
        return plan | drawn

    def settle(self, plan: Mapping[str, Any]) -> Planned:
        """Find the leader if the plan is about it, and leave out whom the cluster cannot spare.

        What earlier faults hurt may be mended only now, when the cluster has had its rest.
        """
        if not self._options.beyond:
            self.undo()
        planned = super().settle(plan)
        settled = {**planned.plan, "forgets": True}
        if self._options.beyond:
            return Planned(planned.targets, settled)
        hurt = self._hurt()
        more = max(0, self._tolerated() - len(hurt))
        spared = [node for node in planned.targets if node not in hurt][more:]
        chosen = tuple(node for node in planned.targets if node not in spared)
        if chosen != planned.targets:
            why = f"{', '.join(hurt)} not mended yet" if hurt else "nobody may be lost now"
            note = f"{', '.join(spared)} spared: {why}"
            settled |= {"nodes": list(chosen), "note": note}
        return Planned(chosen, settled)

    def _tolerated(self) -> int:
        deadline = self.system.monotonic_s() + _SETTLE_TIMEOUT_S
        while (
            not (count := self.system.tolerated_losses()) and self.system.monotonic_s() < deadline
        ):
            self.system.sleep(_POLL_S)
        return count

    def _hurt(self) -> list[str]:
        """Return the nodes that may not know all that they promised; so do those nobody can ask."""

        def is_hurt(node: str) -> bool:
            return self._is_marked(node) or self.system.is_whole(node) is False

        found, errors = each(self.env.nodes, is_hurt)
        return [node for node in self.env.nodes if node in errors or found[node]]

    # ---- hurting ------------------------------------------------------------------------------

    def apply(self, planned: Planned) -> Outcome:
        """Kill the targets, damage their files, and start them on what is left."""
        plan, targets = planned.plan, planned.targets
        if not targets:
            return Outcome(bit=False)
        if plan["damage"] == LOSE:
            return self._lose(targets)
        if plan["damage"] == TRUNCATE and not self._options.beyond:
            files = self.system.data_files(targets[0]).get(plan["file"])
            if files is not None and not files.end_is_checked:
                return self._truncate_outside(planned)
        return self._damage(plan, targets)

    def _lose(self, targets: Sequence[str]) -> Outcome:
        def lose(node: str) -> int:
            self._mark(node, LOSE)
            self.system.kill(node)
            return self.system.lose_data(node)

        lost, errors = each(targets, lose)
        return Outcome(
            done=dict.fromkeys(lost, "lost its data"),
            observed={node: {"lost_bytes": count} for node, count in lost.items()},
            bit=any(lost.values()),
            errors=errors,
        )

    def _truncate_outside(self, planned: Planned) -> Outcome:
        """Damage nodes that are no members any more when they start again."""
        members = self.system.members()
        whole = whole_nodes(self.system, self.env.nodes) - {*planned.targets}
        going = removable(members or (), whole, planned.targets)
        if not going:
            return Outcome(
                done=dict.fromkeys(planned.targets, "not hurt: nobody can be removed now"),
                bit=False,
            )
        _, errors = each(going, lambda node: self._mark(node, TRUNCATE))
        killed, kill_errors = each(going, self.system.kill)
        errors |= kill_errors
        try:
            self.system.change_members(CHANGE_TIMEOUT_S, remove=tuple(killed))
            self._await_known(tuple(killed))
        except ClusterError as error:
            _, start_errors = each(killed, self.system.start)
            return Outcome(
                done=dict.fromkeys(killed, f"killed, not hurt: {error}"),
                bit=False,
                errors=errors | start_errors,
            )
        outcome = self._damage(planned.plan, tuple(killed))
        return Outcome(outcome.done, outcome.observed, outcome.bit, errors | outcome.errors)

    def _await_known(self, removed: Sequence[str]) -> None:
        """Wait until all others know who was removed; raises ClusterError.

        A majority is not enough: who missed several changes of members may have a majority of
        earlier ones behind it with the vote of a node that forgot the later ones.
        """
        waiting = [node for node in self.env.nodes if node not in removed]
        deadline = self.system.monotonic_s() + CHANGE_TIMEOUT_S
        while waiting := [n for n in waiting if not self.system.knows_removal(n, removed)]:
            if self.system.monotonic_s() >= deadline:
                raise ClusterError(f"{', '.join(waiting)} may not know of the removal")
            self.system.sleep(_POLL_S)

    def _damage(self, plan: Mapping[str, Any], targets: Sequence[str]) -> Outcome:
        observed, errors = each(targets, lambda node: self._damage_one(node, plan))
        found = {node: facts for node, facts in observed.items() if facts is not None}
        return Outcome(
            done={
                node: "nothing to damage" if facts is None else str(facts["started"])
                for node, facts in observed.items()
            },
            observed=found,
            bit=bool(found),
            errors=errors,
        )

    def _damage_one(self, node: str, plan: Mapping[str, Any]) -> dict[str, Any] | None:
        self._mark(node, plan["damage"])
        self.system.kill(node)
        facts = None
        for patterns, within in self._candidates(node, plan):
            facts = self._change_file(node, patterns, plan, within)
            if facts is not None:
                break
        started = self._start(node)
        return None if facts is None else facts | started

    def _change_file(
        self, node: str, patterns: Sequence[str], plan: Mapping[str, Any], within: float
    ) -> dict[str, Any] | None:
        return damage(self.env, node, patterns, plan, within=within)

    def _candidates(
        self, node: str, plan: Mapping[str, Any]
    ) -> list[tuple[tuple[str, ...], float]]:
        """Return where to look for a file, and how much of it may be damaged.

        Not every system has every kind, nor a snapshot yet: then another file whose damage is
        noticed as well.
        """
        by_kind = self.system.data_files(node)
        wanted = by_kind.get(plan["file"])
        # In the place of a file that is checked as a whole no log may be cut.
        others = [
            files
            for files in by_kind.values()
            if files is not wanted and (plan["damage"] == FLIP or files.end_is_checked)
        ]
        return [
            (files.patterns, 1.0 if files.end_is_checked or self._options.beyond else MIDDLE)
            for files in (*filter(None, [wanted]), *others)
        ]

    def _start(self, node: str) -> dict[str, str]:
        """Start a node and return what it made of its data, in its own words."""
        end = self.system.log_end(node)
        self.system.start(node)
        serves = self._serves(node)
        if not serves:
            self._mark(node, REFUSES)
        said = [line for line in self.system.log_since(node, end) if line.strip()] or ["nothing"]
        return {
            "started": SERVES if serves else REFUSES,
            "said": said[0 if serves else -1][:_SAID_CHARS_MAX],
        }

    def _serves(self, node: str) -> bool:
        """Wait until a node that was started answers, True, or gave up."""
        deadline = self.system.monotonic_s() + START_TIMEOUT_S
        while True:
            if self.system.is_whole(node) is not None:
                return True
            state = self.system.state(node)
            if state is State.DEAD:
                return False
            if self.system.monotonic_s() >= deadline:
                raise ClusterError(f"{node}: {state}, but silent {START_TIMEOUT_S:g} s after start")
            self.system.sleep(_POLL_S)

    # ---- mending ------------------------------------------------------------------------------

    def undo(self) -> Outcome:
        """Start who is marked, and replace who refuses, as far as the cluster can agree now."""
        return self._mend(MEND_TIMEOUT_S, everybody=False)

    def undo_for_good(self) -> Outcome:
        """Bring every node back, marked or not, and wait until it takes full part."""
        deadline = self.system.monotonic_s() + HEAL_TIMEOUT_S
        while True:
            outcome = self._mend(CHANGE_HEAL_TIMEOUT_S, everybody=True)
            marked, errors = each(self.env.nodes, self._is_marked)
            late = [node for node, is_marked in marked.items() if is_marked]
            told = {node: f"is not back yet: {outcome.done.get(node, '')}" for node in late}
            errors = told | errors | outcome.errors
            if not errors or self.system.monotonic_s() >= deadline:
                return Outcome(done=outcome.done, errors=errors)
            self.system.sleep(_POLL_S)

    def _mend(self, timeout_s: float, *, everybody: bool) -> Outcome:
        def begin(node: str) -> str | None:
            """Start the node if that is ours to do; return what it does then, None: not ours."""
            if not self._is_marked(node) and not (
                everybody and self.system.state(node) is State.DEAD
            ):
                return None
            if self.system.state(node) is not State.DEAD:
                return SERVES if self.system.is_whole(node) is not None else "is silent"
            mark = self._mark_of(node)
            if REFUSES in mark:
                return REFUSES
            if {*mark.splitlines()} == {LOSE} and not everybody:
                self.system.start(node)  # it cannot refuse, so nobody need wait for it now
                return "starts without data"
            return self._start(node)["started"]

        begun, errors = each(self.env.nodes, begin)
        done: dict[str, str] = {}
        # One after the other: each is a change of members that the others have to agree on.
        for node, what in begun.items():
            try:
                match what:
                    case "serves":
                        done[node] = self._take_back(node, timeout_s, is_last=everybody)
                    case "refuses to start":
                        done[node] = self._replace(node, timeout_s)
                    case str():
                        done[node] = what
            except Exception as error:  # told by node: an undo must reach the others
                errors[node] = str(error).removeprefix(f"{node}: ")
        return Outcome(done=done, errors=errors)

    def _replace(self, node: str, timeout_s: float) -> str:
        if self.system.members() is None:  # other faults need not wait for what cannot be done
            raise ClusterError("refuses to start, and nobody leads who could replace it")
        replace(self.system, node, timeout_s)
        self._unmark(node)
        return "replaced"

    def _take_back(self, node: str, timeout_s: float, *, is_last: bool) -> str:
        mark = self._mark_of(node)
        if not mark:
            return "started"
        # Who was not removed by us is a member, or is left to those who removed it, but in the end.
        if is_last or {*mark.splitlines()} != {LOSE}:
            members = self.system.members()
            if members is None:
                return "serves; nobody leads who could say whether it is a member"
            if node not in members:
                admit(self.system, node, timeout_s)
        if not self.system.is_whole(node):
            return "serves, and finds out what it forgot"
        self._unmark(node)
        return "takes full part"

    # ---- marks --------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Let nodes that an earlier run damaged begin with nothing."""

        def clean(node: str) -> None:
            if self._is_marked(node):
                self.system.lose_data(node)
                self._unmark(node)

        on_nodes(self.env.nodes, clean)

    def tear_down(self) -> None:
        """Remove the marks; what is damaged ends with the cluster."""
        on_nodes(self.env.nodes, self._unmark)

    def _mark(self, node: str, why: str) -> None:
        script = f"echo {shlex.quote(why)} >>{self._path(node)}"
        check(node, "marking it", self.env.run(node, script))

    def _unmark(self, node: str) -> None:
        check(node, "unmarking it", self.env.run(node, f"rm -f {self._path(node)}"))

    def _mark_of(self, node: str) -> str:
        """Return all for which the node is marked; empty: it is not."""
        path = self._path(node)
        # A mark that a dying rig left empty is one as well.
        script = f"if [ -s {path} ]; then cat {path}; elif [ -e {path} ]; then echo unknown; fi"
        return check(node, "looking for its mark", self.env.run(node, script)).strip()

    def _is_marked(self, node: str) -> bool:
        return self._mark_of(node) != ""

    def _path(self, node: str) -> str:
        return shlex.quote(f"{self.env.home(node)}/{MARK}")
