"""Disks and power as faults: as data, and with real file systems in network namespaces."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.control.disk_scenarios import ALWAYS, EXPECTED, PLANS
from tests.control.inside import run_inside
from tests.control.nemesis_fakes import FIVE, FakeEnvironment, FakeSystem
from tests.whole_runs import WholeRun, eventually

from labrys.control.disks import fuse, layer
from labrys.control.environments import netns
from labrys.control.errors import UsageError
from labrys.control.nemesis.disk import Disk, DiskOptions
from labrys.control.nemesis.nemesis import PACKAGES, needs_of, parse_faults
from labrys.control.nemesis.power import Power, PowerOptions

_REASON = netns.probe() or layer.obstacle("netns")
real = [pytest.mark.netns, pytest.mark.skipif(_REASON is not None, reason=str(_REASON))]


def test_plans_come_from_the_seed_alone_and_every_mode_has_its_turn() -> None:
    def plans(seed: str) -> list[dict[str, Any]]:
        disk = Disk(FakeEnvironment(), FakeSystem(), DiskOptions())
        return [disk.plan(turn, seed) for turn in range(40)]

    assert plans("seed") == plans("seed") != plans("other")
    for start in range(0, 40, len(fuse.MODES)):
        one_round = plans("seed")[start : start + len(fuse.MODES)]
        assert sorted(plan["mode"] for plan in one_round) == sorted(fuse.MODES)
    by_mode = {plan["mode"]: set(plan) - {"targets", "nodes", "fallback"} for plan in plans("s")}
    assert by_mode == {
        "full": {"mode", "room_bytes"},
        "error": {"mode", "operation"},
        "slow": {"mode", "slow_ms"},
        "readonly": {"mode"},
        "hang": {"mode"},
    }


def test_power_failures_are_planned_from_the_seed_alone() -> None:
    def plans(seed: str) -> list[dict[str, Any]]:
        power = Power(FakeEnvironment(), FakeSystem(), PowerOptions())
        return [power.plan(turn, seed) for turn in range(40)]

    assert plans("seed") == plans("seed") != plans("other")
    assert {plan["unsynced"] for plan in plans("seed")} == {"lose", "tear"}
    assert len({plan["seed"] for plan in plans("seed")}) == 40


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"disk": {"modes": []}}, "modes: name at least one of full, error, slow, readonly, hang"),
        ({"disk": {"modes": ["ful"]}}, "unknown mode 'ful'; did you mean 'full'?"),
        ({"disk": {"operations": []}}, "operations: name at least one of read, write, fsync"),
        ({"disk": {"operations": ["flush"]}}, "unknown operation 'flush'"),
        ({"disk": {"slow_ms": [0]}}, "slow_ms: name at least one, each above 0 and at most 60000"),
        ({"disk": {"targets": ["nobody"]}}, "unknown target 'nobody'"),
        ({"power": {"unsynced": []}}, "unsynced: name at least one of lose, tear, holes, keep"),
        ({"power": {"unsynced": ["loose"]}}, "did you mean 'lose'?"),
        ({"power": {"writeback_ms": 0}}, "writeback_ms: above 0 and at most 3600000, not 0"),
        ({"power": {"lie": "yes"}}, "Expected `bool`, got `str` - at `$.lie`"),
    ],
)
def test_options_that_cannot_be_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_faults(given, FIVE)
    assert told in str(refused.value)


def test_only_faults_of_disks_need_more_than_usual_of_nodes() -> None:
    assert needs_of(["disk"]) == needs_of(["power", "kill"]) == {"fuse"}
    assert needs_of(set(PACKAGES) - {"disk", "power"}) == frozenset()


def test_missing_device_is_told_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "DEVICE", Path("/nowhere/fuse"))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    assert Disk.obstacle("netns") == "there is no /nowhere/fuse: sudo modprobe fuse"
    assert Disk.obstacle("docker") == Disk.obstacle("netns")
    monkeypatch.setenv("DOCKER_HOST", "tcp://far:2375")
    assert Disk.obstacle("docker") is None, "nobody here can know"
    assert Power.obstacle("netns") == Disk.obstacle("netns")


_PRELUDE = f"""
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import json
from tests.control.disk_scenarios import Scenarios

env = environment(2)
env.provision()
play = Scenarios(env)

def tell(found):
    say(json.dumps(found))
