"""A simulated machine: a disk, a clock, and at most one process, which is the node's engine.

What reaches a process while it is paused waits until it goes on; what reaches one that is dead is
lost. The engine takes no time; its disk and the network do.
"""

import contextlib
import random
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

from labrys.control.process import State
from labrys.control.sim.disk import Crash, SimDisk
from labrys.control.sim.network import Links, Network
from labrys.control.sim.promises import Violation
from labrys.control.sim.watch import Watch, WatchedEngine
from labrys.control.sim.world import MS_NS, SECOND_NS, Signal, World
from labrys.node.answers import Answer
from labrys.node.api import Call
from labrys.node.engine import Engine, open_storage
from labrys.node.errors import DiskFull, NodeError
from labrys.node.logline import words
from labrys.node.messages import Message, NodeId
from labrys.node.settings import Settings
from labrys.node.storage import Received, Storage
from labrys.node.surroundings import Chore, Job, Scheduler, T
from labrys.node.writer import RETRY_S

EPOCH_MS: Final = 946_684_800_000
"""The time of day at which a simulation begins: the year 2000. What is shown to people is put off
by the real time of the run."""
START_NS: Final = (50 * MS_NS, 250 * MS_NS)
"""How long a program takes to start."""
SYNC_NS: Final = (200_000, 1_500_000)
"""How long a write and its flush take, now and then `SLOW_SYNC` times as long."""
SLOW_SYNC: Final = (0.01, 30)
"""How often, and by how much."""
ASIDE_NS: Final = (2 * MS_NS, 60 * MS_NS)
"""How long it takes to write or read a snapshot."""
CRASH_STEPS_MAX: Final = 6
"""A crash comes before one of the next so many operations on the disk, or after them."""
RATE_PPM: Final = 50
"""By how much the clocks of machines run fast or slow."""
WALL_OFF_NS: Final = 20 * MS_NS
"""By how much their times of day are off."""


class Clock:
    """A machine's clock: it began somewhere, and runs a little fast or slow."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self.rate = 1.0 + rng.uniform(-RATE_PPM, RATE_PPM) / 1e6
        self._booted_ns = rng.randrange(SECOND_NS, 10**6 * SECOND_NS)
        self._wall_off_ns = rng.randrange(-WALL_OFF_NS, WALL_OFF_NS)

    def now_ns(self) -> int:
        """Since the machine was booted."""
        return self._booted_ns + int(self._world.now_ns * self.rate)

    def now_ms(self) -> int:
        """The same in milliseconds."""
        return (self._booted_ns + int(self._world.now_ns * self.rate)) // MS_NS

    def now_s(self) -> float:
        """The same in seconds."""
        return self.now_ns() / SECOND_NS

    def wall_ms(self) -> int:
        """The time of day, since 1970."""
        return EPOCH_MS + (int(self._world.now_ns * self.rate) + self._wall_off_ns) // MS_NS


class Machine:
    """One node's place. Its methods may be called in any state."""

    def __init__(self, world: World, network: Network, name: NodeId, watch: Watch) -> None:
        self.world = world
        self.watch = watch
        self.network = network
        self.name = name
        self.rng = world.stream(f"machine/{name}")
        self.clock = Clock(world, self.rng)
        self.disk = SimDisk()
        self.process: Process | None = None
        self.log: list[tuple[int, str]] = []
        """(time of day in ms, the rest of the line)."""
        self._lives = 0

    @property
    def state(self) -> State:
        """What the process is doing."""
        if self.process is None:
            return State.DEAD
        return State.STOPPED if self.process.is_paused else State.RUNNING

    def start(self, settings: Settings) -> None:
        """Start a process, if there is none."""
        if self.process is None:
            self._lives += 1
            self.process = Process(self, settings, f"{self.name}/{self._lives}")

    def kill(self) -> None:
        """End the process at once, in the middle of whatever it does to the disk.

        What was written and not flushed is lost, torn, or kept: the harshest end there is.
        """
        if self.process is not None:
            process, self.process = self.process, None
            process.crash()
            keep = self.rng.choice((0.0, self.rng.random(), 1.0))
            self.disk = self.disk.after_crash(keep, self.rng)

    def lose_data(self) -> int:
        """Put an empty disk in place of the one of a dead process; return how much was on it."""
        assert self.process is None, f"{self.name} lives"
        lost_bytes, self.disk = self.disk.used_bytes(), SimDisk()
        return lost_bytes

    def pause(self) -> None:
        """Let the process stand still."""
        if self.process is not None:
            self.process.is_paused = True

    def resume(self) -> None:
        """Let it go on."""
        if self.process is not None:
            self.process.resume()

    def told(self) -> str:
        """What the node is waiting for, in words."""
        process = self.process
        if process is None or process.engine is None:
            return f"{self.name} is {self.state}: {self.log[-1][1] if self.log else 'no log'}"
        raft = process.engine.raft
        hears = ",".join(link.source.name for link in process.links.incoming()) or "nobody"
        return (
            f"{self.name} is {self.state}, {raft.role} of term {raft.term} under {raft.leader}, "
            f"committed {raft.commit} of {raft.log.last_index}, hears {hears}"
        )

    def break_promise(self, violation: Violation) -> None:
        """What the node did at this moment broke a promise of Raft."""
        if self.watch.broken is None:
            self.say(event="violation", what=violation)
        self.watch.tell(violation)

    def has_exited(self) -> None:
        """The process has come to its own end."""
        self.process = None

    def say(self, **facts: object) -> None:
        """A line of the log; see `labrys.node.logline`."""
        self.write_text(f"mono_ms={self.clock.now_ms()} {self.name} {words(facts)}")

    def write_text(self, text: str) -> None:
        """See `Surroundings`."""
        self.log.append((self.clock.wall_ms(), text))


