"""The life of one run: the six steps from a spec to a verdict.

Every step runs even if an earlier one threw; the first failure is kept and later ones are noted
beside it. What was recorded is judged whatever happened after it was recorded.
"""

import math
import shlex
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from labrys.checkers.checker import Limits
from labrys.checkers.history import FINAL, HEAL, MAIN, PHASE, read_history
from labrys.checkers.op import NEMESIS, Op, OpType
from labrys.checkers.verdict import CheckResult, Verdict
from labrys.control import judge
from labrys.control.environments import registry as environments
from labrys.control.environments.base import on_nodes
from labrys.control.errors import ClusterError, LabrysError, MachineError
from labrys.control.fingerprint import fingerprint
from labrys.control.interpreter import Interpreter
from labrys.control.interruption import Interrupted, Interruption
from labrys.control.junit import junit_xml
from labrys.control.ledger import Ledger, read_ledger
from labrys.control.nemesis.nemesis import Nemesis
from labrys.control.report.page import write_report
from labrys.control.spec import Spec, rerun_command, stream
from labrys.control.stage import make_stage
from labrys.control.store import SPEC, Recorder, RunDirectory, create_run, write_atomically
from labrys.workloads import generator, operation_plan
from labrys.workloads.client import Client
from labrys.workloads.generator import Generator
from labrys.workloads.registry import WORKLOADS
from labrys.workloads.workload import parse_options

HEALTHY_TIMEOUT_S: Final = 30.0
"""How long a cluster may take until a write through every node works, at first and after a heal."""

SLEEPERS_TIMEOUT_S: Final = 5.0
"""How long after a heal a node may still do what it was asked before it; see `_await_recovered`."""

FINAL_TIMEOUT_S: Final = 30.0
"""How long the final reads may take; they normally need a second or two."""

END_TIMEOUT_S: Final = 5.0
"""How long nodes may take to apply the same once no client writes any more."""

CLIENT_MARGIN_S: Final = 1.5
"""How much later than the client itself the interpreter gives up on an op."""

EXIT_INTERRUPTED: Final = 130


class Outcome(msgspec.Struct, frozen=True):
    """How a run ended."""

    run: RunDirectory
    results: dict[str, Any]
    """What stands in results.json."""
    exit_code: int


def run_test(
    spec: Spec,
    runs_dir: Path,
    *,
    interruption: Interruption,
    say: Callable[[str], None],
    watch: Callable[[Op], None] = lambda op: None,
    leave_cluster: bool = False,
    keep: Callable[[Verdict], bool] | None = None,
    draw: bool = True,
) -> Outcome:
    """Run one resolved test to its verdict and return how it ended.

    `say` gets one line per step for people; `watch` sees every recorded op. Raises LabrysError
    only while there is no run directory yet; from then on a failure is part of the results.

    With `keep`, as in a hunt, the directory stays and a report is drawn only if the verdict says
    so, and it is the caller's to call it the latest run. Without `draw` no report is drawn at all.
    """
    directory = create_run(runs_dir, spec, is_latest=keep is None)
    run = _Run(spec, directory, interruption, say, watch)
    with run.stage.entered():
        try:
            run.set_up()
            run.main_phase()
            run.final_phase()
        finally:
            run.tear_down(leave_cluster=leave_cluster)
    return run.conclude(keep, draw=draw)


