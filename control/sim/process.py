"""A simulated process: one life of a node's engine.

The engine takes no time, unless the machine's CPU is slow; its disk and the network do.
"""

import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

from labrys.control.disks import fuse
from labrys.control.sim.disk import Crash, sound
from labrys.control.sim.exchange import Exchange
from labrys.control.sim.inbox import Inbox
from labrys.control.sim.links import Links
from labrys.control.sim.timer import ProcessTimer
from labrys.control.sim.violation import Violation
from labrys.control.sim.watch import WatchedEngine
from labrys.control.sim.world import MS_NS
from labrys.control.sim.writer import Writer
from labrys.node.engine import Engine, open_storage
from labrys.node.errors import DiskFull, NodeError
from labrys.node.messages import Message, NodeId
from labrys.node.probes import Reach
from labrys.node.settings import Settings
from labrys.node.storage import Received, Storage
from labrys.node.surroundings import Job, Scheduler, T

if TYPE_CHECKING:
    from labrys.control.sim.machine import Machine

START_NS: Final = (50 * MS_NS, 250 * MS_NS)
"""How long a program takes to start."""
ASIDE_NS: Final = (2 * MS_NS, 60 * MS_NS)
"""How long it takes to write or read a snapshot."""
CRASH_STEPS_MAX: Final = 6
"""A crash comes before one of the next so many operations on the disk, or after them."""


