"""One attempt at a run, in a process of its own: whatever becomes of it, the suite goes on."""

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from labrys.checkers.verdict import Verdict
from labrys.control.environments.namespaces import end_with_parent
from labrys.control.errors import LabrysError
from labrys.control.interruption import Interruption
from labrys.control.lifecycle import run_test
from labrys.control.report import text
from labrys.control.spec import Spec
from labrys.control.store import RESULTS, RunDirectory

TOLD_CHARS_MAX: Final = 8_000
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(msgspec.Struct, frozen=True):
    """How an attempt ended."""

    verdict: Verdict
    why: str = ""
    """In a line, unless it is valid."""
    told: str = ""
    """What `labrys show` says, unless it is valid."""
    path: str | None = None
    """The run directory, if it was kept."""
    interrupted: bool = False
    seconds: float = 0.0


class Attempt(Protocol):
    """An attempt that goes on."""

    def interrupt(self) -> None:
        """Ask it to end in order, as Ctrl-C does."""

    def ended(self) -> Ended:
        """Return how it ended; only for one that was waited for."""


class Forked:
    """An attempt in a child process."""

    def __init__(self, spec: Spec, runs_dir: Path, keep: Callable[[Verdict], bool]) -> None:
        """Start it."""
        self._spec = spec
        self._runs_dir = runs_dir
        self._began_s = time.monotonic()
        self.reader, writer = multiprocessing.Pipe(duplex=False)
        # A signal that comes before the child handles it would be handled by a copy of ours.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._process = multiprocessing.get_context("fork").Process(
                target=_child, args=(spec, runs_dir, keep, writer, before)
            )
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        writer.close()

    def interrupt(self) -> None:
        """See `Attempt`."""
        if self._process.pid is not None and self._process.exitcode is None:
            os.kill(self._process.pid, signal.SIGINT)

    def ended(self) -> Ended:
        """See `Attempt`."""
        try:
            ended = msgspec.msgpack.decode(self.reader.recv_bytes(), type=Ended)
        except EOFError:
            self._process.join()
            ended = self._died()
        self._process.join()
        self.reader.close()
        return msgspec.structs.replace(ended, seconds=round(time.monotonic() - self._began_s, 3))

    def _died(self) -> Ended:
        code = self._process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        why = f"the process of the run died: {how}"
        left = _unfinished(self._runs_dir, self._spec)
        if left is None:
            return Ended(Verdict.ERROR, why, why)
        return Ended(Verdict.ERROR, why, why, path=str(left))


def wait_forked(attempts: Sequence[Forked], seconds: float) -> Sequence[Forked]:
    """Return those that have ended, at once if there are any, else after `seconds` at most."""
    ready = connection.wait([attempt.reader for attempt in attempts], seconds)
    return [attempt for attempt in attempts if attempt.reader in ready]


def _child(
    spec: Spec,
    runs_dir: Path,
    keep: Callable[[Verdict], bool],
    writer: "connection.Connection[Any, Any]",
    mask: set[int],
) -> None:
    """Run the test and send how it ended. Ctrl-C goes to the parent alone, which tells us."""
    os.setsid()
    end_with_parent(signal.SIGTERM)
    try:
        if spec.env == "netns":
            from labrys.control.environments.netns import enter

            enter()  # from here on we are another process, inside
        with Interruption().installed() as interruption:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            ended = _run(spec, runs_dir, keep, interruption)
    except LabrysError as error:
        why = text.one_line(str(error))
        ended = Ended(Verdict.ERROR, why, why)
    except Exception as error:
        why = text.one_line(f"internal error: {type(error).__name__}: {error}")
        ended = Ended(Verdict.ERROR, why, f"{why}\n\n{traceback.format_exc()}")
    with contextlib.suppress(OSError):  # the parent has gone
        writer.send_bytes(msgspec.msgpack.encode(ended))


def _run(
    spec: Spec, runs_dir: Path, keep: Callable[[Verdict], bool], interruption: Interruption
) -> Ended:
    outcome = run_test(spec, runs_dir, interruption=interruption, say=lambda line: None, keep=keep)
    results = outcome.results
    verdict = Verdict(results["verdict"])
    is_valid = verdict is Verdict.VALID
    return Ended(
        verdict,
        "" if is_valid else text.reason(results),
        "" if is_valid else _shortened("\n".join(text.verdict_tree(results))),
        path=str(outcome.run.path) if keep(verdict) else None,
        interrupted=results["interrupted"],
    )


def _shortened(told: str) -> str:
    if len(told) <= TOLD_CHARS_MAX:
        return told
    return f"{told[:TOLD_CHARS_MAX]}\n... labrys show has the rest"


def _unfinished(runs_dir: Path, spec: Spec) -> Path | None:
    """Return the newest directory of this test and seed that has no results."""
    assert spec.name is not None, "only a resolved spec can be run"
    runs = sorted((runs_dir / spec.name).glob(f"*Z-{spec.seed}*"))
    left = [run for run in runs if not (run / RESULTS).exists() and not RunDirectory(run).goes_on()]
    return left[-1].resolve() if left else None
