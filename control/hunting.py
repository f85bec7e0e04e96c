"""`labrys hunt`: one simulated test with many seeds, on all cores, until one of them fails.

Each seed is a run of its own. What is valid or unknown is counted and thrown away; a finding, which
is what is invalid or went wrong, keeps its run directory, with its report.
"""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import click
import msgspec

from labrys.control.errors import UsageError
from labrys.control.interruption import Interruption
from labrys.control.judge import EXIT_CODES
from labrys.control.pool import as_they_end
from labrys.control.report import text
from labrys.control.running import without_impossible
from labrys.control.spec import Spec
from labrys.control.store import RunDirectory
from labrys.control.tally import Tally
from labrys.control.trial import Hunted, RunAll, Trial

TELL_EVERY_S: Final = 0.5
EXIT_INTERRUPTED: Final = 130


def hunt_and_print(
    trial: Trial,
    runs_dir: Path,
    *,
    seeds: int,
    jobs: int,
    cluster: str | None,
    findings_max: int,
    as_json: bool,
) -> int:
    """Try `seeds` seeds from that of the spec on; return the exit code.

    Ends after `findings_max` findings; 0: goes on to the last seed. With `cluster`, the address of
    a Dask scheduler, its workers run them, else `jobs` processes.
    """
    spec = trial.spec
    if spec.env not in ("auto", "sim"):
        raise UsageError(
            f"--env {spec.env}: a hunt is simulated; `labrys test` runs one seed there"
        )
    assert spec.seed is not None, "only a resolved spec can be run"
    numbers = range(spec.seed, spec.seed + seeds)
    spec = msgspec.structs.replace(spec, env="sim")
    spec = without_impossible(spec, partial(click.echo, err=as_json))
    trial = msgspec.structs.replace(trial, spec=spec)
    click.echo(_first_line(trial, seeds), err=as_json)
    before = _directories(spec, runs_dir)
    tally = Tally(seeds)
    told_s = 0.0
    is_terminal = sys.stderr.isatty() and not as_json
    interruption = Interruption()
    pool = _pool(trial, runs_dir, jobs, cluster, interruption.asked)
    with pool as run_all, interruption.installed():
        for hunted in run_all(numbers):
            tally.add(hunted)
            if hunted.path is not None:
                RunDirectory(Path(hunted.path)).call_latest()
            if as_json:
                click.echo(msgspec.json.encode(hunted))
            elif hunted.is_finding:
                _clear(is_terminal)
                for line in _told(hunted):
                    click.echo(line)
            if is_terminal and time.monotonic() - told_s > TELL_EVERY_S:
                told_s = time.monotonic()
                click.echo(f"\r{tally.line()}\x1b[K", nl=False, err=True)
            if interruption.count or 0 < findings_max <= len(tally.findings):
                break
    _clear(is_terminal)
    _remove_untold(_directories(spec, runs_dir) - before, tally.findings)
    code = EXIT_INTERRUPTED if interruption.count else EXIT_CODES[tally.verdict]
    if as_json:
        facts = {"hunt": tally.verdict.value, "exit": code, **tally.facts()}
        click.echo(msgspec.json.encode(facts))
    elif tally.done:
        click.echo("rare states, and by how many seeds they were reached (node/probes.py):")
        for line in tally.probe_lines():
            click.echo(line)
    click.echo(tally.line(), err=as_json)
    click.echo(f"labrys: hunt {tally.verdict.value.upper()}  exit {code}", err=as_json)
    return code


@contextmanager
def _pool(
    trial: Trial, runs_dir: Path, jobs: int, cluster: str | None, asked: threading.Event
) -> Iterator[RunAll]:
    if cluster is None:
        with as_they_end(jobs) as call:
            yield partial(call, partial(trial.run, runs_dir))
        return
    from labrys.control.dask_pool import dask_pool

    with dask_pool(cluster, trial, runs_dir, asked) as run_all:
        yield run_all


def _first_line(trial: Trial, seeds: int) -> str:
    spec = trial.spec
    line = text.first_line(msgspec.to_builtins(spec))
    if trial.vary is None:
        return line
    # What it says of faults, time and nodes may be another for each seed.
    asked = [f"bug {spec.bug}"] if spec.bug else []
    asked += [",".join(spec.fault_kinds)] if spec.fault_kinds else []
    return "  ".join(
        [f"labrys: seed {spec.seed}", spec.workload, *asked, f"{seeds} seeds, swarm", "sim"]
    )


def _told(hunted: Hunted) -> Iterator[str]:
    yield f"seed {hunted.seed}  {hunted.verdict.value.upper()}  {hunted.why}"
    yield f"  re-run     {hunted.rerun}"
    if hunted.path:
        yield f"  report     {hunted.path}/report.html"


def _clear(is_terminal: bool) -> None:
    if is_terminal:
        click.echo("\r\x1b[K", nl=False, err=True)


def _directories(spec: Spec, runs_dir: Path) -> set[Path]:
    assert spec.name is not None, "only a resolved spec can be run"
    paths = (runs_dir / spec.name).glob("*Z-*")
    return {path.resolve() for path in paths if path.is_dir()}


def _remove_untold(directories: set[Path], findings: Sequence[Hunted]) -> None:
    """Remove the directories of runs that were under way when the hunt ended."""
    told = {finding.path for finding in findings}
    for path in directories:
        run = RunDirectory(path)
        if str(path) not in told and not run.goes_on():
            run.remove()