class Process(Inbox):
    """One life of a node. Implements `labrys.node.surroundings`' Surroundings and Scheduler."""

    def __init__(self, machine: "Machine", settings: Settings, life: str) -> None:
        super().__init__(machine)
        self.name = machine.name
        self.engine: Engine | None = None
        self.exchanges: dict[Exchange, None] = {}
        self.links = Links(machine.network, self, settings.listen)
        self.rng = machine.world.stream(f"process/{life}")
        self.scheduler: Scheduler = self
        self.say = machine.say
        self.write_text = machine.write_text
        self.now_ms = machine.clock.now_ms
        self.time = machine.clock.now_s
        self.wall_ms = machine.clock.wall_ms
        self.reach: Reach = machine.watch.probes.reach
        self._settings = settings
        self._asides: list[tuple[Callable[[], None], Callable[[], None]]] = []
        """Work beside the engine, the first under way: how it is done, and what follows it."""
        self._is_at_disk = False
        """Whether the first of them has reached the disk, and may be waiting there."""
        self._storage: Storage | None = None
        self._writer: Writer | None = None
        taken_ns = self.rng.randrange(*START_NS)
        if machine.cpu is not None:
            taken_ns = round(taken_ns / machine.cpu.share)
        self._world.call_at(self._world.now_ns + taken_ns, self.deliver_beside, self._start)

    @property
    def is_listening(self) -> bool:
        """Whether it can be connected to."""
        return self.is_alive and self.engine is not None

    def _start(self) -> None:
        try:
            self._storage = open_storage(self._settings, self.machine.disk)
            self.engine = WatchedEngine(self._settings, self._storage, self, self.machine.watch)
        except NodeError as error:
            self.write_text(f"labrys-node: {error}")
            self._die()
            self.machine.has_exited()
            return
        self.machine.network.processes[self.name] = self
        self.engine.start()

    # ---- its end ------------------------------------------------------------------------------

    def _meet(self, error: Exception) -> None:
        """What was done for the process raised an error."""
        if isinstance(error, Violation):
            self.machine.break_promise(error)
        elif isinstance(error, Crash):
            assert not self.is_alive, "the power is on"
        elif self.engine is None:
            raise error
        else:
            self.engine.fail(error)

    def crash(self) -> None:
        """End at once; see `Machine.kill`."""
        self._die()
        condition, disk = self.machine.condition, self.machine.disk
        if condition is not None and condition.mode == fuse.HANG:
            return
        if condition is not None and condition.mode == fuse.SLOW:
            disk.fail = sound  # A process that is gone does not wait.
        disk.torn_bytes = self.rng.randrange(256)
        # Each thread that is at the disk gets a little further, or not at all.
        pieces: list[Callable[[], object]] = []
        if self._asides and not self._is_at_disk:
            pieces.append(self._asides[0][0])
        if self._writer is not None and not self._writer.is_at_disk:
            pieces.append(self._writer.carry_out)
        for piece in pieces:
            steps = self.rng.randrange(CRASH_STEPS_MAX)
            disk.crash_at = disk.operations + steps
            if steps:
                with contextlib.suppress(Crash, NodeError, OSError):
                    piece()

    def _die(self) -> None:
        self.is_alive = False
        self._held.clear()
        if self.machine.condition is not None:
            self.machine.condition.crash()
        self.machine.watch.end(self.name)
        network = self.machine.network
        if network.processes.get(self.name) is self:
            del network.processes[self.name]
        network.has_ended(self)
        for exchange in list(self.exchanges):
            exchange.break_off()
        self.exchanges.clear()

    def _exit(self, code: int) -> None:
        engine, storage = self.engine, self._storage
        assert engine is not None
        assert storage is not None
        engine.close()
        if self._writer is not None:
            self._writer.flush()
        storage.close()
        self.say(event="stop", code=code, term=engine.durable_term, commit=engine.raft.commit)
        self._die()
        self.machine.has_exited()

    # ---- labrys.node.surroundings.Surroundings ------------------------------------------------

    def new_id(self) -> int:
        """See `Surroundings`."""
        return self.rng.getrandbits(62)

    def connect(
        self, on_message: Callable[[NodeId, Message], None], on_lost: Callable[[NodeId], None]
    ) -> Links:
        """See `Surroundings`."""
        self.on_message = on_message
        self.on_lost = on_lost
        return self.links

    def write_behind(
        self,
        storage: Storage,
        on_done: Callable[[list[Job], list[Received]], None],
        on_failure: Callable[[Exception], None],
        on_full: Callable[[DiskFull | None], None],
    ) -> "Writer":
        """See `Surroundings`."""
        self._writer = Writer(self, storage, on_done, on_failure, on_full)
        return self._writer

    def work_aside(self, work: Callable[[], T], done: Callable[[Future[T]], None]) -> None:
        """See `Surroundings`."""
        future: Future[T] = Future()

        def carry_out() -> None:
            try:
                future.set_result(work())
            except Crash:
                raise
            except Exception as error:
                future.set_exception(error)

        def finish() -> None:
            self._is_at_disk = True
            carry_out()
            self._is_at_disk = False
            del self._asides[0]
            self._world.call_soon(self.deliver, done, future)
            if self._asides:
                self._begin_aside()

        self._asides.append((carry_out, finish))
        if len(self._asides) == 1:
            self._begin_aside()

    def _begin_aside(self) -> None:
        _, finish = self._asides[0]
        due_ns = self._world.now_ns + self.rng.randrange(*ASIDE_NS)
        self._world.call_at(due_ns, self.deliver_beside, finish)

    def end(self, code: int) -> None:
        """See `Surroundings`."""
        self._world.call_soon(self.deliver, self._exit, code)

    # ---- labrys.node.surroundings.Scheduler ---------------------------------------------------

    def call_soon(self, callback: Callable[[], object], /) -> None:
        """See `Scheduler`."""
        self._world.call_soon(self.deliver, callback)

    def call_later(self, delay: float, callback: Callable[[], object], /) -> ProcessTimer:
        """See `Scheduler`."""
        return ProcessTimer(self, delay, callback)

    # ---- clients ------------------------------------------------------------------------------

    def client_due_ns(self) -> int:
        """When a packet arrives that is sent now between a client and this process."""
        return self._world.now_ns + 100_000 + int(self.rng.expovariate(1.0) * 100_000)
