"""`labrys replay`: the same seed and the same faults again.

A simulated run is the same to the byte. On real machines threads and the network have their own
time: there faults and operations come again at their moments; what comes of them may differ.
"""

from pathlib import Path

import click
import msgspec

from labrys.control.errors import UsageError
from labrys.control.names import known
from labrys.control.planning import faults_in, operations_in
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
        spec = as_recorded(run, env or spec.env)
        click.echo(
            "replay     the recorded faults and operations at their moments; the timing of threads "
            "and network cannot be had again",
            err=as_json,
        )
    code = run_and_print(spec, runs_dir, leave_cluster=False, as_json=as_json)
    if is_exact:
        again = RunDirectory((runs_dir / str(spec.name) / "latest").resolve())
        click.echo(f"replay     {compared(run, again)}", err=as_json)
    return code


def as_recorded(run: RunDirectory, env: str) -> Spec:
    """Return the test that plays what the run has recorded, faults and operations, in `env`."""
    lists = {"faults": [], "fault_plan": faults_in(run), "operations": operations_in(run)}
    return resolve({**msgspec.to_builtins(run.spec()), **msgspec.to_builtins(lists), "env": env})


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
