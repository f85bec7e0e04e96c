"""Disks that fail, run full, are slow, hang or lose their power, under simulated nodes."""

import contextlib

import pytest
import requests
from tests.control.sim_rig import Rig, running

from labrys.control.disks import fuse, volume
from labrys.control.process import State
from labrys.control.sim.world import SECOND_NS

DISK = {"faults": ["disk"]}


def put_s(rig: Rig, node: str) -> float:
    """How long a write takes, in virtual seconds."""
    begun_ns = rig.world.now_ns
    rig.put(node, "k", 1)
    return (rig.world.now_ns - begun_ns) / SECOND_NS


@pytest.mark.parametrize("operation", ["write", "fsync", "all"])
def test_a_node_whose_disk_errs_stops_itself_and_is_started_by_the_undo(operation: str) -> None:
    with running(**DISK) as rig:
        rig.put("n1", "k", 1)
        leader = rig.leader()
        assert rig.fault(leader, mode="error", operation=operation).bit is None
        with contextlib.suppress(requests.RequestException):
            rig.put(leader, "k", 2)
        rig.world.sleep(1)
        assert rig.system.state(leader) is State.DEAD
        assert "event=fatal" in rig.log(leader)
        assert "Input/output error" in rig.log(leader)
        assert "Traceback" not in rig.log(leader)
        undone = rig.package.undo()
        assert undone.bit
        assert undone.observed[leader]["failed"] >= 1
        assert undone.done[leader] == "had stopped, is started"
        rig.begin()
        assert rig.get(leader, "k") in (1, 2)


def test_a_disk_that_can_only_be_read_stops_its_node() -> None:
    with running(**DISK) as rig:
        follower = rig.followers()[0]
        rig.fault(follower, mode="readonly")
        rig.put(rig.leader(), "k", 1)
        rig.world.sleep(1)
        assert rig.system.state(follower) is State.DEAD
        assert "Read-only file system" in rig.log(follower)
        assert rig.package.undo().bit
        rig.begin()
        assert rig.get(follower, "k") == 1


def test_a_node_that_stops_tells_of_no_term_that_is_not_on_its_disk() -> None:
    with running(**DISK) as rig:
        leader, others = rig.leader(), rig.followers()
        rig.fault(*others, mode="readonly")
        rig.system.kill(leader)
        rig.world.sleep(3)
        rig.world.sleep(3)
        lines = [line for node in others for line in rig.log(node).splitlines()]
        stopped = [line for line in lines if "event=stop" in line]
        assert stopped, "whoever asks for votes in term 2 cannot note it"
        assert all(" term=1 " in line for line in stopped)


def test_a_full_disk_takes_a_part_of_a_write_and_nothing_more_until_there_is_room() -> None:
    with running(**DISK) as rig:
        rig.fault("n1", "n2", "n3", mode="full", room_bytes=100)
        rig.put("n1", "k", 1)
        with pytest.raises(requests.RequestException):
            rig.put("n1", "k", "x" * 500)
        rig.world.sleep(1)
        assert {rig.system.state(node) for node in ("n1", "n2", "n3")} == {State.RUNNING}
        undone = rig.package.undo()
        assert undone.bit
        assert sum(facts["short"] for facts in undone.observed.values()) >= 1
        rig.world.sleep(2)
        rig.put("n1", "k", 3)
        assert [rig.get(node, "k") for node in ("n1", "n2", "n3")] == [3, 3, 3]


def test_a_slow_disk_makes_each_write_and_each_flush_take_longer() -> None:
    with running(**DISK) as rig:
        assert put_s(rig, "n1") < 0.1
        rig.fault("n1", "n2", "n3", mode="slow", slow_ms=50.0)
        assert 0.1 <= put_s(rig, "n1") < 0.5
        undone = rig.package.undo()
        assert undone.bit
        assert all(facts["held"] >= 2 for facts in undone.observed.values())
        rig.world.sleep(1)
        assert put_s(rig, "n1") < 0.1


def test_nothing_is_written_while_disks_hang_and_all_goes_on_when_they_are_mended() -> None:
    with running(**DISK) as rig:
        rig.fault("n1", "n2", "n3", mode="hang")
        with pytest.raises(requests.RequestException):
            rig.put("n1", "k", 1)
        rig.world.sleep(3)
        assert {rig.system.state(node) for node in ("n1", "n2", "n3")} == {State.RUNNING}
        undone = rig.package.undo()
        assert undone.bit
        assert any(facts["waiting"] for facts in undone.observed.values())
        rig.begin()
        assert rig.get("n2", "k") in (1, None)


