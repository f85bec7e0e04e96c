"""Raft as a pure state machine: messages, ticks and proposals in, `Effects` out.

The problem. A node must never say what its disk does not yet know: a vote that is granted and then
forgotten elects two leaders, an entry that is acknowledged and then lost was never replicated.
And it should say as much as possible per disk write, because a write that is flushed costs more
than everything else together.

The idea. Inputs (`tick`, `step`, `propose`, `read`, `persisted`) only change the state in memory.
`effects()` then hands out everything that follows from all inputs since the last call: one batch
for the disk and the messages that wait for it. Whoever calls it after a burst of inputs gets group
commit for nothing. The class has no clock, socket, file or randomness of its own, so the same code
runs in the server and, thousands of times a second, in the tests.

The rules that carry safety, with the place that keeps each:
- one vote per term, remembered across crashes: `_on_vote_request`, `Effects.messages` (5.2)
- a vote only for a log at least as new as one's own: `_is_up_to_date` (5.4.1)
- entries of older terms are committed only through one of the leader's own: `_may_commit` (5.4.2)
- a follower commits only what the message at hand vouched for: `_on_append_request` (5.3)
- the log is cut only at a real conflict, so late messages take nothing back: `_take_over` (5.3)
- replies count only in the term they were given in: `step` and the handlers
- reads are answered only after a round begun after they came: `reads.ReadQueue` (6.4)

"Section n" means the Raft paper (extended version), "dissertation n" Ongaro's thesis.
"""

import random
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from labrys.node.log import Log
from labrys.node.messages import (
    AppendReply,
    AppendRequest,
    Entry,
    HardState,
    NodeId,
    RaftMessage,
    VoteReply,
    VoteRequest,
)
from labrys.node.progress import Progress
from labrys.node.reads import ReadQueue

NO_OP = b""
"""The command of the entry with which a leader opens its term; the state machine skips it."""


