"""The run store: run directories, how they are written and how they are found again."""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from labrys.checkers.history import History, HistoryError, encode_op, read_history
from labrys.checkers.op import Op
from labrys.checkers.verdict import CheckResult, Verdict
from labrys.control.errors import MachineError, UsageError
from labrys.control.spec import Spec, read_spec, resolve, to_yaml

HISTORY = "history.jsonl"
LEDGER = "faults.jsonl"
RESULTS = "results.json"
SPEC = "test.yaml"
LOG = "run.log"
JUNIT = "junit.xml"
REPORT = "report.html"

KEPT_BACK_MAX = 200
"""Ops that a recorder which is not prompt holds in memory."""


class Recorder:
    """Appends ops to a history file, each flushed to the kernel before anything else happens.

    A write that fails (a full disk) stops nothing by itself: the file is cut back to its last
    whole line, later ops are kept in memory, `failure` says what happened, and `close` tries
    once more to write them. So a history on disk never has a hole.

    The file stays locked while it is open: that is how others know that the run goes on, and the
    kernel lifts the lock however the run ends.

    One that is not prompt keeps some ops back, up to `KEPT_BACK_MAX` or until `flush`: for a run
    that can be had again.
    """

    def __init__(self, path: Path, *, is_prompt: bool = True) -> None:
        """Create the file at `path`. Raises MachineError when that is impossible."""
        self._kept_back_max = 1 if is_prompt else KEPT_BACK_MAX
        self._path = path
        self._unwritten: list[bytes] = []
        self._size = 0
        self._count = 0
        self.failure: OSError | None = None
        """The first write that failed, if any."""
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except OSError as error:
            raise MachineError(f"{path}: cannot create the history: {error.strerror}") from error

    def append(self, op: Op) -> Op:
        """Give `op` the next index, write it, and return it."""
        indexed = msgspec.structs.replace(op, index=self._count)
        self._count += 1
        self._unwritten.append(encode_op(indexed) + b"\n")
        if self.failure is None and len(self._unwritten) >= self._kept_back_max:
            self._flush()
        return indexed

    def flush(self) -> None:
        """Write what was kept back."""
        if self.failure is None and self._unwritten:
            self._flush()

    def close(self) -> bytes:
        """Write what is still unwritten; return the lines that the disk does not take even now."""
        if self._unwritten:
            self._flush()
        with contextlib.suppress(OSError):
            os.fsync(self._fd)
        os.close(self._fd)
        return b"".join(self._unwritten)

    def _flush(self) -> None:
        pending = b"".join(self._unwritten)
        written = 0
        try:
            while written < len(pending):
                written += os.write(self._fd, pending[written:])
        except OSError as error:
            self.failure = self.failure or error
            os.ftruncate(self._fd, self._size)
            os.lseek(self._fd, self._size, os.SEEK_SET)
            return
        self._size += len(pending)
        self._unwritten.clear()


class _Outline(msgspec.Struct):
    """What results.json must hold to be of use; there is more in it."""

    verdict: Verdict
    checkers: dict[str, CheckResult] = {}
    errors: list[str] = []


