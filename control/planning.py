"""`--fault-plan`: read the faults of a test from a file, a flag, or an earlier run."""

from pathlib import Path
from typing import Any

import msgspec
import yaml

from labrys.control.errors import UsageError
from labrys.control.nemesis.fault_plan import PlannedFault, faults_of
from labrys.control.nemesis.nemesis import PACKAGES
from labrys.control.store import find_run


def read_plan(given: str, runs_dir: Path) -> list[dict[str, Any]]:
    """Return the list of faults that `given` stands for, as a spec holds it.

    It is a list in YAML, the path of a file with such a list, or a run: its path, its number or
    `latest`. Raises UsageError naming what is wrong and where.
    """
    if given.lstrip().startswith("["):
        return _parsed(given, "--fault-plan")
    if Path(given).is_file():
        try:
            return _parsed(Path(given).read_text(), f"--fault-plan {given}")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--fault-plan {given}: cannot be read: {error}") from error
    try:
        run = find_run(given, runs_dir)
    except UsageError as error:
        raise UsageError(f"--fault-plan {given}: neither a file nor a run: {error}") from error
    starts = {package.start_f: kind for kind, package in PACKAGES.items()}
    stops = {package.stop_f: kind for kind, package in PACKAGES.items()}
    faults = faults_of(run.read_history().ops, starts, stops)
    if not faults:
        raise UsageError(f"--fault-plan {given}: there are no faults in the history of {run.path}")
    plan: list[dict[str, Any]] = msgspec.to_builtins(faults)
    return plan


def _parsed(text: str, where: str) -> list[dict[str, Any]]:
    try:
        plan = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{where}{line}: not YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(plan, list) or not plan:
        raise UsageError(
            f"{where}: a plan is a list such as [{{at_s: 5, hold_s: 3, kind: kill}}], not {plan!r}"
        )
    for number, entry in enumerate(plan, start=1):
        try:
            msgspec.convert(entry, PlannedFault)
        except msgspec.ValidationError as error:
            raise UsageError(f"{where}: fault {number}: {error}") from error
    return plan
