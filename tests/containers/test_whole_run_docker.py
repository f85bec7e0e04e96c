"""The command in containers, from the first line to nothing left behind."""

import signal
from pathlib import Path

import docker
import pytest
from tests import whole_runs
from tests.whole_runs import WholeRun

from labrys.control.environments import engine
from labrys.control.heal import heal


def left_of(run: WholeRun) -> list[str]:
    """Return the containers and networks of a run."""
    client = docker.from_env()
    try:
        return engine.names(*engine.labelled(client, f"{engine.RUN}={run.directory}"))
    finally:
        client.close()


def test_correct_node_is_valid_under_all_faults(tmp_path: Path) -> None:
    assert left_of(whole_runs.check_correct_run(tmp_path, "docker")) == []


def test_correct_node_is_valid_while_members_change(tmp_path: Path) -> None:
    whole_runs.check_changing_members(tmp_path, "docker")


def test_two_runs_at_once_do_not_touch_each_other(tmp_path: Path) -> None:
    whole_runs.check_two_runs_at_once(tmp_path, "docker")


def test_correct_node_is_valid_on_machines_that_are_hurt(tmp_path: Path) -> None:
    kinds = ("bandwidth", "restart-storm", "slow-cpu", "freeze", "oom")
    assert left_of(whole_runs.check_hurt_machines(tmp_path, "docker", *kinds)) == []


def test_correct_node_is_valid_while_data_is_damaged_and_lost(tmp_path: Path) -> None:
    whole_runs.check_damaged_data(tmp_path, "docker")


def test_seeded_bug_is_found(tmp_path: Path) -> None:
    assert left_of(whole_runs.check_bug_is_found(tmp_path, "docker")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_keeps_what_was_recorded(tmp_path: Path, number: int) -> None:
    assert left_of(whole_runs.check_interrupted_run(tmp_path, "docker", number)) == []


def test_killed_run_is_healed_and_judged(tmp_path: Path) -> None:
    run = whole_runs.kill_run(tmp_path, "docker")
    assert len(left_of(run)) == 6
    whole_runs.check_heal_after_kill(run)
    assert left_of(run) == []
    assert (run.directory / "nodes" / "n1" / "log").is_file()


def test_cluster_left_on_purpose_outlives_the_next_run_until_it_is_healed(tmp_path: Path) -> None:
    run = WholeRun(tmp_path, "--env", "docker", "--time-limit", "2", "--leave-cluster")
    out = run.end()
    assert "the cluster is left running: n1 http://" in out
    assert len(left_of(run)) == 6
    try:
        heal(print, spare_finished=True)
        assert len(left_of(run)) == 6
    finally:
        healed = whole_runs.labrys("heal", "--runs-dir", str(run.runs_dir))
    assert healed.returncode == 0
    assert left_of(run) == []
