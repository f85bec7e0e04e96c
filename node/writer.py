"""The thread that owns the disk: everything that waits goes into one write and one flush.

A flush takes a fraction of a millisecond on a good day and a second on a bad one. On a thread of
its own it holds up what must wait for it and nothing else: heartbeats, clients and elections go on.
Batches come back in the order in which they were given, which `Effects.messages` relies on.

When the disk is full the same batches are tried again until there is room; what waits for them
waits on, and the caller is told, so that it takes nothing more in.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable

from labrys.node.effects import Persist
from labrys.node.errors import DiskFull
from labrys.node.storage import Received, Storage
from labrys.node.surroundings import Chore, Job

RETRY_S = 0.5
"""How often a full disk is tried again."""


class Writer:
    """Runs `Storage.write` on a thread and reports to the event loop it was made in."""

    def __init__(
        self,
        storage: Storage,
        on_done: Callable[[list[Job], list[Received]], None],
        on_failure: Callable[[Exception], None],
        on_full: Callable[[DiskFull | None], None],
    ) -> None:
        """`on_full` is told when the disk has become full, and None when there is room again."""
        self._storage = storage
        self._on_done = on_done
        self._on_failure = on_failure
        self._on_full = on_full
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Job | Chore | None] = queue.SimpleQueue()
        """None is the end."""
        self._has_to_stop = threading.Event()
        self._is_full = False
        self._unfinished = 0
        self._thread = threading.Thread(target=self._work, name="log-writer", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job; one that has nothing for the disk and nothing before it is done at once."""
        if job[0] is None and self._unfinished == 0:
            if job[1]:
                self._on_done([job], [])
            return
        self._unfinished += 1
        self._queue.put(job)

    def submit_chore(self, chore: Chore) -> None:
        """Queue something else that must not happen during a write, such as tidying up."""
        self._queue.put(chore)

    def stop(self) -> None:
        """Finish what is queued, unless the disk is full, and end the thread."""
        self._has_to_stop.set()
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        try:
            while self._take_turn():
                pass
        except Exception as error:  # Also what is not a MachineError must stop the node.
            self._loop.call_soon_threadsafe(self._on_failure, error)

    def _take_turn(self) -> bool:
        waiting = [self._queue.get()]
        with contextlib.suppress(queue.Empty):
            while True:
                waiting.append(self._queue.get_nowait())
        jobs = [each for each in waiting if isinstance(each, tuple)]
        if jobs:
            received = self._write([batch for batch, _ in jobs if batch is not None])
            if received is None:
                return False
            self._loop.call_soon_threadsafe(self._finish, jobs, received)
        for each in waiting:
            if callable(each):
                each()
        return None not in waiting

    def _write(self, batches: list[Persist]) -> list[Received] | None:
        """Try until there is room; None when the node stops before that."""
        while True:
            try:
                received = self._storage.write(batches)
            except DiskFull as error:
                if not self._is_full:
                    self._is_full = True
                    self._loop.call_soon_threadsafe(self._on_full, error)
                if self._has_to_stop.wait(RETRY_S):
                    return None
                continue
            if self._is_full:
                self._is_full = False
                self._loop.call_soon_threadsafe(self._on_full, None)
            return received

    def _finish(self, jobs: list[Job], received: list[Received]) -> None:
        self._unfinished -= len(jobs)
        self._on_done(jobs, received)
