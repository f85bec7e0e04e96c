"""Every declared probe stands somewhere in the code, and is reached.

Most of them by random schedules of cores, the rest by a few inputs that lead there and nowhere
else.
"""

import random
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tests.node.cluster import play
from tests.node.cores import restored

import labrys.control
import labrys.node
from labrys.control.sim import writer
from labrys.control.sim.stage import SimStage
from labrys.control.sim.world import MS_NS
from labrys.control.spec import resolve
from labrys.node.commands import Add, Once, OpenSession, Put, encode_request
from labrys.node.configuration import Configuration, encode_configuration
from labrys.node.effects import SnapshotMeta
from labrys.node.machine import Machine
from labrys.node.messages import (
    AppendReply,
    AppendRequest,
    Entry,
    HardState,
    InstallRequest,
    VoteReply,
)
from labrys.node.probes import Probe
from labrys.node.raft import Config, Raft
from labrys.node.service import Service

THREE = ("n1", "n2", "n3")


def core(*terms: int) -> tuple[Raft, Counter[Probe]]:
    """n1 with one entry per given term, and what it reaches."""
    entries = [Entry(each, b"%d" % index) for index, each in enumerate(terms, 1)]
    state = HardState(max(terms, default=0))
    raft = Raft(
        Config("n1", trailing_count=0), restored(THREE, state, entries), random.Random(0), 0
    )
    reached: Counter[Probe] = Counter()
    raft.reach = lambda probe: reached.update((probe,))
    return raft, reached


def conflict_of_terms() -> Counter[Probe]:
    raft, reached = core(1, 2)
    raft.step("n2", AppendRequest(4, 2, 3, (Entry(4, b"x"),), 0, 1), 1)
    return reached


def configuration_taken_back() -> Counter[Probe]:
    raft, reached = core(1)
    change = Entry(1, encode_configuration(Configuration(("n1", "n2", "n3", "n4"))), True)
    raft.step("n2", AppendRequest(1, 1, 1, (change,), 0, 1), 1)
    raft.step("n3", AppendRequest(2, 1, 1, (Entry(2, b"x"),), 0, 1), 2)
    assert raft.configuration.voters == THREE
    return reached


def meta(index: int, term: int) -> SnapshotMeta:
    return SnapshotMeta(index, term, Configuration(THREE))


def snapshot_while_receiving() -> Counter[Probe]:
    raft, reached = core(1, 1)
    raft.step("n2", AppendRequest(1, 2, 1, (), 2, 1), 1)
    raft.effects()
    raft.step("n2", InstallRequest(1, 1, 9, 1, 0, b"half"), 2)
    raft.compact(meta(2, 1))
    return reached


def snapshot_outrun() -> Counter[Probe]:
    raft, reached = core(1, 1)
    raft.step("n2", InstallRequest(1, 1, 2, 1, 0, b"all", True), 1)
    raft.step("n2", AppendRequest(1, 2, 1, (), 2, 2), 2)
    assert not raft.installed(meta(2, 1))
    return reached


def snapshot_replaced_log() -> Counter[Probe]:
    raft, reached = core(1, 1, 1)
    raft.step("n2", InstallRequest(2, 1, 2, 2, 0, b"all", True), 1)
    assert raft.installed(meta(2, 2))
    assert raft.log.last_index == 2
    return reached


def write_overwritten() -> Counter[Probe]:
    raft, reached = core()
    raft.tick(1000)
    for reply in (VoteReply(1, True, pre=True), VoteReply(1, True, pre=False)):
        raft.step("n2", reply, 1000)
    raft.step("n2", AppendReply(1, 1, success=True, index=1), 1000)
    service = Service(
        raft, Machine(), lambda peer, message: True, lambda: 1000, 5000, 1, wall_ms=lambda: 0
    )
    raft.effects()
    service.execute(Put("k", 1), lambda answer: None)
    service.propose()
    service.apply(2, [Entry(2, encode_request(Put("k", 2)))])
    return reached


