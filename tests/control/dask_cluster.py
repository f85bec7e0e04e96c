"""A Dask cluster on loopback: a scheduler, and workers that are processes of their own."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.whole_runs import eventually

DASK = Path(sys.executable).with_name("dask")


class DaskCluster:
    """Ends with the block that began it, its workers with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.address = ""

    def start(self) -> None:
        """Start the scheduler."""
        file = self._folder / "scheduler.json"
        words = ("--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
        self._start("scheduler", *words)
        eventually(
            lambda: file.is_file() and file.read_text().rstrip().endswith("}"),
            "the scheduler tells its address",
        )
        self.address = json.loads(file.read_text())["address"]

    def add_worker(self, *words: str) -> "subprocess.Popen[bytes]":
        """Start a worker of one thread, and wait until the scheduler knows it."""
        place = ("--local-directory", str(self._folder), "--nthreads", "1", "--no-nanny")
        worker = self._start("worker", self.address, *place, *words)
        log = self._folder / f"{len(self._processes)}.log"
        eventually(lambda: "Registered to" in log.read_text(), "the worker is registered")
        return worker

    def _start(self, *words: str) -> "subprocess.Popen[bytes]":
        with (self._folder / f"{len(self._processes) + 1}.log").open("wb") as log:
            process = subprocess.Popen(
                [DASK, *words, "--no-dashboard"], stdout=log, stderr=log, cwd=self._folder
            )
        self._processes.append(process)
        return process

    def kill_scheduler(self) -> None:
        """Kill the scheduler."""
        self._processes[0].kill()

    def end(self) -> None:
        """End all processes, the workers first."""
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def dask_cluster(folder: Path) -> Iterator[DaskCluster]:
    """A scheduler without workers."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = DaskCluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()
