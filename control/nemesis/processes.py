"""What kills and pauses have in common: a signal to the database process of some nodes.

The evidence is the state of the process before and after. A fault bites where the state changed:
killing what was dead already is no error, and no evidence either.
"""

from abc import abstractmethod
from typing import ClassVar, Final

from labrys.control.errors import ClusterError
from labrys.control.nemesis.aimed import AimedFault
from labrys.control.nemesis.package import Outcome, Planned, each
from labrys.control.process import State

SETTLE_TIMEOUT_S: Final = 2.0
"""How long a signal may take to show. A process in the middle of an fsync reacts after it."""
_POLL_S: Final = 0.01


class ProcessFault(AimedFault):
    """Hurts the database process of some nodes, and cures that of all."""

    hurt_state: ClassVar[State]
    """What the process of a hurt node is doing."""
    hurt_word: ClassVar[str]

    @abstractmethod
    def hurt(self, node: str) -> None:
        """Do it to one node."""

    @abstractmethod
    def cure(self, node: str) -> None:
        """Undo it on one node; nothing to undo is fine."""

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

    def _settled(self, node: str, before: State) -> State:
        """Return the state once the signal shows, or the last one seen."""
        state = self.system.state(node)
        if before is State.DEAD:
            return state  # no signal reached anybody
        deadline = self.system.monotonic_s() + SETTLE_TIMEOUT_S
        while state is not self.hurt_state and self.system.monotonic_s() < deadline:
            self.system.sleep(_POLL_S)
            state = self.system.state(node)
        return state

    def _left(self, node: str) -> State:
        """Return the state once it is no longer the hurt one; raises ClusterError if it stays."""
        deadline = self.system.monotonic_s() + SETTLE_TIMEOUT_S
        while (state := self.system.state(node)) is self.hurt_state:
            if self.system.monotonic_s() >= deadline:
                raise ClusterError(f"{node}: the process is still {state} after it was undone")
            self.system.sleep(_POLL_S)
        return state
