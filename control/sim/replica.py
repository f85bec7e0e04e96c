"""The state that the committed log leads to, by a store of its own beside those of the nodes.

- state machine safety: a node that has applied as much has the same state, whether it executed the
  log or began with a snapshot;
- exactly-once sessions: of all entries that carry one command of a session, one is executed, and
  all are answered alike.
"""

from typing import Final

from labrys.control.sim.violation import Violation
from labrys.node.commands import Once, decode_request
from labrys.node.machine import Machine
from labrys.node.messages import Entry, NodeId
from labrys.node.outcome import Outcome

HASHES_MAX: Final = 10_000
"""So many states are remembered, for those who are late."""
_ONCE: Final = b'["once"'
_NOT_EXECUTED: Final = ("session-expired", "seq-reused", "seq-forgotten")


class Replica:
    """Executes each committed entry once, in the order of the log."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._hashes: dict[int, int] = {}
        self._answers: dict[tuple[int, int], Outcome] = {}
        """By session and number."""

    def execute(self, index: int, entry: Entry) -> None:
        """The entry at the index is committed."""
        command = b"" if entry.is_configuration else entry.command
        revision = self._machine.revision
        outcome = self._machine.apply(index, command)
        if command.startswith(_ONCE):
            once = decode_request(command)
            assert isinstance(once, Once), f"{once} at {index}"
            self._check(once, outcome, has_changed=self._machine.revision != revision)

    def remember(self, index: int) -> None:
        """Note the state after the index, up to which everything was executed."""
        self._hashes[index] = self._machine.state_hash
        if len(self._hashes) > HASHES_MAX:
            del self._hashes[next(iter(self._hashes))]

    def compare(self, node: NodeId, index: int, machine: Machine) -> None:
        """Look whether a node has the right state after the index, if it was noted."""
        right = self._hashes.get(index)
        if right is not None and machine.state_hash != right:
            raise Violation(
                f"state machine safety: {node} has the state {machine.state_hash:016x} at {index}, "
                f"the log leads to {right:016x}"
            )

    def _check(self, once: Once, outcome: Outcome, *, has_changed: bool) -> None:
        name = f"number {once.seq} of session {once.session}"
        first = self._answers.get((once.session, once.seq))
        if has_changed and (first is not None or outcome.code in _NOT_EXECUTED):
            raise Violation(f"exactly-once sessions: {name} is executed again")
        if outcome.code in _NOT_EXECUTED:
            return
        if first is not None and outcome != first:
            raise Violation(
                f"exactly-once sessions: {name} is answered {outcome}, and was {first} before"
            )
        self._answers[once.session, once.seq] = outcome
