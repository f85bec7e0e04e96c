"""Rare states of a node, by name, so that tests can tell whether they ever came about.

Most mistakes in Raft hide where several things happen at once, and a test that never gets there
says nothing about them. So the code calls `reach` at these places. A node in production pays a call
that does nothing; a simulation counts, and `labrys hunt` tells at its end what was never reached.
"""

from collections.abc import Callable
from enum import Enum


class Probe(Enum):
    """A state and what it is, from the view of the node that is in it."""

    # Elections (sections 5.2 and 5.4.1).
    VOTE_REFUSED_OLD_LOG = "refuses a vote to a candidate whose log is older than its own"
    VOTE_REFUSED_SECOND = "refuses a second vote in a term to another candidate"
    VOTE_REFUSED_LIVE_LEADER = "is asked for its vote while it hears a leader, and does not answer"
    LATE_VOTE = "is granted a vote that it asked for in an earlier term"
    QUORUM_LOST = "lays down its office because no majority answers"
    DEPOSED_WITH_UNCOMMITTED = "loses its office with entries that are not committed"
    TWO_LEADERS = "takes office while another has not yet laid down an older one"
    TRANSFER_TIMED_OUT = "hands its office over, and nobody takes it in time"

    # Replication and commitment (sections 5.3 and 5.4.2).
    CONFLICTING_TAIL_CUT = "cuts entries that contradict those of the leader"
    LATE_APPEND_KEPT_TAIL = "is sent the beginning of what it holds already, and cuts nothing"
    CONFLICT_OF_TERMS = "holds an entry of another term than the leader before the new ones"
    COMMIT_HELD_BACK = "commits no further than the message vouches for, although its log is longer"
    APPEND_OF_OLDER_TERM = "is sent entries or a heartbeat by a leader of an older term"
    REPLY_TO_OLDER_OFFICE = "is answered, as leader, what a follower said to an older office"
    DISK_LATE_FOR_TERM = "hears from its disk of what it wrote down in an older term"
    OLD_TERM_ON_MAJORITY = (
        "does not commit an entry of an older term that a majority holds (figure 8)"
    )
    OLD_TERM_COMMITTED = "commits entries of an older term by one of its own"
    WINDOW_FULL = "has more to send than may be under way to a follower"

    # Reads (dissertation 6.4).
    READ_BEFORE_FIRST_COMMIT = "is asked for a read as leader before it committed in its term"
    READ_OUTLIVED_OFFICE = "loses its office while reads wait to be confirmed"
    READ_BEFORE_APPLIED = "knows the index of a read before it applied so far"
    LEASE_READ = "answers a read by its lease"
    LEASE_REFUSED = "is asked for a read by lease as leader, and has none"

    # Snapshots (section 7).
    SNAPSHOT_TO_SILENT = "sends a snapshot to a follower that it has not heard for long"
    SNAPSHOT_BEGUN_ANEW = "receives another snapshot before the one under way is complete"
    SNAPSHOT_OUTRUN = "has got further by itself when a snapshot is complete"
    SNAPSHOT_REPLACED_LOG = "drops a log that does not fit a leader's snapshot"
    SNAPSHOT_WHILE_RECEIVING = "writes a snapshot of its own while it receives one"
    APPEND_BEFORE_SNAPSHOT = "is sent entries that its snapshot covers already"

    # Members (dissertation 4).
    CHANGE_WITH_SILENT_MEMBER = "changes the members while one of them has not been heard for long"
    CONFIGURATION_TAKEN_BACK = "cuts a configuration from its log, and goes back to the one before"
    OFFICE_DURING_CHANGE = "takes office in the middle of a change of members"
    LEADER_REMOVED = "lays down its office because it is no member any more"
    VOTED_OUT_CAMPAIGNS = "campaigns although the newest configuration is without it"

    # A node whose data is new (see `recall`).
    OBSERVER_CAUGHT_UP = "holds again what it may have acknowledged, and takes part again"
    ACKNOWLEDGEMENTS_FORGOTTEN = (
        "forgets, as leader, what a follower acknowledged that lost its data"
    )

    # Recovery.
    TORN_TAIL = "starts from a log whose last write was torn"
    SNAPSHOT_AND_LOG = "starts from a snapshot and the log behind it"
    SEVERAL_SEGMENTS = "starts from several files of the log"

    # Clients (dissertation 6.3).
    WRITE_OVERWRITTEN = "tells a client that another leader's command took the place of its own"
    DUPLICATE_ANSWERED = "answers a command that it executed before from memory"
    SESSION_EXPIRED = "refuses a command of a session that has ended"

    @property
    def label(self) -> str:
        """The name as people read it: `torn-tail`."""
        return self.name.lower().replace("_", "-")


Reach = Callable[[Probe], object]


def unheeded(probe: Probe) -> None:
    """Nobody counts."""
