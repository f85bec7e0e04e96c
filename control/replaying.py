"""`labrys replay`: the same seed and the same faults again.

A simulated run is the same to the byte. On real machines threads and the network have their own
time: there the faults come again at their moments, and the seed draws the same operations; what
comes of them may differ.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from labrys.control.errors import UsageError
from labrys.control.names import known
from labrys.control.planning import read_plan
from labrys.control.running import run_and_print
from labrys.control.spec import ENVIRONMENTS, Spec, resolve
from labrys.control.store import RunDirectory, find_run


def replay_and_print(reference: str, runs_dir: Path, env: str | None, *, as_json: bool) -> int:
    """Run a stored run again, in its own environment or in `env`; return the exit code."""
    run = find_run(reference, runs_dir)
    if not run.has_spec:
        raise UsageError(f"{run.path}: only a run can be replayed, this is a bare history")
    spec = run.spec()
    if env is not None:
        known("environment", env, ENVIRONMENTS, where="--env")
    is_exact = spec.env == "sim" and env in (None, "sim")
    if not is_exact:
        spec = with_its_faults(spec, run, runs_dir, env or spec.env)
        click.echo(
            "replay     the recorded faults at their moments, the operations of the same seed; "
            "the timing of threads and network cannot be had again",
            err=as_json,
        )
    code = run_and_print(spec, runs_dir, leave_cluster=False, as_json=as_json)
    if is_exact:
        again = RunDirectory((runs_dir / str(spec.name) / "latest").resolve())
        click.echo(f"replay     {compared(run, again)}", err=as_json)
    return code


def with_its_faults(spec: Spec, run: RunDirectory, runs_dir: Path, env: str) -> Spec:
    """Return the spec with the faults that the run has recorded in place of a schedule."""
    fields: dict[str, Any] = {**_builtins(spec), "env": env}
    if spec.faults:
        fields |= {"faults": [], "fault_plan": read_plan(str(run.path), runs_dir)}
    return resolve(fields)


def compared(before: RunDirectory, after: RunDirectory) -> str:
    """Say whether two runs are the same, and if not, from where on they differ."""
    for one, other in ((before.history, after.history), (before.ledger, after.ledger)):
        old, new = one.read_bytes().splitlines(), other.read_bytes().splitlines()
        for number, pair in enumerate(zip(old, new, strict=False), start=1):
            if pair[0] != pair[1]:
                return (
                    f"differs from {before.path}: {one.name} from line {number} on. "
                    "Was it made by another version of labrys?"
                )
        if len(old) != len(new):
            return f"differs from {before.path}: {one.name} has {len(new)} lines, not {len(old)}"
    return f"the same to the byte as {before.path}"


def _builtins(spec: Spec) -> Mapping[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(spec)
    return fields
