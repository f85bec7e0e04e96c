"""Client sessions: a command that is sent again is not executed again (dissertation 6.3).

A session is opened through the log, and its id is the index of that entry, so no two are alike. A
client numbers its commands; what came of each of the newest `WINDOW` numbers is kept, so a retry
gets the first answer, also when several commands of one client overtook each other.

Everything here happens while entries are applied and from what they say alone: replicas agree. Time
too is what stands in the log. The leader stamps session commands with its wall clock, and the
sessions' clock is the greatest stamp so far. A leader whose clock runs ahead ends sessions early;
that costs their clients a definite error and never a second execution.
"""

import msgspec

from labrys.node.outcome import Outcome

WINDOW = 128
"""Outcomes kept per session."""
SESSIONS_MAX = 10_000
"""One more session takes the place of the one that was silent the longest."""


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """What came of a command; `digest` tells the command from another with its number."""

    digest: int
    outcome: Outcome


class Session(msgspec.Struct, array_like=True):
    """One client's."""

    ttl_ms: int
    heard_ms: int
    kept: dict[int, Kept] = {}
    forgotten: int = -1
    """The greatest number whose outcome was dropped; nothing is known of it and those below."""

    def keep(self, seq: int, kept: Kept) -> None:
        """Remember an outcome, and drop that of the smallest number when there are too many."""
        self.kept[seq] = kept
        if len(self.kept) > WINDOW:
            oldest = min(self.kept)
            del self.kept[oldest]
            self.forgotten = max(self.forgotten, oldest)


class Sessions(msgspec.Struct, array_like=True):
    """All sessions, the longest silent first, and their clock."""

    now_ms: int = 0
    by_id: dict[int, Session] = {}
    soonest_end_ms: int = 0
    """No session ends before; spares a look at all of them with every command."""

    def open(self, session_id: int, ttl_ms: int, at_ms: int) -> None:
        """Begin a session; the silent ones end."""
        self._advance(at_ms)
        if len(self.by_id) >= SESSIONS_MAX:
            del self.by_id[next(iter(self.by_id))]
        self.by_id[session_id] = Session(ttl_ms, self.now_ms)
        self.soonest_end_ms = min(self.soonest_end_ms, self.now_ms + ttl_ms)

    def hear(self, session_id: int, at_ms: int) -> Session | None:
        """The session, which counts as active now; None when it has ended or never was."""
        self._advance(at_ms)
        session = self.by_id.pop(session_id, None)
        if session is not None:
            session.heard_ms = self.now_ms
            self.by_id[session_id] = session  # Now it is the one heard last.
        return session

    def copy(self) -> "Sessions":
        """The sessions as they are now, whatever happens to these later."""
        copies = {
            session_id: Session(each.ttl_ms, each.heard_ms, dict(each.kept), each.forgotten)
            for session_id, each in self.by_id.items()
        }
        return Sessions(self.now_ms, copies, self.soonest_end_ms)

    def _advance(self, at_ms: int) -> None:
        self.now_ms = max(self.now_ms, at_ms)
        if self.now_ms <= self.soonest_end_ms:
            return
        ended = [i for i, s in self.by_id.items() if s.heard_ms + s.ttl_ms < self.now_ms]
        for session_id in ended:
            del self.by_id[session_id]
        ends = (s.heard_ms + s.ttl_ms for s in self.by_id.values())
        self.soonest_end_ms = min(ends, default=self.now_ms)
