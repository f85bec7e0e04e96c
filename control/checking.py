"""`labrys check`: judge stored runs and bare history files again, offline."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from labrys.checkers.catalogue import (
    checker_for,
    default_failed_cas,
    default_nil_read,
    has_start,
    levels_of,
    names,
)
from labrys.checkers.checker import Limits
from labrys.checkers.formats import AUTO, FORMATS, INITIAL, detect, read_any, with_line
from labrys.checkers.history import History, HistoryError
from labrys.checkers.op import OpType
from labrys.checkers.text import json_text
from labrys.checkers.verdict import CheckResult, Verdict, combine
from labrys.control import judge
from labrys.control.errors import UsageError
from labrys.control.judge import EXIT_CODES
from labrys.control.names import known
from labrys.control.report import text
from labrys.workloads.registry import WORKLOADS

if TYPE_CHECKING:
    from labrys.control.store import RunDirectory

_ERROR_CHARS_MAX: Final = 1_000
"""What stands in a file can be of any length; an error about it is to be read."""

# What a run needs is imported with the first one: a bare file is judged in half the time without.


class Checked(msgspec.Struct, frozen=True):
    """What was found out about one path."""

    path: str
    verdict: Verdict
    readings: dict[str, Any]
    """How it was read: format, model and the choices that can change a verdict."""
    checkers: dict[str, CheckResult]
    errors: tuple[str, ...] = ()
    """What failed in the rig when a run was made: judging again does not mend that."""


class Reading(msgspec.Struct, frozen=True):
    """How bare files are to be read and what a check may cost, as the command line says."""

    model: str | None
    file_format: str
    initial: Any
    keyed: bool
    nil_read: str | None
    seconds: float
    memory_mib: int
    failed_cas: str | None = None
    level: str | None = None
    all_keys: bool = False
    moves: int = Limits().moves


def check_paths(paths: Sequence[str], runs_dir: Path, reading: Reading, *, as_json: bool) -> int:
    """Judge every path, print one block (or JSON line) each and return the exit code.

    A path that cannot be read is told and the others are judged all the same; then the code is
    that of a usage error, unless something was found invalid.
    """
    verdicts: list[Verdict] = []
    refused = False
    for path in paths:
        try:
            with judge.no_collection():
                checked = _check(path, runs_dir, reading)
        except UsageError as error:
            click.echo(f"labrys: error: {_shortened(str(error))}", err=True)
            refused = True
            continue
        verdicts.append(checked.verdict)
        if as_json:
            click.echo(msgspec.json.encode(checked))
        else:
            for line in _lines(checked):
                click.echo(line)
    verdict = combine(verdicts)
    if refused and verdict is not Verdict.INVALID:
        return UsageError.exit_code
    return EXIT_CODES[verdict]


def parse_reading(
    *,
    model: str | None,
    workload: str | None,
    file_format: str,
    initial: str | None,
    keyed: bool,
    nil_read: str | None,
    timeout: float,
    memory: int,
    failed_cas: str | None = None,
    level: str | None = None,
    all_keys: bool = False,
    moves: int = Limits().moves,
) -> Reading:
    """Return the flags of `labrys check`, checked. Raises UsageError naming the flag."""
    if model is not None and workload is not None:
        raise UsageError("--model and --workload: give one of them, a workload implies its model")
    if workload is not None:
        known("workload", workload, WORKLOADS, where="--workload")
        model = WORKLOADS[workload].model
    if model is not None:
        known("model", model, names(), where="--model")
    known("format", file_format, (AUTO, *FORMATS), where="--format")
    if not 0 < timeout < float("inf"):
        raise UsageError(f"--timeout {timeout:g}: must be a number above 0")
    if moves < 1:
        raise UsageError(f"--moves {moves}: must be at least 1")
    if memory < 1:
        raise UsageError(f"--memory {memory}: must be at least 1")
    try:
        start = None if initial is None else msgspec.json.decode(initial)
    except msgspec.DecodeError as error:
        raise UsageError(
            f"--initial {initial}: not JSON: {error}; write 0, null or '\"text\"'"
        ) from error
    if model is not None:
        try:
            checker_for(model, initial=start, nil_read=nil_read, failed_cas=failed_cas, level=level)
        except ValueError as error:
            given = f"--initial {initial}" if initial is not None else f"--model {model}"
            raise UsageError(f"{given}: {error}") from error
    return Reading(
        model,
        file_format,
        start,
        keyed,
        nil_read,
        timeout,
        memory,
        failed_cas,
        level,
        all_keys,
        moves,
    )


def _check(path: str, runs_dir: Path, reading: Reading) -> Checked:
    if Path(path).is_file():
        return _check_file(path, reading)
    if not Path(path).exists() and not re.fullmatch(r"-?\d+|latest", path):
        raise UsageError(
            f"{path}: no such file: name a history file, a run directory, a number (-1 is the "
            "newest run) or 'latest'"
        )
    from labrys.control.store import find_run

    return _check_run(find_run(path, runs_dir), reading)


def _check_run(run: "RunDirectory", reading: Reading) -> Checked:
    from labrys.control.ledger import read_ledger

    if not run.has_spec:
        return _check_file(str(run.history), reading)
    if reading.model is not None:
        raise UsageError(
            f"{run.path}: a run knows its own workload; to judge its ops by another model, "
            f"name the file: labrys check {run.history} --model {reading.model}"
        )
    spec = run.spec()
    results = run.read_results() or {}
    checkers = judge.judge_run(
        spec,
        run.read_history(),
        faults=read_ledger(run.ledger),
        logs=run.node_logs(),
        end_states=results.get("end_states", {}),
        budget=judge.limits(reading.seconds, reading.memory_mib, reading.moves),
    )
    errors = tuple(results.get("errors", ()))
    verdict = judge.conclude_verdict(checkers, failed=bool(errors))
    return Checked(str(run.path), verdict, {"workload": spec.workload}, checkers, errors)


def _check_file(path: str, reading: Reading) -> Checked:
    try:
        file_format = detect(path) if reading.file_format == AUTO else reading.file_format
        if reading.model is None:
            raise UsageError(
                f"{path}: a bare history does not say what it is: "
                f"add --model, one of {', '.join(names())}, or --workload"
            )
        history = read_any(path, file_format, keyed=reading.keyed)
        initial = INITIAL.get(file_format) if reading.initial is None else reading.initial
        nil_read = reading.nil_read or default_nil_read(reading.model, file_format)
        failed_cas = reading.failed_cas or default_failed_cas(reading.model)
        main = checker_for(
            reading.model,
            initial=initial,
            nil_read=nil_read,
            failed_cas=failed_cas,
            level=reading.level,
            all_keys=reading.all_keys,
        )
        try:
            _assert_clients_are_numbered(history)
            main.assert_fits(history)
        except HistoryError as error:
            raise with_line(path, file_format, history, error) from error
        except RecursionError as error:
            raise HistoryError(f"{path}: a value is nested too deeply") from error
    except HistoryError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    readings = {
        "format": file_format,
        "model": reading.model,
        "initial": initial,
        "level": reading.level or next(iter(levels_of(reading.model)), None),
        "nil_read": nil_read,
        "failed_cas": failed_cas,
        "torn": history.torn,
    }
    keeps_null = {"initial"} if has_start(reading.model) else set()
    readings = {
        name: value for name, value in readings.items() if value is not None or name in keeps_null
    }
    budget = judge.limits(reading.seconds, reading.memory_mib, reading.moves)
    checkers = judge.judge_history(main, history, budget)
    return Checked(path, judge.conclude_verdict(checkers, failed=False), readings, checkers)


def _assert_clients_are_numbered(history: History) -> None:
    """Raise `HistoryError` for what a process did that is not taken for a client, but acts as one.

    Whatever has a name is a nemesis, and what those do ends in info.
    """
    for op in history.ops:
        if not op.is_client and op.type in (OpType.OK, OpType.FAIL):
            raise HistoryError(
                f"op {op.index}: process {json_text(op.process)} ended in {op.type}, as clients "
                "do: give those numbers"
            )


def _shortened(text: str) -> str:
    return text if len(text) <= _ERROR_CHARS_MAX else f"{text[:_ERROR_CHARS_MAX]}..."


def _lines(checked: Checked) -> list[str]:
    # A start of "" must not look like none at all.
    how = "  ".join(
        f"{name}={json_text(value) if name == 'initial' else value}"
        for name, value in checked.readings.items()
    )
    return [
        f"{checked.path}: {checked.verdict.upper()}  ({how})",
        *text.rig_error_lines(checked.errors),
        *text.checker_lines(checked.checkers, rest="--json has them all"),
    ]
