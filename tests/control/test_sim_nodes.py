"""Simulated nodes: the real engine on a disk that forgets, under kills and pauses."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from tests.control.sim_rig import Rig

from labrys.checkers.checker import Evidence
from labrys.checkers.history import History
from labrys.checkers.raft_log import RaftLog
from labrys.checkers.verdict import Verdict
from labrys.control.errors import InternalError
from labrys.control.process import State
from labrys.control.sim import writer
from labrys.control.sim.clock import EPOCH_MS
from labrys.control.sim.world import MS_NS, SECOND_NS
from labrys.node.raft import Raft
from labrys.node.telling import Teller


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    with made.stage.entered():
        made.begin()
        yield made
        made.stage.env.destroy()


def test_nodes_agree_and_answer(rig: Rig) -> None:
    rig.put("n1", "k", [1, "two"])
    assert [rig.get(node, "k") for node in ("n1", "n2", "n3")] == [[1, "two"]] * 3
    states = rig.system.end_states(5.0, give_up=lambda: False)
    assert len({state["state_hash"] for state in states.values() if state}) == 1
    assert len(rig.system.leaders()) == 1


def test_the_lines_of_all_logs_have_one_clock(rig: Rig) -> None:
    logs = [rig.stage._sim.machines[node].log for node in ("n1", "n2", "n3")]
    for number in range(3):
        rig.world.sleep(0.5)
        for node in ("n1", "n2", "n3"):
            rig.stage._sim.machines[node].say(number=number)
        assert len({log[-1][0] for log in logs}) == 1
    assert [log[-1][0] for log in logs] == [EPOCH_MS + rig.world.now_ns // MS_NS] * 3


def test_nothing_takes_real_time(rig: Rig) -> None:
    began = time.monotonic()
    rig.world.sleep(600)
    assert time.monotonic() - began < 300
    assert rig.world.now_ns > 600 * SECOND_NS
    rig.put("n1", "k", 1)


def test_what_was_acknowledged_outlives_a_kill_of_all(rig: Rig) -> None:
    for number in range(20):
        rig.put("n1", f"k{number}", number)
    for node in ("n1", "n2", "n3"):
        rig.system.kill(node)
        assert rig.system.state(node) is State.DEAD
    with pytest.raises(requests.ConnectionError, match="Connection refused"):
        rig.put("n1", "k", 1)
    rig.begin()
    assert [rig.get("n2", f"k{number}") for number in range(20)] == list(range(20))
    assert rig.log("n1").count("event=boot") == 2


def test_a_kill_breaks_what_is_under_way(rig: Rig) -> None:
    (leader,) = rig.system.leaders()
    for node in {"n1", "n2", "n3"} - {leader}:
        rig.system.kill(node)
    rig.world.call_at(rig.world.now_ns + SECOND_NS // 5, rig.system.kill, leader)
    with pytest.raises(requests.ConnectionError, match="without response"):
        rig.put(leader, "k", 1)


def test_a_paused_node_is_silent_and_goes_on_later(rig: Rig) -> None:
    (leader,) = rig.system.leaders()
    other = next(node for node in ("n1", "n2", "n3") if node != leader)
    rig.system.pause(leader)
    assert rig.system.state(leader) is State.STOPPED
    with pytest.raises(requests.ReadTimeout):
        rig.put(leader, "k", 1)
    rig.world.sleep(2)
    rig.put(other, "k", 2)
    rig.system.resume(leader)
    rig.world.sleep(2)
    # What the paused node had been asked was never carried out: it led no more.
    assert rig.get(leader, "k") in (1, 2)
    assert len(rig.system.leaders()) == 1


def test_a_lagging_node_is_given_a_snapshot() -> None:
    rig = Rig(system_options={"snapshot-entries": 20})
    with rig.stage.entered():
        rig.begin()
        rig.system.kill("n3")
        for number in range(60):
            rig.put("n1", "k", number)
        rig.begin()
        assert rig.get("n3", "k") == 59
        assert "event=snapshot" in rig.log("n1") + rig.log("n2")
        assert "event=installed" in rig.log("n3")
        rig.stage.env.destroy()


def test_a_kill_loses_or_tears_what_was_not_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SYNC_NS", (50_000_000, 90_000_000))
    torn = 0
    for seed in range(12):
        rig = Rig(seed)
        with rig.stage.entered():
            rig.begin()
            for _ in range(5):
                rig.world.call_at(rig.world.now_ns + 40 * MS_NS, rig.system.kill, "n1")
                with contextlib.suppress(requests.RequestException):
                    rig.put("n2", "k", "x" * 100)
                rig.begin()
            torn += "event=recovered" in rig.log("n1")
            rig.stage.env.destroy()
    assert torn


def test_a_node_logs_no_term_that_a_kill_can_still_take_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found by the simulation: who read the log took it for a node that had lost its term."""
    monkeypatch.setattr(writer, "SYNC_NS", (60 * MS_NS, 110 * MS_NS))
    rig = Rig()
    with rig.stage.entered():
        rig.begin()
        for round_number in range(12):
            (leader,) = rig.system.leaders()
            others = [node for node in ("n1", "n2", "n3") if node != leader]
            rig.system.kill(leader)
            rig.world.sleep(0.35 + 0.03 * round_number)
            for node in others:
                rig.system.kill(node)
            rig.begin()
        logs = {
            node: [f"2000-01-01T00:00:00.000Z {line}" for line in rig.log(node).splitlines()]
            for node in ("n1", "n2", "n3")
        }
        rig.stage.env.destroy()
    result = RaftLog().check(History([]), Evidence(logs=logs))
    assert result.verdict is Verdict.VALID, result.findings


def test_a_cluster_that_stays_stuck_breaks_a_promise(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for node in ("n1", "n2"):
        rig.system.kill(node)
    rig.stage.has_not_recovered()
    assert "liveness" not in rig.log("n1"), "it has, once its nodes are up again"
    monkeypatch.setattr(Raft, "_may_campaign", lambda self: False)
    rig.system.kill(rig.system.leaders()[0])
    rig.stage.has_not_recovered()
    told = rig.log("n1").splitlines()[-1]
    assert 'event=violation what="liveness: no write succeeds 20 s later: n1 is running' in told
    assert "n2 is running, follower of term" in told
    assert "hears n" in told


def test_node_that_asks_for_the_real_clock_is_found_out(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import time\ndef tell(self, raft, now_ms, durable_term):\n    return time.time() < 0\n"
    space: dict[str, Any] = {"__name__": "labrys.node.telling"}
    exec(code, space)
    monkeypatch.setattr(Teller, "tell", space["tell"])
    rig.world.sleep(1)
    assert "labrys.node.telling calls time.time in a simulation" in rig.log("n1")
    assert rig.system.state("n1") is State.DEAD


def test_the_rig_itself_may_ask_for_the_real_clock(rig: Rig) -> None:
    assert time.time() > 0
    with pytest.raises(InternalError):
        rig.stage.env.run("n1", "true")
