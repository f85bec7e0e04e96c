"""`labrys test`: run one test in front of somebody, on a terminal or in a log."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from labrys.checkers.history import MAIN, PHASE
from labrys.checkers.op import Op, OpType
from labrys.control.environments import registry as environments
from labrys.control.errors import UsageError
from labrys.control.interruption import Interruption
from labrys.control.nemesis.nemesis import PACKAGES, assert_possible, possible
from labrys.control.report import text
from labrys.control.spec import Spec, rerun_command


def run_and_print(spec: Spec, runs_dir: Path, *, leave_cluster: bool, as_json: bool) -> int:
    """Run a resolved test, print what happens and how it ended, and return the exit code."""
    say = _sayer(to_stderr=as_json)
    spec = msgspec.structs.replace(spec, env=environments.choose(spec.env, say))
    spec = without_impossible(spec, say)
    if spec.env == "netns":
        if leave_cluster:
            raise UsageError("--leave-cluster: nodes in netns end with labrys; use --env docker")
        from labrys.control.environments.netns import enter

        enter()  # the parent waits in here for good; only the child inside comes back
    if spec.env == "sim" and leave_cluster:
        raise UsageError("--leave-cluster: simulated nodes end with labrys; use --env docker")
    from labrys.control.lifecycle import run_test

    say(text.first_line(msgspec.to_builtins(spec)))
    again = rerun_command(spec, saved_as=f"{runs_dir}/{spec.name}/latest/test.yaml")
    say(f"re-run     {again}")
    showing = _plain(say) if as_json or not sys.stdout.isatty() else _progress(spec)
    with Interruption().installed() as interruption, showing as (say_beside, watch):
        outcome = run_test(
            spec,
            runs_dir,
            interruption=interruption,
            say=say_beside,
            watch=watch,
            leave_cluster=leave_cluster,
        )
    if as_json:
        facts = {
            "path": str(outcome.run.path),
            "verdict": outcome.results["verdict"],
            "exit": outcome.exit_code,
            "seed": spec.seed,
            "results": outcome.results,
        }
        click.echo(msgspec.json.encode(facts))
    else:
        run, results = outcome.run, outcome.results
        # click leaves the colours out wherever the output is not a terminal.
        click.echo(text.verdict_block(run.path, results, exit_code=outcome.exit_code, color=True))
    return outcome.exit_code


def without_impossible(spec: Spec, say: Callable[[str], None]) -> Spec:
    """Leave out what cannot be had here, if all faults were asked for; each by name must be had."""
    if spec.faults != list(PACKAGES):
        assert_possible(spec.fault_kinds, spec.env)
        return spec
    kinds, reasons = possible(spec.fault_kinds, spec.env)
    for kind, reason in reasons.items():
        say(f"--faults all: without {kind}: not with --env {spec.env} here: {reason}")
    return msgspec.structs.replace(spec, faults=kinds)


def _sayer(*, to_stderr: bool) -> Callable[[str], None]:
    def say(line: str) -> None:
        click.echo(line, err=to_stderr)
        (sys.stderr if to_stderr else sys.stdout).flush()

    return say


Say = Callable[[str], None]
Watch = Callable[[Op], None]


@contextmanager
def _plain(say: Say) -> Iterator[tuple[Say, Watch]]:
    """Show no progress."""
    yield say, lambda op: None


@contextmanager
def _progress(spec: Spec) -> Iterator[tuple[Say, Watch]]:
    """Show a progress bar of the main phase on the terminal.

    Yields how to say a line above the bar, and what to call per op.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.fields[phase]}"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[ok]} ok  {task.fields[info]} info"),
    )
    console = Console(markup=False, highlight=False)
    with Progress(*columns, console=console, transient=True, refresh_per_second=4) as progress:

        def say(line: str) -> None:
            # Not click.echo: it finds its way past rich and writes into the bar.
            console.print(line, soft_wrap=True)

        task = progress.add_task("", total=spec.time_limit, phase="set-up", ok=0, info=0)
        began_ns = 0
        counts = {OpType.OK: 0, OpType.INFO: 0}

        def watch(op: Op) -> None:
            nonlocal began_ns
            if op.f == PHASE and not op.is_client:
                began_ns = op.time if op.value == MAIN else began_ns
                progress.update(task, phase=str(op.value))
            if op.is_client and op.type in counts:
                counts[op.type] += 1
                progress.update(
                    task,
                    completed=(op.time - began_ns) / 1e9,
                    ok=counts[OpType.OK],
                    info=counts[OpType.INFO],
                )

        yield say, watch