"""


def inside(tmp_path: Path, code: str) -> list[Any]:
    return [json.loads(line) for line in run_inside(tmp_path, _PRELUDE + code).splitlines()]


class TestInNamespaces:
    pytestmark = real

    @pytest.mark.parametrize("mode", fuse.MODES)
    def test_spoiled_disk_is_felt_where_it_is_and_mended(self, tmp_path: Path, mode: str) -> None:
        found = inside(tmp_path, f"tell(play.spoiled({mode!r}, **{PLANS[mode]!r}))")
        assert found == [{**ALWAYS, **EXPECTED[mode]}]

    def test_process_on_a_hung_disk_can_be_killed(self, tmp_path: Path) -> None:
        found = inside(tmp_path, "tell(play.killed_on_a_hung_disk())")
        assert found == [{"killed": "dead", "goes on": True}]

    def test_power_failure_loses_what_was_not_flushed_and_nothing_else(
        self, tmp_path: Path
    ) -> None:
        code = "tell(play.without_power('lose')); tell(play.without_power('keep'))"
        lost, kept = inside(tmp_path, code)
        common = {
            "state": "dead",
            "nothing that was flushed is lost": True,
            "bit": True,
            "goes on": True,
            "errors": {},
        }
        assert lost == {
            **common,
            "left": ["flushed", "log", "old"],
            "lost names": 2,
            "lost bytes": True,
        }
        assert kept["left"] == ["log", "moved", "unflushed", "old", "new"]
        assert kept["lost names"] == 0

    def test_what_was_being_written_when_the_power_went_may_be_there(self, tmp_path: Path) -> None:
        found = inside(tmp_path, "tell(play.killed_in_the_middle_of_a_write())")
        assert found == [{"lines more than told": 1}]

    def test_disk_that_lies_loses_what_it_said_was_flushed(self, tmp_path: Path) -> None:
        (found,) = inside(tmp_path, "tell(play.without_power('lose', lie=True))")
        assert found["nothing that was flushed is lost"] is False
        assert found["left"] == []
        assert found["goes on"] is True

    def test_one_dead_disk_does_not_keep_the_others_from_being_mended(self, tmp_path: Path) -> None:
        (found,) = inside(tmp_path, "tell(play.served_by_nobody())")
        assert found == {
            "errors": ["n1"],
            "mended": ["n2"],
            "others go on": True,
            "set up again": True,
        }

    def test_disk_that_a_dead_rig_left_is_replaced(self, tmp_path: Path) -> None:
        (found,) = inside(tmp_path, "tell(play.left_by_a_dead_rig())")
        assert found == {"empty": True, "mounts": [1, 1], "goes on": True}

    def test_nothing_is_left_at_the_end(self, tmp_path: Path) -> None:
        code = """
tell(play.torn_down())
play.left_by_a_dead_rig()
env.destroy()
tell([os.path.exists(env.home(node)) for node in env.nodes])
tell([line for line in Path("/proc/mounts").read_text().splitlines() if "labrys-disk" in line])
"""
        found, homes, mounts = inside(tmp_path, code)
        assert found == {
            "running": {"mounts": [1, 1], "goes on": True},
            "mounts": [0, 0],
            "processes": ["dead", "dead"],
        }
        assert homes == [False, False]
        assert mounts == []

    def test_same_as_any_file_system_for_random_operations(self, tmp_path: Path) -> None:
        code = """
from tests.control.file_operations import differences
play.layer.mount("n1")
plain = Path("/run/plain")
plain.mkdir()
tell([differences(Path(play.system.data_dir("n1"), f"r{seed}"), plain / f"r{seed}", seed)
      for seed in range(20)])
"""
        assert inside(tmp_path, code) == [[[]] * 20]

    def test_killed_run_leaves_no_mount_and_no_process(self, tmp_path: Path) -> None:
        faults = "{disk: {modes: [hang]}, power: {}}"
        run = WholeRun(tmp_path, "--env", "netns", "--faults", faults, "--time-limit", "60")
        run.await_fault()
        os.kill(run.process.pid, signal.SIGKILL)
        run.process.communicate()
        eventually(lambda: not run.processes(), "all processes are gone")
        assert "labrys-disk" not in Path("/proc/mounts").read_text()

    def test_whole_run_is_valid_and_both_faults_bite(self, tmp_path: Path) -> None:
        run = WholeRun(
            tmp_path,
            *("--env", "netns", "--faults", "disk,power", "--fault-interval", "1.5"),
            *("--time-limit", "15", "--seed", "3"),
        )
        out = run.end()
        assert run.process.returncode == 0, out
        kinds = run.results()["checkers"]["coverage"]["data"]["kinds"]
        assert all(kinds[kind]["bit"] for kind in ("disk", "power")), kinds
