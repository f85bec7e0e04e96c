"""One running node, whatever it runs in: the core, its disk, its peers and its clients.

Inputs reach the core at once; its effects are taken once per turn of the scheduler (`_flush`), so
all that arrived in a turn shares one batch to the disk and one write per peer. Only `_flush`
carries out effects, in the order that `raft.Effects` prescribes.

There is no thread, socket or clock in here: they come from `surroundings`.
"""

import contextlib
import traceback

import msgspec

from labrys.node.answers import Respond
from labrys.node.audit import AUDIT_EVERY
from labrys.node.configuration import Configuration
from labrys.node.disk import Disk
from labrys.node.effects import Effects
from labrys.node.errors import DiskFull, NodeError, Refused
from labrys.node.http import Clients
from labrys.node.log import command_bytes
from labrys.node.logline import wall_iso
from labrys.node.machine import Machine
from labrys.node.messages import (
    Diverged,
    ForwardReply,
    ForwardRequest,
    HardState,
    Hello,
    InstallRequest,
    Message,
    NodeId,
    RaftMessage,
    StateReport,
)
from labrys.node.probes import Probe
from labrys.node.raft import Role
from labrys.node.settings import Settings
from labrys.node.snapshotter import Snapshotter, read_state
from labrys.node.storage import Received, Storage
from labrys.node.surroundings import Address, Job, Surroundings
from labrys.node.telling import Teller, node_metrics, node_status, shown

EXIT_INTERNAL = 70
EXPIRE_EVERY_MS = 100
"""How late at most a request that waits too long is ended, however far off the next election is."""
HAND_OVER_TIMEOUTS = 2
"""Election timeouts that a stopping leader waits for somebody to take over."""


def open_storage(settings: Settings, disk: Disk | None = None) -> Storage:
    """Open the data directory; raises MachineError."""
    # The only member of a cluster cannot have promised anything that others rely on.
    first_state = HardState(is_observer=len(settings.peers) > 1)
    return settings.parts.storage(
        settings.data,
        settings.config.id,
        cluster=settings.cluster,
        first_state=first_state,
        disk=disk,
        segment_bytes=settings.segment_bytes,
    )


