"""One running node: the core, its disk, its peers and its clients on one asyncio loop.

Inputs reach the core at once; its effects are taken once per turn of the loop (`_flush`), so all
that arrived in a turn shares one batch to the disk and one write per peer. Only `_flush` carries
out effects, in the order that `raft.Effects` prescribes.
"""

import asyncio
import contextlib
import random
import secrets
import signal
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

import msgspec

from labrys.node.answers import Respond
from labrys.node.api import Api
from labrys.node.audit import AUDIT_EVERY, Audit
from labrys.node.bugs import Bug
from labrys.node.configuration import Configuration
from labrys.node.effects import Effects
from labrys.node.errors import DiskFull, MachineError, NodeError, Refused
from labrys.node.http import Clients
from labrys.node.log import command_bytes
from labrys.node.logline import Say, wall_iso, write_line
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
from labrys.node.peers import Address, PeerNetwork
from labrys.node.raft import Config, Raft, Role
from labrys.node.service import Service
from labrys.node.snapshotter import Snapshotter, Thresholds, read_state
from labrys.node.storage import CLUSTER, Received, Storage
from labrys.node.telling import Teller, node_metrics, node_status, shown
from labrys.node.writer import Job, Writer

EXIT_INTERNAL = 70
EXPIRE_EVERY_MS = 100
"""How late at most a request that waits too long is ended, however far off the next election is."""
HAND_OVER_TIMEOUTS = 2
"""Election timeouts that a stopping leader waits for somebody to take over."""


