"""Real nodes in operation: snapshots, members that come and go, full disks, wrong states."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.node.servers import Server, cluster, free_ports, leader_of, wait_for

from labrys.node.audit import AUDIT_EVERY


def put_many(server: Server, count: int, prefix: str = "k") -> None:
    """That many entries, in batches, each sent until it is acknowledged."""
    for start in range(0, count, 50):
        commands = [
            ["put", f"{prefix}{start + n}", "x" * 20] for n in range(min(50, count - start))
        ]
        assert server.ask("POST", "/v1/batch", {"commands": commands})[0] == 200


def agree(servers: list[Server]) -> bool:
    """Whether all have applied everything, and the same."""
    said = [server.status() for server in servers]
    first = said[0]
    return first["applied"] == first["commit"] and all(
        (each["applied"], each["state_hash"]) == (first["applied"], first["state_hash"])
        for each in said
    )


@contextlib.contextmanager
def newcomer(directory: Path, name: str, *flags: str) -> Iterator[Server]:
    """A node that waits to be made a member."""
    mine, http_port = free_ports(2)
    server = Server(name, "", http_port, directory)
    at = server.argv.index("--peers")
    server.argv[at : at + 2] = ["--join", "--listen", f"127.0.0.1:{mine}"]
    server.place = f"127.0.0.1:{mine}"
    server.start(*flags)
    try:
        wait_for(f"{name} listens", lambda: "event=start" in server.log.read_text())
        yield server
    finally:
        server.kill()


def change(servers: list[Server], body: Any) -> dict[str, Any]:
    """Have the members changed, however often it takes, and wait until it is done."""

    def attempt() -> dict[str, Any] | None:
        status, answer = servers[0].call("POST", "/v1/members", body)
        return answer if status == 200 else None

    return wait_for(f"the change {body}", attempt)


SMALL = ("--snapshot-entries", "100")


def test_snapshots_take_the_place_of_the_log_and_come_back(tmp_path: Path) -> None:
    with cluster(tmp_path, 3, *SMALL) as servers:
        session = servers[0].ask("POST", "/v1/sessions")[1]["session"]
        put_many(servers[0], 1000)
        wait_for("snapshots", lambda: all(s.status()["snapshot_index"] > 800 for s in servers))
        wait_for("equal states", lambda: agree(servers))
        before = servers[0].status()
        for server in servers:
            snapshots = list((server.data / "snapshots").iterdir())
            assert len(snapshots) <= 2, "old snapshots stay for ever"
            server.kill()
        for server in servers:
            server.start(*SMALL)
        for server in servers:
            wait_for("it is back", server.is_ready)
        wait_for("equal states again", lambda: agree(servers))
        after = servers[0].status()
        for fact in ("revision", "key_count", "session_count", "state_hash"):
            assert after[fact] == before[fact], fact
        assert session > 0
        assert servers[1].ask("GET", "/v1/kv/k999")[1]["value"] == "x" * 20


def test_a_wiped_node_takes_the_leaders_snapshot_and_votes_again(tmp_path: Path) -> None:
    with cluster(tmp_path, 3, *SMALL) as servers:
        put_many(servers[0], 500)
        victim = next(server for server in servers if server is not leader_of(servers))
        victim.kill()
        victim.wipe()
        victim.start(*SMALL)
        wait_for("it caught up", lambda: victim.is_ready() and agree(servers))
        assert "event=installed" in victim.log.read_text()
        assert victim.status()["is_observer"] is False
        other = next(s for s in servers if s not in (victim, leader_of(servers)))
        other.kill()  # So the one that came back is needed for every majority.
        put_many(victim, 50, "more")


def test_a_snapshot_can_be_asked_for(tmp_path: Path) -> None:
    with cluster(tmp_path, 1) as (server,):
        put_many(server, 10)
        status, body = server.call("POST", "/v1/snapshot")
        assert (status, body["index"]) == (200, server.status()["snapshot_index"])
        assert server.call("POST", "/v1/snapshot") == (status, body)
        assert "event=snapshot index=" in server.log.read_text()


def test_a_new_node_joins_votes_and_takes_over(tmp_path: Path) -> None:
    with cluster(tmp_path, 3, *SMALL) as servers, newcomer(tmp_path, "n4", *SMALL) as fourth:
        put_many(servers[0], 300)
        assert fourth.status()["voters"] == []
        said = change(servers, {"id": "n4", "peer": fourth.place})
        assert said == {"voters": ["n1", "n2", "n3", "n4"], "learners": []}
        wait_for("equal states", lambda: agree([*servers, fourth]))
        said = change([fourth], {"remove": ["n1", "n2", "n3"]})
        assert said["voters"] == ["n4"]
        wait_for("it leads", lambda: fourth.status()["role"] == "leader")
        for server in servers:
            server.kill()
        put_many(fourth, 50, "alone")
        fourth.kill()
        fourth.start()  # Who the members are is on its disk.
        wait_for("it is back", fourth.is_ready)
        assert fourth.status()["voters"] == ["n4"]
        assert fourth.ask("GET", "/v1/kv/alone49")[0] == 200


def test_a_learner_receives_the_log_and_does_not_vote(tmp_path: Path) -> None:
    with cluster(tmp_path, 1) as (server,), newcomer(tmp_path, "n2") as learner:
        put_many(server, 50)
        change([server], {"id": "n2", "peer": learner.place, "learner": True})
        wait_for("equal states", lambda: agree([server, learner]))
        assert learner.ask("GET", "/v1/kv/k49")[0] == 200
        learner.kill()
        put_many(server, 50, "without")  # Nobody needs it for a majority.
        assert change([server], {"remove": ["n2"]}) == {"voters": ["n1"], "learners": []}


def test_a_leader_removes_itself_and_cannot_disturb_the_others(tmp_path: Path) -> None:
    with cluster(tmp_path, 3) as servers:
        leader = leader_of(servers)
        others = [server for server in servers if server is not leader]
        assert leader.call("DELETE", f"/v1/members/{leader.name}")[0] == 200
        wait_for("a new leader", lambda: others[0].is_ready() and others[1].is_ready())
        term = leader_of(others).status()["term"]
        put_many(others[0], 100)
        assert leader.status()["voters"] == sorted(server.name for server in others)
        assert leader_of(others).status()["term"] == term


def test_the_leader_hands_over_before_it_stops(tmp_path: Path) -> None:
    with cluster(tmp_path, 3, "--election-timeout-ms", "5000") as servers:
        leader = leader_of(servers)
        others = [server for server in servers if server is not leader]
        assert leader.process is not None
        leader.process.send_signal(signal.SIGTERM)
        assert leader.process.wait(10) == 0
        # Nobody's election timeout is over: it was told to take over.
        assert leader_of(others).status()["term"] == 2


def test_a_leader_that_is_told_twice_stops_at_once(tmp_path: Path) -> None:
    with cluster(tmp_path, 3, "--election-timeout-ms", "5000") as servers:
        leader = leader_of(servers)
        for server in servers:
            if server is not leader:
                server.kill()  # Nobody is left to take over.
        assert leader.process is not None
        leader.process.send_signal(signal.SIGTERM)
        wait_for("it begins to stop", lambda: "event=stopping" in leader.log.read_text())
        leader.process.send_signal(signal.SIGTERM)
        assert leader.process.wait(9) == 0


def test_nodes_of_another_cluster_are_not_talked_to(tmp_path: Path) -> None:
    with cluster(tmp_path, 3, "--cluster-id", "blue") as servers:
        stranger = servers[0]
        stranger.kill()
        stranger.wipe()
        stranger.start("--cluster-id", "green")
        wait_for("it is refused", lambda: "another cluster" in servers[1].log.read_text())
        assert stranger.status()["leader"] is None
        put_many(servers[1], 50)


CORRUPTED = """
from labrys.node import machine, cli
place = machine.Machine._place
def corrupted(self, key, cell):
    place(self, key, machine._cell("wrong", cell.revision) if key == "k7" else cell)
