"""Raft as a pure state machine: messages, ticks and proposals in, `Effects` out.

The problem. A node must never say what its disk does not yet know: a vote that is granted and then
forgotten elects two leaders, an entry that is acknowledged and then lost was never replicated.
And it should say as much as possible per disk write, because a write that is flushed costs more
than everything else together.

The idea. Inputs (`tick`, `step`, `propose`, `read`, `persisted`, ...) only change the state in
memory. `effects()` then hands out everything that follows from all inputs since the last call: one
batch for the disk and the messages that wait for it. Whoever calls it after a burst of inputs gets
group commit for nothing. The class has no clock, socket, file or randomness of its own, so the same
code runs in the server and, thousands of times a second, in the tests.

The rules that carry safety, with the place that keeps each:
- one vote per term, remembered across crashes: `_on_vote_request`, `Effects.messages` (5.2)
- a vote only for a log at least as new as one's own: `_is_up_to_date` (5.4.1)
- entries of older terms are committed only through one of the leader's own: `_may_commit` (5.4.2)
- a follower commits only what the message at hand vouched for: `_on_append_request` (5.3)
- the log is cut only at a real conflict, so late messages take nothing back: `_take_over` (5.3)
- replies count only in the term they were given in: `step` and the handlers
- reads are answered only after a round begun after they came: `reads.ReadQueue` (6.4)
- members change through joint consensus, one committed step at a time: `_go_on_with_change` (4.3)
- a node that lost its data takes no part before it knows what it forgot: `recall`

"Section n" means the Raft paper (extended version), "dissertation n" Ongaro's thesis.
"""

import random
from collections import deque
from collections.abc import Mapping, Sequence
from enum import StrEnum
from operator import attrgetter

import msgspec

