"""The command line: `labrys test`, `hunt`, `check`, `runs`, `show`, `history`, `stress`, ...

Each command parses its words, calls one function and prints. Everything that a command needs is
imported when it runs, so that `labrys --help` answers at once.
"""

import contextlib
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from labrys.control.errors import LabrysError, UsageError

EXIT_BROKEN_PIPE = 128 + signal.SIGPIPE

RUNS_DIR = click.option(
    "--runs-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Where runs are kept.",
)
JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print facts as JSON, one object a line."
)
RUN_HELP = "RUN is a path, a number (-1 is the newest) or 'latest'."


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the documented code; never with a traceback."""
    _open_standard_streams()
    try:
        code = cli.main(args=argv, prog_name="labrys", standalone_mode=False) or 0
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.Abort:
        code = 130
    except click.ClickException as error:
        error.show()
        code = 2
    except LabrysError as error:
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
        click.echo(f"labrys: error: {error}{notes}", err=True)
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except SystemExit:
        # Commands return their code; only click itself exits, when the reader of a pipe has gone.
        # Its code would read as a verdict, so end as the signal would have ended us.
        code = EXIT_BROKEN_PIPE
    except Exception as error:
        code = 4
        with contextlib.suppress(OSError):  # nobody is there to read it, or no room to keep it
            click.echo(
                f"labrys: internal error: {type(error).__name__}: {error}\n"
                f"  this is a bug in labrys; the details are in {_save_traceback()}",
                err=True,
            )
    sys.exit(code)


def _open_standard_streams() -> None:
    """Put /dev/null where a standard stream was closed.

    The next file to be opened would get its number otherwise, and what is printed would end up
    in a history.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            lowest_free = os.open(os.devnull, os.O_RDWR)
            assert lowest_free == number, f"{name} became {lowest_free}"
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


class RunCommand(click.Command):
    """A command whose arguments may be runs by number: `-1` is a run here, not an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put negative numbers behind `--`, unless they are the value of an option."""
        takes_value = {
            name
            for option in self.params
            if isinstance(option, click.Option) and not option.is_flag
            for name in option.opts
        }
        before = ["", *args]
        is_run = [
            re.fullmatch(r"-\d+", word) is not None and before[place] not in takes_value
            for place, word in enumerate(args)
        ]
        runs = [word for word, run in zip(args, is_run, strict=True) if run]
        rest = [word for word, run in zip(args, is_run, strict=True) if not run]
        return super().parse_args(ctx, [*rest, "--", *runs] if runs else rest)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="labrys", prog_name="labrys")
def cli() -> None:
    """Hurt a cluster, record what its clients saw, and judge whether that was linearizable.

    \b
    Exit codes: 0 valid, 1 invalid, 2 usage, 3 unknown or vacuous,
                4 the rig or the machine failed, 130 interrupted.

    \b
    Example:  labrys test --faults partition,kill --time-limit 30
              labrys show latest
    """


