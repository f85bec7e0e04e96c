"""The command in network namespaces, from the first line to nothing left behind."""

import signal
from pathlib import Path

import pytest
from tests import whole_runs
from tests.whole_runs import WholeRun, eventually

from labrys.control.environments import netns

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(netns.probe() is not None, reason=f"no namespaces: {netns.probe()}"),
]


def assert_nothing_runs(run: WholeRun) -> None:
    eventually(lambda: run.processes() == [], "no process is left", timeout_s=10)


def test_correct_node_is_valid_under_all_faults(tmp_path: Path) -> None:
    assert_nothing_runs(whole_runs.check_correct_run(tmp_path, "netns"))


def test_correct_node_is_valid_while_members_change(tmp_path: Path) -> None:
    whole_runs.check_changing_members(tmp_path, "netns")


def test_two_runs_at_once_do_not_touch_each_other(tmp_path: Path) -> None:
    whole_runs.check_two_runs_at_once(tmp_path, "netns")


def test_correct_node_is_valid_on_machines_that_are_hurt(tmp_path: Path) -> None:
    kinds = ("flap", "bandwidth", "restart-storm", "slow-cpu", "freeze")
    assert_nothing_runs(whole_runs.check_hurt_machines(tmp_path, "netns", *kinds))


def test_correct_node_is_valid_while_data_is_damaged_and_lost(tmp_path: Path) -> None:
    whole_runs.check_damaged_data(tmp_path, "netns")


def test_seeded_bug_is_found(tmp_path: Path) -> None:
    assert_nothing_runs(whole_runs.check_bug_is_found(tmp_path, "netns"))


def test_lease_reads_of_the_correct_node_bear_wrong_clocks(tmp_path: Path) -> None:
    whole_runs.check_clocks(tmp_path, "netns")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_keeps_what_was_recorded(tmp_path: Path, number: int) -> None:
    assert_nothing_runs(whole_runs.check_interrupted_run(tmp_path, "netns", number))


def test_killed_run_leaves_no_process_and_can_be_healed_and_judged(tmp_path: Path) -> None:
    run = whole_runs.kill_run(tmp_path, "netns")
    assert_nothing_runs(run)
    whole_runs.check_heal_after_kill(run)
