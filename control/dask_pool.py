"""`labrys hunt --cluster`: seeds run by the workers of a Dask cluster, which may be other machines.

A seed is a task. Who runs it, and who runs it again when a worker is lost, is Dask's business; only
so many tasks are handed out that no worker runs dry. The directory of a finding comes back as an
archive.

One simulation at a time goes on in a process: meanwhile the clocks and the randomness of the whole
process are guarded (`labrys.control.sim.guard`). So a worker should have one thread.
"""

import importlib.metadata
import itertools
import logging
import platform
import shlex
import socket
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import msgspec

from labrys.control.environments.archives import pack, unpack_logs
from labrys.control.errors import LabrysError, MachineError, UsageError
from labrys.control.fingerprint import fingerprint
from labrys.control.report.page import write_report
from labrys.control.store import RunDirectory, fresh_run_folder
from labrys.control.trial import Hunted, RunAll, Trial

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_TIMEOUT_S: Final = 10.0
WORKERS_TIMEOUT_S: Final = 60.0
"""How long a cluster may be without any worker: lost ones may be replaced."""
POLL_S: Final = 0.3
TASKS_PER_WORKER: Final = 3
Tried = tuple[Hunted, bytes | None]
"""How a seed ended, and the run directory of a finding."""
_one_at_a_time = threading.Lock()


@contextmanager
def dask_pool(
    address: str, trial: Trial, runs_dir: Path, asked: threading.Event
) -> Iterator[RunAll]:
    """Yield how to run seeds on the Dask cluster whose scheduler is at `address`.

    Stops when `asked` is set, and calls off what was handed out. Raises UsageError for an address
    that is none, MachineError when there is no such cluster, or one of other code.
    """
    client = _connect(address)
    try:
        _assert_alike(client, address)
        yield partial(_Workers(client, address, trial, runs_dir).run_all, asked)
    finally:
        client.close()


def _connect(address: str) -> "Client":
    try:
        from distributed import Client
    except ImportError as error:
        raise MachineError(
            f"--cluster needs Dask, which is not installed here ({error}): "
            "pip install 'labrys[cluster]'"
        ) from error
    # What Dask, tornado and asyncio have to say of lost connections is told here, in one line;
    # nobody else of us uses `logging`.
    logging.disable(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="distributed")
    try:
        return Client(address, timeout=CONNECT_TIMEOUT_S)
    except ValueError as error:
        raise UsageError(f"--cluster {address}: not an address such as tcp://HOST:8786") from error
    except OSError as error:
        raise MachineError(
            f"--cluster {address}: no Dask scheduler answers there within {CONNECT_TIMEOUT_S:g} s; "
            "`dask scheduler` starts one and tells its address"
        ) from error


def _assert_alike(client: "Client", address: str) -> None:
    """Raise MachineError unless there are workers, and all have our Python and our code."""
    from distributed import TimeoutError as NoWorkers

    try:
        client.wait_for_workers(1, timeout=CONNECT_TIMEOUT_S)
    except NoWorkers as error:
        raise MachineError(
            f"--cluster {address}: it has no workers; start some with "
            f"`dask worker {address} --nthreads 1 --nworkers auto`"
        ) from error
    for what, ask, mine in (
        ("Python", platform.python_version, platform.python_version()),
        ("labrys", _version, _version("labrys")),
        ("code of labrys", fingerprint, fingerprint()),
    ):
        args = ("labrys",) if ask is _version else ()
        for worker, theirs in client.run(ask, *args, on_error="return").items():
            if isinstance(theirs, Exception):
                theirs = "none"
            if theirs != mine:
                raise MachineError(
                    f"--cluster {address}: the {what} of the worker {worker} is {theirs}, here it "
                    f"is {mine}; a seed is the same run only with the same: start the workers "
                    "from an environment like this one"
                )


_version = importlib.metadata.version


# ---- here ----------------------------------------------------------------------------------------