def test_a_node_that_waits_for_its_disk_can_be_killed_and_loses_what_it_wrote() -> None:
    with running(**DISK) as rig:
        follower = rig.followers()[0]
        rig.fault(follower, mode="hang")
        rig.put(rig.leader(), "k", 1)
        rig.system.kill(follower)
        rig.world.sleep(1)
        assert rig.system.state(follower) is State.DEAD
        rig.package.undo()
        rig.begin()
        assert rig.get(follower, "k") == 1
        assert "Traceback" not in rig.log(follower)


def test_a_node_starts_when_the_disk_that_hung_is_mended() -> None:
    with running(**DISK) as rig:
        follower = rig.followers()[0]
        rig.system.kill(follower)
        rig.fault(follower, mode="hang")
        rig.system.start(follower)
        rig.world.sleep(2)
        assert rig.system.status(follower) is None
        rig.package.undo()
        rig.world.sleep(0.5)
        assert rig.system.status(follower) is not None


def test_an_engine_that_reads_from_a_disk_that_hangs_stands_still() -> None:
    """A leader reads the snapshot that it sends by itself."""
    with running(**DISK, system_options={"snapshot-entries": 20}) as rig:
        leader, follower = rig.leader(), rig.followers()[0]
        rig.system.kill(follower)
        for number in range(60):
            rig.put(leader, "k", number)
        rig.world.sleep(1)
        rig.fault(leader, mode="hang")
        rig.system.start(follower)
        rig.world.sleep(3)
        assert rig.system.status(leader) is None
        assert rig.leader() != leader
        rig.package.undo()
        rig.begin()
        assert rig.get(follower, "k") == 59


def test_a_node_that_cannot_read_its_data_does_not_start() -> None:
    with running(**DISK) as rig:
        follower = rig.followers()[0]
        rig.system.kill(follower)
        rig.fault(follower, mode="error", operation="read")
        rig.system.start(follower)
        rig.world.sleep(1)
        assert rig.system.state(follower) is State.DEAD
        assert "cannot use the data directory" in rig.log(follower)
        assert rig.package.undo().bit
        rig.begin()


def test_a_disk_stays_spoiled_when_its_machine_loses_its_memory() -> None:
    with running(**DISK) as rig:
        rig.fault("n1", mode="error", operation="all")
        rig.system.kill("n1")
        rig.system.start("n1")
        rig.world.sleep(1)
        assert rig.system.state("n1") is State.DEAD


# ---- power ------------------------------------------------------------------------------------


@pytest.mark.parametrize("unsynced", volume.UNSYNCED)
def test_what_was_acknowledged_outlives_a_power_failure(unsynced: str) -> None:
    with running(faults=["power"]) as rig:
        for number in range(20):
            rig.put("n1", f"k{number}", number)
        done = rig.fault("n1", "n2", "n3", unsynced=unsynced, seed="s")
        assert done.bit
        assert not done.errors
        assert {facts["after"] for facts in done.observed.values()} == {State.DEAD}
        assert rig.package.undo().errors == {}
        rig.begin()
        assert [rig.get("n2", f"k{number}") for number in range(20)] == list(range(20))


def test_what_was_not_flushed_is_lost_and_counted() -> None:
    with running(faults={"power": {"targets": ["all"]}, "disk": {}}) as rig:
        rig.world.sleep(1)
        # The writes are there, the flushes wait.
        rig.machine("n1").spoil({"mode": fuse.SLOW, "operations": [fuse.FSYNC], "delay_ms": 5000})
        rig.put("n2", "k", "x" * 300)
        rig.world.sleep(0.1)
        done = rig.fault("n1", unsynced=volume.LOSE, seed="s")
        assert done.observed["n1"]["lost_bytes"] >= 300
        assert done.observed["n1"]["torn_files"] == 0


def test_disks_that_lie_lose_what_was_acknowledged() -> None:
    with running(faults={"power": {"lie": True, "writeback_ms": 3_600_000}}) as rig:
        rig.put("n1", "k", 1)
        # A process that is killed loses nothing of what its disk took.
        for node in ("n1", "n2", "n3"):
            rig.system.kill(node)
        rig.begin()
        assert rig.get("n1", "k") == 1
        done = rig.fault("n1", "n2", "n3", unsynced=volume.LOSE, seed="s")
        assert all(facts["lost_bytes"] for facts in done.observed.values())
        rig.package.undo()
        rig.world.sleep(1)
        assert "last_index=0" in rig.log("n1").rpartition("event=boot")[2]


def test_what_a_lying_disk_has_written_back_is_durable() -> None:
    with running(faults={"power": {"lie": True, "writeback_ms": 50}}) as rig:
        rig.put("n1", "k", 1)
        rig.world.sleep(0.1)
        rig.put("n1", "other", 2)
        rig.fault("n1", "n2", "n3", unsynced=volume.LOSE, seed="s")
        rig.package.undo()
        rig.begin()
        assert rig.get("n1", "k") == 1
