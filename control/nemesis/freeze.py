"""Freezes: a whole node stands still, with everything in it, and wakes up in a later world.

A pause stops the database alone. Here the machine stops: what comes to it waits in its kernel, what
was to happen in it in the meantime happens afterwards, and no other fault can begin or end in it.
Hence the other faults come first and this one ends before them, at the latest when they do.
"""

from typing import Any

from labrys.control.environments.base import Freezable, on_nodes
from labrys.control.errors import MachineError
from labrys.control.nemesis.aimed import AimedFault
from labrys.control.nemesis.package import Outcome, Planned, each


class Freeze(AimedFault):
    """Stops everything in some nodes, and thaws all."""

    kind = "freeze"
    start_f = "freeze"
    stop_f = "thaw"
    undo_order = -2
    """First of all: nothing else can be undone in a node that stands still."""
    bars_undo = True
    strike_order = 5
    holds = 0.3
    """All kinds strike within half an interval (see `Nemesis.generator`), this one last, and the
    first of them is undone after a whole one."""
    shade = "#b5d0d8"
    mechanism = "docker pause, SIGSTOP to all in a namespace"
    evidence = "processes that stand still"
    cure_word = "docker unpause, SIGCONT"
    capability = Freezable
    without = "it cannot let a whole node stand still; pause stops the database alone"

    def apply(self, planned: Planned) -> Outcome:
        """Freeze the targets, in parallel."""
        found, errors = each(planned.targets, self._freezer().freeze)
        observed: dict[str, Any] = {node: {"processes": count} for node, count in found.items()}
        return Outcome(
            done=dict.fromkeys(found, "stands still"),
            observed=observed,
            bit=any(count > 0 for count in found.values()),
            errors=errors,
        )

    def undo(self) -> Outcome:
        """Thaw all nodes, in parallel."""
        found, errors = each(self.env.nodes, self._freezer().thaw)
        done = {node: "goes on" if stood else "goes on as before" for node, stood in found.items()}
        return Outcome(done=done, errors=errors)

    def set_up(self) -> None:
        """Thaw what an earlier run may have left."""
        on_nodes(self.env.nodes, self._freezer().thaw)

    def tear_down(self) -> None:
        """Leave nothing frozen."""
        on_nodes(self.env.nodes, self._freezer().thaw)

    def _freezer(self) -> Freezable:
        if not isinstance(self.env, Freezable):
            raise MachineError(f"freeze: not with --env {self.env.name}: {self.without}")
        return self.env
