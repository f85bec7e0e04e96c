"""Faults in sessions, which keep a command that is sent again from being executed again."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from labrys.node.bugs.variant import variant
from labrys.node.commands import Logged, Once, OpenSession
from labrys.node.machine import Machine
from labrys.node.messages import Entry
from labrys.node.outcome import Outcome
from labrys.node.service import Service


class ExecuteAgain(Machine):
    """Executes a command as often as it stands in the log.

    Seen in: goraft, where a set that is sent again is a second entry; stores without sessions.
    Seen by: raft (exactly-once sessions), linearizable, with clients that send again
    """

    def _once(self, once: Once) -> Outcome:
        if self.sessions.hear(once.session, once.at_ms) is None:
            return Outcome("session-expired", self.revision)
        return self._run(once.command)


class ForgetAnswers(Machine):
    """Keeps its sessions in snapshots, but not what came of their commands.

    After a restart or an install, what is sent again is executed again.

    Seen in: a class of bugs, against section 6.3 of the Raft dissertation.
    Seen by: raft (state machine safety), with clients that send again
    """

    @classmethod
    def restored(cls, records: Iterable[bytes]) -> Machine:
        state = super().restored(records)
        for session in state.sessions.by_id.values():
            session.kept.clear()
        return state


class DuplicateSaysOk(Machine):
    """Answers a command that was sent again with success, whatever came of it the first time.

    Seen in: eliben's part5kv, which keeps the last number of a client and no answer, likely; a
    class of bugs.
    Seen by: raft (exactly-once sessions), linearizable, with clients that send again
    """

    def _once(self, once: Once) -> Outcome:
        session = self.sessions.by_id.get(once.session)
        is_duplicate = session is not None and once.seq in session.kept
        outcome = super()._once(once)
        return Outcome("ok", self.revision) if is_duplicate else outcome


class LocalExpiry(Machine):
    """Lets sessions end by the clock of each replica, not by the time that stands in the log.

    Seen in: a class of bugs, against section 6.3 of the Raft dissertation.
    Seen by: raft (state machine safety), with clients that have sessions
    """

    wall_ms: Callable[[], int] | None = None
    """Set by whoever knows the time of day."""

    def _apply(self, index: int, command: Logged | None) -> Outcome:
        if self.wall_ms is not None and isinstance(command, Once | OpenSession):
            command = msgspec.structs.replace(command, at_ms=self.wall_ms())
        return super()._apply(index, command)


class _TellsTheTimeOfDay(Service):
    """Lets the store know the time of day, which a correct one never asks for."""

    def apply(self, first_index: int, entries: Sequence[Entry]) -> None:
        state: Any = self.machine
        state.wall_ms = self._wall_ms
        super().apply(first_index, entries)


BUGS = {
    "execute-again": variant("a command that is sent again is executed again", ExecuteAgain),
    "forget-answers": variant("a snapshot forgets what was executed already", ForgetAnswers),
    "duplicate-says-ok": variant("a duplicate is answered with success", DuplicateSaysOk),
    "local-expiry": variant(
        "sessions end by each node's own clock", LocalExpiry, _TellsTheTimeOfDay
    ),
}
