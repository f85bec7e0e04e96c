"""The life of a run, with real nodes on loopback: every step is done whatever happened before."""

import errno
import os
import shlex
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.control.loopback import LoopbackEnvironment
from tests.whole_runs import eventually

from labrys.checkers.fault import FaultStage
from labrys.checkers.history import decode_op, read_history
from labrys.checkers.op import Op
from labrys.control import judge, process
from labrys.control.checking import check_paths, parse_reading
from labrys.control.environments import registry as environments
from labrys.control.interruption import Interruption
from labrys.control.ledger import read_ledger
from labrys.control.lifecycle import Outcome, run_test
from labrys.control.nemesis.nemesis import Nemesis
from labrys.control.planning import read_plan
from labrys.control.process import State
from labrys.control.spec import resolve
from labrys.control.store import RunDirectory
from labrys.control.systems.raftkv import RaftKv

READING = parse_reading(
    model=None,
    workload=None,
    file_format="auto",
    initial=None,
    keyed=False,
    nil_read="absent",
    timeout=60.0,
    memory=4096,
)
"""How `labrys check` reads without flags."""


class Rig:
    """Runs tests in a loopback environment that stays in reach."""

    def __init__(self, runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs_dir = runs_dir
        self.said: list[str] = []
        self.interruption = Interruption()
        self.fail_in: str | None = None
        self.env: LoopbackEnvironment | None = None
        monkeypatch.setattr(environments, "make", self._make)
        monkeypatch.setattr(environments, "heal_leftovers", lambda name, say: None)

    def _make(
        self, name: str, nodes: tuple[str, ...], run_dir: Path, say: Callable[[str], None], *_: Any
    ) -> LoopbackEnvironment:
        self.env = LoopbackEnvironment(nodes, run_dir, say)
        self.env.fail_in = self.fail_in
        return self.env

    def run(
        self,
        watch: Callable[[Op], None] = lambda op: None,
        leave_cluster: bool = False,
        **fields: Any,
    ) -> Outcome:
        fields = {"nodes": 3, "time_limit": 1.5, "concurrency": 3, "seed": 7, **fields}
        return run_test(
            resolve(fields),
            self.runs_dir,
            interruption=self.interruption,
            say=self.say,
            watch=watch,
            leave_cluster=leave_cluster,
        )

    def say(self, line: str) -> None:
        self.said.append(line)

    def stop_everything(self) -> None:
        env = self.env
        for node in env.nodes if env else ():
            assert env is not None
            process.kill(env, node, "labrys-node")

    def assert_nothing_runs(self) -> None:
        assert self.env is not None
        for node in self.env.nodes:
            assert process.state(self.env, node, "labrys-node") is State.DEAD


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    made = Rig(tmp_path / "runs", monkeypatch)
    yield made
    made.stop_everything()


def files_of(outcome: Outcome) -> set[str]:
    return {path.name for path in outcome.run.path.iterdir()} - {"homes"}


def test_removal_that_a_sleeper_makes_after_the_heal_is_undone_all_the_same(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen for real: the leader was paused with the request in its inbox, and woke by the heal."""
    heal = Nemesis.heal
    heals = 0

    def heal_and_remove(nemesis: Nemesis) -> None:
        nonlocal heals
        heal(nemesis)
        heals += 1
        if heals == 1:
            (membership,) = nemesis._packages
            system = membership.system
            assert isinstance(system, RaftKv)
            system.change_members(10, remove=["n3"])
            # Until n3 has given its leader up, writes through it may still work.
            eventually(
                lambda: not (system.status("n3") or {"leader": "?"})["leader"],
                "n3 hears no more of a leader",
            )

    monkeypatch.setattr(Nemesis, "heal", heal_and_remove)
    outcome = rig.run(faults=["membership"], fault_interval=20.0)
    voters = [status["voters"] for status in outcome.results["end_states"].values()]
    assert voters == [["n1", "n2", "n3"]] * 3
    assert outcome.results["checkers"]["agreement"]["verdict"] == "valid"


def test_faults_of_a_list_are_played_at_their_times_and_can_be_taken_from_the_run(
    rig: Rig,
) -> None:
    plan = [{"at_s": 0.5, "hold_s": 0.5, "kind": "kill", "options": {"targets": ["leader"]}}]
    outcome = rig.run(fault_plan=plan, time_limit=2)
    assert outcome.results["errors"] == []
    assert outcome.results["faults"] == ["kill"]
    assert outcome.results["checkers"]["coverage"]["summary"] == "seen to bite: kill once"
    (again,) = read_plan(str(outcome.run.path), rig.runs_dir)
    assert 0.5 <= again["at_s"] < 1
    assert again["plan"]["targets"] == "leader"
    assert "nodes" not in again["plan"], "who leads is found out again"
    assert resolve({"fault_plan": [again], "nodes": 3}).fault_kinds == ("kill",)


def test_correct_cluster_under_kills_is_valid_and_the_run_is_complete(rig: Rig) -> None:
    outcome = rig.run(faults=["kill"], time_limit=4, fault_interval=1)
    assert outcome.results["errors"] == []
    assert outcome.results["verdict"] == "valid", outcome.results
    assert outcome.exit_code == 0
    assert files_of(outcome) == {
        "test.yaml", "history.jsonl", "faults.jsonl", "results.json", "report.html", "run.log",
        "nodes", "junit.xml",
    }  # fmt: skip
    history = read_history(outcome.run.history)
    phases = [op.value for op in history.ops if op.f == "phase"]
    assert phases == ["main", "heal", "final"]
    assert any(op.process == "nemesis" and op.f == "kill" for op in history.ops)
    assert outcome.run.read_results() == outcome.results
    rig.assert_nothing_runs()


def test_database_is_started_under_the_clocks_that_are_to_be_wrong(rig: Rig) -> None:
    outcome = rig.run(faults={"clock": {"targets": ["all"]}}, time_limit=4, fault_interval=1.0)
    assert outcome.results["errors"] == []
    faults = read_ledger(outcome.run.ledger)
    (seen, *_) = [fault.observed for fault in faults if fault.stage is FaultStage.EVIDENCE]
    assert seen is not None
    assert rig.env is not None
    assert {node: facts["processes"] for node, facts in seen.items()} == dict.fromkeys(
        rig.env.nodes, 1
    )
    for node in rig.env.nodes:
        assert not [*Path(rig.env.home(node)).glob("clock*")], "nothing is left"


def test_seeded_bug_is_found_and_explained(rig: Rig) -> None:
    outcome = rig.run(bug="stale-read", rate=400, concurrency=6, time_limit=4)
    assert outcome.exit_code == 1
    linearizable = outcome.results["checkers"]["linearizable"]
    assert linearizable["verdict"] == "invalid"
    finding = linearizable["findings"][0]
    assert finding["data"]["rejected"]
    assert finding["message"]


@pytest.mark.parametrize("step", ["provision", "upload", "collect_logs", "destroy"])
def test_failure_in_one_step_is_kept_and_the_later_steps_are_done(rig: Rig, step: str) -> None:
    rig.fail_in = step
    outcome = rig.run()
    assert outcome.exit_code == 4
    assert outcome.results["verdict"] == "error"
    assert f"planted in {step}" in outcome.results["errors"][0]
    assert rig.env is not None
    assert rig.env.calls[-1] == "destroy"
    assert "report.html" in files_of(outcome)
    rig.assert_nothing_runs()


@pytest.mark.parametrize("leave_cluster", [False, True])
def test_where_no_nodes_came_up_none_is_stopped_or_left(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, leave_cluster: bool
) -> None:
    def stop_all(system: RaftKv) -> None:
        raise RuntimeError("there are no nodes")

    monkeypatch.setattr(RaftKv, "stop_all", stop_all)
    rig.fail_in = "provision"
    outcome = rig.run(leave_cluster=leave_cluster)
    assert outcome.results["errors"] == ["set-up: RuntimeError: planted in provision"]
    assert rig.env is not None
    assert rig.env.calls[-1] == "destroy", "what was half made is removed"


def test_failure_after_recording_does_not_hide_a_violation(rig: Rig) -> None:
    rig.fail_in = "destroy"
    outcome = rig.run(bug="stale-read", rate=400, concurrency=6, time_limit=4)
    assert outcome.exit_code == 1
    assert "planted in destroy" in outcome.results["errors"][0]


def test_failure_of_the_rig_is_not_mended_by_judging_again(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    rig.fail_in = "collect_logs"
    outcome = rig.run()
    assert outcome.results["checkers"]["linearizable"]["verdict"] == "valid"
    code = check_paths([str(outcome.run.path)], rig.runs_dir, READING, as_json=False)
    assert code == outcome.exit_code == 4
    assert "rig error: collect logs: " in capsys.readouterr().out


def test_failed_heal_is_an_error_but_final_reads_and_tear_down_happen(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(nemesis: Nemesis) -> None:
        raise RuntimeError("planted in heal")

    monkeypatch.setattr(Nemesis, "heal", fails)
    outcome = rig.run()
    assert outcome.exit_code == 4
    assert "planted in heal" in outcome.results["errors"][0]
    assert outcome.results["checkers"]["linearizable"]["verdict"] == "valid"
    rig.assert_nothing_runs()


def test_cluster_that_never_gets_healthy_is_an_error_with_its_logs(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = RaftKv.start

    def only_one(system: RaftKv, node: str) -> None:
        if node == "n1":
            start(system, node)

    monkeypatch.setattr(RaftKv, "start", only_one)
    monkeypatch.setattr("labrys.control.lifecycle.HEALTHY_TIMEOUT_S", 4.0)
    outcome = rig.run()
    assert outcome.exit_code == 4
    assert "not healthy" in outcome.results["errors"][0]
    assert "n2" in outcome.results["errors"][0]
    assert (outcome.run.node("n1") / "log").read_text()
    rig.assert_nothing_runs()


def test_interruption_keeps_and_judges_what_was_recorded(rig: Rig) -> None:
    def interrupt(op: Op) -> None:
        if op.index == 50:
            rig.interruption.count = 1
            rig.interruption.asked.set()

    outcome = rig.run(watch=interrupt, time_limit=60)
    assert outcome.exit_code == 130
    assert outcome.results["interrupted"] is True
    assert outcome.results["checkers"]["linearizable"]["verdict"] == "valid"
    history = read_history(outcome.run.history)
    assert len(history.operations) >= 25
    assert all(operation.completion is not None for operation in history.operations)
    rig.assert_nothing_runs()


def test_second_interruption_only_cleans_up(rig: Rig) -> None:
    def interrupt(op: Op) -> None:
        if op.index == 50:
            rig.interruption.count = 2
            rig.interruption.asked.set()

    outcome = rig.run(watch=interrupt, time_limit=60)
    assert outcome.exit_code == 130
    assert outcome.results["checkers"] == {}
    assert outcome.results["verdict"] == "unknown"
    rig.assert_nothing_runs()


def test_interruption_while_the_cluster_recovers_is_no_failure(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    heal = Nemesis.heal

    def interrupted_heal(nemesis: Nemesis) -> None:
        heal(nemesis)
        assert rig.env is not None
        process.kill(rig.env, "n1", "labrys-node")  # it cannot be healthy any more
        rig.interruption.count = 1
        threading.Timer(0.3, rig.interruption.asked.set).start()

    monkeypatch.setattr(Nemesis, "heal", interrupted_heal)
    outcome = rig.run()
    assert outcome.exit_code == 130
    assert outcome.results["errors"] == []
    assert outcome.results["checkers"]["linearizable"]["verdict"] == "valid"


def test_run_whose_listener_has_gone_goes_on_and_is_judged(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(line: str) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(rig, "say", gone)
    outcome = rig.run()
    assert outcome.results["errors"] == []
    assert outcome.exit_code == 0
    assert outcome.run.read_results() == outcome.results
    assert "main phase" in outcome.run.log.read_text()
    rig.assert_nothing_runs()


def test_log_that_cannot_be_written_ends_no_step(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunDirectory, "log", Path("/dev/full"))
    rig.fail_in = "collect_logs"
    outcome = rig.run()
    assert outcome.results["verdict"] == "error"
    assert "planted in collect_logs" in outcome.results["errors"][0]
    assert rig.env is not None
    assert rig.env.calls[-1] == "destroy"
    assert outcome.run.read_results() == outcome.results
    rig.assert_nothing_runs()


@pytest.mark.parametrize(("times", "expected"), [(1, 0), (2, 130)])
def test_interruption_of_the_check_counts_only_if_it_cut_the_check_short(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, times: int, expected: int
) -> None:
    judge_run = judge.judge_run

    def interrupted_judge(*args: Any, **kwargs: Any) -> Any:
        rig.interruption.count = times
        rig.interruption.asked.set()
        return judge_run(*args, **kwargs)

    monkeypatch.setattr(judge, "judge_run", interrupted_judge)
    outcome = rig.run()
    assert outcome.exit_code == expected
    assert outcome.results["interrupted"] is (expected == 130)


def test_recheck_command_names_the_run_from_any_folder(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = rig.run()
    *_, path = shlex.split(outcome.results["recheck"])
    assert Path(path).is_absolute()
    assert Path(path) == outcome.run.path


def test_full_disk_ends_the_run_in_order_and_loses_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_write = os.write
    is_full = threading.Event()

    def write(fd: int, data: bytes) -> int:
        if is_full.is_set() and b'"process"' in data[:200]:
            is_full.clear()  # somebody makes room right after
            raise OSError(errno.ENOSPC, "No space left on device")
        return really_write(fd, data)

    def fill(op: Op) -> None:
        if op.index == 50:
            is_full.set()

    monkeypatch.setattr(os, "write", write)
    outcome = rig.run(watch=fill, time_limit=60)
    assert outcome.exit_code == 4
    assert any("No space left" in error for error in outcome.results["errors"])
    assert not any("interrupted" in line for line in rig.said)
    history = read_history(outcome.run.history)
    assert [op.index for op in history.ops] == list(range(len(history.ops)))
    assert len(history.ops) > 51
    rig.assert_nothing_runs()


def test_disk_that_stays_full_loses_nothing_and_the_verdict_is_still_told(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    really_write = os.write
    really_replace = os.replace
    is_full = threading.Event()

    def write(fd: int, data: bytes) -> int:
        if is_full.is_set() and b'"process"' in data[:200]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return really_write(fd, data)

    def replace(source: str, target: Path) -> None:
        if is_full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        really_replace(source, target)

    def fill(op: Op) -> None:
        if op.index == 50:
            is_full.set()

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    outcome = rig.run(watch=fill, time_limit=60)
    assert outcome.exit_code == 4
    assert outcome.results["checkers"]["linearizable"]["verdict"] == "valid"
    assert not outcome.run.results.exists()
    (rest,) = tmp_path.glob("labrys-history-*.jsonl")
    assert any(str(rest) in error for error in outcome.results["errors"])
    whole = outcome.run.history.read_bytes() + rest.read_bytes()
    indices = [decode_op(line).index for line in whole.splitlines()]
    assert indices == list(range(len(indices)))
    assert len(indices) > 51
