"""A cluster that a test hurts by hand, and the judgement of what its clients saw."""

import shlex
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from labrys.checkers.catalogue import checker_for
from labrys.checkers.checker import DataChecker
from labrys.checkers.fault import FaultStage
from labrys.checkers.history import MAIN, PHASE
from labrys.checkers.verdict import CheckResult, Verdict
from labrys.control import judge
from labrys.control.environments.base import on_nodes, side_by_side
from labrys.control.errors import LabrysError, UsageError
from labrys.control.ledger import Ledger
from labrys.control.names import known
from labrys.control.nemesis import grudge as grudges
from labrys.control.nemesis.package import Outcome
from labrys.control.report import text
from labrys.control.report.data import report_data
from labrys.control.report.page import write_report
from labrys.control.report.run_files import read_run
from labrys.control.spec import Spec
from labrys.control.store import SPEC, Recorder, RunDirectory, fresh_run_folder
from labrys.control.testing.inside import InsideNodes
from labrys.control.testing.nodes import Nodes, StagedNodes
from labrys.control.testing.recorded import RecordedClient, TestHistory
from labrys.workloads.client import Client
from labrys.workloads.keyvalue import KeyValue
from labrys.workloads.registry import WORKLOADS
from labrys.workloads.workload import parse_options

LEADER_TIMEOUT_S: Final = 10.0
"""How long `leader` waits for one."""


_END: Final = {"partition": "stop-partition", "kill": "start", "pause": "resume"}
"""The `f` of what ends a fault, by its kind."""


class _Fault(msgspec.Struct):
    """A fault that is in force, or may be."""

    id: int
    kind: str
    nodes: set[str]
    """Where it still is."""


class Judged(msgspec.Struct, frozen=True):
    """What became of a test's history."""

    verdict: Verdict
    reason: str
    """In a line, unless it is valid."""
    told: str
    """The terminal report."""


