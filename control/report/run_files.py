"""What a run left behind, read as leniently as possible.

Judging a run needs a sound history; looking at one does not. A report matters most for the runs
that went wrong, so nothing in here raises for a missing or damaged file: what can be read is
returned, and what cannot becomes a notice for the page.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import yaml

from labrys.checkers.fault import FaultEvent
from labrys.checkers.op import Op
from labrys.checkers.verdict import CheckResult, Verdict

T = TypeVar("T")

LOG_LINES_MAX: Final = 2_000
"""Lines kept of each log file: the last ones."""
LOG_BYTES_MAX: Final = 4 << 20
"""Bytes read of each log file: the last ones."""
LOG_LINE_CHARS_MAX: Final = 500


class Results(msgspec.Struct, frozen=True):
    """`results.json`, every part optional."""

    verdict: Verdict | None = None
    interrupted: bool = False
    """Whether somebody stopped the run before its end."""
    seed: int | None = None
    name: str | None = None
    started_at: str | None = None
    """Wall time at time 0 of the history, ISO 8601: node logs are aligned by it."""
    duration_s: float | None = None
    environment: str | None = None
    nodes: tuple[str, ...] = ()
    workload: str | None = None
    faults: tuple[str, ...] = ()
    bug: str | None = None
    revision: str | None = None
    """Which labrys made the run: a checksum of its sources."""
    rerun: str | None = None
    recheck: str | None = None
    timings: dict[str, Any] = {}
    errors: tuple[Any, ...] = ()
    checkers: dict[str, CheckResult] = {}


class NodeLog(msgspec.Struct, frozen=True):
    """The tail of one log file of a node."""

    name: str
    """The node, with the file's name behind it unless that is just `log`."""
    lines: tuple[tuple[int | None, str], ...]
    """Nanoseconds on the clock of the history (None: no time in the line) and the text."""
    cut_lines: int = 0
    """Earlier lines that were left out; -1 when they were not even counted."""


class RunFiles(msgspec.Struct, frozen=True):
    """One run directory in memory."""

    path: Path
    spec: dict[str, Any] = {}
    results: Results = Results()
    ops: tuple[Op, ...] = ()
    """Every event that could be read, numbered."""
    faults: tuple[FaultEvent, ...] = ()
    logs: tuple[NodeLog, ...] = ()
    notices: tuple[str, ...] = ()
    """What is missing or damaged, one sentence each."""


def read_run(path: Path, *, with_logs: bool = True) -> RunFiles:
    """Read the run directory at `path`. Missing and damaged parts end up in `notices`."""
    notices: list[str] = []
    results = _read_results(path / "results.json", notices)
    return RunFiles(
        path=path,
        spec=_read_spec(path / "test.yaml", notices),
        results=results,
        ops=_numbered(_read_lines(path / "history.jsonl", Op, notices)),
        faults=tuple(_read_lines(path / "faults.jsonl", FaultEvent, notices)),
        logs=_read_logs(path / "nodes", results.started_at, notices) if with_logs else (),
        notices=tuple(notices),
    )


def _read_results(path: Path, notices: list[str]) -> Results:
    data = _read_bytes(path, notices, "the run did not end, so there is no verdict")
    if data is None:
        return Results()
    try:
        return msgspec.json.decode(data, type=Results)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        notices.append(f"results.json is damaged ({error}): what it said is left out")
    try:
        # Save the one fact that matters most, if the rest is what is broken.
        verdict = msgspec.json.decode(data)["verdict"]
        return Results(verdict=Verdict(verdict))
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, RecursionError):
        return Results()


def _read_spec(path: Path, notices: list[str]) -> dict[str, Any]:
    data = _read_bytes(path, notices, "the spec of the test is unknown")
    if data is None:
        return {}
    try:
        spec = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        notices.append(f"test.yaml is damaged: {str(error).splitlines()[0]}")
        return {}
    if not isinstance(spec, dict):
        notices.append("test.yaml is damaged: not a mapping")
        return {}
    return {str(key): value for key, value in spec.items()}


def _read_lines(path: Path, kind: type[T], notices: list[str]) -> list[T]:
    """Decode one value a line. A torn last line is normal; other bad lines are counted."""
    otherwise = {"history.jsonl": "no operation is known", "faults.jsonl": "no fault is known"}
    data = _read_bytes(path, notices, otherwise[path.name])
    decoder = msgspec.json.Decoder(kind)
    values: list[T] = []
    bad: list[str] = []
    lines = (data or b"").split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values.append(decoder.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if number == len(lines):
                notices.append(f"{path.name} ends in half a line: the writer was stopped there")
            else:
                bad.append(f"line {number}: {error}")
    if bad:
        notices.append(f"{path.name} has {len(bad)} broken lines, left out; the first is {bad[0]}")
    return values


def _numbered(ops: Sequence[Op]) -> tuple[Op, ...]:
    return tuple(
        op if op.index >= 0 else msgspec.structs.replace(op, index=place)
        for place, op in enumerate(ops)
    )


def _read_logs(folder: Path, started_at: str | None, notices: list[str]) -> tuple[NodeLog, ...]:
    try:
        files = sorted(file for file in folder.glob("*/*") if file.is_file())
    except OSError:
        files = []
    if not files:
        notices.append("there are no node logs in nodes/")
    zero = _wall_time(started_at or "")
    logs: list[NodeLog] = []
    for file in files:
        node = file.parent.name
        name = node if file.name in ("log", "log.txt") else f"{node}/{file.name}"
        try:
            logs.append(_read_log(file, name, zero))
        except OSError as error:
            notices.append(f"the log {name} cannot be read: {error.strerror}")
    return tuple(logs)


def _read_log(file: Path, name: str, zero: datetime | None) -> NodeLog:
    with file.open("rb") as stream:
        size = stream.seek(0, 2)
        skipped = max(0, size - LOG_BYTES_MAX)
        stream.seek(skipped)
        lines = stream.read(LOG_BYTES_MAX).decode(errors="replace").splitlines()
    kept = lines[-LOG_LINES_MAX:]
    cut = -1 if skipped else len(lines) - len(kept)
    timed: list[tuple[int | None, str]] = []
    at: int | None = None
    for line in kept:
        # A line without a time (a traceback) belongs to the moment of the line before it.
        if zero is not None and (moment := _wall_time(line)) is not None:
            at = round((moment - zero).total_seconds() * 1e9)
        timed.append((at, line[:LOG_LINE_CHARS_MAX]))
    return NodeLog(name=name, lines=tuple(timed), cut_lines=cut)


_STAMP = re.compile(
    r"\D{0,20}(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,6})\d*)?\s?(Z|[+-]\d\d:?\d\d)?"
)


def _wall_time(text: str) -> datetime | None:
    """Return the time that `text` begins with; UTC unless it says otherwise."""
    found = _STAMP.match(text)
    if found is None:
        return None
    day, clock, fraction, zone = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}.{(fraction or '0'):0<6}{zone or 'Z'}")
    except ValueError:
        return None
    return moment.astimezone(UTC)


def _read_bytes(path: Path, notices: list[str], otherwise: str) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        notices.append(f"{path.name} is missing: {otherwise}")
    except OSError as error:
        notices.append(f"{path.name} cannot be read ({error.strerror}): {otherwise}")
    return None
