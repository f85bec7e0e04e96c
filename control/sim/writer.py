"""The writer of a simulated node's log: the thread at the disk, without a thread."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from labrys.control.sim.disk import Crash
from labrys.control.sim.violation import Violation
from labrys.control.sim.world import SECOND_NS
from labrys.node.errors import DiskFull, NodeError
from labrys.node.storage import LOG_PREFIX, Received, Storage
from labrys.node.surroundings import Chore, Job
from labrys.node.writer import RETRY_S

if TYPE_CHECKING:
    from labrys.control.sim.process import Process

SYNC_NS: Final = (200_000, 1_500_000)
"""How long a write and its flush take, now and then `SLOW_SYNC` times as long."""
SLOW_SYNC: Final = (0.01, 30)
"""How often, and by how much."""


class Writer:
    """Implements `LogWriter` of `labrys.node.surroundings`."""

    def __init__(
        self,
        process: "Process",
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
        self.is_at_disk = False
        """Whether what is under way has reached the disk, and may be waiting there."""

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
            machine = self._process.machine
            # A disk that lies is not the node's fault.
            unflushed = 0 if machine.disk.lies else machine.disk.unflushed_bytes(LOG_PREFIX)
            machine.watch.store(self._process.name, batches, unflushed)
        for each in self._under_way:
            if not isinstance(each, tuple):
                each()
        return received

    def flush(self) -> None:
        """Finish what is queued, for an orderly end; not what hangs."""
        if self.is_at_disk:
            return
        self._under_way += self._waiting
        self._waiting.clear()
        try:
            self.carry_out()
        except NodeError as error:
            self._process.say(warning="the last writes failed", reason=error)

    def _begin(self) -> None:
        self._under_way, self._waiting = self._waiting, []
        self._world.call_at(self._due_ns(), self._process.deliver_beside, self._finish)

    def _due_ns(self) -> int:
        least_ns, most_ns = SYNC_NS
        taken_ns = least_ns + int(self._rng.random() * (most_ns - least_ns))
        often, factor = SLOW_SYNC
        if self._rng.random() < often:
            taken_ns *= factor
        return self._world.now_ns + taken_ns

    def _finish(self) -> None:
        self.is_at_disk = True
        try:
            received = self.carry_out()
        except DiskFull as error:
            self.is_at_disk = False
            if not self._is_full:
                self._is_full = True
                self._on_full(error)
            due_ns = self._world.now_ns + int(RETRY_S * SECOND_NS)
            self._world.call_at(due_ns, self._process.deliver_beside, self._finish)
            return
        except (Crash, Violation):
            raise
        except Exception as error:  # Also what is not a NodeError must stop the node.
            self.is_at_disk = False
            self._on_failure(error)
            return
        self.is_at_disk = False
        if self._is_full:
            self._is_full = False
            self._on_full(None)
        jobs = [each for each in self._under_way if isinstance(each, tuple)]
        self._under_way = []
        if self._waiting:
            self._begin()
        if jobs:
            self._on_done(jobs, received)