@cli.command()
@click.argument("spec_file", metavar="[SPEC.yaml]", required=False, type=click.Path(path_type=Path))
@click.option("--name", help="Name of the test: the folder of its runs.")
@click.option(
    "--env", help="auto, docker, netns, ssh or sim (auto: docker where it works, else netns)."
)
@click.option("--nodes", type=int, help="How many nodes (5).")
@click.option("--hosts", metavar="A,B,...", help="With --env ssh: the nodes' hosts (n1,n2,...).")
@click.option("--system", help="The system under test (raftkv).")
@click.option(
    "--system-option",
    "system_options",
    multiple=True,
    metavar="KEY=VALUE",
    help="How the system is to run, e.g. --system-option snapshot-entries=100; may be repeated.",
)
@click.option("--bug", metavar="NAME", help="Run the system with a deliberate fault.")
@click.option("--workload", help="What the clients do (register).")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the workload, e.g. --option values=small; may be repeated.",
)
@click.option(
    "--faults",
    metavar="KIND[:CHOICE+...],...",
    help="partition, kill, pause, ... (labrys doctor --faults lists them), or all; "
    "kill:all+leader narrows; or a YAML mapping.",
)
@click.option("--fault-interval", type=float, metavar="S", help="Mean seconds a fault holds (5).")
@click.option(
    "--fault-quiet",
    type=float,
    metavar="S",
    help="Mean seconds of quiet after it (as the interval); 0: one strikes as others heal.",
)
@click.option(
    "--faults-at-once",
    type=int,
    metavar="N",
    help="Kinds of faults in a round (of up to 4 all; of more, so many that each has its turn).",
)
@click.option(
    "--fault-plan",
    metavar="FILE|RUN",
    help="Faults at fixed times: a YAML list of at_s, hold_s, kind, options; or those of a run.",
)
@click.option(
    "--operations",
    metavar="FILE|RUN",
    help="Operations at fixed times: a YAML list of at_s, worker, f, key, value; or a run's.",
)
@click.option("--time-limit", type=float, metavar="S", help="Seconds of the main phase (60).")
@click.option("--rate", type=float, help="Operations asked for per second, in all (200).")
@click.option("--concurrency", type=int, help="Worker threads (10).")
@click.option("--op-timeout", type=float, metavar="S", help="Deadline of one operation (2).")
@click.option("--seed", type=int, help="The root seed; drawn if not given.")
@click.option("--check-timeout", type=float, metavar="S", help="Budget of the check (300).")
@click.option("--check-memory", type=int, metavar="MIB", help="Memory of the check (4096).")
@RUNS_DIR
@click.option("--leave-cluster", is_flag=True, help="Do not stop and remove the nodes.")
@JSON
def test(runs_dir: Path, leave_cluster: bool, as_json: bool, **given: Any) -> int:
    """Run one test and judge it; flags override the spec.

    \b
    Example:  labrys test --workload register --faults partition,kill --time-limit 30
              labrys test --bug stale-read --faults partition   # is it found?
              labrys test --env ssh --hosts db1,db2,db3         # machines of your own
              labrys test runs/latest/test.yaml                 # the same test again
    """
    from labrys.control.spec import resolve

    spec = resolve(_fields(runs_dir, **given))
    from labrys.control.running import run_and_print

    return run_and_print(spec, runs_dir, leave_cluster=leave_cluster, as_json=as_json)


def _fields(
    runs_dir: Path,
    *,
    spec_file: Path | None,
    options: tuple[str, ...],
    system_options: tuple[str, ...],
    faults: str | None,
    fault_plan: str | None,
    operations: str | None,
    **flags: Any,
) -> dict[str, Any]:
    """Return what a spec file and the flags, which override it, say together."""
    from labrys.control.spec import read_spec

    fields = read_spec(spec_file) if spec_file else {}
    fields |= {name: value for name, value in flags.items() if value is not None}
    if flags.get("hosts") is not None:
        fields["hosts"] = _hosts(flags["hosts"])
    if options:
        given = _options(options, "--option", "values=small")
        fields["workload_options"] = fields.get("workload_options", {}) | given
    if system_options:
        given = _options(system_options, "--system-option", "snapshot-entries=100")
        fields["system_options"] = fields.get("system_options", {}) | given
    if faults is not None:
        from labrys.control.faults_notation import parse_faults_notation

        fields["faults"] = parse_faults_notation(faults, "--faults")
    if fault_plan is not None:
        from labrys.control.planning import read_plan

        fields["fault_plan"] = read_plan(fault_plan, runs_dir)
    if operations is not None:
        from labrys.control.planning import read_operations

        fields["operations"] = read_operations(operations, runs_dir)
    return fields