class _Workers:
    """The workers of one cluster, and one hunt."""

    def __init__(self, client: "Client", address: str, trial: Trial, runs_dir: Path) -> None:
        self._client = client
        self._address = address
        self._trial = trial
        self._runs_dir = runs_dir
        self._hunt = f"labrys-hunt-{time.time_ns():x}"
        self._seen_s = time.monotonic()

    def run_all(self, asked: threading.Event, seeds: Sequence[int]) -> Iterator[Hunted]:
        """Run these seeds, and yield how they ended."""
        from distributed import CancelledError, wait
        from distributed import TimeoutError as NothingYet

        to_do, left = iter(seeds), len(seeds)
        under_way: dict[Future[Tried], int] = {}
        try:
            while left and not asked.is_set():
                room = TASKS_PER_WORKER * self._count(left) - len(under_way)
                for seed in itertools.islice(to_do, max(0, room)):
                    under_way[self._hand_out(seed)] = seed
                try:
                    done = wait([*under_way], timeout=POLL_S, return_when="FIRST_COMPLETED").done
                except NothingYet:
                    continue
                for task in sorted(done, key=under_way.__getitem__):
                    left -= 1
                    yield self._taken_in(task, under_way.pop(task))
        except (CancelledError, OSError) as error:
            raise MachineError(
                f"--cluster {self._address}: the scheduler is gone; {left} seeds were not run"
            ) from error
        finally:
            with suppress(Exception):  # there may be nobody left to be told
                self._client.cancel([*under_way], force=True)

    def _count(self, left: int) -> int:
        """How many workers there are. Raises MachineError when there was none for long."""
        count = len(self._client.nthreads())
        if count:
            self._seen_s = time.monotonic()
        elif time.monotonic() - self._seen_s > WORKERS_TIMEOUT_S:
            raise MachineError(
                f"--cluster {self._address}: it has had no worker for {WORKERS_TIMEOUT_S:g} s; "
                f"{left} seeds were not run"
            )
        return count

    def _hand_out(self, seed: int) -> "Future[Tried]":
        return self._client.submit(
            try_seed, self._trial, fingerprint(), seed, key=f"{self._hunt}-{seed}", pure=False
        )

    def _taken_in(self, task: "Future[Tried]", seed: int) -> Hunted:
        from distributed import CancelledError, KilledWorker

        try:
            hunted, archive = task.result()
        except KilledWorker as killed:
            times = killed.allowed_failures + 1
            return self._trial.failed(
                seed,
                f"{times} of {times} attempts ended with the death of the worker, the last one on "
                f"{killed.last_worker.address}: had it enough memory?",
            )
        except (CancelledError, OSError, LabrysError):
            raise
        except Exception as error:
            raise MachineError(
                f"--cluster {self._address}: a worker could not run seed {seed}: "
                f"{type(error).__name__}: {error}"
            ) from error
        return hunted if archive is None else self._unpacked(hunted, archive)

    def _unpacked(self, finding: Hunted, archive: bytes) -> Hunted:
        """Make the run directory of a finding here."""
        assert self._trial.spec.name is not None, "only a resolved spec can be run"
        assert finding.path is not None, "an archive is of a directory"
        stamp = Path(finding.path).name
        run = RunDirectory(fresh_run_folder(self._runs_dir, self._trial.spec.name, stamp))
        unpack_logs(f"seed {finding.seed}", archive, run.path)
        results = run.read_results() or {}
        recheck = shlex.join(["labrys", "check", str(run.path)])
        run.write_results({**results, "recheck": recheck})
        write_report(run.path)
        return msgspec.structs.replace(finding, path=str(run.path))


# ---- on a worker ---------------------------------------------------------------------------------


def try_seed(trial: Trial, code: str, seed: int) -> Tried:
    """Run one seed of the hunt whose code is `code`."""
    if fingerprint() != code:
        # It came after the others had been looked at.
        raise MachineError(f"the worker on {socket.gethostname()} has other code of labrys")
    with _one_at_a_time, TemporaryDirectory(prefix="labrys-hunt-") as folder:
        hunted = trial.run(Path(folder), seed)
        return hunted, None if hunted.path is None else pack(_files(Path(hunted.path)))


def _files(folder: Path) -> Mapping[str, bytes]:
    return {
        str(Path(folder.name) / path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