class Settings(msgspec.Struct, frozen=True):
    """What the command line says."""

    config: Config
    peers: Mapping[NodeId, Address]
    """Where each first member listens for peers, this node among them; none when it joins."""
    listen: Address
    http: Address
    data: Path
    request_timeout_ms: int
    cluster: str = CLUSTER
    thresholds: Thresholds = Thresholds()
    seed: int | None = None
    bug: Bug | None = None

    @property
    def initial(self) -> Configuration:
        """The configuration where neither log nor snapshot says another."""
        addresses = {node: shown(address) for node, address in self.peers.items()}
        return Configuration(voters=tuple(self.peers), addresses=addresses)


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Node:
    """A node from start to stop; use `run`."""

    def __init__(self, settings: Settings, storage: Storage, say: Say) -> None:
        """Must be made in a running event loop; `storage` is open and stays the caller's."""
        self._settings = settings
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._started_at = wall_iso()
        self._stopped: asyncio.Future[int] = self._loop.create_future()
        self._storage = storage
        core = settings.bug.raft if settings.bug else Raft
        restored = storage.restored(settings.initial)
        self._raft = core(settings.config, restored, random.Random(settings.seed), _now_ms())
        self._peers = PeerNetwork(
            settings.config.id, self._on_message, self._on_link_lost, say,
            cluster=settings.cluster, address=settings.listen,
        )  # fmt: skip
        self._service = Service(
            self._raft,
            read_state(storage, restored.snapshot),
            self._peers.send,
            _now_ms,
            settings.request_timeout_ms,
            first_id=secrets.randbits(62),
            wall_ms=_wall_ms,
        )
        self._clients = Clients(Api(self._service, self))
        self._writer = Writer(storage, self._on_persisted, self.fail, self._on_disk_full)
        self._snapshotter = Snapshotter(
            self._raft, storage, self._writer, settings.thresholds, self._install, self.fail, say
        )
        self._audit = (settings.bug.audit if settings.bug else Audit)(self._raft.id)
        self._teller = Teller(say)
        self._durable_term = restored.hard_state.term
        self._members: Configuration | None = None
        self._is_flush_due = False
        self._is_stopping = False
        self._timer = self._loop.call_later(0, self._on_timer)

    # ---- life ---------------------------------------------------------------------------------

    async def run(self) -> int:
        """Serve until a signal or a failure; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.stop, signal.Signals(number).name)
        self._loop.set_exception_handler(self._on_exception)
        servers: list[asyncio.Server] = []
        # First of all: who reads the log knows by it that what is not kept on disk begins anew.
        self._say(event="boot", term=self._raft.term, commit=self._raft.commit)
        try:
            servers.append(await self._peers.listen(self._settings.listen))
            servers.append(await self._clients.listen(self._settings.http))
            self._follow_members()
            self._say(
                event="start",
                term=self._raft.term,
                snapshot_index=self._raft.snapshot.index,
                last_index=self._raft.log.last_index,
                http=shown(self._settings.http),
                listen=shown(self._settings.listen),
            )
            code = await self._stopped
        finally:
            for server in servers:
                server.close()
            self._timer.cancel()
            self._service.stop()
            self._clients.abort()
            await self._peers.close()
            self._snapshotter.stop()
            self._writer.stop()
        self._say(event="stop", code=code, term=self._durable_term, commit=self._raft.commit)
        return code

    def stop(self, reason: str) -> None:
        """Begin an orderly stop: a leader hands over first, unless it is told a second time."""
        if self._is_stopping:
            self._stop_now()
        if self._stopped.done():
            return
        self._say(event="stopping", reason=reason)
        with contextlib.suppress(Refused):
            self._raft.transfer(None)
        if not self._raft.is_transferring:
            self._stopped.set_result(0)
            return
        patience_ms = HAND_OVER_TIMEOUTS * self._settings.config.election_timeout_ms
        self._loop.call_later(patience_ms / 1000, self._stop_now)
        self._is_stopping = True
        self.wake()

    def _stop_now(self) -> None:
        if not self._stopped.done():
            self._stopped.set_result(0)

    def fail(self, error: BaseException) -> None:
        """Stop because something broke that cannot be mended from here."""
        if self._stopped.done():
            return
        if isinstance(error, NodeError):
            self._say(event="fatal", message=error)
            self._stopped.set_result(error.exit_code)
            return
        self._say(event="fatal", message=f"{type(error).__name__}: {error}")
        # Not one line, and meant to be found: this is a bug in the node.
        write_line("".join(traceback.format_exception(error)))
        self._stopped.set_result(EXIT_INTERNAL)

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError):
            # asyncio's own trouble with one connection, such as accept() out of descriptors.
            self._say(warning=context.get("message"), reason=error)
        elif isinstance(error, BaseException):
            self.fail(error)
        else:
            self._say(warning=context.get("message"))

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
                self._raft.step(peer, message, _now_ms())
        self.wake()

    def _on_link_lost(self, peer: NodeId) -> None:
        self._raft.unreachable(peer)
        self._service.lose_link(peer)

    def _on_timer(self) -> None:
        self._raft.tick(_now_ms())
        self._service.expire()
        self._clients.cut_stalled(self._loop.time())
        self._flush()
        self._arm_timer()

    def _arm_timer(self) -> None:
        delay_ms = max(1, self._raft.deadline_ms - _now_ms())
        if self._service.pending_count or self._clients:
            delay_ms = min(delay_ms, EXPIRE_EVERY_MS)
        self._timer.cancel()
        self._timer = self._loop.call_later(delay_ms / 1000, self._on_timer)

    def _on_persisted(self, jobs: list[Job], received: list[Received]) -> None:
        for batch, messages in jobs:
            for peer, message in messages:
                self._send(peer, message)
            if batch is not None:
                if batch.hard_state is not None:
                    self._durable_term = batch.hard_state.term
                self._raft.persisted(batch.term, batch.last_index)
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
            self._raft.transfer(None)
        self.wake()

    def _install(self, machine: Machine) -> None:
        self._service.machine = machine
        self.wake()

    # ---- effects ------------------------------------------------------------------------------

    def wake(self) -> None:
        """Take the effects of what came in, at the end of this turn of the loop."""
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        if self._stopped.done():
            return
        self._service.propose()
        effects = self._raft.effects()
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
        if effects.committed and self._raft.applied < self._raft.commit:
            self.wake()
        has_changed = self._teller.tell(self._raft, _now_ms(), self._durable_term)
        is_late = self._timer.when() > self._loop.time() + EXPIRE_EVERY_MS / 1000
        if is_late and (has_changed or self._service.pending_count):
            self._arm_timer()  # Heartbeats, or requests, are due sooner than the election was.
        if self._is_stopping and self._raft.role is not Role.LEADER:
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
            self._raft.unreachable(peer)

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
        configuration = self._raft.configuration
        if configuration is not self._members:
            self._members = configuration
            self._peers.update(
                {node: _address(place) for node, place in configuration.addresses.items()}
            )

    # ---- the corruption check -----------------------------------------------------------------

    def _report_state(self, index: int) -> None:
        report = self._audit.note(index, self._service.machine.state_hash)
        self._say(event="state", index=index, state_hash=f"{report.state_hash:016x}")
        if self._raft.role is Role.LEADER:
            self._hear_report(self._raft.id, report)
        elif self._raft.leader is not None:
            self._peers.send(self._raft.leader, report)

    def _hear_report(self, sender: NodeId, report: StateReport) -> None:
        for node, verdict in self._audit.hear(sender, report, self._raft.configuration):
            if node == self._raft.id:
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
        return node_status(self._raft, self._service.machine) | more

    def health(self) -> dict[str, object]:
        """What GET /healthz tells."""
        raft = self._raft
        ready = raft.is_ready and raft.applied == raft.commit
        return {"ready": ready, "role": raft.role, "leader": raft.leader}

    def metrics(self) -> bytes:
        """What GET /metrics tells."""
        return node_metrics(self._raft, self._service, self._clients, self._snapshotter)

    def take_snapshot(self, respond: Respond) -> None:
        """Write a snapshot now and answer when it is on disk."""
        self._snapshotter.answer(self._service.machine, respond)


def _address(place: str) -> Address:
    host, _, port = place.rpartition(":")
    return host, int(port)


async def serve(settings: Settings, say: Say) -> int:
    """Open the data directory and run the node until it stops; the exit code.

    Raises MachineError when the directory, a port or the disk cannot be had.
    """
    storage_type = settings.bug.storage if settings.bug else Storage
    # The only member of a cluster cannot have promised anything that others rely on.
    first_state = HardState(is_observer=len(settings.peers) > 1)
    with storage_type(
        settings.data, settings.config.id, cluster=settings.cluster, first_state=first_state
    ) as storage:
        if storage.cut_bytes:
            say(event="recovered", cut_bytes=storage.cut_bytes, reason="the last write was torn")
        for unsound in storage.snapshots.unsound:
            say(warning="passed over a snapshot", reason=unsound)
        try:
            return await Node(settings, storage, say).run()
        except OSError as error:
            raise MachineError(f"cannot run: {error}") from error
