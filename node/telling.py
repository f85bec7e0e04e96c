"""What a node says of itself: status, metrics, and log lines when something changed."""

from labrys.node.configuration import Configuration
from labrys.node.http import Clients
from labrys.node.logline import Say
from labrys.node.machine import Machine
from labrys.node.messages import NodeId
from labrys.node.metrics import Metric, Sample, counter, gauge, render
from labrys.node.raft import Raft, Role
from labrys.node.service import Service
from labrys.node.snapshotter import Snapshotter

COMMIT_LINE_EVERY_MS = 1000
"""At most one log line about commits in this time."""


class Teller:
    """Writes log lines about roles, terms, members and commits, each when it changed."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._office: tuple[Role, int, NodeId | None] | None = None
        self._told: tuple[Role, int, NodeId | None] | None = None
        self._members: Configuration | None = None
        self._commit = 0
        self._commit_ms = 0

    def tell(self, raft: Raft, now_ms: int, durable_term: int) -> bool:
        """Look what is new; whether role, term or leader are.

        What belongs to a term is told once the term is on disk, and perhaps never: by then it may
        be over. A log that tells of terms which a crash takes back would look like a broken node.
        """
        office = (raft.role, raft.term, raft.leader)
        has_changed, self._office = office != self._office, office
        if raft.term > durable_term:
            return has_changed
        if raft.configuration is not self._members:
            self._members = members = raft.configuration
            self._say(
                event="members", voters=",".join(members.voters) or "-",
                outgoing=",".join(members.outgoing) or "-",
                learners=",".join(members.learners) or "-", term=raft.term,
            )  # fmt: skip
        if raft.commit != self._commit and now_ms - self._commit_ms >= COMMIT_LINE_EVERY_MS:
            self._commit, self._commit_ms = raft.commit, now_ms
            self._say(event="commit", commit=raft.commit, applied=raft.applied, term=raft.term)
        if office != self._told:
            self._told = office
            self._say(
                role=raft.role, term=raft.term, leader=raft.leader, last_index=raft.log.last_index
            )
        return has_changed


def shown(address: tuple[str, int]) -> str:
    """The address as HOST:PORT."""
    return f"{address[0]}:{address[1]}"


def node_status(raft: Raft, machine: Machine) -> dict[str, object]:
    """The facts of GET /v1/status that core and store know."""
    configuration = raft.configuration
    return {
        "id": raft.id,
        "role": raft.role,
        "term": raft.term,
        "leader": raft.leader,
        "commit": raft.commit,
        "applied": raft.applied,
        "last_index": raft.log.last_index,
        "snapshot_index": raft.snapshot.index,
        "revision": machine.revision,
        "state_hash": f"{machine.state_hash:016x}",
        "key_count": machine.key_count,
        "session_count": len(machine.sessions.by_id),
        "members": configuration.addresses,
        "voters": configuration.voters,
        "learners": configuration.learners,
        "is_changing": not raft.is_configuration_committed or configuration.is_joint,
        "is_observer": raft.is_observer,
    }


def node_metrics(raft: Raft, service: Service, clients: Clients, snapshotter: Snapshotter) -> bytes:
    """The numbers of GET /metrics."""
    machine, is_full = service.machine, service.refusal is not None
    roles = [Sample(float(raft.role is role), {"role": role.value}) for role in Role]
    lag = [Sample(behind, {"peer": peer}) for peer, behind in raft.lags().items()]
    answers = [
        Sample(count, {"status": str(status)}) for status, count in sorted(clients.answered.items())
    ]
    return render(
        (
            gauge("labrys_term", "Current term.", raft.term),
            Metric("labrys_role", "gauge", "1 for the role this node has.", roles),
            gauge("labrys_commit_index", "Highest index known to be committed.", raft.commit),
            gauge("labrys_applied_index", "Highest index applied to the store.", raft.applied),
            gauge("labrys_last_index", "Last index of the log.", raft.log.last_index),
            gauge("labrys_snapshot_index", "Index of the newest snapshot.", raft.snapshot.index),
            gauge("labrys_voters", "Members that vote.", len(raft.configuration.voters)),
            Metric("labrys_peer_lag_entries", "gauge", "Entries a peer of this leader lacks.", lag),
            gauge("labrys_keys", "Keys in the store.", machine.key_count),
            gauge("labrys_revision", "Changes of the store.", machine.revision),
            gauge("labrys_sessions", "Client sessions.", len(machine.sessions.by_id)),
            gauge("labrys_pending_requests", "Requests without an answer.", service.pending_count),
            gauge("labrys_clients", "Connected clients.", len(clients)),
            gauge("labrys_disk_full", "1 while nothing can be written.", is_full),
            counter("labrys_snapshots_total", "Snapshots written.", snapshotter.written_count),
            counter(
                "labrys_installs_total", "Snapshots taken from leaders.",
                snapshotter.installed_count,
            ),
            Metric("labrys_requests_total", "counter", "Answers to clients by status.", answers),
            Metric(
                "labrys_request_seconds", "histogram", "Time from a request to its answer.",
                clients.latency_s.samples({}),
            ),
        )
    )  # fmt: skip
