"""Scripts of inputs to a few cores, and the exact trace of what follows from them.

A transcript is a text file. Lines that begin with `> ` are commands, those that begin with `#` are
remarks, and the indented lines below a command are what it led to: what goes to which disk, which
messages leave, which entries are applied, who has which role. `play` runs the commands of a file
and returns the file as it should be.

    > nodes n1 n2 n3            members with old, empty disks; `blank n1 n2 n3`: with new ones
    > spare n4                  a node that is no member and knows nobody
    > timeout n1                let the election timeout of n1 pass, and nobody else's
    > pass 75                   let so many milliseconds pass for all
    > beat 5                    let so many heartbeats pass, and deliver everything
    > deliver [n1 n2]           deliver what is under way (from n1 to n2), in order, once
    > run                       deliver until nothing is under way
    > lose [n1 n2]              lose what is under way (from n1 to n2)
    > again                     deliver once more what was delivered last
    > cut n1 [n2] / > heal      whatever n1 (and n2) say to each other is lost from now on
    > propose n1 x y            propose commands to n1
    > read n1 7 8 / > lease n1 7  ask for reads by number
    > stall n1 / > flush n1     the disk of n1 is slow; it has caught up
    > crash n1 / > start n1     what was not on its disk is lost
    > wipe n1                   its disk is lost too
    > transfer n1 n2            have n1 hand over
    > change n1 +n4 -n2 ?n5     have n1 add a voter, remove one, add a learner
    > snapshot n1               n1 writes a snapshot of what it has applied and drops its log
    > state                     what everybody believes
    > apply ["put","k",1]       execute a command in a store of its own, at the next index
"""

import random
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from labrys.node.configuration import Configuration, decode_configuration
from labrys.node.effects import Effects, Persist, Restored, SnapshotMeta
from labrys.node.errors import Refused
from labrys.node.machine import Machine
from labrys.node.messages import Entry, HardState, InstallRequest, NodeId, RaftMessage
from labrys.node.raft import NO_OP, Config, Raft, Role

CHUNK = b"snapshot"
CHUNKS_PER_SNAPSHOT = 2


class _Disk:
    def __init__(self, initial: Configuration, *, is_observer: bool) -> None:
        self.initial = initial
        self.state = HardState(is_observer=is_observer)
        self.snapshot = SnapshotMeta(0, 0, initial)
        self.base = 0
        self.entries: list[Entry] = []

    def write(self, persist: Persist) -> None:
        self.state = persist.hard_state or self.state
        if persist.base is not None:
            self.base = persist.base.index
            self.entries.clear()
        if persist.entries:
            del self.entries[persist.first_index - 1 - self.base :]
            self.entries.extend(persist.entries)

    def restored(self) -> Restored:
        skip = self.snapshot.index - self.base
        return Restored(self.state, self.snapshot, self.entries[skip:])


