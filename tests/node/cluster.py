"""A cluster of cores in one thread: virtual time, a hostile network, disks that crash in between.

`play(seed, ...)` plays a random schedule and checks after every step what the Raft paper promises
(see `labrys.control.sim.promises`), plus what clients rely on:

- reads: an answer is never older than what was committed anywhere when the read began;
- snapshots: a node installs exactly the bytes that a leader's snapshot has;
- sessions: a command that is committed several times counts once, see `retrying`.

The network loses, repeats and reorders. A disk finishes batches late, one by one, and a crash may
fall before a batch is written or after it is written and before its messages have left. Nodes take
snapshots, hand the office over, come and go as members, and now and then one loses its disk.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
from tests.node.retrying import RetryingClient

from labrys.control.sim.kept import Kept
from labrys.control.sim.promises import Promises
from labrys.control.sim.violation import Violation
from labrys.node.configuration import Configuration
from labrys.node.effects import Effects, Persist, Restored, SnapshotMeta
from labrys.node.errors import Refused
from labrys.node.messages import HardState, InstallRequest, RaftMessage
from labrys.node.probes import Probe
from labrys.node.raft import Config, Raft, Role

PIECE_BYTES = 8


class Disk(Kept):
    """What survives a crash."""

    def __init__(self, initial: Configuration, *, is_blank: bool = False) -> None:
        super().__init__(SnapshotMeta(0, 0, initial), HardState(is_observer=is_blank))
        self.initial = initial
        self.incoming = b""

    def restored(self) -> Restored:
        """What a node finds when it starts: its log only as far as it fits the snapshot."""
        snapshot = self.snapshot
        held = self.at(snapshot.index)
        if snapshot.index > self.base.index:
            fits = held is not None and held.term == snapshot.term
            self.entries = self.entries[snapshot.index - self.base.index :] if fits else []
            self.base = snapshot
            self.reread()
        return Restored(self.hard_state, snapshot, list(self.entries))

    def crash(self) -> None:
        """Called at every crash; a correct disk keeps everything."""


def snapshot_bytes(index: int, term: int) -> bytes:
    """What stands for the state in a snapshot."""
    return f"the state at {index} of term {term}".encode()


@dataclass
class Member:
    """One node: its core while it is up, and what outlives the core."""

    name: str
    disk: Disk
    raft: Raft | None = None
    jobs: list[tuple[Persist | None, tuple[tuple[str, RaftMessage], ...]]] = field(
        default_factory=list
    )
    applied: int = 0
    restarts: int = 0


class Cluster:
    """Cores, disks and a network, moved by explicit calls or by `chaos`."""

    def __init__(
        self,
        size: int,
        seed: int,
        core: type[Raft] = Raft,
        disk: type[Disk] = Disk,
        *,
        sends_before_persist: bool = False,
        batch_count_max: int = 3,
        spares: int = 0,
        is_blank: bool = False,
    ) -> None:
        """`spares` are nodes outside the configuration; `is_blank` begins with new disks."""
        self.rng = random.Random(seed)
        self.now_ms = 0
        self.names = tuple(f"n{i + 1}" for i in range(size + spares))
        self.initial = Configuration(voters=self.names[:size])
        self.core = core
        self.sends_before_persist = sends_before_persist
        self.batch_count_max = batch_count_max
        self.disk = disk
        self.members = {
            name: Member(name, disk(self.initial, is_blank=is_blank and size > 1))
            if name in self.initial.voters
            else Member(name, disk(Configuration(voters=())))
            for name in self.names
        }
        self.metas: dict[tuple[int, int], SnapshotMeta] = {}
        """Every snapshot that was taken, by index and term."""
        self.installs = self.changes = self.wipes = 0
        self.wire: list[tuple[str, str, RaftMessage]] = []
        self.cut: set[tuple[str, str]] = set()
        self.promises = Promises()
        self.committed = self.promises.committed
        self.reads: dict[int, int] = {}
        """Read id to the commit index that its answer must not be behind."""
        self.answered: list[int] = []
        self.client = RetryingClient()
        self.probes: Counter[Probe] = Counter()
        self.late: list[tuple[str, str, RaftMessage]] = []
        self._numbers = 0
        for member in self.members.values():
            self.start(member.name)

    # ---- single steps -------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start or restart a node from its disk."""
        member = self.members[name]
        config = Config(
            id=name,
            heartbeat_ms=60,
            batch_count_max=self.batch_count_max,
            apply_count_max=5,
            trailing_count=2,
            chunk_bytes=PIECE_BYTES,
        )
        rng = random.Random(self.rng.random())
        member.raft = self.core(config, member.disk.restored(), rng, self.now_ms)
        member.raft.reach = lambda probe: self.probes.update((probe,))
        member.disk.incoming = b""
        member.applied = member.disk.snapshot.index
        member.restarts += 1

    def crash(self, name: str, jobs_written: int = 0) -> None:
        """Stop a node at once; the first so many waiting batches did reach the disk."""
        member = self.members[name]
        for batch, _ in member.jobs[:jobs_written]:
            if batch is not None:
                self.promises.store(member.name, member.disk, batch)
        member.jobs.clear()
        member.raft = None
        member.disk.crash()

    def up(self, name: str) -> Raft:
        """The core of a node that runs."""
        raft = self.members[name].raft
        assert raft is not None, f"{name} is down"
        return raft

    def tick(self, name: str) -> None:
        """Let one node see the current time."""
        self.up(name).tick(self.now_ms)
        self.settle(name)

    def deliver(self, position: int) -> None:
        """Hand over one message of the wire."""
        sender, target, message = self.wire.pop(position)
        raft = self.members[target].raft
        if raft is not None and (sender, target) not in self.cut:
            raft.step(sender, message, self.now_ms)
            self.settle(target)

    def propose(self, name: str, command: bytes | None = None) -> int | None:
        """Propose a command that nobody else proposes, or the given one."""
        self._numbers += 1
        index = self.up(name).propose(command or b"%d" % self._numbers)
        self.settle(name)
        return index

    def read(self, name: str, *, lease: bool = False) -> int | None:
        """Begin a read; its id if the node took it."""
        self._numbers += 1
        if not self.up(name).read(self._numbers, self.now_ms, lease=lease):
            return None
        self.reads[self._numbers] = len(self.committed)
        self.settle(name)
        return self._numbers

    def write_disk(self, name: str) -> None:
        """Let the oldest waiting batch of a node reach its disk, and its messages the wire."""
        member = self.members[name]
        batch, messages = member.jobs.pop(0)
        if batch is not None:
            self.promises.store(member.name, member.disk, batch)
        if not self.sends_before_persist:
            self._send(name, messages)
        if batch is not None and member.raft is not None:
            member.raft.persisted(batch.term, batch.last_index)
            for piece in batch.chunks:
                self._receive(member, member.raft, piece)
            self.settle(name)

    def _receive(self, member: Member, raft: Raft, piece: InstallRequest) -> None:
        disk = member.disk
        disk.incoming = disk.incoming[: piece.offset] + piece.data
        if not piece.is_last:
            return
        incoming, disk.incoming = disk.incoming, b""
        if incoming != snapshot_bytes(piece.index, piece.index_term):
            raft.refuse_install(piece.index)
            return
        meta = self.metas[piece.index, piece.index_term]
        if meta.index > disk.snapshot.index:
            disk.snapshot = meta
        if raft.installed(meta):
            self.installs += 1
            member.applied = meta.index

    def settle(self, name: str) -> None:
        """Take a node's effects and check them."""
        member = self.members[name]
        raft = self.up(name)
        self.promises.see(raft)
        effects = raft.effects()
        self._send(name, effects.eager)
        if effects.persist is not None or effects.messages:
            member.jobs.append((effects.persist, effects.messages))
            if self.sends_before_persist:
                self._send(name, effects.messages)
        self._check_applied(member, raft, effects)
        for read_id in effects.reads:
            floor = self.reads.pop(read_id)
            self.answered.append(read_id)
            if member.applied < floor:
                raise Violation(f"{name} answered a read at {member.applied}, {floor} was known")

    def _send(self, sender: str, messages: tuple[tuple[str, RaftMessage], ...]) -> None:
        for target, message in messages:
            self.promises.say(sender, self.members[sender].disk, target, message)
            if isinstance(message, InstallRequest):
                data = snapshot_bytes(message.index, message.index_term)
                end = message.offset + PIECE_BYTES
                message = msgspec.structs.replace(
                    message, data=data[message.offset : end], is_last=end >= len(data)
                )
            if target in self.members:
                self.wire.append((sender, target, message))

    def snapshot(self, name: str) -> None:
        """Let a node take a snapshot of what it has applied."""
        member, raft = self.members[name], self.up(name)
        meta = raft.meta_at_applied()
        if meta.index > member.disk.snapshot.index:
            known = self.metas.setdefault((meta.index, meta.term), meta)
            if known.configuration != meta.configuration:
                raise Violation(f"two snapshots at {meta.index} with {known} and {meta}")
            member.disk.snapshot = meta
            raft.compact(meta)
            self.settle(name)

    def wipe(self, name: str) -> None:
        """Take a node's disk away and start it with a new one; what it said in time is lost."""
        self.crash(name)
        self.wipes += 1
        member = self.members[name]
        member.disk = self.disk(self.initial, is_blank=True)
        self.wire = [x for x in self.wire if name not in x[:2]]
        self.late = [x for x in self.late if name not in x[:2]]
        self.start(name)

    def reconfigure(self, name: str, voters: Sequence[str], learners: Sequence[str] = ()) -> bool:
        """Ask a node to lead the cluster to other members; whether it set out."""
        try:
            self.up(name).reconfigure(voters, learners, {})
        except Refused:
            return False
        self.changes += 1
        self.settle(name)
        return True

    def transfer(self, name: str, target: str | None) -> None:
        """Ask a node to hand over; one that may not refuses."""
        try:
            self.up(name).transfer(target)
        except Refused:
            return
        self.settle(name)

    # ---- promises -----------------------------------------------------------------------------

    def _check_applied(self, member: Member, raft: Raft, effects: Effects) -> None:
        first, entries = effects.first_committed, effects.committed
        new = self.promises.apply(raft, member.applied, first, entries)
        member.applied += len(entries)
        for index in new:
            command = self.committed[index - 1][0].command
            if self.client.is_own(command):
                wrong = self.client.execute(index, command)
                if wrong is not None:
                    raise Violation(f"sessions: {wrong}")
        disks = {name: m.disk for name, m in self.members.items()}
        self.promises.is_there_to_stay(raft, new, disks, self._configurations_known())

    def _configurations_known(self) -> list[Configuration]:
        return [m.raft.configuration for m in self.members.values() if m.raft is not None]

    # ---- schedules ----------------------------------------------------------------------------

    def chaos(self, steps: int) -> None:
        """Play a random schedule of so many steps.

        Each seed draws its own climate first: in an average one the rare combinations (a vote
        that is an election late, two candidates of one term) hardly ever happen.
        """
        rng = self.rng
        self.reach = rng.choice((1, 4, 8))
        self.tick_ms_max = rng.choice((20, 40, 80))
        actions: list[Callable[[], None]] = [
            self._deliver_some, self._write_some, self._tick_some, self._propose_some,
            self._read_some, self._crash_some, self._start_some, self._cut_some,
            self._snapshot_some, self._transfer_some, self._reconfigure_some, self._wipe_some,
        ]  # fmt: skip
        weights = [
            30, rng.choice((10, 25)), rng.choice((4, 8, 12)), rng.choice((2, 8)), 4,
            rng.choice((0.1, 0.5, 1)), rng.choice((1, 4)), rng.choice((0.2, 0.6, 1.2)),
            rng.choice((0, 0.5, 2)), rng.choice((0, 0, 0.3)),
            # A node that lost its disk knows only the first members: not both in one schedule.
            *((rng.choice((0.3, 1)), 0) if len(self.names) > len(self.initial.voters)
              else (0, rng.choice((0, 0.1, 0.3)))),
        ]  # fmt: skip
        for action in rng.choices(actions, weights, k=steps):
            action()

    def _pick_up(self) -> str | None:
        running = [name for name, member in self.members.items() if member.raft is not None]
        return self.rng.choice(running) if running else None

    def _deliver_some(self) -> None:
        if not self.wire:
            return
        if len(self.wire) > 60:
            self.wire.pop(self.rng.randrange(len(self.wire)))  # Lost.
        position = self.rng.randrange(min(self.reach, len(self.wire)))
        chance = self.rng.random()
        if chance < 0.03:
            self.wire.pop(position)
            return
        if chance < 0.09:
            self.late.append(self.wire[position])  # Will come a second time, some day.
        elif chance < 0.13 and self.late:
            late = self.rng.randrange(len(self.late))
            self.wire.append(self.late.pop(late))
            position = len(self.wire) - 1
        self.deliver(position)

    def _write_some(self) -> None:
        waiting = [name for name, member in self.members.items() if member.jobs]
        if waiting:
            self.write_disk(self.rng.choice(waiting))

    def _tick_some(self) -> None:
        self.now_ms += self.rng.randrange(1, self.tick_ms_max)
        name = self._pick_up()
        if name is not None:
            self.tick(name)

    def _propose_some(self) -> None:
        name = self._pick_up()
        if name is not None:
            is_once = self.rng.random() < 0.3
            self.propose(name, self.client.command(self.rng, self.now_ms) if is_once else None)

    def _read_some(self) -> None:
        name = self._pick_up()
        if name is not None:
            self.read(name, lease=self.rng.random() < 0.3)

    def _snapshot_some(self) -> None:
        name = self._pick_up()
        if name is not None and self.up(name).applied > 0:
            self.snapshot(name)

    def _transfer_some(self) -> None:
        leader = self.leader()
        if leader is not None:
            self.transfer(leader, self.rng.choice((None, *self.names)))

    def _reconfigure_some(self) -> None:
        leader = self.leader()
        if leader is not None:
            count = self.rng.randrange(1, len(self.names) + 1)
            chosen = self.rng.sample(self.names, count)
            votes = self.rng.randrange(1, count + 1)
            self.reconfigure(leader, chosen[:votes], chosen[votes:])

    def _wipe_some(self) -> None:
        name = self._pick_up()
        others = [m.disk for other, m in self.members.items() if other != name]
        # Two forgetful nodes of three are a majority, which nothing can make up for.
        is_bearable = len(others) > 1 and not any(d.hard_state.is_observer for d in others)
        if name is not None and is_bearable:
            self.wipe(name)

    def _crash_some(self) -> None:
        name = self._pick_up()
        if name is not None:
            self.crash(name, self.rng.randrange(len(self.members[name].jobs) + 1))

    def _start_some(self) -> None:
        down = [name for name, member in self.members.items() if member.raft is None]
        if down:
            self.start(self.rng.choice(down))

    def _cut_some(self) -> None:
        self.cut.clear()
        if len(self.names) > 1 and self.rng.random() < 0.7:
            # A grudge: some nodes against the rest, in one direction only now and then.
            side = set(self.rng.sample(self.names, self.rng.randrange(1, len(self.names))))
            one_way = self.rng.random() < 0.3
            for a in side:
                for b in set(self.names) - side:
                    self.cut.add((a, b))
                    if not one_way:
                        self.cut.add((b, a))

    def calm(self, until: Callable[[], bool], limit_ms: int = 20_000) -> None:
        """Let a healed network and quick disks run until the condition holds."""
        deadline_ms = self.now_ms + limit_ms
        while not until():
            if self.now_ms > deadline_ms:
                raise Violation(f"no progress within {limit_ms} ms of calm: {self.roles()}")
            self.now_ms += 10
            for name, member in self.members.items():
                if member.raft is not None:
                    self.tick(name)
            self.drain()

    def drain(self) -> None:
        """Write every waiting batch and deliver every message, in order, until all is quiet."""
        busy = True
        while busy:
            busy = bool(self.wire)
            for name, member in self.members.items():
                while member.jobs:
                    busy = True
                    self.write_disk(name)
            wire, self.wire = self.wire, []
            for sender, target, message in wire:
                raft = self.members[target].raft
                if raft is not None and (sender, target) not in self.cut:
                    raft.step(sender, message, self.now_ms)
                    self.settle(target)

    def heal(self) -> None:
        """Undo all faults."""
        self.cut.clear()
        for name, member in self.members.items():
            if member.raft is None:
                self.start(name)

    def leader(self) -> str | None:
        """The node that leads the newest term, if any."""
        leading = [
            (m.raft.term, name)
            for name, m in self.members.items()
            if m.raft is not None and m.raft.role is Role.LEADER
        ]
        return max(leading)[1] if leading else None

    def roles(self) -> dict[str, str]:
        """Who is what, for messages."""
        return {
            name: f"{m.raft.role} of {m.raft.term}" if m.raft else "down"
            for name, m in self.members.items()
        }

    def elect(self) -> str:
        """Run calmly until there is a leader whose no-op everybody has applied; its name."""

        def settled() -> bool:
            leader = self.leader()
            if leader is None:
                return False
            raft = self.up(leader)
            settled_members = raft.is_configuration_committed and not (
                raft.configuration.is_joint or raft.configuration.target
            )
            return (
                raft.is_ready
                and settled_members
                and all(
                    m.raft is None or self._is_cut_off(name) or m.applied == raft.log.last_index
                    for name, m in self.members.items()
                    if name in raft.configuration.members
                )
            )

        self.calm(settled)
        leader = self.leader()
        assert leader is not None
        return leader

    def _is_cut_off(self, name: str) -> bool:
        return any(name in pair for pair in self.cut)


def play(
    seed: int,
    size: int = 3,
    steps: int = 2000,
    core: type[Raft] = Raft,
    disk: type[Disk] = Disk,
    *,
    sends_before_persist: bool = False,
    must_recover: bool = True,
) -> Cluster:
    """One random schedule, then calm: everything must be agreed on and still work."""
    cluster = Cluster(
        size,
        seed,
        core,
        disk,
        sends_before_persist=sends_before_persist,
        spares=2 if seed % 3 == 2 else 0,
        is_blank=seed % 4 == 1,
    )
    cluster.chaos(steps)
    if must_recover:
        cluster.heal()
        cluster.drain()
        cluster.elect()
        before = len(cluster.committed)

        def is_new_entry_committed() -> bool:
            leader = cluster.leader()
            if leader is not None:
                cluster.propose(leader)
            return len(cluster.committed) > before

        cluster.calm(is_new_entry_committed)
    return cluster
