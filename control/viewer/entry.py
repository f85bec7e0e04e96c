"""One line of the run list: what a folder in the runs directory is, in words.

Whatever lies there gets a line. Nothing in here raises for a damaged or foreign folder: the line
says what it is.
"""

import errno
import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from labrys.checkers.verdict import Verdict
from labrys.control.report.labels import error_text, planned_kinds
from labrys.control.store import HISTORY, RESULTS, SPEC, RunDirectory
from labrys.control.viewer.progress import Progress

RESULTS_BYTES_MAX: Final = 64 << 20
SPEC_BYTES_MAX: Final = 4 << 20
REASON_CHARS_MAX: Final = 240

_STAMP: Final = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z(?:-|$)")


class State(StrEnum):
    """How a run ended, or why it has no verdict."""

    VALID = "valid"
    INVALID = "invalid"
    UNKNOWN = "unknown"
    ERROR = "error"
    RUNNING = "running"
    UNFINISHED = "unfinished"
    """It died, or is so new that nothing is recorded yet."""
    DAMAGED = "damaged"
    FOREIGN = "foreign"
    """No run at all."""


class Entry(msgspec.Struct, frozen=True):
    """A folder in the runs directory."""

    id: str
    """Its path below the runs directory."""
    state: State
    reason: str
    """The verdict's reason in words, or what is missing."""
    name: str
    started: str = ""
    """`2026-11-24 17:01:56`, UTC; empty if nobody knows."""
    workload: str = ""
    bug: str = ""
    faults: str = ""
    """`partition,kill`, or `none`."""
    env: str = ""
    nodes: int = 0
    seed: int | None = None
    counts: dict[str, int] | None = None
    """Operations by outcome."""
    duration_s: float | None = None
    revision: str = ""

    @property
    def night(self) -> str:
        """The day on which it began, UTC."""
        return self.started[:10]

    @property
    def subject(self) -> str:
        """The workload, and the bug if there is one."""
        return f"{self.workload} {self.bug}".strip()


class _Check(msgspec.Struct):
    verdict: Verdict
    summary: str = ""
    data: msgspec.Raw = msgspec.Raw(b"{}")


class _Results(msgspec.Struct):
    """What the list shows of results.json; there is much more in it."""

    verdict: Verdict
    interrupted: bool = False
    name: str = ""
    seed: int | None = None
    started_at: str = ""
    duration_s: float | None = None
    environment: str = ""
    nodes: list[str] = []
    workload: str = ""
    faults: list[str] = []
    bug: str | None = None
    revision: str | None = None
    errors: list[Any] = []
    checkers: dict[str, _Check] = {}


class _Stats(msgspec.Struct):
    phases: dict[str, dict[str, dict[str, int]]] = {}


_results = msgspec.json.Decoder(_Results)
_stats = msgspec.json.Decoder(_Stats)


def read_entry(folder: Path, id_: str, progress: Progress) -> Entry:
    """Return what `folder` is. `progress` is what is known of its history so far."""
    stamp = _STAMP.match(folder.name)
    base = Entry(
        id=id_,
        state=State.FOREIGN,
        reason=f"no run: there is no {SPEC}, no {HISTORY} and no {RESULTS} in it",
        name=id_.rpartition("/")[0] or id_,
        started="{}-{}-{} {}:{}:{}".format(*stamp.groups()) if stamp else "",
    )
    try:
        names = set(os.listdir(folder))
        if names.isdisjoint((SPEC, HISTORY, RESULTS)):
            return base
        if RESULTS in names:
            return _ended(base, folder)
        return _without_results(base, folder, progress)
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        return msgspec.structs.replace(base, state=State.DAMAGED, reason=reason)


