"""When a node writes a snapshot of its state, and what it does with one from a leader.

Its own is written from a frozen copy while the node goes on; when it is on disk the log before it
is dropped. Chunks of a leader's go to the disk with the log (see `storage`); what this module does
is turn the whole into a state, which is done beside the node as well.
"""

from collections.abc import Callable
from concurrent.futures import Future

import msgspec

from labrys.node.answers import Answer, Respond, fault
from labrys.node.effects import SnapshotMeta
from labrys.node.errors import CorruptLog, DiskFull
from labrys.node.machine import Machine, Unsound
from labrys.node.raft import Raft
from labrys.node.storage import Received, Storage
from labrys.node.surroundings import LogWriter, Surroundings

RETRY_S = 10.0
"""How long after a full disk the next attempt is made."""
STREAMING_FACTOR = 4
"""While a snapshot is being sent the next one waits until the log is this many times as long as
usual: the receiver would have to begin anew."""


class Thresholds(msgspec.Struct, frozen=True):
    """How much log, since the last snapshot, makes another one due."""

    entries: int = 100_000
    log_bytes: int = 64 << 20


def read_state(storage: Storage, meta: SnapshotMeta, machine: type[Machine]) -> Machine:
    """The state in a snapshot on this node's disk, empty at index 0; raises CorruptLog."""
    if meta.index == 0:
        return machine()
    try:
        return machine.restored(storage.snapshots.records(meta.index))
    except Unsound as error:
        raise CorruptLog(
            f"the snapshot at {meta.index} was written down whole, but does not add up: {error}. "
            "Remove this node from the cluster, delete its data and add it again"
        ) from error


class Snapshotter:
    """The snapshots of one running node."""

    def __init__(
        self,
        raft: Raft,
        storage: Storage,
        machine: type[Machine],
        writer: LogWriter,
        thresholds: Thresholds,
        install: Callable[[Machine], None],
        fail: Callable[[BaseException], None],
        around: Surroundings,
    ) -> None:
        """`install` gets the state that takes the place of the node's own."""
        self._raft = raft
        self._storage = storage
        self._machine = machine
        self._writer = writer
        self._thresholds = thresholds
        self._install = install
        self._fail = fail
        self._say = around.say
        self._around = around
        self._time = around.scheduler.time
        self._log_bytes = 0
        self._not_before_s = 0.0
        self._waiting: list[Respond] = []
        self.is_writing = False
        self.written_count = 0
        self.installed_count = 0

    def count(self, log_bytes: int) -> None:
        """So much was applied since the last call."""
        self._log_bytes += log_bytes

    def is_due(self) -> bool:
        """Whether the log has grown enough."""
        grown = self._raft.applied - self._raft.snapshot.index
        entries, log_bytes = self._thresholds.entries, self._thresholds.log_bytes
        # Asked at every turn, and hardly ever so.
        if grown < entries and self._log_bytes < log_bytes:
            return False
        factor = STREAMING_FACTOR if self._raft.is_streaming else 1
        return (
            not self.is_writing
            and (grown >= factor * entries or self._log_bytes >= factor * log_bytes)
            and self._time() >= self._not_before_s
        )

    def write(self, machine: Machine) -> None:
        """Begin to write a snapshot of the state as it is applied now."""
        meta = self._raft.meta_at_applied()
        frozen = machine.freeze()
        self.is_writing = True
        self._log_bytes = 0
        begun_s = self._time()

        def work() -> int:
            return self._storage.snapshots.write(meta, frozen.records())

        self._around.work_aside(work, lambda done: self._on_written(meta, begun_s, done))

    def answer(self, machine: Machine, respond: Respond) -> None:
        """Write one for a client, or wait for the one that is being written."""
        if not self.is_writing:
            if self._raft.applied == self._raft.snapshot.index:
                respond(_told(self._raft.snapshot))
                return
            self.write(machine)
        self._waiting.append(respond)

    def receive(self, received: Received) -> None:
        """A leader's snapshot is complete on the disk, or was unsound."""
        meta = received.meta
        if meta is None:
            self._say(warning="an unsound snapshot", index=received.index, reason=received.reason)
            self._raft.refuse_install(received.index)
            return

        self._around.work_aside(
            lambda: read_state(self._storage, meta, self._machine),
            lambda done: self._on_restored(meta, done),
        )

    def stop(self) -> None:
        """Whoever waits for a snapshot is told that none will come."""
        for respond in self._waiting:
            respond(fault(503, "stopping", False, "this node is stopping"))
        self._waiting.clear()

    # ---- when it is done ----------------------------------------------------------------------

    def _on_written(self, meta: SnapshotMeta, begun_s: float, future: Future[int]) -> None:
        self.is_writing = False
        waiting, self._waiting = self._waiting, []
        error = future.exception()
        if isinstance(error, DiskFull):
            self._not_before_s = self._time() + RETRY_S
            self._say(warning="no room for a snapshot", index=meta.index, reason=error)
            answer = fault(507, "disk-full", True, str(error))
        elif error is not None:
            self._fail(error)
            return
        else:
            answer = _told(meta)
            self.written_count += 1
            self._say(
                event="snapshot", index=meta.index, term=meta.term, bytes=future.result(),
                ms=round((self._time() - begun_s) * 1000),
            )  # fmt: skip
            self._raft.compact(meta)
            self._writer.submit_chore(lambda: self._tidy_up(meta.index))
        for respond in waiting:
            respond(answer)

    def _tidy_up(self, index: int) -> None:
        self._storage.snapshots.prune(index)
        self._storage.compact(index)

    def _on_restored(self, meta: SnapshotMeta, future: Future[Machine]) -> None:
        error = future.exception()
        # An older one than this node has meanwhile made itself may have been tidied up before it
        # was read; it is not needed any more.
        if error is not None and meta.index > self._raft.snapshot.index:
            self._fail(error)
        elif self._raft.installed(meta):
            self._install(future.result())
            self._log_bytes = 0
            self.installed_count += 1
            self._say(event="installed", index=meta.index, term=meta.term)
            self._writer.submit_chore(lambda: self._tidy_up(meta.index))


def _told(meta: SnapshotMeta) -> Answer:
    return Answer(200, msgspec.json.encode({"index": meta.index, "term": meta.term}))
