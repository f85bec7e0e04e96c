"""A simulated machine: a disk, a clock, and at most one process, which is the node's engine."""

from collections.abc import Mapping
from typing import Any, Final

from labrys.control.disks import fuse
from labrys.control.process import State
from labrys.control.sim.clock import EPOCH_MS, Clock
from labrys.control.sim.condition import Condition
from labrys.control.sim.cpu import Cpu
from labrys.control.sim.disk import SimDisk, sound
from labrys.control.sim.inbox import Hold
from labrys.control.sim.network import Network
from labrys.control.sim.process import Process
from labrys.control.sim.violation import Violation
from labrys.control.sim.watch import Watch
from labrys.control.sim.world import MS_NS, SECOND_NS, World
from labrys.node.logline import words
from labrys.node.messages import NodeId
from labrys.node.settings import Settings

MIB: Final = 1 << 20
HOG_NS_PER_MIB: Final = MS_NS
"""How long a process takes to fill so much memory."""


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
        self.condition: Condition | None = None
        """What is wrong with the disk."""
        self.is_frozen = False
        """Whether nothing happens in it, and nothing can be done in it."""
        self.cpu: Cpu | None = None
        """What it has of a core; None: enough."""
        self._cpu_waits = 0
        self._oom_kills = 0
        self._room_bytes: int | None = None
        self.hog_mib: int | None = None
        """What a process that takes memory has taken; None: there is no such one."""
        self._is_cut = False
        """Whether the power is about to go."""
        self._written_back_ns = 0
        self.process: Process | None = None
        self.log: list[tuple[int, str]] = []
        """(time of day in ms, the rest of the line). The time is that of who collects the lines: by
        the node's own clock those of several nodes could not be put in order."""
        self._lives = 0

    @property
    def state(self) -> State:
        """What the process is doing."""
        if self.process is None:
            return State.DEAD
        return State.STOPPED if Hold.PAUSE in self.process.holds else State.RUNNING

    def start(self, settings: Settings) -> None:
        """Start a process, if there is none."""
        if self.process is None:
            self._lives += 1
            self.process = Process(self, settings, f"{self.name}/{self._lives}")

    def kill(self) -> None:
        """End the process at once, in the middle of whatever it does to the disk.

        What was written and not flushed is lost, torn, or kept: the harshest end there is. A disk
        that lies goes by what it said, until the power fails.
        """
        if self.process is None:
            return
        process, self.process = self.process, None
        process.crash()
        if self._is_cut:
            return
        if self.disk.lies is not None:
            self.disk.unlock()
            return
        keep = self.rng.choice((0.0, self.rng.random(), 1.0))
        self._replace_disk(self.disk.after_crash(keep, self.rng))

    def lose_data(self) -> int:
        """Put an empty disk in place of the one of a dead process; return how much was on it."""
        assert self.process is None, f"{self.name} lives"
        lost_bytes = self.disk.used_bytes()
        self.watch.excuse(self.name)
        self._replace_disk(SimDisk())
        return lost_bytes

    def pause(self) -> None:
        """Let the process stand still."""
        if self.process is not None:
            self.process.hold(Hold.PAUSE)

    def resume(self) -> None:
        """Let it go on."""
        if self.process is not None:
            self.process.release(Hold.PAUSE)

    # ---- the whole machine --------------------------------------------------------------------

    def freeze(self) -> int:
        """Let everything stand still; return how many processes that are."""
        self.is_frozen = True
        if self.process is None:
            return 0
        self.process.hold(Hold.FREEZE)
        return 1

    def thaw(self) -> bool:
        """Let it go on; whether it stood still."""
        was_frozen, self.is_frozen = self.is_frozen, False
        if self.process is not None:
            self.process.release(Hold.FREEZE)
        return was_frozen

    def limit_cpu(self, share: float | None) -> int:
        """Give it this share of a core; None: enough. How often it had to wait, in all its life."""
        if self.cpu is not None:
            self._cpu_waits += self.cpu.waits
        self.cpu = None if share is None else Cpu(share)
        if self.process is not None:
            self.process.release(Hold.CPU)
            self.process.reconsider()
        return self._cpu_waits

    def limit_memory(self, room_bytes: int | None) -> int:
        """Let it have so much memory more; None: enough. How many processes it lacked for so far.

        Nothing happens unless there is somebody who takes that, and more.
        """
        self._room_bytes = room_bytes
        if room_bytes is not None and self.hog_mib is not None:
            due_ns = self.world.now_ns + room_bytes * HOG_NS_PER_MIB // MIB
            self.world.call_at(due_ns, self._run_out_of_memory, self.process)
        return self._oom_kills

    def _run_out_of_memory(self, process: Process | None) -> None:
        if process is self.process and None not in (process, self._room_bytes, self.hog_mib):
            assert self._room_bytes is not None
            self.hog_mib = self._room_bytes // MIB
            self.kill()
            self._oom_kills += 1

    # ---- the disk -----------------------------------------------------------------------------

    @property
    def makes_wait(self) -> bool:
        """Whether who uses the disk may have to wait for it."""
        return self.condition is not None and self.condition.makes_wait

    def spoil(self, wish: Mapping[str, Any]) -> None:
        """Let something be wrong with the disk: see `Condition`."""
        self.mend()
        self.condition = condition = Condition(self.world, wish)
        if condition.mode == fuse.FULL:
            self.disk.capacity_bytes = self.disk.used_bytes() + condition.room_bytes
        self.disk.fail = condition.meet
        if self.process is not None:
            self.process.reconsider()

    def mend(self) -> dict[str, Any]:
        """Let it be sound; tells what came of the fault, if there was one."""
        condition, self.condition = self.condition, None
        if condition is None:
            return {}
        disk = self.disk
        facts = {
            "mode": condition.mode,
            "failed": condition.failed + disk.refused,
            "short": disk.short,
            "held": condition.held,
            "waiting": condition.waiting,
        }
        disk.capacity_bytes, disk.refused, disk.short = None, 0, 0
        disk.fail = sound
        condition.let_go()
        if self.process is not None:
            self.process.reconsider()
        return facts

    def cut_power(self) -> None:
        """Let the next kill be the work of a power failure; see `restore_power`."""
        self._is_cut = True

    def restore_power(self, unsynced: str, seed: str) -> dict[str, int]:
        """Let the disk go back to what survives, if the power was cut; tells what does not."""
        if not self._is_cut:
            return {}
        self._is_cut = False
        if self.process is not None:
            return {}
        if self.disk.lies is not None:
            self.watch.excuse(self.name)
        found, facts = self.disk.after_power_failure(unsynced, seed)
        self._replace_disk(found)
        return facts

    def lie(self, writeback_s: float | None) -> None:
        """Let flushes do nothing but write back what is older than that; None: be honest."""
        # What it has called durable may be lost as long as it lies, and with the next crash.
        self.watch.excuse(self.name)
        if writeback_s is None:
            self.disk.lies = None
            return
        due_ns = round(writeback_s * SECOND_NS)

        def lies() -> bool:
            if self.world.now_ns - self._written_back_ns < due_ns:
                return True
            self._written_back_ns = self.world.now_ns
            self.disk.flush_all()
            return False

        self.disk.lies = lies

    def _replace_disk(self, fresh: SimDisk) -> None:
        fresh.be_as_broken_as(self.disk)
        if self.condition is not None:
            fresh.fail = self.condition.meet
        self.disk = fresh
        self._written_back_ns = self.world.now_ns

    # ---- what it tells ------------------------------------------------------------------------

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
        self.log.append((EPOCH_MS + self.world.now_ns // MS_NS, text))
