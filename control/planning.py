"""`--fault-plan` and `--operations`: what is to happen at fixed times, from a file or a run."""

from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from labrys.control.errors import UsageError
from labrys.control.nemesis.fault_plan import PlannedFault, faults_of
from labrys.control.nemesis.nemesis import PACKAGES
from labrys.control.store import RunDirectory, find_run
from labrys.workloads.operation_plan import PlannedOperation, operations_of

Entry = type[PlannedFault] | type[PlannedOperation]

_FAULTS: Final = "--fault-plan"
_OPERATIONS: Final = "--operations"
_EXAMPLES: Final[dict[Entry, str]] = {
    PlannedFault: "a plan is a list such as [{at_s: 5, hold_s: 3, kind: kill}]",
    PlannedOperation: "operations are a list such as [{at_s: 5, worker: 0, f: read, key: k0}]",
}


def read_plan(given: str, runs_dir: Path) -> list[dict[str, Any]]:
    """Return the list of faults that `given` stands for, as a spec holds it.

    It is a list in YAML, the path of a file with such a list, or a run: its path, its number or
    `latest`. Raises UsageError naming what is wrong and where.
    """
    listed = _listed(given, _FAULTS, PlannedFault)
    if listed is not None:
        return listed
    run = _run(given, _FAULTS, runs_dir)
    faults = faults_in(run)
    if not faults:
        raise UsageError(f"{_FAULTS} {given}: there are no faults in the history of {run.path}")
    plan: list[dict[str, Any]] = msgspec.to_builtins(faults)
    return plan


def read_operations(given: str, runs_dir: Path) -> list[dict[str, Any]]:
    """Return the list of operations that `given` stands for; as `read_plan`."""
    listed = _listed(given, _OPERATIONS, PlannedOperation)
    if listed is not None:
        return listed
    run = _run(given, _OPERATIONS, runs_dir)
    if not run.has_spec:
        raise UsageError(f"{_OPERATIONS} {given}: {run.path} is a bare history: who did what when?")
    operations: list[dict[str, Any]] = msgspec.to_builtins(operations_in(run))
    return operations


def faults_in(run: RunDirectory) -> list[PlannedFault]:
    """Return the faults of a run as they were planned. Raises UsageError as `read_history`."""
    starts = {package.start_f: kind for kind, package in PACKAGES.items()}
    stops = {package.stop_f: kind for kind, package in PACKAGES.items()}
    return faults_of(run.read_history().ops, starts, stops)


def operations_in(run: RunDirectory) -> list[PlannedOperation]:
    """Return what the clients of a run did in its main phase, and when."""
    return operations_of(run.read_history().ops, run.spec().concurrency)


def _listed(given: str, flag: str, entry: Entry) -> list[dict[str, Any]] | None:
    """Return the list that stands there or in the file of that name; None: there is no such."""
    if given.lstrip().startswith("["):
        return _parsed(given, flag, entry)
    if not Path(given).is_file():
        return None
    try:
        return _parsed(Path(given).read_text(), f"{flag} {given}", entry)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{flag} {given}: cannot be read: {error}") from error


def _run(given: str, flag: str, runs_dir: Path) -> RunDirectory:
    try:
        return find_run(given, runs_dir)
    except UsageError as error:
        raise UsageError(f"{flag} {given}: neither a file nor a run: {error}") from error


def _parsed(text: str, where: str, entry: Entry) -> list[dict[str, Any]]:
    try:
        plan = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{where}{line}: not YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(plan, list) or (not plan and entry is PlannedFault):
        raise UsageError(f"{where}: {_EXAMPLES[entry]}, not {plan!r}")
    word = "fault" if entry is PlannedFault else "operation"
    for number, one in enumerate(plan, start=1):
        try:
            msgspec.convert(one, entry)
        except msgspec.ValidationError as error:
            raise UsageError(f"{where}: {word} {number}: {error}") from error
    return plan