def _ended(base: Entry, folder: Path) -> Entry:
    path = folder / RESULTS
    size = path.stat().st_size
    if size > RESULTS_BYTES_MAX:
        reason = f"{RESULTS} is too large for a list: {size >> 20} MiB"
        return msgspec.structs.replace(base, state=State.DAMAGED, reason=reason)
    try:
        found = _results.decode(path.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = _short(f"{RESULTS} is damaged: {error}")
        return _from_spec(msgspec.structs.replace(base, state=State.DAMAGED, reason=reason), folder)
    return msgspec.structs.replace(
        base,
        state=State(found.verdict.value),
        reason=_short(_reason(found)),
        name=found.name or base.name,
        started=base.started or found.started_at[:19].replace("T", " "),
        workload=found.workload,
        bug=found.bug or "",
        faults=",".join(found.faults) or "none",
        env=found.environment,
        nodes=len(found.nodes),
        seed=found.seed,
        counts=_counts(found),
        duration_s=found.duration_s,
        revision=found.revision or "",
    )


def _reason(found: _Results) -> str:
    said = [
        f"{name}: {check.summary}"
        for name, check in found.checkers.items()
        if check.verdict is found.verdict
    ]
    if found.verdict is Verdict.ERROR:
        said = [*map(error_text, found.errors), *said]
    ending = "interrupted; " if found.interrupted else ""
    return ending + (said[0] if said else "no checker says why")


def _counts(found: _Results) -> dict[str, int] | None:
    """Of all phases, as the stats checker counted them; None if it did not."""
    if "stats" not in found.checkers:
        return None
    try:
        stats = _stats.decode(found.checkers["stats"].data)
    except msgspec.DecodeError:
        return None
    if not stats.phases:
        return None
    total = {"ok": 0, "fail": 0, "info": 0}
    for functions in stats.phases.values():
        for counts in functions.values():
            for outcome in total:
                total[outcome] += counts.get(outcome, 0)
    return total


def _without_results(base: Entry, folder: Path, progress: Progress) -> Entry:
    run = RunDirectory(folder)
    counts = None
    if run.history.exists() and not run.history.is_file():
        raise OSError(errno.EINVAL, f"{HISTORY} is no file")  # to open a pipe would wait for ever
    goes_on = run.goes_on()
    if run.history.exists():
        progress.look(run.history)
        counts = dict(progress.counts)
    if goes_on:
        reason = "it goes on"
    elif counts is None:
        reason = "nothing is recorded yet, or it died before anything was"
    else:
        reason = "it died, or was stopped before it was judged"
    entry = msgspec.structs.replace(
        base,
        state=State.RUNNING if goes_on else State.UNFINISHED,
        reason=reason,
        counts=counts,
        duration_s=progress.duration_s if counts is not None else None,
    )
    return _from_spec(entry, folder)


def _from_spec(entry: Entry, folder: Path) -> Entry:
    """Add what test.yaml says was planned; a damaged one adds that it is damaged."""
    path = folder / SPEC
    try:
        if path.stat().st_size > SPEC_BYTES_MAX:
            raise ValueError(f"it is too large for a list: {path.stat().st_size >> 20} MiB")
        spec = yaml.safe_load(path.read_bytes())
        if not isinstance(spec, dict):
            raise ValueError("it is no mapping")
        kinds = planned_kinds(spec)
    except FileNotFoundError:
        return msgspec.structs.replace(entry, reason=f"{entry.reason}; there is no {SPEC}")
    except (yaml.YAMLError, ValueError, TypeError, KeyError, RecursionError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        reason = _short(f"{entry.reason}; {SPEC} is damaged: {why}")
        return msgspec.structs.replace(entry, reason=reason)
    nodes, seed = spec.get("nodes"), spec.get("seed")
    return msgspec.structs.replace(
        entry,
        workload=str(spec.get("workload") or ""),
        bug=str(spec.get("bug") or ""),
        faults=",".join(kinds) or "none",
        env=str(spec.get("env") or ""),
        nodes=nodes if isinstance(nodes, int) else 0,
        seed=seed if isinstance(seed, int) else None,
    )


def _short(text: str) -> str:
    text = text.splitlines()[0] if text else text
    return text if len(text) <= REASON_CHARS_MAX else f"{text[: REASON_CHARS_MAX - 1]}…"
