"""What a night has come to so far: kept in memory, and on disk as it goes on."""

import os
import shlex
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from labrys.checkers.verdict import Verdict
from labrys.control.errors import MachineError
from labrys.control.spec import rerun_command
from labrys.control.store import REPORT, RunDirectory
from labrys.control.suite.attempt import Ended
from labrys.control.suite.night import INTERRUPTED, Case, Night
from labrys.control.suite.plan import Run, Shard
from labrys.control.suite.summary import Confirmed, Result, Skipped, Summary
from labrys.control.suite.writing import keep_room, write_summary

WRITE_EVERY_S: Final = 2.0
"""How old summary.json may be while all is well."""


class Record:
    """Keeps what has come of a night so far, in memory and in `summary.json`."""

    def __init__(
        self,
        night: Night[Any],
        folder: Path,
        *,
        suite: str,
        seed: int,
        shard: Shard,
        count: int | None,
        rerun: str,
    ) -> None:
        """Nothing has been run yet."""
        self._night = night
        self._folder = folder
        self._began_s = self._written_s = time.monotonic()
        self._failures: list[str] = []
        self.ran: list[Run] = []
        """What has run to its end."""
        self.cut_short: list[Run] = []
        """What was interrupted, and so is still to be run."""
        self._summary = Summary(
            suite=suite,
            seed=seed,
            shard=f"{shard.number}/{shard.of}",
            rerun=rerun,
            started_at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            seconds=0.0,
            finished=False,
            stopped=None,
            interrupted=False,
            passes=0,
            passes_asked=count,
            runs=[],
            skipped=[],
        )

    def begin(self) -> None:
        """Write what is known at first: a suite that dies leaves it. Raises MachineError."""
        keep_room(self._folder)
        write_summary(self._so_far(), self._folder)

    def add(self, case: Case) -> Result:
        """Take in how a run ended. The night ends when this cannot be written: no disk is left."""
        result = result_of(case, self._folder)
        if (path := case.attempts[-1].path) is not None:
            with suppress(OSError):  # a link that cannot be set must not end the night
                RunDirectory(Path(path)).call_latest()
        self._summary.runs.append(result)
        (self.cut_short if result.interrupted else self.ran).append(case.run)
        now_s = time.monotonic()
        if result.verdict is not Verdict.VALID or now_s - self._written_s > WRITE_EVERY_S:
            self._written_s = now_s
            try:
                write_summary(self._so_far(), self._folder)
            except MachineError as error:
                self.fail(str(error))
        return result

    def fail(self, why: str) -> None:
        """Note that the suite itself cannot go on."""
        if not self._failures:
            self._failures.append(why)
        self._night.stop(why)

    def finish(self, *, was_interrupted: bool) -> Summary:
        """Return the summary of the whole."""
        return msgspec.structs.replace(
            self._so_far(),
            finished=True,
            interrupted=was_interrupted or bool(self._failures),
            stopped=INTERRUPTED if was_interrupted else self._night.stopped,
            skipped=[Skipped(run.cell.name, run.number) for run in self._night.skipped()],
        )

    def _so_far(self) -> Summary:
        return msgspec.structs.replace(
            self._summary,
            seconds=round(time.monotonic() - self._began_s, 3),
            passes=self._night.passes_begun,
            failures=self._failures,
        )


def result_of(case: Case, folder: Path) -> Result:
    """Return how a run ended, as the summary in `folder` has it."""
    spec, last = case.spec, case.attempts[-1]
    again = case.confirming
    return Result(
        cell=case.run.cell.name,
        number=case.run.number,
        env=spec.env,
        nodes=spec.nodes,
        workload=spec.workload,
        bug=spec.bug,
        faults=case.run.cell.faults,
        seed=case.run.seed,
        verdict=last.verdict,
        why=last.why,
        seconds=round(sum(ended.seconds for ended in (*case.attempts, *again)), 3),
        retried=[ended.why for ended in case.attempts[:-1]],
        confirmed=_confirmed(again, folder) if again else None,
        interrupted=last.interrupted,
        path=_seen_from(folder, last.path),
        report=_seen_from(folder, _report(last)),
        rerun=rerun_command(spec),
        recheck=shlex.join(["labrys", "check", os.path.relpath(last.path)]) if last.path else None,
        told=last.told,
    )


def _confirmed(again: Sequence[Ended], folder: Path) -> Confirmed:
    paths = (_seen_from(folder, ended.path) for ended in again)
    return Confirmed(
        runs=len(again),
        invalid=sum(ended.verdict is Verdict.INVALID for ended in again),
        paths=[path for path in paths if path is not None],
    )


def _report(ended: Ended) -> str | None:
    if ended.path is None or not (Path(ended.path) / REPORT).exists():
        return None
    return str(Path(ended.path) / REPORT)


def _seen_from(folder: Path, path: str | None) -> str | None:
    """Return `path` relative to `folder`, so that both can be moved together."""
    return None if path is None else os.path.relpath(path, folder.resolve())
