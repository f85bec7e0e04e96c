"""A simulated process: one life of a node's engine, and what reaches it.

What reaches a process while it is held (it is paused, say) waits until it goes on; what reaches one
that is dead is lost. The engine takes no time, unless the machine's CPU is slow; its disk and the
network do.

On a disk that makes operations wait, whatever may touch it is done in a greenlet. The writer of the
log and the work aside wait there alone, as the threads that they stand for; when the engine itself
waits for the disk, nothing else happens in the process.
"""

import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from labrys.control.disks import fuse
from labrys.control.sim.disk import Crash, sound
from labrys.control.sim.network import Links
from labrys.control.sim.violation import Violation
from labrys.control.sim.watch import WatchedEngine
from labrys.control.sim.world import MS_NS, SECOND_NS, Signal
from labrys.control.sim.writer import Writer
from labrys.node.answers import Answer
from labrys.node.api import Call
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


class Hold(Enum):
    """Why nothing happens in a process."""

    PAUSE = auto()
    FREEZE = auto()
    CPU = auto()
    """What was begun takes its time."""
    DISK = auto()
    """The engine waits for it."""


class Exchange:
    """A client's request to a process, and the answer or the broken connection that it gets."""

    def __init__(self, process: "Process") -> None:
        self._process = process
        self.answer: Answer | None = None
        self.done = Signal()
        self._must_know = 0
        """Up to which index the answer must know the log."""

    def begin(self, call: Call) -> None:
        """Hand the request to the engine."""
        engine = self._process.engine
        assert engine is not None, "nobody connects to a process that does not listen"
        self._must_know = self._process.machine.watch.ask(call)
        engine.api.handle(call, self._respond)

    def _respond(self, answer: Answer) -> None:
        process = self._process
        if self in process.exchanges:
            del process.exchanges[self]
            self.answer = answer
            if process.engine is not None:
                process.machine.watch.answer(process.engine.raft, self._must_know, answer)
            process.machine.world.call_at(process.client_due_ns(), self._finish)

    def break_off(self) -> None:
        """The process is gone: no answer comes any more, and the client is told."""
        self._process.machine.world.call_at(self._process.client_due_ns(), self._finish)

    def _finish(self) -> None:
        self._process.machine.world.set(self.done)


class Process:
    """One life of a node. Implements `labrys.node.surroundings`' Surroundings and Scheduler."""

    def __init__(self, machine: "Machine", settings: Settings, life: str) -> None:
        self.machine = machine
        self.name = machine.name
        self.is_alive = True
        self.holds: set[Hold] = set()
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
        self._world = machine.world
        self._held: deque[tuple[Callable[..., None], Callable[..., object], tuple[Any, ...]]]
        self._held = deque()
        """How to deliver it, and what."""
        self._asides: list[tuple[Callable[[], None], Callable[[], None]]] = []
        """Work beside the engine, the first under way: how it is done, and what follows it."""
        self._storage: Storage | None = None
        self._writer: Writer | None = None
        self._is_at_disk = False
        """Whether the first of them waits there."""
        self.reconsider()
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

    # ---- what happens to it -------------------------------------------------------------------

    def deliver(self, call: Callable[..., object], *args: Any) -> None:
        """Something has come for the process."""
        if not self.is_alive:
            return
        if self._is_hindered:
            self._deliver_hindered(call, args)
            return
        try:
            call(*args)
        except Exception as error:
            self._meet(error)

    def deliver_beside(self, call: Callable[..., object], *args: Any) -> None:
        """The same for work that may wait for the disk while the engine goes on."""
        if not self.is_alive:
            return
        if self.holds - {Hold.DISK}:
            self._keep(self.deliver_beside, call, args)
        elif self.machine.makes_wait:
            self._world.spawn(partial(self._carry_out, call, args))
        else:
            self._carry_out(call, args)

    def hold(self, hold: Hold) -> None:
        """Let nothing happen."""
        self.holds.add(hold)
        self.reconsider()

    def release(self, hold: Hold) -> None:
        """Take what has come in the meantime, in its order, if nothing else is in the way."""
        if hold in self.holds:
            self.holds.discard(hold)
            self.reconsider()
            self._world.call_soon(self._catch_up)

    def reconsider(self) -> None:
        """Look whether anything is in the way of what comes."""
        machine = self.machine
        self._is_hindered = bool(
            self.holds or self._held or machine.makes_wait or machine.cpu is not None
        )

    def _catch_up(self) -> None:
        while self._held and not self.holds:
            deliver, call, args = self._held.popleft()
            deliver(call, *args)
        self.reconsider()

    def _deliver_hindered(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        if self.holds or self._held:
            self._keep(self._act, call, args)
        else:
            self._act(call, *args)

    def _keep(
        self, deliver: Callable[..., None], call: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        self._held.append((deliver, call, args))
        if Hold.CPU in self.holds and self.machine.cpu is not None:
            self.machine.cpu.waits += 1

    def _act(self, call: Callable[..., object], *args: Any) -> None:
        if self.machine.makes_wait:
            self._world.spawn(partial(self._take_turn, call, args))
        else:
            self._carry_out(call, args)

    def _take_turn(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        """Something for the engine, in a greenlet: what comes before it is done waits."""
        if not self.is_alive:
            return
        if self.holds:
            self._keep(self._act, call, args)
            return
        self.hold(Hold.DISK)
        try:
            self._carry_out(call, args)
        finally:
            self.release(Hold.DISK)

    def _carry_out(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        if self.is_alive:
            self._compute()
            try:
                call(*args)
            except Exception as error:
                self._meet(error)

    def _compute(self) -> None:
        """Let a turn take its time on a slow CPU."""
        cpu = self.machine.cpu
        if cpu is not None:
            self.hold(Hold.CPU)
            self._world.call_at(self._world.now_ns + cpu.turn_ns, self.release, Hold.CPU)

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

    def call_later(self, delay: float, callback: Callable[[], object], /) -> "ProcessTimer":
        """See `Scheduler`."""
        return ProcessTimer(self, delay, callback)

    # ---- clients ------------------------------------------------------------------------------

    def client_due_ns(self) -> int:
        """When a packet arrives that is sent now between a client and this process."""
        return self._world.now_ns + 100_000 + int(self.rng.expovariate(1.0) * 100_000)


class ProcessTimer:
    """A timer of a process, by its machine's clock."""

    __slots__ = ("_begun_ns", "_callback", "_process", "_when_s")

    def __init__(self, process: Process, delay_s: float, callback: Callable[[], object]) -> None:
        clock = process.machine.clock
        self._process = process
        self._callback: Callable[[], object] | None = callback
        self._when_s = clock.now_s() + delay_s
        self._wait(delay_s)

    def cancel(self) -> None:
        """See `Timer`."""
        self._callback = None

    def when(self) -> float:
        """See `Timer`."""
        return self._when_s

    def _wait(self, delay_s: float) -> None:
        world = self._process.machine.world
        self._begun_ns = world.now_ns
        # Rounded up: a timer that fires a nanosecond early would be asked again and again.
        due_ns = world.now_ns + int(delay_s * SECOND_NS / self._process.machine.clock.rate) + 1
        world.call_at(due_ns, self._fire)

    def _fire(self) -> None:
        if self._callback is None:
            return
        clock = self._process.machine.clock
        if clock.set_at_ns > self._begun_ns:
            # A wait that has begun keeps its length; if it was too short by now, it goes on.
            left_s = self._when_s - clock.now_s()
            if left_s > 0:
                self._wait(left_s)
                return
        self._process.deliver(self._call)

    def _call(self) -> None:
        if self._callback is not None:
            self._callback()
