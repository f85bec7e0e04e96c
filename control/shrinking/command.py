"""`labrys shrink RUN`: make a failing simulated run smaller, in front of somebody."""

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import click
import msgspec
import yaml

from labrys.checkers.history import History
from labrys.checkers.verdict import Verdict
from labrys.control import pool
from labrys.control.errors import ClusterError, UsageError
from labrys.control.interruption import Interruption
from labrys.control.planning import faults_in
from labrys.control.shrinking import smaller
from labrys.control.shrinking.failure import Failure, Sighting, failure_of, sighting_of
from labrys.control.shrinking.search import Search
from labrys.control.shrinking.story import story
from labrys.control.shrinking.trials import Found, Over, Trials, simulated
from labrys.control.spec import Spec, lists_in_yaml
from labrys.control.store import RunDirectory, find_run, write_atomically

SHRUNK: Final = "shrunk.yaml"
"""The spec of the smallest test with its story, in its run directory."""
EXIT_INTERRUPTED: Final = 130
EXIT_UNKNOWN: Final = 3


class Size(msgspec.Struct, frozen=True):
    """How much there is to read of a run, in the order of what counts."""

    faults: int
    operations: int
    on_key: int | None
    """Of the operations those on the key that failed, if it is about one."""
    nodes: int
    seconds: float
    """Of the main phase."""

    def __str__(self) -> str:
        on_key = "" if self.on_key is None else f" ({self.on_key} on the failing key)"
        return (
            f"{_count(self.faults, 'fault')}, {_count(self.operations, 'operation')}{on_key}, "
            f"{_count(self.nodes, 'node')}, {self.seconds:g} s"
        )


def shrink_and_print(
    reference: str, runs_dir: Path, *, tries: int, seconds: float, jobs: int, as_json: bool
) -> int:
    """Write the smallest run that fails as `reference` does; return the exit code.

    A test that does not fail with `tries` seeds is given up; after `seconds` the search ends.
    Raises UsageError for a run that is not simulated, or not invalid.
    """
    run = find_run(reference, runs_dir)
    results = _results_of(run)
    failure = failure_of(results)
    assert failure is not None, "an invalid run says what is wrong"
    sighting = sighting_of(failure, run, results)
    assert sighting is not None, "it was seen there"
    before = _size(run, sighting)
    click.echo(f"labrys: shrink {run.path}", err=as_json)
    click.echo(f"failure    {failure}", err=as_json)
    click.echo(f"before     {before}", err=as_json)
    began_s = time.monotonic()
    with Interruption().installed() as interruption:
        search, count = _searched(
            failure, run, interruption, tries=tries, seconds=seconds, jobs=jobs, quiet=as_json
        )
        taken_s = time.monotonic() - began_s
        if search is None:
            if interruption.count:
                return EXIT_INTERRUPTED
            click.echo(
                f"labrys: it does not fail so again, with {_count(count, 'seed')} in "
                f"{taken_s:.0f} s. Was the run made by another version of labrys?",
                err=True,
            )
            return EXIT_UNKNOWN
    shrunk, again, facts = _run_for_good(search.best, failure, runs_dir)
    after = _size(shrunk, again)
    lines = story(shrunk, facts, again)
    spec_file = shrunk.path / SHRUNK
    write_atomically(spec_file, _in_yaml(search.best.spec, failure, after, lines).encode())
    code = EXIT_INTERRUPTED if interruption.count else 0
    how = f"{count} tries in {taken_s:.0f} s"
    if interruption.count:
        how += "; interrupted: this is the smallest so far"
    elif taken_s > seconds:
        how += f"; time was over: this is the smallest so far, --time {2 * seconds:g} looks further"
    if as_json:
        told = {
            "path": str(shrunk.path),
            "spec": str(spec_file),
            "failure": failure,
            "before": before,
            "after": after,
            "tries": count,
            "taken_s": round(taken_s, 1),
            "story": lines,
            "exit": code,
        }
        click.echo(msgspec.json.encode(told))
        return code
    click.echo(f"after      {after}; {how}")
    click.echo("\n".join(lines))
    click.echo(f"re-run     labrys test {spec_file}")
    click.echo(f"report     {shrunk.path}/report.html")
    click.echo(f"labrys: shrunk to seed {search.best.spec.seed}  exit {code}")
    return code