class Exchange:
    """A client's request to a process, and the answer or the broken connection that it gets."""

    def __init__(self, process: "Process") -> None:
        self._process = process
        self.answer: Answer | None = None
        self.done = Signal()

    def begin(self, call: Call) -> None:
        """Hand the request to the engine."""
        engine = self._process.engine
        assert engine is not None, "nobody connects to a process that does not listen"
        engine.api.handle(call, self._respond)

    def _respond(self, answer: Answer) -> None:
        process = self._process
        if self in process.exchanges:
            del process.exchanges[self]
            self.answer = answer
            process.machine.world.call_at(process.client_due_ns(), self._finish)

    def break_off(self) -> None:
        """The process is gone: no answer comes any more, and the client is told."""
        self._process.machine.world.call_at(self._process.client_due_ns(), self._finish)

    def _finish(self) -> None:
        self._process.machine.world.set(self.done)


class Process:
    """One life of a node. Implements `labrys.node.surroundings`' Surroundings and Scheduler."""

    def __init__(self, machine: Machine, settings: Settings, life: str) -> None:
        self.machine = machine
        self.name = machine.name
        self.is_alive = True
        self.is_paused = False
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
        self._settings = settings
        self._world = machine.world
        self._held: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._asides: list[tuple[Callable[[], None], Callable[[], None]]] = []
        """Work beside the engine, the first under way: how it is done, and what follows it."""
        self._storage: Storage | None = None
        self._writer: Writer | None = None
        self._is_ending = False
        due_ns = self._world.now_ns + self.rng.randrange(*START_NS)
        self._world.call_at(due_ns, self.deliver, self._start)

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
        if self.is_paused:
            self._held.append((call, args))
            return
        try:
            call(*args)
        except Violation as violation:
            self.machine.break_promise(violation)
        except Exception as error:
            if self.engine is None:
                raise
            self.engine.fail(error)

    def resume(self) -> None:
        """Take what has come in the meantime, in its order."""
        if self.is_paused:
            self.is_paused = False
            held, self._held = self._held, []
            for call, args in held:
                self._world.call_soon(self.deliver, call, *args)

    def crash(self) -> None:
        """End at once; see `Machine.kill`."""
        self._die()
        disk = self.machine.disk
        disk.torn_bytes = self.rng.randrange(256)
        # Each thread that is at the disk gets a little further, or not at all.
        pieces: list[Callable[[], object]] = [work for work, _ in self._asides[:1]]
        if self._writer is not None:
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
        self.say(event="stop", code=code, term=engine.raft.term, commit=engine.raft.commit)
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
            carry_out()
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
        self._world.call_at(due_ns, self.deliver, finish)

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

    __slots__ = ("_callback", "_process", "_when_s")

    def __init__(self, process: Process, delay_s: float, callback: Callable[[], object]) -> None:
        clock = process.machine.clock
        self._process = process
        self._callback: Callable[[], object] | None = callback
        self._when_s = clock.now_s() + delay_s
        world = process.machine.world
        # Rounded up: a timer that fires a nanosecond early would be asked again and again.
        due_ns = world.now_ns + int(delay_s * SECOND_NS / clock.rate) + 1
        world.call_at(due_ns, self._fire)

    def cancel(self) -> None:
        """See `Timer`."""
        self._callback = None

    def when(self) -> float:
        """See `Timer`."""
        return self._when_s

    def _fire(self) -> None:
        if self._callback is not None:
            self._process.deliver(self._call)

    def _call(self) -> None:
        if self._callback is not None:
            self._callback()