def sessions() -> Counter[Probe]:
    machine, reached = Machine(), Counter[Probe]()
    machine.reach = lambda probe: reached.update((probe,))
    add = encode_request(Once(1, 1, Add("n", 1), 0))
    late = encode_request(Once(1, 2, Add("n", 1), 5000))
    machine.apply_all(1, [encode_request(OpenSession(1000, 0)), add, add, late])
    return reached


DIRECTED: dict[Callable[[], Counter[Probe]], set[Probe]] = {
    conflict_of_terms: {Probe.CONFLICT_OF_TERMS},
    configuration_taken_back: {Probe.CONFIGURATION_TAKEN_BACK, Probe.CONFLICTING_TAIL_CUT},
    snapshot_while_receiving: {Probe.SNAPSHOT_WHILE_RECEIVING},
    snapshot_outrun: {Probe.SNAPSHOT_OUTRUN},
    snapshot_replaced_log: {Probe.SNAPSHOT_REPLACED_LOG},
    write_overwritten: {Probe.WRITE_OVERWRITTEN},
    sessions: {Probe.DUPLICATE_ANSWERED, Probe.SESSION_EXPIRED},
}
ON_DISKS = {Probe.TORN_TAIL, Probe.SNAPSHOT_AND_LOG, Probe.SEVERAL_SEGMENTS, Probe.TWO_LEADERS}
"""Those that only whole nodes get into."""
BY_CHANCE = {*Probe} - ON_DISKS - set().union(*DIRECTED.values())


def test_what_is_declared_is_what_stands_in_the_code() -> None:
    named: Counter[str] = Counter()
    for package in (labrys.node, labrys.control):
        for path in Path(package.__path__[0]).rglob("*.py"):
            named.update(re.findall(r"\bProbe\.([A-Z]\w+)", path.read_text()))
    assert named == Counter(probe.name for probe in Probe)


@pytest.mark.parametrize("lead_there", DIRECTED, ids=lambda each: each.__name__)
def test_a_few_inputs_reach_it(lead_there: Callable[[], Counter[Probe]]) -> None:
    assert DIRECTED[lead_there] <= {*lead_there()}


def test_random_schedules_reach_the_others() -> None:
    reached: Counter[Probe] = Counter()
    for seed in range(150):
        reached += play(seed, 3 + 2 * (seed % 2)).probes
    assert not [probe.label for probe in BY_CHANCE - reached.keys()]


def test_whole_nodes_reach_those_of_disks() -> None:
    """Leaders that are cut off, and all nodes killed, on a disk that tears what was under way."""
    reached: set[str] = set()
    for seed in range(1, 11):
        reached |= _cut_off_and_killed(seed).keys()
    assert not [probe.label for probe in ON_DISKS if probe.label not in reached]


def _cut_off_and_killed(seed: int) -> dict[str, int]:
    options = {"snapshot-entries": 50, "segment-kib": 1}
    spec = resolve({"env": "sim", "nodes": 3, "seed": seed, "system_options": options})
    stage = SimStage(spec, lambda line: None)
    system, network, sleep = stage.system, stage._sim.network, stage.sleep
    with stage.entered():
        system.start_all()
        assert system.await_healthy(30.0, give_up=lambda: False)
        for _ in range(60):
            assert system.write_error("n1") is None
        (leader,) = system.leaders()
        others = frozenset(THREE) - {leader}
        network.grudge = {leader: others, **dict.fromkeys(others, frozenset({leader}))}
        sleep(1.0)
        network.grudge = {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(writer, "SYNC_NS", (50 * MS_NS, 90 * MS_NS))
            stage.world.spawn(partial(system.write_error, "n1"))
            sleep(0.03)  # all disks are at it
        for node in THREE:
            system.kill(node)
        system.start_all()
        assert system.await_healthy(30.0, give_up=lambda: False)
        stage.env.destroy()
    return stage.probes()


def test_a_node_in_production_heeds_none() -> None:
    raft = Raft(Config("n1"), restored(THREE, HardState(2), []), random.Random(0), 0)
    raft.step("n2", AppendRequest(1, 0, 0, (), 0, 1), 1)
    assert raft.effects().messages