def _results_of(run: RunDirectory) -> Mapping[str, Any]:
    if not run.has_spec:
        raise UsageError(f"{run.path}: only a run can be shrunk, this is a bare history")
    spec = run.spec()
    if spec.env != "sim":
        raise UsageError(
            f"{run.path}: its nodes were in {spec.env}: only a simulated run can be shrunk, since "
            "only its timing is known; see `labrys hunt`"
        )
    results = run.read_results()
    if results is None:
        raise UsageError(f"{run.path}: it has no verdict: it goes on, or it died")
    if results["verdict"] != Verdict.INVALID.value:
        raise UsageError(f"{run.path}: it is {results['verdict']}: only an invalid run is shrunk")
    return results


def _searched(
    failure: Failure,
    run: RunDirectory,
    interruption: Interruption,
    *,
    tries: int,
    seconds: float,
    jobs: int,
    quiet: bool,
) -> tuple[Search | None, int]:
    """Return the search when it has ended, None if the run does not fail again; and the tries."""
    until_s = time.monotonic() + seconds
    search: Search | None = None
    with (
        tempfile.TemporaryDirectory(prefix="labrys-shrink-") as folder,
        _progress(quiet) as show,
        pool.in_order(jobs) as run_all,
    ):

        def tell() -> None:
            left_s = until_s - time.monotonic()
            smallest = f"; {_of_spec(search.best.spec)}" if search is not None else ""
            show(f"{_count(trials.count, 'try', 'tries')}, {left_s:.0f} s left{smallest}")

        trials = Trials(
            simulated(failure, Path(folder)),
            run_all=run_all,
            at_once=jobs,
            is_over=lambda: (
                interruption.count > 0 or (search is not None and time.monotonic() > until_s)
            ),
            tell=tell,
        )
        with suppress(Over):
            found = trials.search(smaller.explicit(run), tries)
            if found is not None:
                search = Search(found, trials, tries_max=tries)
                search.run()
        return search, trials.count


@contextmanager
def _progress(quiet: bool) -> Iterator[Any]:
    """Yield how to show a line that replaces the one before, if there is a terminal."""
    is_terminal = sys.stderr.isatty() and not quiet

    def show(line: str) -> None:
        if is_terminal:
            click.echo(f"\r{line}\x1b[K", nl=False, err=True)

    try:
        yield show
    finally:
        show("")


def _run_for_good(
    best: Found, failure: Failure, runs_dir: Path
) -> tuple[RunDirectory, Sighting, Mapping[str, Any]]:
    from labrys.control.lifecycle import run_test

    with Interruption().installed() as interruption:
        outcome = run_test(best.spec, runs_dir, interruption=interruption, say=lambda line: None)
    again = sighting_of(failure, outcome.run, outcome.results)
    if again is None:
        raise ClusterError(f"{outcome.run.path}: the smallest run did not fail when run once more")
    return outcome.run, again, outcome.results


def _size(run: RunDirectory, sighting: Sighting) -> Size:
    history: History = run.read_history()
    spec = run.spec()
    key = sighting.key
    return Size(
        faults=len(faults_in(run)),
        operations=len(history.operations),
        on_key=None if key is None else sum(each.key == key for each in history.operations),
        nodes=spec.nodes,
        seconds=spec.time_limit,
    )


def _of_spec(spec: Spec) -> str:
    operations = smaller.operations_of(spec)
    return str(Size(len(spec.fault_plan), len(operations), None, spec.nodes, spec.time_limit))


def _in_yaml(spec: Spec, failure: Failure, size: Size, lines: list[str]) -> str:
    """Return the spec as a file to read and to run: the story as comments, then what is not as
    usual."""
    default = msgspec.to_builtins(Spec())
    fields = {
        name: value
        for name, value in msgspec.to_builtins(spec).items()
        if value != default[name] and name not in ("fault_plan", "operations")
    }
    head = [f"{failure}", f"{size}", "", *lines]
    comments = "".join(f"# {line}".rstrip() + "\n" for line in head)
    return comments + yaml.safe_dump(fields, sort_keys=False) + lists_in_yaml(spec)


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