class Play:
    """The nodes of one transcript, their disks and what is under way between them."""

    def __init__(self) -> None:
        self.now_ms = 1000
        self.cores: dict[NodeId, Raft] = {}
        self.disks: dict[NodeId, _Disk] = {}
        self.wire: list[tuple[NodeId, NodeId, RaftMessage]] = []
        self.delivered: list[tuple[NodeId, NodeId, RaftMessage]] = []
        self.cuts: set[frozenset[NodeId]] = set()
        self.stalled: dict[NodeId, list[Effects]] = {}
        self.told: dict[NodeId, tuple[Role, int, NodeId | None]] = {}
        self.metas: dict[int, SnapshotMeta] = {}
        self.machine = Machine()
        self.index = 0

    def do(self, command: str) -> Iterator[str]:
        """Carry out a command; the lines that tell what followed."""
        word, *rest = command.split()
        if word == "apply":
            yield self._apply(command.removeprefix("apply "))
            return
        try:
            getattr(self, f"_do_{word}")(*rest)
        except Refused as refused:
            yield f"refused ({refused.code}): {refused.message}"
        yield from self._settle()
        if word == "state":
            yield from self._state()

    # ---- commands -----------------------------------------------------------------------------

    def _do_nodes(self, *names: NodeId) -> None:
        self._add(names, Configuration(tuple(names)), is_observer=False)

    def _do_blank(self, *names: NodeId) -> None:
        self._add(names, Configuration(tuple(names)), is_observer=True)

    def _do_spare(self, *names: NodeId) -> None:
        self._add(names, Configuration(()), is_observer=False)

    def _add(self, names: Iterable[NodeId], initial: Configuration, *, is_observer: bool) -> None:
        for name in names:
            self.disks[name] = _Disk(initial, is_observer=is_observer)
            self._do_start(name)

    def _do_start(self, name: NodeId) -> None:
        config = Config(name, trailing_count=0, inflight_count_max=2, batch_count_max=3,
                        chunk_bytes=len(CHUNK))  # fmt: skip
        rng = random.Random(name)
        self.cores[name] = Raft(config, self.disks[name].restored(), rng, self.now_ms)

    def _do_crash(self, name: NodeId) -> None:
        del self.cores[name]
        self.stalled.pop(name, None)
        self.told.pop(name, None)

    def _do_wipe(self, name: NodeId) -> None:
        self.disks[name] = _Disk(self.disks[name].initial, is_observer=True)

    def _do_timeout(self, name: NodeId) -> None:
        core = self.cores[name]
        self.now_ms = max(self.now_ms, core._election_due_ms)
        core.tick(self.now_ms)

    def _do_pass(self, milliseconds: str) -> None:
        self.now_ms += int(milliseconds)
        for core in self.cores.values():
            core.tick(self.now_ms)

    def _do_beat(self, count: str) -> None:
        pass

    def _do_deliver(self, *ends: NodeId) -> None:
        due = [each for each in self.wire if not ends or each[:2] == ends]
        self.wire = [each for each in self.wire if each not in due]
        self.delivered = due
        self._hand_over(due)

    def _do_run(self) -> None:
        pass

    def _do_lose(self, *ends: NodeId) -> None:
        self.wire = [each for each in self.wire if ends and each[:2] != ends]

    def _do_again(self) -> None:
        self._hand_over(self.delivered)

    def _hand_over(self, due: Iterable[tuple[NodeId, NodeId, RaftMessage]]) -> None:
        for sender, receiver, message in due:
            if receiver in self.cores and frozenset((sender, receiver)) not in self.cuts:
                self.cores[receiver].step(sender, message, self.now_ms)

    def _do_cut(self, name: NodeId, *others: NodeId) -> None:
        cut_from = others or [other for other in self.disks if other != name]
        self.cuts |= {frozenset((name, other)) for other in cut_from}

    def _do_heal(self) -> None:
        self.cuts.clear()

    def _do_propose(self, name: NodeId, *commands: str) -> None:
        index = self.cores[name].propose_all([command.encode() for command in commands])
        if index is None:
            raise Refused("no-leader", f"{name} takes no proposals")

    def _do_read(self, name: NodeId, *numbers: str) -> None:
        for number in numbers:
            if not self.cores[name].read(int(number), self.now_ms):
                raise Refused("no-leader", f"{name} knows no leader")

    def _do_lease(self, name: NodeId, number: str) -> None:
        self.cores[name].read(int(number), self.now_ms, lease=True)

    def _do_stall(self, name: NodeId) -> None:
        self.stalled[name] = []

    def _do_flush(self, name: NodeId) -> None:
        pass

    def _do_transfer(self, name: NodeId, target: NodeId) -> None:
        self.cores[name].transfer(target)

    def _do_change(self, name: NodeId, *changes: str) -> None:
        now = self.cores[name].configuration
        voters, learners = {*now.voters}, {*now.learners} - {*now.target}
        for change in changes:
            sign, node = change[0], change[1:]
            voters = voters | {node} if sign == "+" else voters - {node}
            learners = learners | {node} if sign == "?" else learners - {node}
        self.cores[name].reconfigure(sorted(voters), sorted(learners), {})

    def _do_snapshot(self, name: NodeId) -> None:
        core, disk = self.cores[name], self.disks[name]
        meta = core.meta_at_applied()
        self.metas[meta.index] = disk.snapshot = meta
        core.compact(meta)

    def _do_state(self) -> None:
        pass

    def _apply(self, command: str) -> str:
        self.index += 1
        outcome = self.machine.apply(self.index, command.encode())
        value = "" if outcome.value is None else f" {msgspec.json.encode(outcome.value).decode()}"
        sessions = " ".join(map(str, self.machine.sessions.by_id)) or "none"
        return f"{self.index}: {outcome.code}{value}, revision {outcome.revision}, open: {sessions}"

    # ---- what follows -------------------------------------------------------------------------

    def _settle(self) -> Iterator[str]:
        for name in sorted(self.cores):
            yield from self._take(name)

    def play_on(self) -> Iterator[str]:
        """Deliver until nothing is under way."""
        while self.wire:
            self._do_deliver()
            yield from self._settle()

    def release(self, name: NodeId) -> Iterator[str]:
        """The disk of the node has caught up."""
        for effects in self.stalled.pop(name):
            yield from self._write(name, effects)
        yield from self._settle()

    def _take(self, name: NodeId) -> Iterator[str]:
        core = self.cores[name]
        while True:
            effects = core.effects()
            yield from self._role(name)
            yield from self._send(name, effects.eager)
            if name in self.stalled:
                if effects.persist is not None or effects.messages:
                    yield f"{name} waits for its disk"
                    self.stalled[name].append(effects)
            else:
                yield from self._write(name, effects)
            for index, entry in enumerate(effects.committed, effects.first_committed):
                yield f"{name} applies {index}: {_entry(entry)}"
            for number in effects.reads:
                yield f"{name} answers read {number} from {core.applied}"
            if effects == Effects((), None, (), core.applied + 1, (), ()):
                return

    def _write(self, name: NodeId, effects: Effects) -> Iterator[str]:
        core, persist = self.cores[name], effects.persist
        if persist is not None:
            yield f"{name} disk: {_persist(persist)}"
            self.disks[name].write(persist)
        yield from self._send(name, effects.messages)
        if persist is not None:
            core.persisted(persist.term, persist.last_index)
            for piece in persist.chunks:
                if piece.is_last:
                    meta = self.metas[piece.index]
                    self.disks[name].snapshot = meta
                    was = "taken" if core.installed(meta) else "of no use"
                    yield f"{name} has the whole snapshot {piece.index}, it is {was}"

    def _send(self, name: NodeId, messages: Iterable[tuple[NodeId, RaftMessage]]) -> Iterator[str]:
        for peer, message in messages:
            if isinstance(message, InstallRequest):
                is_last = message.offset >= (CHUNKS_PER_SNAPSHOT - 1) * len(CHUNK)
                message = msgspec.structs.replace(message, data=CHUNK, is_last=is_last)
            yield f"{name} -> {peer}: {_message(message)}"
            self.wire.append((name, peer, message))

    def _role(self, name: NodeId) -> Iterator[str]:
        core = self.cores[name]
        office = (core.role, core.term, core.leader)
        if self.told.get(name) != office:
            self.told[name] = office
            follows = f" of {core.leader}" if core.leader not in (None, name) else ""
            yield f"{name} is {core.role}{follows} in term {core.term}"

    def _state(self) -> Iterator[str]:
        for name, core in sorted(self.cores.items()):
            log = " ".join(_entry(entry) for entry in core.log.since(core.log.first_index))
            base = f"..{core.log.base_index} " if core.log.base_index else ""
            voters = _configuration(core.configuration)
            yield f"{name} {core.role} term {core.term} commit {core.commit} log {base}[{log}]"
            yield f"   members {voters}"