@cli.command(params=[each for each in test.params if each.name not in ("leave_cluster", "hosts")])
@click.option(
    "--seeds", type=click.IntRange(min=1), default=100, show_default=True, help="Try so many."
)
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N", help="Processes  [default: one a core]"
)
@click.option(
    "--cluster", metavar="ADDRESS", help="Run the seeds on a Dask cluster, e.g. tcp://HOST:8786."
)
@click.option(
    "--findings",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="End after so many; 0: try all seeds.",
)
@click.option(
    "--swarm/--no-swarm",
    default=None,
    help="Let each seed draw what is not given: faults, nodes, rhythm, load, sizes, time "
    "(the default, but for a SPEC.yaml).",
)
def hunt(
    runs_dir: Path,
    as_json: bool,
    seeds: int,
    jobs: int | None,
    cluster: str | None,
    findings: int,
    swarm: bool | None,
    **given: Any,
) -> int:
    """Simulate one test with many seeds, from --seed on, until one fails.

    What is found keeps its run directory; of the others only the count is kept. With --json one
    line for each seed.

    \b
    Example:  labrys hunt --bug lose-tail --seeds 200
              labrys hunt --faults partition,kill --nodes 5 --seeds 500 --seed 1
              labrys hunt spec.yaml --findings 0      # only the seed varies
              labrys hunt --seeds 5000 --cluster tcp://10.0.0.1:8786
    """
    from functools import partial

    from labrys.control.hunting import hunt_and_print
    from labrys.control.spec import resolve
    from labrys.control.swarm import vary
    from labrys.control.trial import Trial

    if cluster is not None and jobs is not None:
        raise UsageError("--jobs --cluster: a cluster has its workers; leave one of them out")
    fields = _fields(runs_dir, **given)
    swarm = given["spec_file"] is None if swarm is None else swarm
    return hunt_and_print(
        Trial(resolve(fields), partial(vary, asked_for=frozenset(fields)) if swarm else None),
        runs_dir,
        seeds=seeds,
        jobs=jobs or len(os.sched_getaffinity(0)),
        cluster=cluster,
        findings_max=findings,
        as_json=as_json,
    )


@cli.command()
@click.argument("suite_file", metavar="SUITE.yaml", type=click.Path(path_type=Path))
@click.option(
    "--seed", type=click.IntRange(min=0), help="The same seeds again; drawn if not given."
)
@click.option(
    "--time-budget", metavar="TIME", help="Start nothing after 45m, 1h30m, 90s; the rest is next."
)
@click.option("--shard", metavar="I/N", default="1/1", help="The Ith of N parts of the runs.")
@click.option("--count", type=click.IntRange(min=1), help="Run every test so often.")
@click.option("--until-fail", is_flag=True, help="Go on until a run is invalid or fails.")
@click.option(
    "--confirm",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Run what is invalid N times more with its seed, and tell how often it shows.",
)
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Try again after an error of the rig; nothing else is tried again.",
)
@click.option(
    "--keep",
    type=click.Choice(["all", "failed"]),
    default="all",
    show_default=True,
    help="The run directories that stay.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processes for what is simulated  [default: one a core]",
)
@RUNS_DIR
@JSON
def suite(
    suite_file: Path,
    runs_dir: Path,
    seed: int | None,
    time_budget: str | None,
    shard: str,
    count: int | None,
    until_fail: bool,
    confirm: int,
    retries: int,
    keep: str,
    jobs: int | None,
    as_json: bool,
) -> int:
    """Run a matrix of tests and sum them up for CI: JSON, JUnit XML, Markdown and a page.

    The exit code is that of the worst run. With --json a line for each run, and one for all.

    \b
    Example:  labrys suite suites/pull-request.yaml
              labrys suite suites/nightly.yaml --time-budget 45m --shard 2/4 --confirm 2
              labrys suite suites/nightly.yaml --seed 8817      # that night again
    """
    from labrys.control.suite.flags import Flags, parse_duration, parse_shard
    from labrys.control.suite.night import Policy
    from labrys.control.suite.running import suite_and_print

    policy = Policy(
        jobs=jobs or len(os.sched_getaffinity(0)),
        retries=retries,
        confirm=confirm,
        budget_s=None if time_budget is None else parse_duration(time_budget, "--time-budget"),
        until_fail=until_fail,
    )
    flags = Flags(
        seed=seed,
        count=count,
        shard=parse_shard(shard),
        policy=policy,
        keep_all=keep == "all",
    )
    return suite_and_print(suite_file, runs_dir, flags, environ=os.environ, as_json=as_json)