class Cluster:
    """Nodes with the system on them. All that is done to them is undone at the end of the test.

    Nodes are called n1, n2, ... What cannot be done raises LabrysError.
    """

    def __init__(self, spec: Spec, runs_dir: Path, *, model: str | None, again: str) -> None:
        """Say what is wanted; `begin` makes it.

        `spec` is resolved, its one fault kind `partition`. `model` judges the history, by default
        that of the workload. `again` is the command that runs this test again.

        Raises UsageError for an unknown model.
        """
        assert spec.seed is not None, "only a resolved spec can be run"
        assert spec.name is not None, "only a resolved spec can be run"
        self.spec = spec
        self.nodes = spec.node_names
        self._workload = WORKLOADS[spec.workload]
        self._options = parse_options(
            self._workload, spec.workload_options, concurrency=spec.concurrency
        )
        self._model = model or self._workload.model
        self._checker = _checker(self._model)
        self._again = again
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        self.run = RunDirectory(fresh_run_folder(runs_dir, spec.name, f"{stamp}-{spec.seed}"))
        self._nodes: Nodes = (
            InsideNodes(spec, self.run)
            if spec.env == "netns"
            else StagedNodes(spec, self.run, lambda: None)
        )
        self._recorder = Recorder(self.run.history)
        self._ledger = Ledger(self.run.ledger, self._nodes.clock_ns, is_durable=spec.env != "sim")
        self.history = TestHistory(self._recorder, self._nodes.clock_ns)
        self._in_force: list[_Fault] = []
        self._played: dict[str, None] = {}
        """The kinds of faults that there were."""
        self._clients: list[RecordedClient] = []
        self._has_ended = False
        self.failures: list[str] = []
        """What went wrong at the end, when everything was undone."""

    def begin(self) -> None:
        """Make the nodes, start the system, and wait until a write through every node works."""
        self._nodes.begin()
        self.history.remark(PHASE, MAIN)

    # ---- clients ------------------------------------------------------------------------------

    def client(
        self,
        node: str | None = None,
        of: Callable[[KeyValue], Client] | None = None,
        *,
        reads: Collection[str] = (),
    ) -> RecordedClient:
        """Return a client at `node` (the first one), whose operations are recorded and judged.

        It is the workload's own, with `get`, `put` and `cas`; or `of` makes one of your own from
        its connection to the store, and then `reads` are the `f` that change nothing.
        """
        workload, options, node = self._workload, self._options, node or self.nodes[0]
        self._known(node)
        make = of or workload.client

        def connect() -> Client:
            has_session = workload.sessions(options)
            consistency = workload.consistency(options)
            return make(self._nodes.client(node, consistency, has_session=has_session))

        client = RecordedClient(
            connect,
            node,
            self.history,
            reads=workload.reads if of is None else reads,
            sleep=self._nodes.sleep,
        )
        self._clients.append(client)
        return client

    def url(self, node: str) -> str:
        """Where the API of `node` is found: for programs and drivers of your own.

        In `sim` nothing is found there: no bytes leave this process.
        """
        self._known(node)
        return self._nodes.url(node)

    def at_once(self, *pieces: Callable[[], object]) -> None:
        """Do all pieces side by side and wait for their end; raises what the first one raised."""
        failed: list[BaseException] = []

        def guarded(piece: Callable[[], object]) -> None:
            try:
                piece()
            except BaseException as error:
                failed.append(error)

        if pieces:
            side_by_side.get()([partial(guarded, piece) for piece in pieces])
        if failed:
            raise failed[0]

    def sleep(self, seconds: float) -> None:
        """Let so much time pass for the nodes, virtual time in `sim`."""
        self._nodes.sleep(seconds)

    # ---- what it does -------------------------------------------------------------------------

    def leader(
        self, among: Sequence[str] | None = None, timeout_s: float = LEADER_TIMEOUT_S
    ) -> str:
        """Return who leads, of several the newest; waits until one does, out of `among`."""
        self._known(*(among or ()))
        return self._nodes.leader(tuple(among or self.nodes), timeout_s)

    def statuses(self) -> dict[str, dict[str, Any] | None]:
        """Return what each node says of itself; None where it does not answer."""
        return self._nodes.statuses()

    # ---- faults -------------------------------------------------------------------------------

    def kill(self, *nodes: str) -> None:
        """Kill the process of these nodes."""
        fault = self._hurt("kill", "kill", nodes)
        on_nodes(nodes, self._nodes.kill)
        self._has_hurt(fault, "kill")

    def start(self, *nodes: str) -> None:
        """Start it again. Does not wait until the node serves."""
        self._cure("kill", nodes, self._nodes.start)

    def restart(self, *nodes: str) -> None:
        """Kill the process of these nodes and start it."""
        self.kill(*nodes)
        self.start(*nodes)

    def pause(self, *nodes: str) -> None:
        """Stop the process of these nodes in its tracks."""
        fault = self._hurt("pause", "pause", nodes)
        on_nodes(nodes, self._nodes.pause)
        self._has_hurt(fault, "pause")

    def resume(self, *nodes: str) -> None:
        """Let it go on."""
        self._cure("pause", nodes, self._nodes.resume)

    def partition(self, *groups: Sequence[str]) -> None:
        """Cut the nodes into these groups; those that are in none are one of their own.

        A partition replaces the one before. Clients reach every node through any of them.
        """
        named = [node for group in groups for node in group]
        if any(isinstance(group, str) for group in groups) or len({*named}) < max(1, len(named)):
            told = ", ".join(map(repr, groups)) or "nothing"
            raise UsageError(f"partition: write groups such as ['n1'], ['n2', 'n3'], not {told}")
        self._known(*named)
        rest = [node for node in self.nodes if node not in named]
        grudge = grudges.complete([*groups, *([rest] if rest else [])])
        before = [fault for fault in self._in_force if fault.kind == "partition"]
        plan = {"grudge": grudges.to_json(grudge)}
        hurt = grudges.cut_off(self.nodes, grudge)
        fault = self._hurt("partition", "start-partition", hurt, plan)
        self._nodes.cut(plan["grudge"])
        self._have_ended(before)
        self._has_hurt(fault, "start-partition")

    def heal(self) -> None:
        """Undo every fault, start what is dead, and wait until a write through every node works."""
        ends = dict.fromkeys(_END[fault.kind] for fault in self._in_force)
        for f in ends:
            self.history.remark(f)
        self._have_ended(self._in_force, self._nodes.heal())
        for f in ends:
            self.history.remark(f)
        self._nodes.await_healthy()

    # ---- the end ------------------------------------------------------------------------------

    def end(self) -> None:
        """Remove the nodes and with them what was done to them.

        Does every step; `failures` has what went wrong. Idempotent.
        """
        if self._has_ended:
            return
        self._has_ended = True
        for client in self._clients:
            client.close()
        try:
            self._nodes.end()
            self._have_ended(self._in_force)
        except LabrysError as error:
            self.failures.append(str(error))
        self._recorder.close()
        self._ledger.close()

    def judge(self) -> Judged:
        """Judge what clients saw and nodes logged, and write the results. Comes after the end."""
        assert self._has_ended, "the history may still grow"
        checkers = judge.judge_test(
            self._checker,
            self.run.read_history(),
            logs=self.run.node_logs(),
            budget=judge.limits(self.spec.check_timeout, self.spec.check_memory),
        )
        verdict = judge.conclude_verdict(checkers, failed=bool(self.failures))
        results = self._results(verdict, checkers)
        self.run.write_results(results)
        if verdict is not Verdict.VALID:
            write_report(self.run.path)
        return Judged(verdict, text.reason(results), self._told())

    def _told(self) -> str:
        files = read_run(self.run.path)
        # There is no spec that labrys could run: the test is code.
        notices = tuple(notice for notice in files.notices if not notice.startswith(SPEC))
        files = msgspec.structs.replace(files, notices=notices)
        return text.page_text(files, report_data(files))

    def _hurt(
        self, kind: str, f: str, nodes: Sequence[str], plan: dict[str, Any] | None = None
    ) -> "_Fault":
        """Announce a fault."""
        self._checked(kind, nodes)
        plan = plan or {"targets": "named", "nodes": list(nodes)}
        fault = _Fault(self._ledger.new_id(), kind, set(nodes))
        self._ledger.record(fault.id, FaultStage.PLANNED, kind, targets=nodes, plan=plan)
        self._in_force.append(fault)
        self._played[kind] = None
        self.history.remark(f, plan)
        return fault

    def _has_hurt(self, fault: "_Fault", f: str) -> None:
        self._ledger.record(fault.id, FaultStage.APPLIED, fault.kind)
        self.history.remark(f)

    def _cure(self, kind: str, nodes: Sequence[str], action: Callable[[str], None]) -> None:
        f = _END[kind]
        self._checked(f, nodes)
        self.history.remark(f, {"targets": "named", "nodes": list(nodes)})
        on_nodes(nodes, action)
        for fault in self._in_force:
            if fault.kind == kind:
                fault.nodes.difference_update(nodes)
        self._have_ended([fault for fault in self._in_force if not fault.nodes])
        self.history.remark(f)

    def _have_ended(self, faults: Sequence["_Fault"], seen: Outcome | None = None) -> None:
        for fault in tuple(faults):
            if fault.kind == "partition" and seen is not None and seen.bit is not None:
                self._ledger.record(
                    fault.id,
                    FaultStage.EVIDENCE,
                    fault.kind,
                    observed=seen.observed,
                    bit=seen.bit,
                )
            self._ledger.record(fault.id, FaultStage.UNDONE, fault.kind)
            self._in_force.remove(fault)

    def _checked(self, what: str, nodes: Sequence[str]) -> None:
        self._known(*nodes)
        if not nodes:
            raise UsageError(f"{what}: name a node, e.g. {what}({self.nodes[0]!r})")

    def _known(self, *nodes: str) -> None:
        for node in nodes:
            known("node", node, self.nodes)

    def _results(self, verdict: Verdict, checkers: dict[str, CheckResult]) -> dict[str, Any]:
        spec = self.spec
        started_at = self._nodes.started_at.isoformat(timespec="microseconds")
        recheck = ["labrys", "check", str(self.run.history), "--model", self._model]
        return {
            "version": 1,
            "verdict": verdict.value,
            "name": spec.name,
            "seed": spec.seed,
            "started_at": started_at.replace("+00:00", "Z"),
            "duration_s": round(self._nodes.clock_ns() / 1e9, 3),
            "environment": spec.env,
            "nodes": list(self.nodes),
            "system": spec.system,
            "workload": spec.workload,
            "faults": list(self._played),
            "bug": spec.bug,
            "rerun": self._again,
            "recheck": shlex.join(recheck),
            "errors": self.failures,
            "checkers": msgspec.json.decode(msgspec.json.encode(checkers)),
        }


def _checker(model: str) -> DataChecker:
    try:
        return checker_for(model)
    except ValueError as error:
        raise UsageError(f"model: {error}") from error