from labrys.node.configuration import (
    Configuration,
    decode_configuration,
    encode_configuration,
)
from labrys.node.effects import Effects, Persist, Restored, SnapshotMeta
from labrys.node.errors import Refused
from labrys.node.log import Log, command_bytes
from labrys.node.membership import first_step, next_step
from labrys.node.messages import (
    AppendReply,
    AppendRequest,
    Entry,
    HardState,
    InstallReply,
    InstallRequest,
    NodeId,
    RaftMessage,
    ReadReply,
    ReadRequest,
    RecallReply,
    RecallRequest,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from labrys.node.probes import Probe, Reach, unheeded
from labrys.node.progress import Progress, State
from labrys.node.reads import FollowerReads, ReadQueue, Ticket
from labrys.node.recall import Recall

NO_OP = b""
"""The command of the entry with which a leader opens its term; the state machine skips it."""

_is_configuration = attrgetter("is_configuration")


class Role(StrEnum):
    """What a node is in its current term (figure 4), with the pre-vote as a step of its own."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Impossible(AssertionError):
    """What no correct cluster can bring about has happened."""


class Config(msgspec.Struct, frozen=True):
    """Who this is, and the limits. Election timeouts are drawn from [e, 2e)."""

    id: NodeId
    election_timeout_ms: int = 300
    heartbeat_ms: int = 75
    batch_count_max: int = 2048
    """Entries in one AppendEntries."""
    batch_bytes_max: int = 1 << 20
    inflight_count_max: int = 8
    """Requests with entries under way to one follower."""
    inflight_bytes_max: int = 8 << 20
    apply_count_max: int = 4096
    """Entries applied per `Effects`, so that a long replay does not starve the heartbeats."""
    apply_bytes_max: int = 1 << 20
    """Bytes of commands applied per `Effects`, but at least one command, for the same reason."""
    trailing_count: int = 1000
    """Entries kept behind a snapshot, so that a follower a little late needs no snapshot."""
    chunk_bytes: int = 256 << 10
    """Length of the pieces in which a snapshot is sent."""

    @property
    def lease_ms(self) -> int:
        """How long a leader may trust that no other was elected, from when it *sent* a round.

        Followers that hear a leader vote for nobody for an election timeout. A quarter of it is
        left for clocks that run at different rates: a lease read is linearizable as long as no
        node's monotonic clock runs a third faster than the leader's (dissertation 6.4.1).
        """
        return self.election_timeout_ms * 3 // 4


class Raft:
    """One member of a cluster. Times are milliseconds on any clock that does not run backwards."""

    def __init__(self, config: Config, restored: Restored, rng: random.Random, now_ms: int) -> None:
        """A follower that knows what `restored` says: a first start or a restart."""
        self.config = config
        self.id = config.id
        self.reach: Reach = unheeded
        hard_state, snapshot = restored.hard_state, restored.snapshot
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.log = Log(restored.entries, snapshot.index, snapshot.term)
        self.snapshot = snapshot
        """The newest snapshot on this node's disk."""
        self.role = Role.FOLLOWER
        self.leader: NodeId | None = None
        self.commit = snapshot.index
        self.applied = snapshot.index
        """Everything up to here was handed out in `Effects.committed`."""
        self._configurations = [(snapshot.index, snapshot.configuration)]
        """Those in the log, oldest first, by index; the last is in force (dissertation 4.1)."""
        self._note_configurations(snapshot.index + 1, restored.entries)
        self._rng = rng
        self._now_ms = now_ms
        # Before its last life ended this node may have told a leader that it hears it.
        self._leader_heard_ms: int | None = now_ms if hard_state.term else None
        self._votes: set[NodeId] = set()
        self._recall = Recall(rng.getrandbits(62)) if hard_state.is_observer else None
        self._reset_election_timer()

        # Reads of this node's own clients.
        self._follower_reads = FollowerReads(rng.getrandbits(61))
        self._answerable: deque[tuple[int, int]] = deque()

        # A snapshot that is being received: leader, index, term; and the offset that comes next.
        self._incoming: tuple[NodeId, int, int] | None = None
        self._incoming_offset = 0
        self._is_installing = False

        # Only a leader uses these; _become_leader gives them their values.
        self._progress: dict[NodeId, Progress] = {}
        self._settled: Configuration | None = None
        """One that was seen to be committed, with nothing left to change."""
        self._reads = ReadQueue()
        self._term_start = 0
        self._durable_index = 0
        self._round = 0
        self._rounds_sent: deque[tuple[int, int]] = deque()
        self._lease_until_ms = 0
        self._is_lease_void = False
        self._beat_due = False
        self._heartbeat_due_ms = now_ms
        self._transfer: NodeId | None = None
        self._transfer_until_ms = 0
        self._is_timeout_sent = False
        self.uncommitted_bytes = 0
        """Length of the commands that wait to be committed, as far as this leader took them in."""

        # What the next Effects will hold.
        self._messages: list[tuple[NodeId, RaftMessage]] = []
        self._eager: list[tuple[NodeId, RaftMessage]] = []
        self._chunks: list[InstallRequest] = []
        self._base: SnapshotMeta | None = None
        self._persisted_state = hard_state
        self._dirty_from: int | None = None

    # ---- what others may know -----------------------------------------------------------------

    @property
    def configuration(self) -> Configuration:
        """The newest one in the log, which is in force whether or not it is committed."""
        return self._configurations[-1][1]

    @property
    def configurations(self) -> Sequence[tuple[int, Configuration]]:
        """Those in the log, oldest first, each with its index; the first one's is the log's base
        or before."""
        return self._configurations

    @property
    def is_configuration_committed(self) -> bool:
        """Whether the configuration in force is there to stay."""
        return self._configurations[-1][0] <= self.commit

    @property
    def is_observer(self) -> bool:
        """Whether this node takes no part yet because its data is new; see `recall`."""
        return self._recall is not None

    @property
    def is_transferring(self) -> bool:
        """Whether this leader is handing over and takes no proposals."""
        return self._transfer is not None

    @property
    def is_streaming(self) -> bool:
        """Whether this leader is sending its snapshot to someone; a newer one would start over."""
        return any(peer.state is State.SNAPSHOT for peer in self._progress.values())

    def lags(self) -> dict[NodeId, int]:
        """As leader, how many entries each other member has not confirmed; else nothing."""
        last = self.log.last_index
        return {node: last - peer.match_index for node, peer in self._progress.items()}

    @property
    def deadline_ms(self) -> int:
        """When `tick` has something to do next; it may move later without notice."""
        if self.role is Role.LEADER or self._recall is not None:
            return self._heartbeat_due_ms
        return self._election_due_ms

    @property
    def is_ready(self) -> bool:
        """Whether a client is served here: a leader is known and, if it is us, in full office."""
        if self.role is Role.LEADER:
            return self.commit >= self._term_start
        return self.leader is not None

    # ---- inputs -------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> None:
        """Let time pass: start elections, send heartbeats, lay down an office nobody supports."""
        self._advance_clock(now_ms)
        if self._recall is not None:
            self._ask_for_recall()
        if self.role is Role.LEADER:
            if self._transfer is not None and now_ms >= self._transfer_until_ms:
                self.reach(Probe.TRANSFER_TIMED_OUT)
                self._transfer = None
            if self._has_lost_quorum():
                self.reach(Probe.QUORUM_LOST)
                self._become_follower(self.term, None)
            elif now_ms >= self._heartbeat_due_ms:
                self._beat_due = True
            return
        self._follower_reads.ask_again(now_ms - self.config.election_timeout_ms)
        if now_ms >= self._election_due_ms:
            if self._may_campaign():
                self._start_pre_vote()
            else:
                self._forget_silent_leader()

    def step(self, sender: NodeId, message: RaftMessage, now_ms: int) -> None:
        """Take in one message.

        The sender may be outside the configuration: a newer one may name it (dissertation 4.2.2).
        """
        self._advance_clock(now_ms)
        match message:
            case RecallRequest():
                self._on_recall_request(sender, message)
                return
            case RecallReply():
                self._on_recall_reply(sender, message)
                return
            case _ if self._recall is not None and self._recall.floor is None:
                return  # What this node promised before is not known yet.
            case VoteRequest():
                self._on_vote_request(sender, message)  # it alone decides to believe the term
                return
        promised = isinstance(message, VoteReply) and message.pre and message.granted
        if message.term > self.term and not promised:
            self._become_follower(message.term, None)
        match message:
            case VoteReply():
                self._on_vote_reply(sender, message)
            case AppendRequest():
                self._on_append_request(sender, message)
            case AppendReply():
                self._on_append_reply(sender, message)
            case InstallRequest():
                self._on_install_request(sender, message)
            case InstallReply():
                self._on_install_reply(sender, message)
            case TimeoutNow():
                self._on_timeout_now(message)
            case ReadRequest():
                if self.role is Role.LEADER:
                    self._reads.add((sender, message.batch))
            case ReadReply():
                for read_id in self._follower_reads.answered(message.batch):
                    self._answerable.append((message.index, read_id))

    def propose(self, command: bytes) -> int | None:
        """Append a command as leader: its index, to be watched in `committed`, else None."""
        return self.propose_all((command,))

    def propose_all(self, commands: Sequence[bytes]) -> int | None:
        """Append commands at consecutive indexes: that of the first; None when not in charge."""
        if self.role is not Role.LEADER or self._transfer is not None:
            return None
        first = self.log.last_index + 1
        term = self.term
        self._append([Entry(term, command) for command in commands])
        return first

    def read(self, read_id: int, now_ms: int, *, lease: bool = False) -> bool:
        """Ask for a linearizable read; False when no leader is known here.

        The id comes back in `Effects.reads` once this node's state may answer it, whoever leads by
        then, or never while nobody does. With `lease` a leader whose lease holds at `now_ms`
        answers without a round; anybody else reads as ever.
        """
        if self.role is Role.LEADER:
            if lease and self.has_lease(now_ms):
                self.reach(Probe.LEASE_READ)
                self._answerable.append((self.commit, read_id))
                return True
            if lease:
                self.reach(Probe.LEASE_REFUSED)
            if self.commit < self._term_start:
                self.reach(Probe.READ_BEFORE_FIRST_COMMIT)
            self._reads.add(read_id)
            return True
        if self.leader is None:
            return False
        self._follower_reads.add(read_id)
        return True

    def has_lease(self, now_ms: int) -> bool:
        """Whether this is the leader and nobody else can have been elected at `now_ms`."""
        return (
            self.role is Role.LEADER
            and self.commit >= self._term_start
            and not self._is_lease_void
            and now_ms < self._lease_until_ms
        )

    def persisted(self, term: int, last_index: int) -> None:
        """A batch is on disk. Only the leader of that same term may count it as its own copy.

        In any other term the entry at `last_index` may have been replaced meanwhile, and the disk
        would vouch for an entry that it does not hold.
        """
        if term < self.term:
            self.reach(Probe.DISK_LATE_FOR_TERM)
        if self.role is Role.CANDIDATE and term == self.term:
            self._take_office_if_elected()
        if self.role is Role.LEADER and term == self.term:
            self._durable_index = max(self._durable_index, last_index)
            self._advance_commit()

    def unreachable(self, peer: NodeId) -> None:
        """A link to the peer broke or a message to it was dropped: what is under way is lost."""
        if peer in self._progress:
            self._progress[peer].lost()

    def effects(self) -> Effects:
        """Everything that follows from the inputs since the last call; see `Effects`."""
        if self.role is Role.LEADER:
            self._lead()
        elif self.leader is not None:
            batch = self._follower_reads.ask(self._now_ms)
            if batch is not None:
                self._eager.append((self.leader, ReadRequest(self.term, batch)))
        first = self.applied + 1
        ready = min(self.commit - self.applied, self.config.apply_count_max)
        committed = self.log.batch(first, ready, self.config.apply_bytes_max) if ready > 0 else ()
        self.applied += len(committed)
        if committed and self.role is Role.LEADER:
            self.uncommitted_bytes = max(0, self.uncommitted_bytes - command_bytes(committed))
        persist = self._take_persist()
        messages, self._messages = tuple(self._messages), []
        eager, self._eager = tuple(self._eager), []
        return Effects(eager, persist, messages, first, committed, self._take_reads())

    def _take_persist(self) -> Persist | None:
        state = self._persisted_state
        changed = (state.term, state.vote) != (self.term, self.vote)
        if changed or state.is_observer != self.is_observer:
            changed, state = True, HardState(self.term, self.vote, self.is_observer)
        if not (changed or self._chunks or self._base) and self._dirty_from is None:
            return None
        first = self._dirty_from if self._dirty_from is not None else self.log.last_index + 1
        chunks, self._chunks = tuple(self._chunks), []
        base, self._base = self._base, None
        self._persisted_state = state
        self._dirty_from = None
        return Persist(
            term=self.term,
            last_index=self.log.last_index,
            hard_state=state if changed else None,
            first_index=first,
            entries=self.log.since(first),
            base=base,
            chunks=chunks,
        )

    def _take_reads(self) -> tuple[int, ...]:
        ready = []
        while self._answerable and self._answerable[0][0] <= self.applied:
            ready.append(self._answerable.popleft()[1])
        if self._answerable:
            self.reach(Probe.READ_BEFORE_APPLIED)
        return tuple(ready)

    # ---- roles --------------------------------------------------------------------------------

    def _advance_clock(self, now_ms: int) -> None:
        assert now_ms >= self._now_ms, f"time ran back: {self._now_ms} -> {now_ms}"
        self._now_ms = now_ms

    def _reset_election_timer(self) -> None:
        # Section 5.2: randomised, so that split votes are rare and do not repeat.
        least = self.config.election_timeout_ms
        self._election_due_ms = self._now_ms + least + self._rng.randrange(least)

    def _become_follower(self, term: int, leader: NodeId | None) -> None:
        assert term >= self.term, f"term moved back: {self.term} -> {term}"
        if self.role is Role.FOLLOWER and term == self.term and leader == self.leader:
            return
        if self.role is Role.LEADER and self.commit < self.log.last_index:
            self.reach(Probe.DEPOSED_WITH_UNCOMMITTED)
        if term > self.term:
            self.term = term
            self.vote = None
        if self.role is not Role.FOLLOWER:
            self.role = Role.FOLLOWER
            self._reset_election_timer()
        self.leader = leader
        self._votes.clear()
        self._progress.clear()
        self._transfer = None
        for ticket in self._reads.take_all():
            self.reach(Probe.READ_OUTLIVED_OFFICE)
            if isinstance(ticket, int):  # A follower asks again by itself.
                self._follower_reads.add(ticket)

    def _may_campaign(self) -> bool:
        if self._recall is not None:
            return False
        # Dissertation 4.2.2: who is voted out still campaigns until that is committed, for it may
        # be the only one whose log can win.
        for index, configuration in reversed(self._configurations):
            if configuration.is_voter(self.id):
                if configuration is not self.configuration:
                    self.reach(Probe.VOTED_OUT_CAMPAIGNS)
                return True
            if index <= self.commit:
                break
        return False

    def _forget_silent_leader(self) -> None:
        """Who does not vote waits for a leader to call; the one it knew does not any more."""
        self.leader = None
        self._reset_election_timer()

    def _start_pre_vote(self) -> None:
        # Dissertation 9.6: ask first, so that a node that was cut off does not come back with a
        # high term and depose a leader that everybody else hears.
        self.role = Role.PRE_CANDIDATE
        self._canvass(self.term + 1, pre=True)
        if self.configuration.has_quorum(self._votes):
            self._start_election()

    def _start_election(self, *, is_transfer: bool = False) -> None:
        self.role = Role.CANDIDATE
        self.term += 1
        self.vote = self.id
        # A vote that suffices alone makes a leader in `persisted`, when it cannot be forgotten.
        self._canvass(self.term, pre=False, is_transfer=is_transfer)

    def _canvass(self, term: int, *, pre: bool, is_transfer: bool = False) -> None:
        self.leader = None
        self._votes = {self.id}
        self._reset_election_timer()
        request = VoteRequest(term, self.log.last_index, self.log.last_term, pre, is_transfer)
        self._messages.extend((peer, request) for peer in self._other_voters())

    def _other_voters(self) -> list[NodeId]:
        configuration = self.configuration
        return [n for n in configuration.members if configuration.is_voter(n) and n != self.id]

    def _become_leader(self) -> None:
        assert self.role is Role.CANDIDATE, f"{self.role} cannot become leader of {self.term}"
        if self.configuration.is_joint or self.configuration.target:
            self.reach(Probe.OFFICE_DURING_CHANGE)
        self.role = Role.LEADER
        self.leader = self.id
        self._progress = {}
        self._follow_members()
        # The vote requests that won this office left after all of this log was on disk.
        self._durable_index = self.log.last_index
        self._beat_due = True
        self._rounds_sent.clear()
        self._lease_until_ms = 0
        self._is_lease_void = False
        self.uncommitted_bytes = 0
        for read_id in self._follower_reads.take_all():
            self._reads.add(read_id)
        self._open_term()

    def _open_term(self) -> None:
        # Section 8: what older terms left behind is committed through an entry of this one. The
        # first leader ever says who the members are, so that the log tells it to those who join.
        if self._configurations[-1][0] == 0:
            self._enter(self.configuration)
        else:
            self._append([Entry(self.term, NO_OP)])
        self._term_start = self.log.last_index

    def _has_lost_quorum(self) -> bool:
        # Check-quorum (dissertation 6.2): a leader that no majority answers steps down, so that
        # its clients stop waiting and others look for a new one.
        oldest = self._now_ms - 2 * self.config.election_timeout_ms
        answering = {node for node, peer in self._progress.items() if peer.heard_ms >= oldest}
        return not self.configuration.has_quorum(answering | {self.id})

    # ---- votes --------------------------------------------------------------------------------

    def _hears_a_leader(self) -> bool:
        if self.role is Role.LEADER:
            return True
        # By the clock alone, whatever became of that leader: its lease rests on it.
        heard_ms = self._leader_heard_ms
        return heard_ms is not None and self._now_ms - heard_ms < self.config.election_timeout_ms

    def _is_up_to_date(self, last_index: int, last_term: int) -> bool:
        # Section 5.4.1: the later last term wins, in the same term the longer log.
        return (last_term, last_index) >= (self.log.last_term, self.log.last_index)

    def _may_vote_for(self, candidate: NodeId) -> bool:
        return self.vote is None or self.vote == candidate

    def _on_vote_request(self, sender: NodeId, request: VoteRequest) -> None:
        if self._recall is not None:
            return
        if self._hears_a_leader() and not request.is_transfer:
            self.reach(Probe.VOTE_REFUSED_LIVE_LEADER)
            return  # Dissertation 4.2.3: nobody deposes a leader that is heard.
        up_to_date = self._is_up_to_date(request.last_index, request.last_term)
        if not up_to_date:
            self.reach(Probe.VOTE_REFUSED_OLD_LOG)
        if request.pre:
            granted = up_to_date and request.term > self.term
            term = request.term if granted else self.term
            self._messages.append((sender, VoteReply(term, granted, pre=True)))
            return
        if request.term > self.term:
            self._become_follower(request.term, None)
        granted = up_to_date and request.term == self.term and self._may_vote_for(sender)
        if granted:
            self.vote = sender
            self._reset_election_timer()
        elif up_to_date and request.term == self.term:
            self.reach(Probe.VOTE_REFUSED_SECOND)
        self._messages.append((sender, VoteReply(self.term, granted, pre=False)))

    def _on_vote_reply(self, sender: NodeId, reply: VoteReply) -> None:
        # A vote counts only in the very campaign it was given to: same kind, same term.
        campaign = (Role.PRE_CANDIDATE, self.term + 1) if reply.pre else (Role.CANDIDATE, self.term)
        if not reply.granted or (self.role, reply.term) != campaign:
            if reply.granted and reply.term < self.term:
                self.reach(Probe.LATE_VOTE)
            return
        self._votes.add(sender)
        if not reply.pre:
            self._take_office_if_elected()
        elif self.configuration.has_quorum(self._votes):
            self._start_election()

    def _take_office_if_elected(self) -> None:
        if self.configuration.has_quorum(self._votes):
            self._become_leader()

    def _on_timeout_now(self, message: TimeoutNow) -> None:
        # Dissertation 3.10: the leader wants this node to succeed it, so no pre-vote is needed.
        if message.term == self.term and self.role is Role.FOLLOWER and self._may_campaign():
            self._start_election(is_transfer=True)

    # ---- a node whose data is new (see `recall`) ----------------------------------------------

    def _ask_for_recall(self) -> None:
        assert self._recall is not None
        if self._now_ms < self._heartbeat_due_ms:
            return
        self._heartbeat_due_ms = self._now_ms + self.config.heartbeat_ms
        if self._recall.floor is None:
            request = RecallRequest(self._recall.nonce)
            missing = self._recall.missing(self._other_voters())
            self._messages.extend((peer, request) for peer in missing)

    def _on_recall_request(self, sender: NodeId, request: RecallRequest) -> None:
        # Whatever the sender said in its earlier life does not hold any more.
        self._votes.discard(sender)
        if sender in self._progress:
            if self._progress[sender].match_index:
                self.reach(Probe.ACKNOWLEDGEMENTS_FORGOTTEN)
            self._progress[sender] = Progress(self.log.last_index + 1, self._now_ms)
        is_blank = self._recall is not None and not (self.term or self.log.last_index)
        reply = RecallReply(
            request.nonce, self.term, self.log.last_index, self.log.last_term, is_blank
        )
        self._messages.append((sender, reply))

    def _on_recall_reply(self, sender: NodeId, reply: RecallReply) -> None:
        recall = self._recall
        if recall is None or recall.floor is not None:
            return
        recall.hear(sender, reply)
        if recall.is_new_cluster(self.id, self.configuration):
            self._recall = None
            self._reset_election_timer()
            return
        floor = recall.conclude(self._other_voters())
        if floor is not None:
            self._become_follower(max(floor.term, self.term), None)
            self.vote = self.id  # Nobody else gets the vote of a term in which one may be given.
            self._end_recall_if_caught_up()

    def _end_recall_if_caught_up(self) -> None:
        floor = self._recall.floor if self._recall is not None else None
        if floor is not None and (self.log.last_term, self.log.last_index) >= floor.log:
            self.reach(Probe.OBSERVER_CAUGHT_UP)
            self._recall = None
            self._reset_election_timer()

    # ---- replication, the follower's side -----------------------------------------------------

    def _on_append_request(self, sender: NodeId, request: AppendRequest) -> None:
        if request.term < self.term:
            self.reach(Probe.APPEND_OF_OLDER_TERM)
            # Our term tells the deposed leader to step down (section 5.1). It must say no more: the
            # request may be so late that its sender leads again, in the very term of this reply.
            reply = AppendReply(self.term, 0, success=False, index=0)
            self._messages.append((sender, reply))
            return
        self._hear_leader(sender, request.term)
        previous, entries = request.prev_index, request.entries
        vouched = previous + len(entries)
        behind = self.log.base_index - previous
        if behind > 0:
            # What the snapshot covers is committed, so it is what the leader has there.
            self.reach(Probe.APPEND_BEFORE_SNAPSHOT)
            previous, entries = self.log.base_index, entries[behind:]
        elif self.log.term_at(previous) != request.prev_term:
            self._messages.append((sender, self._conflict(request)))
            return
        if entries:
            self._take_over(previous, entries)
        # Section 5.3: "index of last new entry". What lies beyond `vouched` in our log may be an
        # old leader's, however far the new leader has committed.
        if vouched < min(request.commit, self.log.last_index):
            self.reach(Probe.COMMIT_HELD_BACK)
        self._commit_to(min(request.commit, vouched))
        reply = AppendReply(self.term, request.round, success=True, index=vouched)
        self._messages.append((sender, reply))

    def _hear_leader(self, sender: NodeId, term: int) -> None:
        if self.role is Role.LEADER:
            self._violated(f"{sender} and {self.id} both lead term {self.term}")
        self._become_follower(term, sender)
        self._leader_heard_ms = self._now_ms
        self._reset_election_timer()

    def _conflict(self, request: AppendRequest) -> AppendReply:
        index = request.prev_index
        term = self.log.term_at(index)
        if term is not None:
            self.reach(Probe.CONFLICT_OF_TERMS)
        hint = self.log.last_index + 1 if term is None else self.log.first_index_of(term)
        return AppendReply(self.term, request.round, False, index, hint, term or 0)

    def _take_over(self, prev_index: int, entries: Sequence[Entry]) -> None:
        # Section 5.3: an entry that is there already stays, and so does what follows it; only a
        # different term at the same index shows that the rest of our log must go.
        known = 0
        held = self.log.last_index - prev_index
        while known < min(held, len(entries)):
            index = prev_index + 1 + known
            if self.log.term_at(index) != entries[known].term:
                if index <= self.commit:
                    self._violated(f"{self.id} would cut committed entry {index} of {self.commit}")
                self._cut_from(index)
                break
            known += 1
        if known < len(entries):
            self._extend(entries[known:] if known else entries)
        elif known < held:
            self.reach(Probe.LATE_APPEND_KEPT_TAIL)
        self._end_recall_if_caught_up()

    def _cut_from(self, index: int) -> None:
        self.reach(Probe.CONFLICTING_TAIL_CUT)
        self.log.truncate_from(index)
        self._soil(index)
        # Dissertation 4.1: a configuration that is taken back gives way to the one before.
        while self._configurations[-1][0] >= index:
            self.reach(Probe.CONFIGURATION_TAKEN_BACK)
            self._configurations.pop()

    def _extend(self, entries: Sequence[Entry]) -> None:
        first = self.log.last_index + 1
        self._soil(first)
        self.log.extend(entries)
        self._note_configurations(first, entries)

    def _note_configurations(self, first: int, entries: Sequence[Entry]) -> None:
        if not any(map(_is_configuration, entries)):
            return
        for index, entry in enumerate(entries, first):
            if entry.is_configuration:
                self._configurations.append((index, decode_configuration(entry.command)))

    def _soil(self, index: int) -> None:
        if self._dirty_from is None or index < self._dirty_from:
            self._dirty_from = index

    def _commit_to(self, index: int) -> None:
        self.commit = max(self.commit, index)

    # ---- snapshots ----------------------------------------------------------------------------

    def meta_at_applied(self) -> SnapshotMeta:
        """What a snapshot of the state as it is applied now has to say of itself."""
        term = self.log.term_at(self.applied)
        assert term is not None, f"applied {self.applied} is not in the log"
        return SnapshotMeta(self.applied, term, self._configuration_at(self.applied))

    def compact(self, meta: SnapshotMeta) -> None:
        """A snapshot of this node is on its disk: the log before it may go, but for a little."""
        assert meta.index <= self.applied, f"snapshot {meta.index} beyond {self.applied}"
        if meta.index <= self.snapshot.index:
            return
        if self._incoming is not None:
            self.reach(Probe.SNAPSHOT_WHILE_RECEIVING)
        self.snapshot = meta
        base = max(self.log.base_index, meta.index - self.config.trailing_count)
        # What is not on disk yet must stay until the next effects hand it out.
        if self._dirty_from is not None:
            base = min(base, self._dirty_from - 1)
        self._drop_up_to(base)

    def installed(self, meta: SnapshotMeta) -> bool:
        """A snapshot from a leader is on this node's disk.

        True: the caller replaces its state by it before it takes the next effects. False: this
        node has got further in the meantime and keeps what it has.
        """
        incoming, self._incoming = self._incoming, None
        self._is_installing = False
        if incoming is not None:
            self._messages.append((incoming[0], InstallReply(self.term, 0, meta.index, None)))
        if meta.index <= self.commit:
            self.reach(Probe.SNAPSHOT_OUTRUN)
            return False
        self.snapshot = meta
        if self.log.term_at(meta.index) == meta.term:
            self.log.compact_to(meta.index)
        else:
            if self.log.last_index >= meta.index:
                self.reach(Probe.SNAPSHOT_REPLACED_LOG)
            self.log.reset(meta.index, meta.term)
        self._configurations = [
            (meta.index, meta.configuration),
            *((index, c) for index, c in self._configurations if index > meta.index),
        ]
        if self.log.last_index == meta.index:
            del self._configurations[1:]
        self._base = meta
        self._dirty_from = meta.index + 1
        self.commit = self.applied = meta.index
        self._end_recall_if_caught_up()
        return True

    def refuse_install(self, index: int) -> None:
        """The snapshot that was received is unsound: ask for it again, from its beginning."""
        if self._incoming is not None and self._incoming[1] == index:
            leader = self._incoming[0]
            self._incoming = None
            self._is_installing = False
            self._messages.append((leader, InstallReply(self.term, 0, index, 0)))

    def _on_install_request(self, sender: NodeId, request: InstallRequest) -> None:
        if request.term < self.term:
            self._messages.append((sender, AppendReply(self.term, 0, success=False, index=0)))
            return
        self._hear_leader(sender, request.term)
        source = (sender, request.index, request.index_term)
        if request.index <= self.commit:
            self._messages.append((sender, self._install_reply(request, None)))
            return
        if self._is_installing:
            return  # Complete, and being checked: `installed` or `refuse_install` will answer.
        if self._incoming != source:
            if self._incoming is not None:
                self.reach(Probe.SNAPSHOT_BEGUN_ANEW)
            self._incoming = source
            self._incoming_offset = 0
        if request.offset == self._incoming_offset:
            self._chunks.append(request)
            self._incoming_offset += len(request.data)
            self._is_installing = request.is_last
        if not self._is_installing:
            reply = self._install_reply(request, self._incoming_offset)
            self._messages.append((sender, reply))

    def _install_reply(self, request: InstallRequest, offset: int | None) -> InstallReply:
        return InstallReply(self.term, request.round, request.index, offset)

    def _on_install_reply(self, sender: NodeId, reply: InstallReply) -> None:
        follower = self._progress.get(sender)
        if self.role is not Role.LEADER or reply.term != self.term or follower is None:
            return
        follower.heard_ms = self._now_ms
        self._acknowledge_round(follower, reply.round)
        if reply.offset is not None:
            if follower.state is State.SNAPSHOT and follower.snapshot_index == reply.index:
                follower.wants(reply.offset)
        elif reply.index <= self.log.last_index and follower.accepted(reply.index, self._now_ms):
            self._advance_commit()

    def _configuration_at(self, index: int) -> Configuration:
        return next(c for at, c in reversed(self._configurations) if at <= index)

    def _drop_up_to(self, index: int) -> None:
        if index > self.log.base_index:
            kept = [(at, c) for at, c in self._configurations if at > index]
            self._configurations = [(index, self._configuration_at(index)), *kept]
            self.log.compact_to(index)

    # ---- leading: what goes out ---------------------------------------------------------------

    def _append(self, entries: Sequence[Entry]) -> None:
        self._extend(entries)
        self.uncommitted_bytes += command_bytes(entries)

    def _lead(self) -> None:
        """Admit reads, begin a round if one is due, and write to every follower that needs it."""
        self._go_on_with_change()
        if self.role is not Role.LEADER:
            return
        if self.commit >= self._term_start and self._reads.admit(self._round + 1, self.commit):
            self._beat_due = True
        beat, self._beat_due = self._beat_due, False
        if beat:
            self._round += 1
            self._rounds_sent.append((self._round, self._now_ms))
            self._heartbeat_due_ms = self._now_ms + self.config.heartbeat_ms
            self._confirm_rounds()  # Who needs nobody else has confirmed it by that.
        requests: dict[int, AppendRequest] = {}
        last_index = self.log.last_index
        stirred_before_ms = self._now_ms - 4 * self.config.heartbeat_ms
        for peer, follower in self._progress.items():
            if beat or follower.next_index <= last_index or follower.needs_care(stirred_before_ms):
                follower.give_up_flights(stirred_before_ms)
                self._write_to(peer, follower, beat, requests)
        self._hand_over_if_ready()

    def _write_to(
        self, peer: NodeId, follower: Progress, beat: bool, requests: dict[int, AppendRequest]
    ) -> None:
        """`requests` holds what others got in this turn, by the index before their entries."""
        config, log = self.config, self.log
        while follower.may_send(config.inflight_count_max, config.inflight_bytes_max):
            previous = follower.next_index - 1
            if previous < log.base_index or follower.state is State.SNAPSHOT:
                self._send_piece(peer, follower)
                return
            if previous >= log.last_index:
                break
            request = requests.get(previous)
            if request is None:
                entries = log.batch(previous + 1, config.batch_count_max, config.batch_bytes_max)
                request = requests[previous] = self._request(previous, entries)
            self._eager.append((peer, request))
            last_index = previous + len(request.entries)
            follower.sent(last_index, command_bytes(request.entries), self._now_ms)
            beat = False
        else:
            if follower.state is State.REPLICATE and follower.next_index <= log.last_index:
                self.reach(Probe.WINDOW_FULL)
        if beat:
            # It leans on what is known to match while something is under way.
            previous = follower.next_index - 1
            if follower.is_in_flight or previous < log.base_index:
                previous = max(follower.match_index, log.base_index)
            self._eager.append((peer, self._request(previous, ())))

    def _request(self, previous: int, entries: tuple[Entry, ...]) -> AppendRequest:
        term = self.log.term_at(previous)
        assert term is not None, f"{previous} is not in the log {self.log.first_index}-"
        return AppendRequest(self.term, previous, term, entries, self.commit, self._round)

    def _send_piece(self, peer: NodeId, follower: Progress) -> None:
        meta = self.snapshot
        if self._is_silent(follower):
            self.reach(Probe.SNAPSHOT_TO_SILENT)
        follower.needs_snapshot(meta.index)
        request = InstallRequest(self.term, self._round, meta.index, meta.term, follower.offset)
        self._eager.append((peer, request))
        follower.sent(meta.index, self.config.chunk_bytes, self._now_ms)

    # ---- leading: what comes back -------------------------------------------------------------

    def _on_append_reply(self, sender: NodeId, reply: AppendReply) -> None:
        follower = self._progress.get(sender)
        if (
            self.role is not Role.LEADER
            or reply.term != self.term
            or reply.round == 0
            or follower is None
        ):
            if self.role is Role.LEADER:
                self.reach(Probe.REPLY_TO_OLDER_OFFICE)
            return  # Said to an earlier office: it vouches for nothing in this one.
        follower.heard_ms = self._now_ms
        self._acknowledge_round(follower, reply.round)
        if reply.index > self.log.last_index:
            self._violated(f"{sender} speaks of {reply.index}, our log ends {self.log.last_index}")
        elif not reply.success:
            # Leaves at least one entry to send, so the next effects() probes further back.
            follower.rejected(reply.index, self._next_after_conflict(reply))
        elif follower.accepted(reply.index, self._now_ms):
            self._advance_commit()

    def _next_after_conflict(self, reply: AppendReply) -> int:
        # Section 5.3, fast back-up: skip the follower's whole term unless we hold it too.
        if reply.hint_term:
            last = self.log.last_index_of(reply.hint_term)
            if last and self.log.term_at(last) == reply.hint_term:
                return last + 1
        return reply.hint_index

    def _advance_commit(self) -> None:
        matches = {node: follower.match_index for node, follower in self._progress.items()}
        matches[self.id] = self._durable_index
        index = self.configuration.agreed(matches)
        if index <= self.commit:
            return
        if not self._may_commit(index):
            self.reach(Probe.OLD_TERM_ON_MAJORITY)
            return
        if self.log.term_at(self.commit + 1) != self.term:
            self.reach(Probe.OLD_TERM_COMMITTED)
        self._commit_to(index)

    def _may_commit(self, index: int) -> bool:
        # Section 5.4.2 and figure 8: an entry from an older term is committed only through a newer
        # one, otherwise a later leader could still overwrite it although a majority holds it.
        return self.log.term_at(index) == self.term

    def _acknowledge_round(self, follower: Progress, number: int) -> None:
        if number > follower.acked_round:
            follower.acked_round = number
            self._confirm_rounds()

    def _confirm_rounds(self) -> None:
        rounds = {node: follower.acked_round for node, follower in self._progress.items()}
        rounds[self.id] = self._round
        confirmed = self.configuration.agreed(rounds)
        while self._rounds_sent and self._rounds_sent[0][0] <= confirmed:
            _, sent_ms = self._rounds_sent.popleft()
            # From when it was sent: the followers' loyalty began after that, never before.
            self._lease_until_ms = sent_ms + self.config.lease_ms
        for index, ticket in self._reads.confirm(confirmed):
            self._grant_read(index, ticket)

    def _grant_read(self, index: int, ticket: Ticket) -> None:
        if isinstance(ticket, int):
            self._answerable.append((index, ticket))
        else:
            follower, batch = ticket
            self._eager.append((follower, ReadReply(self.term, batch, index)))

    # ---- leading: handing over (dissertation 3.10) --------------------------------------------

    def transfer(self, target: NodeId | None) -> None:
        """Begin to hand the office to `target`, or to the voter whose log is the furthest.

        Until it is done, or an election timeout is over, nothing is accepted. Raises Refused.
        """
        if self.role is not Role.LEADER:
            raise Refused("no-leader", f"{self.id} does not lead; ask the leader {self.leader}")
        voters = [node for node in self.configuration.voters if node in self._progress]
        if target is None:
            if not voters:
                raise Refused("refused-change", "there is no other voter to hand over to")
            target = max(voters, key=lambda node: (self._progress[node].match_index, node))
        if target == self.id:
            return
        if target not in voters:
            known = ", ".join(voters) or "nobody"
            raise Refused("refused-change", f"{target} is no voter; there is {known} to choose")
        self._transfer = target
        self._transfer_until_ms = self._now_ms + self.config.election_timeout_ms
        self._is_timeout_sent = False

    def _hand_over_if_ready(self) -> None:
        target = self._progress.get(self._transfer) if self._transfer is not None else None
        if target is None or self._is_timeout_sent:
            return
        if target.match_index == self.log.last_index:
            assert self._transfer is not None
            self._call_to_campaign(self._transfer)
            self._is_timeout_sent = True

    def _call_to_campaign(self, node: NodeId) -> None:
        # Its voters need not be loyal to us, so no lease holds from now on, however it ends.
        self._is_lease_void = True
        self._eager.append((node, TimeoutNow(self.term)))

    # ---- leading: membership (dissertation chapter 4) -----------------------------------------

    def reconfigure(
        self,
        voters: Sequence[NodeId],
        learners: Sequence[NodeId],
        addresses: Mapping[NodeId, str],
    ) -> None:
        """Set out for these members; raises Refused. The configuration shows how far it got.

        A change is accepted only when the one before is committed, and only by a leader that has
        committed an entry of its own term (Ongaro's correction of 2015 to dissertation 4.1: else
        two leaders could change the same old configuration, to disjoint majorities).
        """
        if self.role is not Role.LEADER:
            raise Refused("no-leader", f"{self.id} does not lead; ask the leader {self.leader}")
        if self.commit < self._term_start or not self.is_configuration_committed:
            raise Refused("refused-change", "an earlier change is not committed yet; try again")
        if self._transfer is not None:
            raise Refused("transferring", "the leader is handing over; try again")
        step = first_step(self.configuration, voters, learners, addresses)
        if step is not None:
            self._enter(step)

    def _enter(self, configuration: Configuration) -> None:
        if any(map(self._is_silent, self._progress.values())):
            self.reach(Probe.CHANGE_WITH_SILENT_MEMBER)
        self._append([Entry(self.term, encode_configuration(configuration), True)])
        self._follow_members()

    def _follow_members(self) -> None:
        # Who leaves still hears of it: its progress goes when the change is committed.
        for node in self.configuration.members:
            if node != self.id and node not in self._progress:
                self._progress[node] = Progress(self.log.last_index + 1, self._now_ms)

    def _go_on_with_change(self) -> None:
        if self.configuration is self._settled:
            return
        if not self.is_configuration_committed or self.commit < self._term_start:
            return
        members = self.configuration.members
        gone = [node for node in self._progress if node not in members]
        if self.id not in self.configuration.voters and not self.configuration.is_joint:
            self._leave_office(gone)
            return
        for node in gone:
            # A last word, so that it learns that the change is committed.
            self._write_to(node, self._progress.pop(node), True, {})
        if not (self.configuration.is_joint or self.configuration.target):
            self._settled = self.configuration
            return
        caught_up = {self.id, *(node for node in members if self._is_caught_up(node))}
        step = next_step(self.configuration, caught_up)
        if step is not None and self._transfer is None:
            self._enter(step)

    def _is_caught_up(self, node: NodeId) -> bool:
        follower = self._progress.get(node)
        if follower is None:
            return False
        return follower.match_index >= self.commit and not self._is_silent(follower)

    def _is_silent(self, follower: Progress) -> bool:
        return follower.heard_ms < self._now_ms - self.config.election_timeout_ms

    def _leave_office(self, gone: Sequence[NodeId]) -> None:
        # Dissertation 4.2.2: a leader that removed itself goes when the change is committed.
        self.reach(Probe.LEADER_REMOVED)
        voters = [node for node in self.configuration.voters if node in self._progress]
        for node in (*gone, *voters):
            self._write_to(node, self._progress[node], True, {})
        best = max(voters, key=lambda node: (self._progress[node].match_index, node))
        self._call_to_campaign(best)
        self._become_follower(self.term, None)

    # ---- invariants ---------------------------------------------------------------------------

    def _violated(self, what: str) -> None:
        """What a correct cluster cannot bring about has happened: stop before it spreads.

        A method, because the deliberately faulty variants go on instead, so that the damage
        reaches the clients and their histories.
        """
        raise Impossible(what)