@cli.command(cls=RunCommand, epilog=RUN_HELP)
@click.argument("run", metavar="RUN", default="latest")
@click.option("--env", help="Another environment: what a simulated run did, against docker.")
@RUNS_DIR
@JSON
def replay(run: str, env: str | None, runs_dir: Path, as_json: bool) -> int:
    """Run a stored run again: the same seed, the same faults, the same operations.

    A simulated run is the same to the byte, and it is told whether it was. In a real environment
    the recorded faults and operations come again at their moments; the timing of threads and
    network cannot.

    \b
    Example:  labrys replay latest
              labrys replay -1 --env docker
    """
    from labrys.control.replaying import replay_and_print

    return replay_and_print(run, runs_dir, env, as_json=as_json)


@cli.command(cls=RunCommand, epilog=RUN_HELP)
@click.argument("run", metavar="RUN", default="latest")
@click.option(
    "--tries",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Seeds with which a smaller test may fail before it is given up.",
)
@click.option(
    "--time",
    "seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=120.0,
    show_default=True,
    metavar="S",
    help="End the search after so many seconds.",
)
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N", help="Processes  [default: one a core]"
)
@RUNS_DIR
@JSON
def shrink(
    run: str, tries: int, seconds: float, jobs: int | None, runs_dir: Path, as_json: bool
) -> int:
    """Find the fewest faults and operations with which a simulated run still fails the same way.

    Then nodes, then time. The result is a run of its own with a spec that tells its story; Ctrl-C
    keeps the smallest so far.

    \b
    Exit codes: 0 it was written, 3 RUN does not fail again, else as always.
    Example:  labrys shrink latest
              labrys shrink -1 --time 600 --tries 50
    """
    from labrys.control.shrinking.command import shrink_and_print

    return shrink_and_print(
        run,
        runs_dir,
        tries=tries,
        seconds=seconds,
        jobs=jobs or len(os.sched_getaffinity(0)),
        as_json=as_json,
    )


@cli.command(cls=RunCommand)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--model", help="Judge bare files as, e.g. cas-register, fifo-queue, list-append.")
@click.option(
    "--level",
    help="How strict: of list-append and rw-register  [default: strict-serializable], set-full, "
    "total-queue and sessions; docs/checkers.md lists them.",
)
@click.option("--workload", help="Judge bare files as this workload's.")
@click.option("--format", "file_format", default="auto", show_default=True, help="Of the files.")
@click.option("--initial", metavar="JSON", help="The value before the first write (absent).")
@click.option("--keyed", is_flag=True, help="Values are [key, value].")
@click.option(
    "--nil-read",
    type=click.Choice(["absent", "any"]),
    help="What an ok read of nil says: the object was absent, or nothing (default of jepsen-edn).",
)
@click.option(
    "--failed-cas",
    type=click.Choice(["dropped", "asserted"]),
    help="What a failed cas says: nothing (default), or that the value was not there.",
)
@click.option("--all-keys", is_flag=True, help="Go on after the first invalid key.")
@click.option("--moves", type=int, default=50_000_000, show_default=True, help="Of a search.")
@click.option("--timeout", type=float, default=300.0, show_default=True, help="Seconds a file.")
@click.option("--memory", type=int, default=4096, show_default=True, help="MiB a file.")
@RUNS_DIR
@JSON
def check(paths: tuple[str, ...], runs_dir: Path, as_json: bool, **how: Any) -> int:
    """Judge stored runs or bare history files again, offline.

    \b
    PATH is a run directory, a number (-1 is the newest), 'latest', or a history file.
    Example:  labrys check latest
              labrys check history.jsonl --model cas-register
              labrys check history.edn --model list-append --level snapshot-isolation
    """
    from labrys.control.checking import check_paths, parse_reading

    return check_paths(paths, runs_dir, parse_reading(**how), as_json=as_json)


