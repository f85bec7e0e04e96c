"""Damage to the files of simulated nodes: what it does to them, and how it is mended."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.control.sim_rig import Rig, running

from labrys.control.nemesis import damage
from labrys.control.process import State
from labrys.control.sim.corrupt_fault import damaged

CORRUPT: dict[str, Any] = {"faults": ["corrupt"], "system_options": {"snapshot-entries": 30}}
FLIP = {"damage": "flip", "which": 0.0, "at": [0.3], "bits": [5]}


def filled(rig: Rig) -> str:
    """Write enough for snapshots; return a follower."""
    for number in range(80):
        rig.put("n1", "k", number)
    rig.world.sleep(1)
    return rig.followers()[0]


def assert_mended(rig: Rig, node: str) -> None:
    undone = rig.package.undo_for_good()
    assert undone.errors == {}
    assert rig.system.state(node) is State.RUNNING
    assert rig.system.members() == ("n1", "n2", "n3")
    rig.begin()
    assert rig.get(node, "k") == 79
    assert "event=violation" not in rig.log(node), (
        "what was damaged is not the node's to answer for"
    )


@pytest.mark.parametrize("file", ["log", "snapshot", "meta"])
def test_a_node_whose_file_lost_a_bit_says_so_and_is_replaced(file: str) -> None:
    with running(**CORRUPT) as rig:
        node = filled(rig)
        done = rig.fault(node, **FLIP, file=file)
        assert done.bit
        facts = done.observed[node]
        (change,) = facts["changes"]
        assert change["before"] ^ change["after"] == 1 << 5
        if file == "snapshot":
            # An older one and the log behind it are there, or the log is not enough.
            assert "damaged" in facts["said"]
        else:
            assert facts["started"] == "refuses to start"
            assert "is damaged at byte" in facts["said"]
            assert rig.system.state(node) is State.DEAD
        assert_mended(rig, node)


def test_a_log_that_lost_its_end_belongs_to_no_member_when_it_is_read_again() -> None:
    with running(faults=["corrupt"]) as rig:
        node = filled(rig)
        done = rig.fault(node, damage="truncate", which=0.0, cut_percent=50, file="log")
        assert done.observed[node]["cut_bytes"] > 0
        assert rig.system.members() == tuple(n for n in ("n1", "n2", "n3") if n != node)
        assert_mended(rig, node)


def test_a_node_that_lost_its_data_takes_part_when_it_knows_what_it_promised() -> None:
    with running(**CORRUPT) as rig:
        node = filled(rig)
        done = rig.fault(node, damage="lose-data")
        assert done.observed[node]["lost_bytes"] > 100
        assert rig.machine(node).disk.used_bytes() == 0
        assert_mended(rig, node)


def test_nobody_is_hurt_whom_the_cluster_cannot_spare() -> None:
    with running(**CORRUPT) as rig:
        node = filled(rig)
        rig.fault(node, **FLIP, file="log")
        rig.machine(node).freeze()  # so that it cannot be mended now
        other = rig.followers()[-1] if rig.followers()[-1] != node else rig.leader()
        settled = rig.package.settle({**FLIP, "file": "log", "targets": "one", "nodes": [other]})
        assert settled.targets == ()
        assert f"{node} not mended yet" in settled.plan["note"]


@pytest.mark.parametrize(
    ("plan", "within"),
    [
        ({"at": [0.1, 0.5, 0.999], "bits": [0, 7, 3]}, 1.0),
        ({"at": [0.999], "bits": [3]}, 0.9),
        ({"at": [0.2] * 3, "bits": [1, 1, 2]}, 1.0),
        ({"cut_percent": 1}, 1.0),
        ({"cut_percent": 100}, 1.0),
    ],
)
def test_damage_is_that_of_the_program_in_real_nodes(
    tmp_path: Path, plan: dict[str, Any], within: float
) -> None:
    content = bytearray(range(256))
    file = tmp_path / "file"
    file.write_bytes(content)
    order = {"patterns": [str(file)], "which": 0.0, "within": within, "told_max": damage.TOLD_MAX}
    argv = [sys.executable, "-c", damage._PROGRAM, msgspec.json.encode(order | plan).decode()]
    said = subprocess.run(argv, capture_output=True, check=True).stdout
    assert {"file": str(file), **damaged(content, plan, within)} == msgspec.json.decode(said)
    assert bytes(content) == file.read_bytes()
