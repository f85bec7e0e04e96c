"""`labrys hunt`: one simulated test with many seeds, on all cores, until one of them fails.

Each seed is a run of its own. What is valid or unknown is counted and thrown away; a finding, which
is what is invalid or went wrong, keeps its run directory, with its report.
"""

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from labrys.checkers.verdict import Verdict
from labrys.control.errors import UsageError
from labrys.control.interruption import Interruption
from labrys.control.judge import EXIT_CODES
from labrys.control.report import text
from labrys.control.running import without_impossible
from labrys.control.spec import Spec, rerun_command
from labrys.control.store import RunDirectory
from labrys.control.tally import FINDINGS, Hunted, Tally

TELL_EVERY_S: Final = 0.5
EXIT_INTERRUPTED: Final = 130


def hunt_and_print(
    spec: Spec,
    runs_dir: Path,
    *,
    seeds: int,
    jobs: int,
    findings_max: int,
    as_json: bool,
    vary: Callable[[Spec, int], Spec] | None = None,
) -> int:
    """Try `seeds` seeds from that of the spec on; return the exit code.

    Ends after `findings_max` findings; 0: goes on to the last seed. `vary` gives each seed a
    configuration of its own.
    """
    if spec.env not in ("auto", "sim"):
        raise UsageError(
            f"--env {spec.env}: a hunt is simulated; `labrys test` runs one seed there"
        )
    assert spec.seed is not None, "only a resolved spec can be run"
    numbers = range(spec.seed, spec.seed + seeds)
    spec = msgspec.structs.replace(spec, env="sim")
    spec = without_impossible(spec, partial(click.echo, err=as_json))
    click.echo(_first_line(spec, seeds, is_swarm=vary is not None), err=as_json)
    make = vary or _with_seed
    before = _directories(spec, runs_dir)
    tally = Tally(seeds)
    told_s = 0.0
    is_terminal = sys.stderr.isatty() and not as_json
    with _pool(jobs) as run_all, Interruption().installed() as interruption:
        for hunted in run_all(partial(_try, spec, make, runs_dir), numbers):
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


def _first_line(spec: Spec, seeds: int, *, is_swarm: bool) -> str:
    line = text.first_line(msgspec.to_builtins(spec))
    if not is_swarm:
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


RunAll = Callable[[Callable[[int], Hunted], Sequence[int]], Iterator[Hunted]]


@contextmanager
def _pool(jobs: int) -> Iterator[RunAll]:
    """Yield how to call a function for many seeds, in `jobs` processes."""
    if jobs == 1:
        yield map
        return
    # All of them are made now, before signals are handled here, and none is replaced later: one
    # that is just being made would not end with the others.
    with multiprocessing.get_context("fork").Pool(jobs, _leave_signals) as pool:
        yield pool.imap_unordered


def _leave_signals() -> None:
    """Signals are for the parent: it ends the others, by SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _with_seed(spec: Spec, seed: int) -> Spec:
    return msgspec.structs.replace(spec, seed=seed)


def _try(spec: Spec, make: Callable[[Spec, int], Spec], runs_dir: Path, seed: int) -> Hunted:
    """Run one seed; throw its directory away unless it is a finding."""
    from labrys.control.lifecycle import run_test

    spec = make(spec, seed)
    outcome = run_test(
        spec,
        runs_dir,
        interruption=Interruption(),
        say=lambda line: None,
        keep=lambda verdict: verdict in FINDINGS,
    )
    results = outcome.results
    verdict = Verdict(results["verdict"])
    is_finding = verdict in FINDINGS
    return Hunted(
        seed=seed,
        verdict=verdict,
        simulated_s=results["duration_s"],
        why=_why(results, verdict),
        rerun=rerun_command(spec) if is_finding else None,
        path=str(outcome.run.path) if is_finding else None,
        probes=results["probes"],
    )


def _why(results: dict[str, Any], verdict: Verdict) -> str:
    if verdict is Verdict.ERROR:
        return "; ".join(results["errors"])
    said = (
        f"{name}: {result['summary']}"
        for name, result in results["checkers"].items()
        if result["verdict"] == verdict.value
    )
    return "; ".join(said) if verdict is not Verdict.VALID else ""


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