@cli.command()
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Show the newest N."
)
@RUNS_DIR
@JSON
def runs(runs_dir: Path, limit: int, as_json: bool) -> None:
    """List the stored runs, the newest last.

    \b
    Example:  labrys runs
    """
    from labrys.control.inspecting import list_runs

    list_runs(runs_dir, limit=limit, as_json=as_json)


@cli.command(cls=RunCommand, epilog=RUN_HELP)
@click.argument("run", metavar="RUN", default="latest")
@RUNS_DIR
@JSON
def show(run: str, runs_dir: Path, as_json: bool) -> None:
    """Tell how a run ended and why: the verdict, every checker, the anomaly.

    \b
    Example:  labrys show latest
    """
    from labrys.control.inspecting import show_run

    show_run(run, runs_dir, as_json=as_json)


@cli.command(cls=RunCommand, epilog=RUN_HELP)
@click.argument("run", metavar="RUN", default="latest")
@click.option("--key", help="Only ops on this key.")
@click.option("--process", help="Only this process (a number, or nemesis).")
@click.option("--f", "f", help="Only this function: read, write, cas, kill, ...")
@click.option(
    "--type",
    "op_type",
    type=click.Choice(["invoke", "ok", "fail", "info"]),
    help="Only events of this type.",
)
@click.option("--node", help="Only ops of clients of this node.")
@click.option("--from", "from_s", type=float, metavar="S", help="From this second of the run.")
@click.option("--to", "to_s", type=float, metavar="S", help="Up to this second of the run.")
@click.option("--around", type=int, metavar="INDEX", help="Half a second around this op.")
@RUNS_DIR
@JSON
def history(run: str, runs_dir: Path, as_json: bool, **filters: Any) -> None:
    """Print the ops of a run, filtered.

    \b
    Example:  labrys history latest --key k7 --from 11.5 --to 12.5
              labrys history -1 --around 1219
    """
    from labrys.control.inspecting import print_history

    print_history(run, runs_dir, as_json=as_json, **filters)


@cli.command(cls=RunCommand, epilog=RUN_HELP)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@RUNS_DIR
@JSON
def compare(a: str, b: str, runs_dir: Path, as_json: bool) -> None:
    """Put two runs side by side: spec, verdicts, counts, latencies and faults.

    With the same seed also the first operation from which on they differ.

    \b
    Example:  labrys compare -2 -1
              labrys compare runs/register/20261124T170156Z-8817 latest
    """
    from labrys.control.comparing import compare_and_print

    compare_and_print(a, b, runs_dir, as_json=as_json)


@cli.command(cls=RunCommand, epilog=RUN_HELP)
@click.argument("run", metavar="RUN", default="latest")
@click.option(
    "--format",
    "form",
    type=click.Choice(["edn", "trace", "html"]),
    required=True,
    help="edn: a Jepsen history, for Knossos and Elle; trace: Chrome trace events, for Perfetto; "
    "html: the report.",
)
@click.option("--key", help="With edn: this key alone, as a history of one object.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where to write  [default: standard output]",
)
@RUNS_DIR
@JSON
def export(
    run: str, form: str, key: str | None, output: Path | None, runs_dir: Path, as_json: bool
) -> None:
    """Write a run for other tools, or its report as one file.

    \b
    Example:  labrys export latest --format edn > history.edn
              labrys export -1 --format edn --key k7 -o k7.edn   # as Knossos reads it
              labrys export latest --format trace -o trace.json  # open in ui.perfetto.dev
    """
    from labrys.control.exporting import export_run

    export_run(run, runs_dir, form=form, key=key, output=output, as_json=as_json)


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8642,
    show_default=True,
    help="0: any that is free.",
)
@RUNS_DIR
@JSON
def serve(runs_dir: Path, host: str, port: int, as_json: bool) -> None:
    """Show the runs in a browser: the list, the reports, two runs side by side.

    It reads and never writes. By default it is reached from this machine only.

    \b
    Example:  labrys serve
              labrys serve --runs-dir /srv/nightly/runs --port 8080
    """
    from labrys.control.viewer.command import serve_and_print

    serve_and_print(runs_dir, host=host, port=port, as_json=as_json)


