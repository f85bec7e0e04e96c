"""One running node: the core, its disk, its peers and its clients on one asyncio loop.

Inputs reach the core at once; its effects are taken once per turn of the loop (`_flush`), so all
that arrived in a turn shares one batch to the disk and one message per peer. Only `_flush` carries
out effects, in the order that `raft.Effects` prescribes.
"""

import asyncio
import random
import secrets
import signal
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

import msgspec

from labrys.node.api import Api
from labrys.node.bugs import Bug
from labrys.node.configuration import Configuration
from labrys.node.effects import Restored, SnapshotMeta
from labrys.node.errors import MachineError, NodeError
from labrys.node.http import Clients
from labrys.node.logline import Say, wall_iso, write_line
from labrys.node.machine import Machine
from labrys.node.messages import (
    Diverged,
    ForwardReply,
    ForwardRequest,
    Hello,
    Message,
    NodeId,
    StateReport,
)
from labrys.node.peers import Address, PeerNetwork
from labrys.node.raft import Config, Raft, Role
from labrys.node.service import Service
from labrys.node.storage import Storage
from labrys.node.writer import Job, Writer

EXIT_INTERNAL = 70
COMMIT_LINE_EVERY_MS = 1000
"""At most one log line about commits in this time."""
EXPIRE_EVERY_MS = 100
"""How late at most a request that waits too long is ended, however far off the next election is."""


class Settings(msgspec.Struct, frozen=True):
    """What the command line says."""

    config: Config
    peers: Mapping[NodeId, Address]
    """Where each member listens for peers, this node among them."""
    listen: Address
    http: Address
    data: Path
    request_timeout_ms: int
    seed: int | None = None
    bug: Bug | None = None


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
        core = settings.bug.raft if settings.bug else Raft
        self._raft = core(
            settings.config,
            Restored(storage.hard_state, SnapshotMeta(0, 0, _initial(settings)), storage.entries),
            random.Random(settings.seed),
            _now_ms(),
        )
        others = {n: a for n, a in settings.peers.items() if n != settings.config.id}
        self._peers = PeerNetwork(
            settings.config.id, others, self._on_message, self._on_link_lost, say
        )
        self._service = Service(
            self._raft,
            Machine(),
            self._peers.send,
            _now_ms,
            settings.request_timeout_ms,
            first_id=secrets.randbits(62),
            wall_ms=_wall_ms,
        )
        self._clients = Clients(Api(self._service, self))
        self._writer = Writer(storage, self._on_persisted, self.fail)
        self._is_flush_due = False
        self._timer = self._loop.call_soon(self._on_timer)
        self._said: tuple[Role, int, NodeId | None] | None = None
        self._said_commit = 0
        self._said_commit_ms = 0

    # ---- life ---------------------------------------------------------------------------------

    async def run(self) -> int:
        """Serve until a signal or a failure; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.stop, signal.Signals(number).name)
        self._loop.set_exception_handler(self._on_exception)
        servers: list[asyncio.Server] = []
        dialling: list[asyncio.Task[None]] = []
        try:
            servers.append(await self._peers.listen(self._settings.listen))
            servers.append(await self._clients.listen(self._settings.http))
            dialling.extend(
                self._loop.create_task(self._peers.keep_dialling(peer))
                for peer in self._settings.peers
                if peer != self._raft.id
            )
            self._say(
                event="start",
                term=self._raft.term,
                last_index=self._raft.log.last_index,
                http=_shown(self._settings.http),
                listen=_shown(self._settings.listen),
            )
            code = await self._stopped
        finally:
            for server in servers:
                server.close()
            self._timer.cancel()
            self._service.stop()
            self._clients.abort()
            for task in dialling:
                task.cancel()
            await asyncio.gather(*dialling, return_exceptions=True)
            self._peers.abort()
            self._writer.stop()
        self._say(event="stop", code=code, term=self._raft.term, commit=self._raft.commit)
        return code

    def stop(self, reason: str) -> None:
        """Begin an orderly stop."""
        if not self._stopped.done():
            self._say(event="stopping", reason=reason)
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
            case Hello():
                self._say(warning="a second hello", peer=peer)
            case StateReport() | Diverged():
                self._say(warning="an answer to a question nobody asked", peer=peer)
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
        delay_ms = min(max(1, self._raft.deadline_ms - _now_ms()), EXPIRE_EVERY_MS)
        self._timer.cancel()
        self._timer = self._loop.call_later(delay_ms / 1000, self._on_timer)

    def _on_persisted(self, jobs: list[Job]) -> None:
        for batch, messages in jobs:
            for peer, message in messages:
                self._peers.send(peer, message)
            if batch is not None:
                self._raft.persisted(batch.term, batch.last_index)
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
        effects = self._raft.effects()
        for peer, message in effects.eager:
            self._peers.send(peer, message)
        self._writer.submit((effects.persist, effects.messages))
        if effects.committed:
            self._service.apply(effects.first_committed, effects.committed)
        self._service.answer_reads(effects.reads)
        self._service.observe()
        self._service.note_office()
        # A faulty variant may have cut what it committed: it gets on when new entries come.
        if effects.committed and self._raft.applied < self._raft.commit:
            self.wake()
        self._tell()

    def _tell(self) -> None:
        """Log what changed since the last time."""
        raft = self._raft
        state = (raft.role, raft.term, raft.leader)
        if state != self._said:
            if raft.role is Role.LEADER:
                self._arm_timer()  # Heartbeats are due sooner than the election was.
            self._said = state
            self._say(
                role=raft.role, term=raft.term, leader=raft.leader, last_index=raft.log.last_index
            )
        now_ms = _now_ms()
        if (
            raft.commit != self._said_commit
            and now_ms - self._said_commit_ms >= COMMIT_LINE_EVERY_MS
        ):
            self._said_commit, self._said_commit_ms = raft.commit, now_ms
            self._say(event="commit", commit=raft.commit, applied=raft.applied, term=raft.term)

    # ---- what others may know -----------------------------------------------------------------

    def status(self) -> dict[str, object]:
        """What GET /v1/status tells."""
        raft, machine = self._raft, self._service.machine
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
            "members": raft.configuration.addresses,
            "voters": raft.configuration.voters,
            "learners": raft.configuration.learners,
            "is_changing": not raft.is_configuration_committed or raft.configuration.is_joint,
            "started_at": self._started_at,
        }

    def health(self) -> dict[str, object]:
        """What GET /healthz tells."""
        raft = self._raft
        ready = raft.is_ready and raft.applied == raft.commit
        return {"ready": ready, "role": raft.role, "leader": raft.leader}


def _initial(settings: Settings) -> Configuration:
    addresses = {node: _shown(address) for node, address in settings.peers.items()}
    return Configuration(voters=tuple(settings.peers), addresses=addresses)


def _shown(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


async def serve(settings: Settings, say: Say) -> int:
    """Open the data directory and run the node until it stops; the exit code.

    Raises MachineError when the directory, a port or the disk cannot be had.
    """
    storage_type = settings.bug.storage if settings.bug else Storage
    with storage_type(settings.data, settings.config.id) as storage:
        if storage.cut_bytes:
            say(event="recovered", cut_bytes=storage.cut_bytes, reason="the last write was torn")
        try:
            return await Node(settings, storage, say).run()
        except OSError as error:
            raise MachineError(f"cannot run: {error}") from error