class Engine:
    """A node from start to stop: `start` it, and `close` it when `Surroundings.end` was called."""

    def __init__(self, settings: Settings, storage: Storage, around: Surroundings) -> None:
        """`storage` is open and stays the caller's."""
        self._settings = settings
        self._around = around
        self._say = say = around.say
        self._now_ms = around.now_ms
        self._scheduler = around.scheduler
        self._started_at = wall_iso(around.wall_ms())
        self._exit_code: int | None = None
        self._storage = storage
        parts = settings.parts
        restored = storage.restored(settings.initial)
        self.raft = parts.raft(settings.config, restored, around.rng, self._now_ms())
        self.raft.reach = around.reach
        self._peers = around.connect(self._on_message, self._on_link_lost)
        self._service = parts.service(
            self.raft,
            self._heeded(read_state(storage, restored.snapshot, parts.machine)),
            self._peers.send,
            self._now_ms,
            settings.request_timeout_ms,
            first_id=around.new_id(),
            wall_ms=around.wall_ms,
        )
        self.api = parts.api(self._service, self)
        self.clients = Clients(self.api)
        self._writer = around.write_behind(
            storage, self._on_persisted, self.fail, self._on_disk_full
        )
        self._snapshotter = Snapshotter(
            self.raft, storage, parts.machine, self._writer, settings.thresholds, self._install,
            self.fail, around,
        )  # fmt: skip
        self._audit = parts.audit(self.raft.id)
        self._teller = Teller(say)
        self.durable_term = restored.hard_state.term
        """The term that is on disk: what the log tells must not be forgotten in a crash."""
        self._members: Configuration | None = None
        self._is_flush_due = False
        self._is_stopping = False
        self._timer = self._scheduler.call_later(0, self._on_timer)
        if restored.snapshot.index and restored.entries:
            around.reach(Probe.SNAPSHOT_AND_LOG)
        if storage.segment_count > 1:
            around.reach(Probe.SEVERAL_SEGMENTS)
        if storage.cut_bytes:
            around.reach(Probe.TORN_TAIL)
            say(event="recovered", cut_bytes=storage.cut_bytes, reason="the last write was torn")
        for unsound in storage.snapshots.unsound:
            say(warning="passed over a snapshot", reason=unsound)
        # Who reads the log knows by it that what is not kept on disk begins anew.
        say(event="boot", term=self.raft.term, commit=self.raft.commit)

    # ---- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to talk with the others; whoever listens for them listens already."""
        self._follow_members()
        self._say(
            event="start",
            term=self.raft.term,
            snapshot_index=self.raft.snapshot.index,
            last_index=self.raft.log.last_index,
            http=shown(self._settings.http),
            listen=shown(self._settings.listen),
        )

    def close(self) -> None:
        """Take no more turns, and tell all who wait that nothing will come."""
        self._timer.cancel()
        self._service.stop()
        self._snapshotter.stop()

    @property
    def has_ended(self) -> bool:
        """Whether it has come to its end, by itself or by `stop`."""
        return self._exit_code is not None

    def stop(self, reason: str) -> None:
        """Begin an orderly stop: a leader hands over first, unless it is told a second time."""
        if self._is_stopping:
            self._stop_now()
        if self.has_ended:
            return
        self._say(event="stopping", reason=reason)
        with contextlib.suppress(Refused):
            self.raft.transfer(None)
        if not self.raft.is_transferring:
            self._end(0)
            return
        patience_ms = HAND_OVER_TIMEOUTS * self._settings.config.election_timeout_ms
        self._scheduler.call_later(patience_ms / 1000, self._stop_now)
        self._is_stopping = True
        self.wake()

    def _stop_now(self) -> None:
        if not self.has_ended:
            self._end(0)

    def fail(self, error: BaseException) -> None:
        """Stop because something broke that cannot be mended from here."""
        if self.has_ended:
            return
        if isinstance(error, NodeError):
            self._say(event="fatal", message=error)
            self._end(error.exit_code)
            return
        self._say(event="fatal", message=f"{type(error).__name__}: {error}")
        # Not one line, and meant to be found: this is a bug in the node.
        self._around.write_text("".join(traceback.format_exception(error)))
        self._end(EXIT_INTERNAL)

    def _end(self, code: int) -> None:
        self._exit_code = code
        self._around.end(code)

    # ---- inputs -------------------------------------------------------------------------------

    def _on_message(self, peer: NodeId, message: Message) -> None:
        match message:
            case ForwardRequest():
                self._service.on_forward(peer, message)
            case ForwardReply():
                self._service.on_forward_reply(message)
            case StateReport():
                self._hear_report(peer, message)
            case Diverged():
                self._check_state(message)
            case Hello():
                self._say(warning="a second hello", peer=peer)
            case _:
                self.raft.step(peer, message, self._now_ms())
        self.wake()

    def _on_link_lost(self, peer: NodeId) -> None:
        self.raft.unreachable(peer)
        self._service.lose_link(peer)

    def _on_timer(self) -> None:
        self.raft.tick(self._now_ms())
        self._service.expire()
        self.clients.cut_stalled(self._scheduler.time())
        self._flush()
        self._arm_timer()

    def _arm_timer(self) -> None:
        delay_ms = max(1, self.raft.deadline_ms - self._now_ms())
        if self._service.pending_count or self.clients:
            delay_ms = min(delay_ms, EXPIRE_EVERY_MS)
        self._timer.cancel()
        self._timer = self._scheduler.call_later(delay_ms / 1000, self._on_timer)

    def _on_persisted(self, jobs: list[Job], received: list[Received]) -> None:
        for batch, messages in jobs:
            for peer, message in messages:
                self._send(peer, message)
            if batch is not None:
                if batch.hard_state is not None:
                    self.durable_term = batch.hard_state.term
                self.raft.persisted(batch.term, batch.last_index)
                # What a follower has on disk matters to its leader alone, who was told just now.
                if batch.hard_state is not None or self.raft.role is not Role.FOLLOWER:
                    self.wake()
        for each in received:
            self._snapshotter.receive(each)

    def _on_disk_full(self, error: DiskFull | None) -> None:
        self._service.refusal = None if error is None else str(error)
        if error is None:
            self._say(event="disk-has-room")
            return
        self._say(event="disk-full", reason=error)
        # Somebody else's disk may have room; here nothing more is taken in.
        with contextlib.suppress(Refused):
            self.raft.transfer(None)
        self.wake()

    def _install(self, machine: Machine) -> None:
        self._service.machine = self._heeded(machine)
        self.wake()

    def _heeded(self, machine: Machine) -> Machine:
        machine.reach = self._around.reach
        return machine

    # ---- effects ------------------------------------------------------------------------------

    def wake(self) -> None:
        """Take the effects of what came in, at the end of this turn of the loop."""
        if not self._is_flush_due:
            self._is_flush_due = True
            self._scheduler.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        if self.has_ended:
            return
        self._service.propose()
        effects = self.raft.effects()
        for peer, message in effects.eager:
            self._send(peer, message)
        self._writer.submit((effects.persist, effects.messages))
        if effects.committed:
            self._apply(effects)
        self._service.answer_reads(effects.reads)
        self._service.observe()
        self._service.note_office()
        self._follow_members()
        if self._snapshotter.is_due():
            self._snapshotter.write(self._service.machine)
        # A faulty variant may have cut what it committed: it gets on when new entries come.
        if effects.committed and self.raft.applied < self.raft.commit:
            self.wake()
        has_changed = self._teller.tell(self.raft, self._now_ms(), self.durable_term)
        in_time_s = EXPIRE_EVERY_MS / 1000
        if (has_changed or self._service.pending_count) and (
            self._timer.when() > self._scheduler.time() + in_time_s
        ):
            self._arm_timer()  # Heartbeats, or requests, are due sooner than the election was.
        if self._is_stopping and self.raft.role is not Role.LEADER:
            self._stop_now()

    def _send(self, peer: NodeId, message: RaftMessage) -> None:
        if isinstance(message, InstallRequest):
            try:
                data, is_last = self._storage.snapshots.read_chunk(
                    message.index, message.offset, self._settings.config.chunk_bytes
                )
            except OSError as error:
                self._say(warning="cannot send a snapshot", index=message.index, reason=error)
                return
            message = msgspec.structs.replace(message, data=data, is_last=is_last)
        if not self._peers.send(peer, message):
            self.raft.unreachable(peer)

    def _apply(self, effects: Effects) -> None:
        """Execute what is committed, in runs that end where states are compared."""
        first, entries = effects.first_committed, effects.committed
        self._snapshotter.count(command_bytes(entries))
        while entries:
            count = AUDIT_EVERY - (first - 1) % AUDIT_EVERY
            run, entries = entries[:count], entries[count:]
            self._service.apply(first, run)
            first += len(run)
            if (first - 1) % AUDIT_EVERY == 0:
                self._report_state(first - 1)

    def _follow_members(self) -> None:
        configuration = self.raft.configuration
        if configuration is not self._members:
            self._members = configuration
            self._peers.update(
                {node: _address(place) for node, place in configuration.addresses.items()}
            )

    # ---- the corruption check -----------------------------------------------------------------

    def _report_state(self, index: int) -> None:
        report = self._audit.note(index, self._service.machine.state_hash)
        self._say(event="state", index=index, state_hash=f"{report.state_hash:016x}")
        if self.raft.role is Role.LEADER:
            self._hear_report(self.raft.id, report)
        elif self.raft.leader is not None:
            self._peers.send(self.raft.leader, report)

    def _hear_report(self, sender: NodeId, report: StateReport) -> None:
        for node, verdict in self._audit.hear(sender, report, self.raft.configuration):
            if node == self.raft.id:
                self._check_state(verdict)
            else:
                self._peers.send(node, verdict)

    def _check_state(self, verdict: Diverged) -> None:
        try:
            self._audit.check(verdict)
        except NodeError as error:
            self.fail(error)

    # ---- what others may know -----------------------------------------------------------------

    def status(self) -> dict[str, object]:
        """What GET /v1/status tells."""
        more = {"started_at": self._started_at, "disk_full": self._service.refusal is not None}
        return node_status(self.raft, self._service.machine) | more

    def health(self) -> dict[str, object]:
        """What GET /healthz tells."""
        raft = self.raft
        ready = raft.is_ready and raft.applied == raft.commit
        return {"ready": ready, "role": raft.role, "leader": raft.leader}

    def metrics(self) -> bytes:
        """What GET /metrics tells."""
        return node_metrics(self.raft, self._service, self.clients, self._snapshotter)

    def take_snapshot(self, respond: Respond) -> None:
        """Write a snapshot now and answer when it is on disk."""
        self._snapshotter.answer(self._service.machine, respond)


def _address(place: str) -> Address:
    host, _, port = place.rpartition(":")
    return host, int(port)