@cli.command()
@click.option(
    "--entries",
    type=click.IntRange(min=1),
    default=50_000,
    show_default=True,
    help="How many are inserted.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 16_384),
    default=1000,
    show_default=True,
    help="Entries in one request.",
)
@click.option(
    "--clients",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Who insert side by side.",
)
@click.option(
    "--key-bytes", type=click.IntRange(8, 256), default=16, show_default=True, help="Of an entry."
)
@click.option(
    "--value-bytes", type=click.IntRange(8, 512), default=16, show_default=True, help="Of an entry."
)
@click.option(
    "--repeat", type=click.IntRange(min=1), default=1, show_default=True, help="Do it so often."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the servers' data there, also when all is well.",
)
@JSON
def stress(repeat: int, data: Path | None, as_json: bool, **load: int) -> int:
    """Insert entries as fast as three nodes on loopback take them, and check that all are kept.

    Every entry must be on every server, in one order, after a restart, after one server lost its
    data and after kill -9.

    \b
    Exit codes: 0 all checks passed, 1 one failed, 4 the servers cannot run here.
    Example:  labrys stress
              labrys stress --batch 8000 --repeat 10
    """
    from labrys.control.stress import Load, stress_and_print

    return stress_and_print(Load(**load), repeat, data, as_json=as_json)


@cli.command()
@click.argument("what", metavar="[ENV]", required=False)
@click.option("--quiet", is_flag=True, help="Print nothing; the exit code answers.")
@click.option("--faults", is_flag=True, help="Try every fault in every environment.")
@click.option("--hosts", metavar="A,B,...", help="Try the faults on these hosts, by ssh, as well.")
@RUNS_DIR
@JSON
def doctor(
    what: str | None,
    quiet: bool,
    faults: bool,
    hosts: str | None,
    runs_dir: Path,
    as_json: bool,
) -> int:
    """Say what this machine can do, and how to mend what it cannot.

    Exits 0 when a test can run here (with ENV: when it can run in that environment), else 4.
    With --faults: when every fault can be done in all environments, or in ENV.

    \b
    Example:  labrys doctor
              labrys doctor netns --quiet && echo namespaces work
              labrys doctor --faults        # by what, seen by what, undone by what
              labrys doctor ssh --faults --hosts db1,db2,db3
    """
    if faults:
        from labrys.control.trying import print_table

        if quiet:
            raise UsageError("--quiet --faults: a table cannot be quiet; leave one of them out")
        return print_table(what, _hosts(hosts), as_json=as_json)
    if hosts:
        raise UsageError("--hosts: only with --faults, which are tried there")
    from labrys.control.doctor import examine

    return examine(what, runs_dir, quiet=quiet, as_json=as_json)


@cli.command()
@RUNS_DIR
@JSON
def heal(runs_dir: Path, as_json: bool) -> int:
    """Remove everything that a dead run left behind; a run that goes on is not touched.

    On hosts of ssh: what the dead runs in --runs-dir left there.

    \b
    Example:  labrys heal
    """
    from labrys.control.healing import heal_and_print

    return heal_and_print(runs_dir, as_json=as_json)


def _hosts(text: str | None) -> list[str]:
    from labrys.control.spec import check_hosts

    hosts = [word.strip() for word in text.split(",")] if text is not None else []
    check_hosts(hosts)
    return hosts


def _options(words: tuple[str, ...], flag: str, example: str) -> dict[str, Any]:
    from labrys.control.faults_notation import yaml_value

    options: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"{flag} {word}: write KEY=VALUE, e.g. {flag} {example}")
        options[key] = yaml_value(value, f"{flag} {word}")
    return options


def _save_traceback() -> str:
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="labrys-error-", suffix=".txt", delete=False
        ) as file:
            traceback.print_exc(file=file)
    except OSError:  # no room there: then they are told here, rather than lost
        return f"these lines:\n{traceback.format_exc()}"
    return file.name