class Writer:
    """Implements `LogWriter` of `labrys.node.surroundings`, without a thread."""

    def __init__(
        self,
        process: Process,
        storage: Storage,
        on_done: Callable[[list[Job], list[Received]], None],
        on_failure: Callable[[Exception], None],
        on_full: Callable[[DiskFull | None], None],
    ) -> None:
        self._process = process
        self._world = process.machine.world
        self._storage = storage
        self._on_done = on_done
        self._on_failure = on_failure
        self._on_full = on_full
        self._rng = process.rng
        self._waiting: list[Job | Chore] = []
        self._under_way: list[Job | Chore] = []
        self._is_full = False

    def submit(self, job: Job) -> None:
        """See `LogWriter`."""
        if job[0] is None and not self._waiting and not self._under_way:
            if job[1]:
                self._on_done([job], [])
            return
        self.submit_chore(job)

    def submit_chore(self, chore: Job | Chore) -> None:
        """See `LogWriter`."""
        self._waiting.append(chore)
        if not self._under_way:
            self._begin()

    def carry_out(self) -> list[Received]:
        """Do now what is under way; raises what the disk raises."""
        batches = [
            each[0] for each in self._under_way if isinstance(each, tuple) and each[0] is not None
        ]
        received = self._storage.write(batches) if batches else []
        if self._process.is_alive:
            self._process.machine.watch.store(self._process.name, batches)
        for each in self._under_way:
            if not isinstance(each, tuple):
                each()
        return received

    def flush(self) -> None:
        """Finish what is queued, for an orderly end."""
        self._under_way += self._waiting
        self._waiting.clear()
        try:
            self.carry_out()
        except NodeError as error:
            self._process.say(warning="the last writes failed", reason=error)

    def _begin(self) -> None:
        self._under_way, self._waiting = self._waiting, []
        self._world.call_at(self._due_ns(), self._process.deliver, self._finish)

    def _due_ns(self) -> int:
        taken_ns = self._rng.randrange(*SYNC_NS)
        often, factor = SLOW_SYNC
        if self._rng.random() < often:
            taken_ns *= factor
        return self._world.now_ns + taken_ns

    def _finish(self) -> None:
        try:
            received = self.carry_out()
        except DiskFull as error:
            if not self._is_full:
                self._is_full = True
                self._on_full(error)
            due_ns = self._world.now_ns + int(RETRY_S * SECOND_NS)
            self._world.call_at(due_ns, self._process.deliver, self._finish)
            return
        except Exception as error:  # Also what is not a NodeError must stop the node.
            self._on_failure(error)
            return
        if self._is_full:
            self._is_full = False
            self._on_full(None)
        jobs = [each for each in self._under_way if isinstance(each, tuple)]
        self._under_way = []
        if self._waiting:
            self._begin()
        if jobs:
            self._on_done(jobs, received)


DATA: Final = Path("/data")
"""The data directory, on every machine."""