machine.Machine._place = corrupted
cli.main()
"""


def test_a_node_with_another_state_is_stopped_and_the_others_go_on(tmp_path: Path) -> None:
    with cluster(tmp_path, 3) as servers:
        victim = next(server for server in servers if server is not leader_of(servers))
        victim.kill()
        victim.start(program=CORRUPTED)
        wait_for("it is back", victim.is_ready)
        put_many(servers[0] if victim is not servers[0] else servers[1], AUDIT_EVERY + 50)
        assert victim.process is not None
        assert victim.process.wait(20) == 4
        assert "something here computed or kept it wrongly" in victim.log.read_text()
        others = [server for server in servers if server is not victim]
        put_many(others[0], 50, "after")
        wait_for("equal states", lambda: agree(others))


FULL = """
import errno, os, pathlib, sys
from labrys.node import cli, disk
append = disk._OsFile.append
def limited(self, data):
    if pathlib.Path(sys.argv[-1], "full").exists():
        raise OSError(errno.ENOSPC, "No space left on device")
    append(self, data)
disk._OsFile.append = limited
cli.main()
"""


@pytest.mark.parametrize("size", [1, 3])
def test_a_full_disk_makes_a_node_refuse_writes_until_there_is_room(
    tmp_path: Path, size: int
) -> None:
    with cluster(tmp_path, size, program=FULL) as servers:
        leader = leader_of(servers)
        put_many(leader, 50)
        full = leader.data / "full"
        full.touch()
        status, body = leader.call("PUT", "/v1/kv/unlucky", {"value": 1})
        wait_for("it is told", lambda: "event=disk-full" in leader.log.read_text())
        if size == 1:
            # The one that met it first waits for its place on the disk; nobody knows how it ends.
            assert (status, body["definite"]) == (504, False)
            status, body = leader.call("PUT", "/v1/kv/k", {"value": 1})
            assert (status, body["error"], body["definite"]) == (507, "disk-full", True)
            assert "make room" in body["message"]
            assert leader.ask("GET", "/v1/kv/k1")[0] == 200
        else:
            wait_for("somebody else leads", lambda: leader_of(servers) is not leader)
            put_many(leader, 50, "meanwhile")
        assert leader.status()["disk_full"] is True
        full.unlink()
        wait_for("it has room", lambda: leader.status()["disk_full"] is False)
        put_many(leader, 50, "again")
        wait_for("equal states", lambda: agree(servers))


def test_metrics_are_what_prometheus_reads(tmp_path: Path) -> None:
    with cluster(tmp_path, 3) as servers:
        put_many(servers[0], 50)
        leader = leader_of(servers)
        status, text, content_type = leader.fetch("/metrics")
        assert status == 200
        assert content_type.startswith("text/plain; version=0.0.4")
        found = {family.name: family for family in text_string_to_metric_families(text)}
        assert found["labrys_keys"].samples[0].value == 50
        roles = {s.labels["role"]: s.value for s in found["labrys_role"].samples}
        assert roles["leader"] == 1
        assert sum(roles.values()) == 1
        assert len(found["labrys_peer_lag_entries"].samples) == 2
        assert found["labrys_request_seconds"].type == "histogram"
        counts = [
            s.value for s in found["labrys_request_seconds"].samples if s.name[-6:] == "_count"
        ]
        assert counts[0] >= 1