def play(text: str) -> str:
    """The transcript with the trace that its commands lead to now."""
    stage, lines = Play(), list[str]()
    for line in text.splitlines():
        if not line.startswith(">"):
            if not line.startswith(" "):
                lines.append(line)
            continue
        lines.append(line)
        lines += (f"    {told}" for told in _follow(stage, line[1:].strip()))
    return "\n".join(lines) + "\n"


def _follow(stage: Play, command: str) -> Iterator[str]:
    yield from stage.do(command)
    word, *rest = command.split()
    if word == "run":
        yield from stage.play_on()
    elif word == "beat":
        for _ in range(int(rest[0])):
            yield from stage.do("pass 75")
            yield from stage.play_on()
    elif word == "flush":
        yield from stage.release(rest[0])


def _entry(entry: Entry) -> str:
    if entry.is_configuration:
        return f"{entry.term}:{_configuration(decode_configuration(entry.command))}"
    return f"{entry.term}:{'no-op' if entry.command == NO_OP else entry.command.decode()}"


def _configuration(configuration: Configuration) -> str:
    parts = ["{" + ",".join(configuration.voters) + "}"]
    for word, nodes in (("from", configuration.outgoing), ("learners", configuration.learners),
                        ("towards", configuration.target)):  # fmt: skip
        if nodes:
            parts.append(f"{word} {{{','.join(nodes)}}}")
    return " ".join(parts)


def _persist(persist: Persist) -> str:
    parts = [f"piece {piece.index}@{piece.offset}" for piece in persist.chunks]
    if persist.base is not None:
        parts.append(f"the log begins behind {persist.base.index}")
    if persist.hard_state is not None:
        state = persist.hard_state
        parts.append(f"term {state.term} vote {state.vote or '-'}")
        parts += ["(an observer)"] if state.is_observer else []
    if persist.entries:
        shown = " ".join(map(_entry, persist.entries))
        parts.append(f"from {persist.first_index} [{shown}]")
    return ", ".join(parts) or "nothing"


def _message(message: RaftMessage) -> str:
    facts = msgspec.structs.asdict(message)
    words = " ".join(f"{name}={_value(value)}" for name, value in facts.items() if value not in
                     (False, None, ()) and name not in ("nonce", "data", "batch"))  # fmt: skip
    return f"{type(message).__name__} {words}"


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + " ".join(map(_entry, value)) + "]"
    return "yes" if value is True else str(value)
