"""The thread that owns the disk: everything that waits goes into one write and one flush.

A flush takes a fraction of a millisecond on a good day and a second on a bad one. On a thread of
its own it holds up what must wait for it and nothing else: heartbeats, clients and elections go on.
Batches come back in the order in which they were given, which `Effects.messages` relies on.
"""

import asyncio
import threading
from collections.abc import Callable

from labrys.node.effects import Persist
from labrys.node.messages import NodeId, RaftMessage
from labrys.node.storage import Storage

Messages = tuple[tuple[NodeId, RaftMessage], ...]
Job = tuple[Persist | None, Messages]
"""A batch for the disk, and the messages that may leave when it and all before it are there."""


class Writer:
    """Runs `Storage.write` on a thread and reports to the event loop it was made in."""

    def __init__(
        self,
        storage: Storage,
        on_done: Callable[[list[Job]], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._storage = storage
        self._on_done = on_done
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._jobs: list[Job] = []
        self._is_stopping = False
        self._unfinished = 0
        self._thread = threading.Thread(target=self._work, name="log-writer", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job; one that has nothing for the disk and nothing before it is done at once."""
        if job[0] is None and self._unfinished == 0:
            if job[1]:
                self._on_done([job])
            return
        self._unfinished += 1
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()

    def stop(self) -> None:
        """Finish what is queued and end the thread."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._is_stopping:
                    self._changed.wait()
                jobs, self._jobs = self._jobs, []
            if not jobs:
                return
            try:
                self._storage.write([batch for batch, _ in jobs if batch is not None])
            except Exception as error:  # Also what is not a MachineError must stop the node.
                self._loop.call_soon_threadsafe(self._on_failure, error)
                return
            self._loop.call_soon_threadsafe(self._finish, jobs)

    def _finish(self, jobs: list[Job]) -> None:
        self._unfinished -= len(jobs)
        self._on_done(jobs)