class _Run:
    """The state that the steps of one run share."""

    def __init__(
        self,
        spec: Spec,
        directory: RunDirectory,
        interruption: Interruption,
        say: Callable[[str], None],
        watch: Callable[[Op], None],
    ) -> None:
        assert spec.seed is not None, "only a resolved spec can be run"
        self.spec = spec
        self.seed = spec.seed
        self.directory = directory
        self._interruption = interruption
        self._log = directory.log.open("a", buffering=1)
        self._say_to_people = say
        self._watch = watch
        self._failures: list[str] = []
        self._timings: dict[str, float] = {}
        self._end_states: dict[str, Any] = {}
        self._has_nodes = False
        self._ready = False
        try:
            self.stage = make_stage(spec, directory.path, self._say, interruption.asked.set)
        except BaseException:
            self._log.close()
            raise
        self._env = self.stage.env
        self._system = self.stage.system
        self._recorder = Recorder(directory.history, is_prompt=self.stage.is_real)
        self._ledger = Ledger(directory.ledger, self.stage.clock_ns, is_durable=self.stage.is_real)
        self._workload = WORKLOADS[spec.workload]
        self._options = parse_options(
            self._workload, spec.workload_options, concurrency=spec.concurrency
        )
        self._nemesis = Nemesis(self.stage.packages, self._ledger, stream(self.seed, "nemesis"))
        self._interpreter = Interpreter(
            clients=self._client,
            nodes=spec.node_names,
            concurrency=spec.concurrency,
            nemesis=self._nemesis.invoke,
            record=self._record,
            clock=self.stage.clock_ns,
            rng=stream(self.seed, "interpreter"),
            op_timeout_s=spec.op_timeout + CLIENT_MARGIN_S,
            is_read=lambda op: op.f in self._workload.reads,
            stop=interruption.asked,
            crew=self.stage.crew,
            sleep=self.stage.sleep,
        )

    # Step 2.
    def set_up(self) -> None:
        """Provision, install, start, and wait until the cluster is healthy."""
        spec, env, system = self.spec, self._env, self._system
        self._say(f"run directory {self.directory.path}")
        with self._step("set-up", seconds_as="setup_s"), self._interruption.raised():
            self._say(f"set-up: {spec.nodes} nodes in {spec.env}")
            environments.heal_leftovers(spec.env, self._say)
            env.provision()
            self._has_nodes = True
            system.install()
            self._nemesis.setup()
            system.environ = {node: self._nemesis.environ(node) for node in env.nodes}
            system.start_all()
            self._ready = self._await_healthy()
        if self._ready:
            self._say(f"cluster ready after {self._timings['setup_s']:.1f} s")

    # Step 3.
    def main_phase(self) -> None:
        """Drive workers and nemesis until the time limit."""
        if not self._ready or self._interruption.asked.is_set():
            return
        spec = self.spec
        self._say(
            f"main phase: {spec.time_limit:g} s, {', '.join(spec.fault_kinds) or 'no faults'}"
        )
        with self._step("main phase"):
            self._mark(MAIN)
            self._play(self._main_generator())

    # Step 4.
    def final_phase(self) -> None:
        """Undo every fault, wait for observed recovery, then read what is left."""
        spec = self.spec
        if not self._ready:
            return
        self._mark(HEAL)
        self._say("heal: undo every fault")
        with self._step("heal", seconds_as="heal_s"):
            self._nemesis.heal()
        if self._interruption.asked.is_set():
            if self._interruption.count:  # otherwise it was told why the run ends here
                self._say("interrupted: what was recorded is kept and judged")
            return
        recovered = False
        with self._step("recovery", seconds_as="recovery_s"):
            try:
                recovered = self._await_recovered()
            except ClusterError:
                self.stage.has_not_recovered()
                raise
        if not recovered:
            return
        self._say(f"recovered {self._timings['recovery_s']:.1f} s after the heal; final reads")
        with self._step("final phase"):
            self._mark(FINAL)
            self._recorder.flush()
            recorded = read_history(self.directory.history).ops
            reads = self._workload.final_generator(self._options, spec.concurrency, recorded)
            self._play(generator.time_limit(FINAL_TIMEOUT_S, generator.clients(reads)))
            self._end_states = dict(
                self._system.end_states(END_TIMEOUT_S, give_up=self._interruption.asked.is_set)
            )

    # Step 5.
    def tear_down(self, *, leave_cluster: bool) -> None:
        """Stop, collect logs and remove; whatever fails here, the next step is still done.

        Nodes that never all came up are neither stopped nor left, only removed.
        """
        leave_cluster = leave_cluster and self._has_nodes
        with self._step("tear-down", seconds_as="teardown_s"):
            # The nodes first: a file system under their data can be taken away only then.
            if leave_cluster:
                self._say(
                    f"the cluster is left running: {', '.join(map(self._address, self._env.nodes))}"
                )
            elif self._has_nodes:
                with self._step("stop the nodes"):
                    self._system.stop_all()
            with self._step("heal at tear-down"):
                self._nemesis.teardown()
            with self._step("collect logs"):
                on_nodes(self._env.nodes, self._collect)
            if not leave_cluster:
                with self._step("remove the nodes"):
                    self._env.destroy()
        rest = self._recorder.close()
        full = self._recorder.failure.strerror if self._recorder.failure else None
        if rest:
            self._failures.append(
                f"{self.directory.history}: {full}: the last {len(rest.splitlines())} ops "
                f"{self._saved_elsewhere(rest)}"
            )
        elif full:
            self._failures.append(
                f"{self.directory.history}: {full} ended the run; every recorded op was saved "
                "once there was room again"
            )
        self._ledger.close()

    # Step 6.
    def conclude(self, keep: Callable[[Verdict], bool] | None, *, draw: bool) -> Outcome:
        """Check, write results and report, and say how it ended."""
        was_interrupted = self._interruption.count > 0
        checkers: dict[str, CheckResult] = {}
        if not self._interruption.impatient:
            with self._step("check", seconds_as="check_s", clock_ns=time.monotonic_ns):
                history = read_history(self.directory.history)
                faults = read_ledger(self.directory.ledger)
                checkers = judge.judge_run(
                    self.spec,
                    history,
                    faults=faults,
                    logs=self.directory.node_logs(),
                    end_states=self._end_states,
                    budget=self._check_limits(),
                )
        # Asked once during the check, everything was done and judged all the same.
        interrupted = was_interrupted or self._interruption.impatient
        verdict = judge.conclude_verdict(checkers, failed=bool(self._failures))
        results = self._results(verdict, checkers, interrupted=interrupted)
        try:
            write_atomically(self.directory.junit, junit_xml(results, checkers))
            self.directory.write_results(results)
        except MachineError as error:
            # There is no room for the results, but they can still be told.
            self._failures.append(str(error))
            verdict = judge.conclude_verdict(checkers, failed=True)
            results = self._results(verdict, checkers, interrupted=interrupted)
        if draw and (keep is None or keep(verdict)):
            try:
                write_report(self.directory.path)
            except Exception as error:  # a drawing problem never changes a verdict
                self._say(f"the report could not be drawn: {type(error).__name__}: {error}")
        with suppress(OSError):  # closing writes what could not be written before
            self._log.close()
        if keep is not None and not keep(verdict):
            self.directory.remove()
        exit_code = EXIT_INTERRUPTED if interrupted else judge.EXIT_CODES[verdict]
        return Outcome(run=self.directory, results=results, exit_code=exit_code)

    def _check_limits(self) -> Limits:
        """The budget of the check; somebody who asks twice to stop has no more time for it."""
        limits = judge.limits(self.spec.check_timeout, self.spec.check_memory)

        def clock() -> float:
            return math.inf if self._interruption.impatient else time.monotonic()

        return msgspec.structs.replace(limits, clock=clock)

    def _results(
        self, verdict: Verdict, checkers: dict[str, CheckResult], *, interrupted: bool
    ) -> dict[str, Any]:
        spec = self.spec
        return {
            "version": 1,
            "verdict": verdict.value,
            "interrupted": interrupted,
            "name": spec.name,
            "seed": self.seed,
            "started_at": self.stage.started_at.isoformat(timespec="microseconds").replace(
                "+00:00", "Z"
            ),
            "duration_s": round(self.stage.clock_ns() / 1e9, 3),
            "environment": spec.env,
            "nodes": list(spec.node_names),
            "system": spec.system,
            "workload": spec.workload,
            "faults": list(spec.fault_kinds),
            "bug": spec.bug,
            "revision": fingerprint(),
            "rerun": rerun_command(spec, saved_as=str(self.directory.path / SPEC)),
            "recheck": shlex.join(["labrys", "check", str(self.directory.path)]),
            "timings": {name: round(seconds, 3) for name, seconds in self._timings.items()},
            "errors": self._failures,
            "end_states": self._end_states,
            "probes": self.stage.probes(),
            "checkers": msgspec.json.decode(msgspec.json.encode(checkers)),
        }

    def _await_healthy(self) -> bool:
        return self._system.await_healthy(
            HEALTHY_TIMEOUT_S, give_up=self._interruption.asked.is_set
        )

    def _await_recovered(self) -> bool:
        """Wait until the cluster is healthy after the heal; False if it was interrupted.

        Healed once more on the way: a process that stood still may have had a change of members in
        its inbox and made it when it woke, after the undo, and no write works through a node that
        was removed. By the second heal every node has done what it was asked before the first.
        """
        give_up = self._interruption.asked.is_set
        with suppress(ClusterError):  # the second wait tells what is still wrong then
            if not self._system.await_healthy(SLEEPERS_TIMEOUT_S, give_up=give_up):
                return False
        self._nemesis.heal()
        return self._await_healthy()

    def _record(self, op: Op) -> Op:
        recorded = self._recorder.append(op)
        if self._recorder.failure is not None and not self._interruption.asked.is_set():
            # Nothing more can be kept, so nothing more is tried; the run ends in order.
            self._say(f"recording failed: {self._recorder.failure.strerror}; the run ends here")
            self._interruption.asked.set()
        self._watch(recorded)
        return recorded

    def _main_generator(self) -> Generator:
        """What the clients do, beside the faults, until the time limit."""
        return generator.time_limit(
            self.spec.time_limit,
            generator.any_of(
                generator.clients(self._operations_generator()),
                generator.nemesis(self._faults_generator()),
            ),
        )

    def _operations_generator(self) -> Generator:
        """Those of the spec at their times, else the workload at its rate."""
        spec = self.spec
        if spec.operations is not None:
            return operation_plan.play(spec.operations, spec.concurrency)
        ops = self._workload.generator(self._options, spec.concurrency)
        return generator.stagger(1 / spec.rate, ops)

    def _faults_generator(self) -> Generator:
        if self.spec.fault_plan:
            return self._nemesis.fixed(self.spec.fault_plan)
        return self._nemesis.generator(self.spec.timetable)

    def _play(self, source: Generator) -> None:
        summary = self._interpreter.run(source)
        self._failures += [f"nemesis: {error}" for error in summary.nemesis_errors]

    def _client(self, node: str) -> Client:
        workload, options = self._workload, self._options
        connection = self.stage.client(
            node, workload.consistency(options), has_session=workload.sessions(options)
        )
        return workload.client(connection)

    def _mark(self, phase: str) -> None:
        self._record(
            Op(type=OpType.INFO, process=NEMESIS, f=PHASE, value=phase, time=self.stage.clock_ns())
        )

    def _address(self, node: str) -> str:
        return f"{node} {self._system.url(node)}"

    def _collect(self, node: str) -> None:
        folder = self.directory.node(node)
        folder.mkdir(parents=True, exist_ok=True)
        self._env.collect_logs(node, folder)

    def _saved_elsewhere(self, rest: bytes) -> str:
        """Save the end of the history where there may be room, and say where that is."""
        try:
            with tempfile.NamedTemporaryFile(
                prefix="labrys-history-", suffix=".jsonl", delete=False
            ) as file:
                file.write(rest)
        except OSError as error:
            return f"are lost: {error}"
        return f"are in {file.name}: make room and append them"

    def _say(self, line: str) -> None:
        self._note(f"{self.stage.clock_ns() / 1e9:9.3f}  {line}\n")
        with suppress(OSError):  # a pipe or terminal that has gone must not end the run either
            self._say_to_people(line)

    def _note(self, text: str) -> None:
        with suppress(OSError):  # a full disk must not end the run here
            self._log.write(text)

    @contextmanager
    def _step(
        self,
        name: str,
        *,
        seconds_as: str | None = None,
        clock_ns: Callable[[], int] | None = None,
    ) -> Iterator[None]:
        """Do a step; keep its failure instead of letting it end the run, and note its seconds.

        They are those of the run's own clock if no other is given.
        """
        clock_ns = clock_ns or self.stage.clock_ns
        began_ns = clock_ns()
        try:
            yield
        except Interrupted:
            self._say(f"{name}: interrupted")
        except Exception as error:
            text = describe(error)
            self._failures.append(f"{name}: {text}")
            if not isinstance(error, LabrysError):
                self._note(traceback.format_exc())
            self._say(f"{name} failed: {text}")
        finally:
            if seconds_as is not None:
                self._timings[seconds_as] = (clock_ns() - began_ns) / 1e9


def describe(error: BaseException) -> str:
    """Return an error in words: labrys' own as they are, others with their type and origin."""
    text = str(error) if isinstance(error, LabrysError) else f"{type(error).__name__}: {error}"
    if isinstance(error, BaseExceptionGroup):
        text += "".join(f"; {describe(inner)}" for inner in error.exceptions)
    return text + "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