class RunDirectory:
    """One run on disk: `runs/<test name>/<UTC stamp>-<seed>/`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def history(self) -> Path:
        """The recorded ops."""
        return self.path / HISTORY

    @property
    def ledger(self) -> Path:
        """Every fault, planned, applied, seen and undone."""
        return self.path / LEDGER

    @property
    def results(self) -> Path:
        """The verdict; absent while a run goes on or when it died."""
        return self.path / RESULTS

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / REPORT

    @property
    def junit(self) -> Path:
        """The verdict for CI systems."""
        return self.path / JUNIT

    @property
    def log(self) -> Path:
        """What labrys itself said."""
        return self.path / LOG

    def node(self, node: str) -> Path:
        """The folder of one node's logs."""
        return self.path / "nodes" / node

    def goes_on(self) -> bool:
        """Whether the rig that made this run is still recording it."""
        try:
            fd = os.open(self.history, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    @property
    def has_spec(self) -> bool:
        """Whether this is a whole run, not just a folder with a history in it."""
        return (self.path / SPEC).is_file()

    def spec(self) -> Spec:
        """Return the resolved spec of this run. Raises UsageError if it is absent or damaged."""
        path = self.path / SPEC
        fields = read_spec(path)
        try:
            return resolve(fields)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error

    def write_results(self, results: dict[str, Any]) -> None:
        """Write results.json whole or not at all. Raises MachineError."""
        write_atomically(self.results, msgspec.json.format(msgspec.json.encode(results), indent=1))

    def read_results(self) -> dict[str, Any] | None:
        """Return the results, or None while there are none (a run that goes on, or died)."""
        try:
            content = self.results.read_bytes()
            msgspec.json.decode(content, type=_Outline)
            found: dict[str, Any] = msgspec.json.decode(content)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"{self.results}: cannot be read: {error.strerror}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{self.results}: not the results of a run: {error}") from error
        return found

    def read_history(self) -> History:
        """Return what was recorded. Raises UsageError for a history that cannot be judged."""
        try:
            return read_history(self.history)
        except HistoryError as error:
            raise UsageError(str(error)) from error
        except OSError as error:
            raise UsageError(f"{self.history}: cannot be read: {error.strerror}") from error

    def call_latest(self) -> None:
        """Let `latest` be this run, of its name and of all; raises OSError."""
        for folder in (self.path.parent.parent, self.path.parent):
            point(folder / "latest", self.path)

    def remove(self) -> None:
        """Remove the directory with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def node_logs(self) -> dict[str, list[str]]:
        """Return the log lines of every node."""
        logs: dict[str, list[str]] = {}
        for folder in sorted((self.path / "nodes").glob("*")):
            lines: list[str] = []
            for file in sorted(folder.glob("*")):
                if file.is_file():
                    lines += file.read_text(errors="replace").splitlines()
            logs[folder.name] = lines
        return logs


def create_run(runs_dir: Path, spec: Spec, *, is_latest: bool = True) -> RunDirectory:
    """Make the directory of a new run, write its spec and point `latest` to it."""
    assert spec.name is not None, "only a resolved spec can be run"
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    path = fresh_run_folder(runs_dir, spec.name, f"{stamp}-{spec.seed}")
    try:
        (path / SPEC).write_text(to_yaml(spec))
        (path / "nodes").mkdir()
        if is_latest:
            RunDirectory(path).call_latest()
    except OSError as error:
        raise _not_here(runs_dir, error) from error
    return RunDirectory(path)


def fresh_run_folder(runs_dir: Path, name: str, stamp: str) -> Path:
    """Make an empty directory for a run of the test `name`. Raises MachineError."""
    folder = runs_dir / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return fresh_folder(folder, stamp).resolve()
    except OSError as error:
        raise _not_here(runs_dir, error) from error


def _not_here(runs_dir: Path, error: OSError) -> MachineError:
    return MachineError(
        f"{runs_dir}: cannot write a run here: {error.strerror}; "
        "choose another place with --runs-dir"
    )


def fresh_folder(folder: Path, name: str) -> Path:
    """Make a folder of that name; two of one second and seed get -2, -3, ... Raises OSError."""
    for attempt in range(1, 100):
        path = folder / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise OSError(errno.EEXIST, "too many runs in one second", str(folder / name))


def point(link: Path, target: Path) -> None:
    """Let a symbolic link point to `target`, in one step. Raises OSError."""
    fresh = link.with_name(f".{link.name}-{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(os.path.relpath(target, link.parent))
    fresh.replace(link)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: a temporary file, fsync, rename. Raises MachineError."""
    try:
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise MachineError(f"{path}: cannot be written: {error.strerror}") from error


def all_runs(runs_dir: Path) -> list[RunDirectory]:
    """Return all runs below `runs_dir`, oldest first."""
    if not runs_dir.is_dir():
        raise UsageError(f"{runs_dir}: no such runs directory; name it with --runs-dir")
    return sorted(_runs(runs_dir), key=lambda run: (run.path.name, run.path))


def touched_runs(runs_dir: Path) -> list[RunDirectory]:
    """Return all folders below `runs_dir` that a rig may have left something behind for.

    Runs, even those that died before their first fault, and tests by hand, which have no spec.
    """
    found = {file.parent for name in (SPEC, LEDGER) for file in runs_dir.glob(f"*/*/{name}")}
    return [RunDirectory(path) for path in sorted(found) if not path.is_symlink()]


def _runs(runs_dir: Path) -> Iterator[RunDirectory]:
    for spec in runs_dir.glob(f"*/*/{SPEC}"):
        if not spec.parent.is_symlink():
            yield RunDirectory(spec.parent)


def find_run(reference: str, runs_dir: Path) -> RunDirectory:
    """Return the run that `reference` names: a path, a number (-1 is the newest) or `latest`."""
    path = Path(reference)
    if (path / SPEC).is_file() or (path / HISTORY).is_file():
        return RunDirectory(path.resolve())
    try:
        number = -1 if reference == "latest" else int(reference)
    except ValueError:
        raise UsageError(
            f"{reference}: no run there: name a run directory, a number (-1 is the newest) "
            "or 'latest'"
        ) from None
    runs = all_runs(runs_dir)
    if not runs:
        raise UsageError(f"{runs_dir}: no runs in it yet; 'labrys test' makes one")
    try:
        return runs[number]
    except IndexError:
        raise UsageError(f"{reference}: there are only {len(runs)} runs in {runs_dir}") from None
