"""Leadership: the leader hands over to another node, orderly and in the middle of everything.

A hand-over is over in a moment: there is nothing to undo, and whoever leads then goes on leading.
The removal of leaders is the business of `membership`.
"""

import random
from collections.abc import Mapping
from typing import Any, Final

from labrys.control.errors import ClusterError
from labrys.control.nemesis.members import whole_nodes
from labrys.control.nemesis.package import FaultPackage, Options, Outcome, Planned

TRANSFER_TIMEOUT_S: Final = 1.5
"""Other faults wait for this one, and a target that is cut off never takes over."""
_SETTLE_TIMEOUT_S: Final = 1.5
"""How long a cluster may take to find a leader that can hand over."""
_POLL_S: Final = 0.05


class Leadership(FaultPackage):
    """Asks the leader to hand over to a node drawn at random."""

    kind = "leadership"
    start_f = "transfer"
    stop_f = "keep-leader"
    undo_order = 3
    strike_order = 0
    shade = "#c3b1e0"
    mechanism = "the system hands over"
    evidence = "who leads afterwards"
    cure_word = "nothing: who leads goes on"
    options_type = Options
    choices = "interval_s"
    nodes_min = 2

    def plan(self, turn: int, seed: str) -> dict[str, Any]:
        """Return in what order nodes are thought of: the first that can take over is chosen."""
        nodes = list(self.env.nodes)
        random.Random(f"{seed}/{turn}").shuffle(nodes)
        return {"order": nodes}

    def settle(self, plan: Mapping[str, Any]) -> Planned:
        """Find out who leads, and so who is to take over: a whole voter, if there is one."""
        leader = self._leader()
        others = [node for node in plan["order"] if node != leader]
        fit = whole_nodes(self.system, others) & {*(self.system.members() or ())}
        successor = next((node for node in others if node in fit), others[0])
        return Planned((successor,), {**plan, "from": leader, "to": successor})

    def _leader(self) -> str | None:
        """Return who leads, as soon as somebody does; None if nobody does for long."""
        deadline = self.system.monotonic_s() + _SETTLE_TIMEOUT_S
        while not (leading := self.leaders()) and self.system.monotonic_s() < deadline:
            self.system.sleep(_POLL_S)
        return next(iter(leading), None)

    def apply(self, planned: Planned) -> Outcome:
        """Hand over. A cluster that is being hurt may refuse: then nothing bit."""
        (successor,) = planned.targets
        try:
            self.system.transfer_leadership(successor, TRANSFER_TIMEOUT_S)
        except ClusterError as error:
            return Outcome(done={successor: f"does not lead: {error}"}, bit=False)
        before = planned.plan["from"]
        return Outcome(
            done={successor: "leads"},
            observed={successor: {"before": before, "after": successor}},
            bit=before is not None,
        )

    def undo(self) -> Outcome:
        """Nothing to undo: whoever leads may go on."""
        return Outcome()

    def set_up(self) -> None:
        """Nothing to prepare: the cluster elects its first leader itself."""

    def tear_down(self) -> None:
        """Nothing to put in order: who leads ends with the cluster."""