class Role(StrEnum):
    """What a node is in its current term (figure 4), with the pre-vote as a step of its own."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Config(msgspec.Struct, frozen=True):
    """Who takes part, and the limits. Election timeouts are drawn from [e, 2e)."""

    id: NodeId
    voters: tuple[NodeId, ...]
    """All members, this node among them."""
    election_timeout_ms: int = 300
    heartbeat_ms: int = 60
    batch_count_max: int = 2048
    """Entries in one AppendEntries."""
    batch_bytes_max: int = 1 << 20
    apply_count_max: int = 4096
    """Entries applied per `Effects`, so that a long replay does not starve the heartbeats."""
    apply_bytes_max: int = 1 << 20
    """Bytes of commands applied per `Effects`, but at least one command, for the same reason."""


class Persist(msgspec.Struct, frozen=True, gc=False):
    """One batch for the disk, to be written and flushed as a whole."""

    term: int
    last_index: int
    """Where the log ends after this batch: what to tell `Raft.persisted`, with the term."""
    hard_state: HardState | None
    """The new term and vote, None when they did not change."""
    first_index: int
    entries: tuple[Entry, ...]
    """Replace everything from `first_index` on; nothing to replace when empty."""


class Effects(msgspec.Struct, frozen=True, gc=False):
    """What follows from the inputs since the last call, in the order in which it may happen.

    `eager` may leave at once: a leader's requests promise nothing about its own disk, and its term
    was on disk before it could be elected (dissertation 10.2.1). Then `persist` goes to disk, and
    only when it and all batches before it are there may `messages` leave. `committed` is held by a
    quorum of disks and waits for nobody; `reads` are answered after it is applied.
    """

    eager: tuple[tuple[NodeId, RaftMessage], ...]
    persist: Persist | None
    messages: tuple[tuple[NodeId, RaftMessage], ...]
    first_committed: int
    """Index of `committed[0]`."""
    committed: tuple[Entry, ...]
    reads: tuple[int, ...]


class Raft:
    """One member of a cluster. Times are milliseconds on any clock that does not run backwards."""

    def __init__(
        self,
        config: Config,
        hard_state: HardState,
        entries: Sequence[Entry],
        rng: random.Random,
        now_ms: int,
    ) -> None:
        """A follower that knows what `hard_state` and `entries` say: a first start or a restart."""
        assert config.id in config.voters, f"{config.id} is not among {config.voters}"
        self.config = config
        self.id = config.id
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.log = Log(entries)
        self.role = Role.FOLLOWER
        self.leader: NodeId | None = None
        self.commit = 0
        self.applied = 0
        """Everything up to here was handed out in `Effects.committed`."""
        self._peers = tuple(voter for voter in config.voters if voter != config.id)
        self._quorum = len(config.voters) // 2 + 1
        self._rng = rng
        self._now_ms = now_ms
        self._leader_heard_ms = now_ms
        self._votes: set[NodeId] = set()
        self._reset_election_timer()

        # Only a leader uses these; _become_leader gives them their values.
        self._progress: dict[NodeId, Progress] = {}
        self._reads = ReadQueue()
        self._term_start = 0
        self._durable_index = 0
        self._round = 0
        self._beat_due = False
        self._heartbeat_due_ms = now_ms

        # What the next Effects will hold.
        self._messages: list[tuple[NodeId, RaftMessage]] = []
        self._persisted_state = hard_state
        self._dirty_from: int | None = None

    # ---- inputs -------------------------------------------------------------------------------

    @property
    def deadline_ms(self) -> int:
        """When `tick` has something to do next; it may move later without notice."""
        return self._heartbeat_due_ms if self.role is Role.LEADER else self._election_due_ms

    @property
    def is_ready(self) -> bool:
        """Whether a client is served here: a leader is known and, if it is us, in full office."""
        if self.role is Role.LEADER:
            return self.commit >= self._term_start
        return self.leader is not None

    def tick(self, now_ms: int) -> None:
        """Let time pass: start elections, send heartbeats, lay down an office nobody supports."""
        self._advance_clock(now_ms)
        if self.role is Role.LEADER:
            if self._has_lost_quorum():
                self._become_follower(self.term, None)
            elif now_ms >= self._heartbeat_due_ms:
                self._beat_due = True
        elif now_ms >= self._election_due_ms:
            self._start_pre_vote()

    def step(self, sender: NodeId, message: RaftMessage, now_ms: int) -> None:
        """Take in one message; anything from outside the cluster is ignored."""
        self._advance_clock(now_ms)
        if sender not in self._peers:
            return
        if isinstance(message, VoteRequest):
            self._on_vote_request(sender, message)  # it alone decides when to believe the term
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

    def propose(self, command: bytes) -> int | None:
        """Append a command as leader: its index, to be watched in `committed`, else None."""
        if self.role is not Role.LEADER:
            return None
        return self._append(command)

    def read(self, read_id: int) -> bool:
        """Ask for a linearizable read; False when not the leader.

        The id comes back in `Effects.reads`, or never if the office is lost before.
        """
        if self.role is not Role.LEADER:
            return False
        self._reads.add(read_id)
        return True

    def persisted(self, term: int, last_index: int) -> None:
        """A batch is on disk. Only the leader of that same term may count it as its own copy.

        In any other term the entry at `last_index` may have been replaced meanwhile, and the disk
        would vouch for an entry that it does not hold.
        """
        if self.role is Role.LEADER and term == self.term:
            self._durable_index = max(self._durable_index, last_index)
            self._advance_commit()

    def effects(self) -> Effects:
        """Everything that follows from the inputs since the last call; see `Effects`."""
        eager = self._lead() if self.role is Role.LEADER else ()
        first = self.applied + 1
        ready = min(self.commit - self.applied, self.config.apply_count_max)
        committed = self.log.batch(first, ready, self.config.apply_bytes_max) if ready > 0 else ()
        self.applied += len(committed)
        persist = self._take_persist()
        messages, self._messages = tuple(self._messages), []
        reads = self._reads.take(self.applied)
        return Effects(eager, persist, messages, first, committed, reads)

    def _take_persist(self) -> Persist | None:
        state = HardState(self.term, self.vote)
        changed = state != self._persisted_state
        if not changed and self._dirty_from is None:
            return None
        first = self._dirty_from if self._dirty_from is not None else self.log.last_index + 1
        self._persisted_state = state
        self._dirty_from = None
        return Persist(
            term=self.term,
            last_index=self.log.last_index,
            hard_state=state if changed else None,
            first_index=first,
            entries=self.log.since(first),
        )

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
        if term > self.term:
            self.term = term
            self.vote = None
        if self.role is not Role.FOLLOWER:
            self.role = Role.FOLLOWER
            self._reset_election_timer()
        self.leader = leader
        self._votes.clear()
        self._progress.clear()
        self._reads.clear()

    def _start_pre_vote(self) -> None:
        # Dissertation 9.6: ask first, so that a node that was cut off does not come back with a
        # high term and depose a leader that everybody else hears.
        self.role = Role.PRE_CANDIDATE
        self._canvass(self.term + 1, pre=True)
        if len(self._votes) >= self._quorum:
            self._start_election()

    def _start_election(self) -> None:
        self.role = Role.CANDIDATE
        self.term += 1
        self.vote = self.id
        self._canvass(self.term, pre=False)
        if len(self._votes) >= self._quorum:
            self._become_leader()

    def _canvass(self, term: int, *, pre: bool) -> None:
        self.leader = None
        self._votes = {self.id}
        self._reset_election_timer()
        request = VoteRequest(term, self.log.last_index, self.log.last_term, pre)
        self._messages.extend((peer, request) for peer in self._peers)

    def _become_leader(self) -> None:
        assert self.role is Role.CANDIDATE, f"{self.role} cannot become leader of {self.term}"
        self.role = Role.LEADER
        self.leader = self.id
        last = self.log.last_index
        self._progress = {peer: Progress(last + 1, self._now_ms) for peer in self._peers}
        # The vote requests that won this office left after all of this log was on disk.
        self._durable_index = last
        self._beat_due = True
        self._open_term()

    def _open_term(self) -> None:
        # Section 8: what older terms left behind is committed through an entry of this one.
        self._term_start = self._append(NO_OP)

    def _has_lost_quorum(self) -> bool:
        # Check-quorum (dissertation 6.2): a leader that no majority answers steps down, so that
        # its clients stop waiting and others look for a new one.
        oldest = self._now_ms - 2 * self.config.election_timeout_ms
        answering = 1 + sum(peer.heard_ms >= oldest for peer in self._progress.values())
        return answering < self._quorum

    # ---- votes --------------------------------------------------------------------------------

    def _hears_a_leader(self) -> bool:
        if self.role is Role.LEADER:
            return True
        silence_ms = self._now_ms - self._leader_heard_ms
        return self.leader is not None and silence_ms < self.config.election_timeout_ms

    def _is_up_to_date(self, last_index: int, last_term: int) -> bool:
        # Section 5.4.1: the later last term wins, in the same term the longer log.
        return (last_term, last_index) >= (self.log.last_term, self.log.last_index)

    def _may_vote_for(self, candidate: NodeId) -> bool:
        return self.vote is None or self.vote == candidate

    def _on_vote_request(self, sender: NodeId, request: VoteRequest) -> None:
        if self._hears_a_leader():
            return  # Dissertation 4.2.3: nobody deposes a leader that is heard.
        up_to_date = self._is_up_to_date(request.last_index, request.last_term)
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
        self._messages.append((sender, VoteReply(self.term, granted, pre=False)))

    def _on_vote_reply(self, sender: NodeId, reply: VoteReply) -> None:
        # A vote counts only in the very campaign it was given to: same kind, same term.
        campaign = (Role.PRE_CANDIDATE, self.term + 1) if reply.pre else (Role.CANDIDATE, self.term)
        if not reply.granted or (self.role, reply.term) != campaign:
            return
        self._votes.add(sender)
        if len(self._votes) >= self._quorum:
            if reply.pre:
                self._start_election()
            else:
                self._become_leader()

    # ---- replication, the follower's side -----------------------------------------------------

    def _on_append_request(self, sender: NodeId, request: AppendRequest) -> None:
        if request.term < self.term:
            # Our term tells the deposed leader to step down (section 5.1). It must say no more: the
            # request may be so late that its sender leads again, in the very term of this reply.
            reply = AppendReply(self.term, 0, success=False, index=0)
            self._messages.append((sender, reply))
            return
        if self.role is Role.LEADER:
            self._violated(f"{sender} and {self.id} both lead term {self.term}")
        self._become_follower(request.term, sender)
        self._leader_heard_ms = self._now_ms
        self._reset_election_timer()
        if self.log.term_at(request.prev_index) != request.prev_term:
            self._messages.append((sender, self._conflict(request)))
            return
        self._take_over(request.prev_index, request.entries)
        vouched = request.prev_index + len(request.entries)
        # Section 5.3: "index of last new entry". What lies beyond `vouched` in our log may be an
        # old leader's, however far the new leader has committed.
        self._commit_to(min(request.commit, vouched))
        reply = AppendReply(self.term, request.round, success=True, index=vouched)
        self._messages.append((sender, reply))

    def _conflict(self, request: AppendRequest) -> AppendReply:
        index = request.prev_index
        term = self.log.term_at(index)
        hint = self.log.last_index + 1 if term is None else self.log.first_index_of(term)
        return AppendReply(self.term, request.round, False, index, hint, term or 0)

    def _take_over(self, prev_index: int, entries: Sequence[Entry]) -> None:
        # Section 5.3: an entry that is there already stays, and so does what follows it; only a
        # different term at the same index shows that the rest of our log must go.
        for index, entry in enumerate(entries, prev_index + 1):
            term = self.log.term_at(index)
            if term == entry.term:
                continue
            if term is not None:
                if index <= self.commit:
                    self._violated(f"{self.id} would cut committed entry {index} of {self.commit}")
                self.log.truncate_from(index)
            self._soil(index)
            self.log.append(entry)

    def _soil(self, index: int) -> None:
        if self._dirty_from is None or index < self._dirty_from:
            self._dirty_from = index

    def _commit_to(self, index: int) -> None:
        self.commit = max(self.commit, index)

    # ---- replication, the leader's side -------------------------------------------------------

    def _append(self, command: bytes) -> int:
        self.log.append(Entry(self.term, command))
        index = self.log.last_index
        self._soil(index)
        return index

    def _lead(self) -> tuple[tuple[NodeId, RaftMessage], ...]:
        """Admit reads, begin a round if one is due, and write to every follower that needs it."""
        if self.commit >= self._term_start and self._reads.admit(self._round + 1, self.commit):
            self._beat_due = True
        beat, self._beat_due = self._beat_due, False
        if beat:
            self._round += 1
            self._heartbeat_due_ms = self._now_ms + self.config.heartbeat_ms
        self._confirm_reads()
        requests = ((peer, self._request_for(p, beat)) for peer, p in self._progress.items())
        return tuple((peer, request) for peer, request in requests if request is not None)

    def _request_for(self, follower: Progress, beat: bool) -> AppendRequest | None:
        follower.give_up_flight(self._now_ms - 4 * self.config.heartbeat_ms)
        entries: tuple[Entry, ...] = ()
        if follower.flight_end is None:
            previous = follower.next_index - 1
            if previous < self.log.last_index:
                count, size = self.config.batch_count_max, self.config.batch_bytes_max
                entries = self.log.batch(follower.next_index, count, size)
                follower.sent(previous + len(entries), self._now_ms)
        else:
            # A batch is under way. A heartbeat beside it leans on what is known to match.
            previous = follower.match_index
        if not entries and not beat:
            return None
        term = self.log.term_at(previous)
        assert term is not None, f"next index {previous + 1} beyond the log {self.log.last_index}"
        return AppendRequest(self.term, previous, term, entries, self.commit, self._round)

    def _on_append_reply(self, sender: NodeId, reply: AppendReply) -> None:
        if self.role is not Role.LEADER or reply.term != self.term or reply.round == 0:
            return  # Said to an earlier office: it vouches for nothing in this one.
        follower = self._progress[sender]
        follower.heard_ms = self._now_ms
        if reply.round > follower.acked_round:
            follower.acked_round = reply.round
            self._confirm_reads()
        if reply.index > self.log.last_index:
            self._violated(f"{sender} speaks of {reply.index}, our log ends {self.log.last_index}")
        elif not reply.success:
            # Leaves at least one entry to send, so the next effects() probes further back.
            follower.rejected(reply.index, self._next_after_conflict(reply))
        else:
            is_news = reply.index > follower.match_index
            follower.accepted(reply.index)
            if is_news:
                self._advance_commit()

    def _next_after_conflict(self, reply: AppendReply) -> int:
        # Section 5.3, fast back-up: skip the follower's whole term unless we hold it too.
        if reply.hint_term:
            last = self.log.last_index_of(reply.hint_term)
            if last and self.log.term_at(last) == reply.hint_term:
                return last + 1
        return reply.hint_index

    def _advance_commit(self) -> None:
        matches = [follower.match_index for follower in self._progress.values()]
        matches.append(self._durable_index)
        matches.sort(reverse=True)
        index = matches[self._quorum - 1]
        if index > self.commit and self._may_commit(index):
            self._commit_to(index)

    def _may_commit(self, index: int) -> bool:
        # Section 5.4.2 and figure 8: an entry from an older term is committed only through a newer
        # one, otherwise a later leader could still overwrite it although a majority holds it.
        return self.log.term_at(index) == self.term

    def _confirm_reads(self) -> None:
        rounds = [follower.acked_round for follower in self._progress.values()]
        rounds.append(self._round)
        rounds.sort(reverse=True)
        self._reads.confirm(rounds[self._quorum - 1])

    # ---- invariants ---------------------------------------------------------------------------

    def _violated(self, what: str) -> None:
        """What a correct cluster cannot bring about has happened: stop before it spreads.

        A method, because the deliberately faulty variants go on instead, so that the damage
        reaches the clients and their histories.
        """
        raise AssertionError(what)
