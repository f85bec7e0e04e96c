"""The partition package against an environment that only listens."""

import re

import pytest
from tests.control.nemesis_fakes import FIVE, FakeEnvironment, FakeSystem

from labrys.control.environments.base import Output
from labrys.control.errors import ClusterError, MachineError, UsageError
from labrys.control.nemesis import grudge as grudges
from labrys.control.nemesis.package import Planned
from labrys.control.nemesis.partition import GROUPS, SHAPES, Partition, PartitionOptions


def partition(env: FakeEnvironment, system: FakeSystem | None = None, *shapes: str) -> Partition:
    options = PartitionOptions(shapes=shapes) if shapes else PartitionOptions()
    return Partition(env, system or FakeSystem(), options)


def isolating(node: str) -> Planned:
    grudge = grudges.isolate(FIVE, node)
    return Planned(targets=(node,), plan={"shape": "x", "grudge": grudges.to_json(grudge)})


def rules(script: str) -> list[str]:
    return re.findall(r"^-A .*$", script, re.MULTILINE)


def test_each_node_drops_the_peers_of_its_grudge_by_source_address() -> None:
    env = FakeEnvironment()
    outcome = partition(env).apply(isolating("n2"))
    assert rules(env.scripts["n1"][-1]) == ["-A LABRYS -s 10.213.0.2 -j DROP"]
    assert rules(env.scripts["n2"][-1]) == [
        f"-A LABRYS -s 10.213.0.{i} -j DROP" for i in (1, 3, 4, 5)
    ]
    assert outcome.done["n1"] == "drops n2"
    assert outcome.bit is None, "nobody can know yet"


def test_chain_is_replaced_as_a_whole_and_only_that_chain() -> None:
    env = FakeEnvironment()
    partition(env).apply(isolating("n2"))
    script = env.scripts["n1"][-1]
    assert "iptables-restore -w 5 --noflush" in script
    assert "*filter\n:LABRYS - [0:0]\n-A LABRYS" in script
    assert "REJECT" not in script
    assert "-t nat" not in script


def test_node_without_a_grudge_gets_an_empty_chain() -> None:
    env = FakeEnvironment()
    planned = Planned(targets=("n1",), plan={"shape": "x", "grudge": {"n1": ["n2"]}})
    partition(env).apply(planned)
    assert all(len(env.scripts[node]) == 1 for node in FIVE)
    assert rules(env.scripts["n2"][-1]) == []


def test_heal_is_the_empty_grudge_on_all_nodes() -> None:
    env = FakeEnvironment()
    cut = partition(env)
    cut.apply(isolating("n2"))
    for _ in range(2):
        outcome = cut.undo()
        assert not outcome.errors
        assert [rules(env.scripts[node][-1]) for node in FIVE] == [[]] * 5


def test_dropped_packets_are_evidence() -> None:
    env = FakeEnvironment()
    env.answers["n1"] = Output(
        0,
        "-N LABRYS\n"
        "-A LABRYS -s 10.213.0.2/32 -c 12 720 -j DROP\n"
        "-A LABRYS -s 10.213.0.3/32 -c 0 0 -j DROP\n",
        "",
    )
    outcome = partition(env).undo()
    assert outcome.observed == {"n1": {"packets": 12, "from": {"n2": 12, "n3": 0}}}
    assert outcome.bit is True


def test_rules_that_dropped_nothing_are_no_evidence() -> None:
    env = FakeEnvironment()
    env.answers["n1"] = Output(0, "-A LABRYS -s 10.213.0.2/32 -c 0 0 -j DROP\n", "")
    outcome = partition(env).undo()
    assert outcome.observed == {"n1": {"packets": 0, "from": {"n2": 0}}}
    assert outcome.bit is False


def test_failure_on_one_node_does_not_stop_the_others() -> None:
    env = FakeEnvironment()
    env.broken.add("n4")
    cut = partition(env)
    for outcome in (cut.apply(isolating("n2")), cut.undo()):
        assert outcome.errors == {"n4": "no answer"}
    assert all(len(env.scripts[node]) == 2 for node in FIVE if node != "n4")


def test_held_lock_is_told_with_node_and_advice() -> None:
    env = FakeEnvironment()
    env.answers["n3"] = Output(
        4, "", "Another app is currently holding the xtables lock; waited 5s"
    )
    outcome = partition(env).apply(isolating("n2"))
    assert list(outcome.errors) == ["n3"]
    assert "holds the iptables lock; waited 5 s. Is another rig running?" in outcome.errors["n3"]


def test_refusal_at_set_up_is_the_machine_that_cannot() -> None:
    env = FakeEnvironment()
    env.answers["n1"] = Output(127, "", "sh: iptables: not found")
    with pytest.raises(MachineError, match=r"n1: partitions need iptables .*not found"):
        partition(env).set_up()

    class Unprivileged(FakeEnvironment):
        def run(self, node: str, script: str, *, timeout_s: float = 10.0) -> Output:
            if script == "iptables -V":
                return Output(0, "iptables v1.8.9 (nf_tables)\n", "")
            return Output(4, "", "Permission denied (you must be root)")

    with pytest.raises(MachineError, match=r"you must be root.*NET_ADMIN"):
        partition(Unprivileged()).set_up()


def test_set_up_heals_and_notes_the_backend() -> None:
    env = FakeEnvironment()
    env.answers = {node: Output(0, "iptables v1.8.9 (nf_tables)\n", "") for node in FIVE}
    cut = partition(env)
    cut.set_up()
    assert [rules(env.scripts[node][-1]) for node in FIVE] == [[]] * 5
    planned = cut.settle(cut.plan(0, "seed"))
    assert planned.plan["mechanism"] == "iptables v1.8.9 (nf_tables)"


def test_tear_down_that_fails_is_told() -> None:
    env = FakeEnvironment()
    env.answers["n5"] = Output(1, "", "Device or resource busy")
    with pytest.raises(ClusterError, match=r"n5: removing the iptables chain LABRYS failed"):
        partition(env).tear_down()


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_can_be_planned_and_settled(shape: str) -> None:
    cut = partition(FakeEnvironment(), None, shape)
    planned = cut.settle(cut.plan(0, "seed"))
    assert planned.plan["shape"] == shape
    assert planned.plan["grudge"]
    assert planned.targets
    if "leader" in shape:
        assert planned.targets == ("n3",)
        assert planned.plan["nodes"] == ["n3"]


def test_isolating_a_leader_that_nobody_knows_takes_another_node_and_says_so() -> None:
    system = FakeSystem()
    system.leading = ()
    cut = partition(FakeEnvironment(), system, "isolate-leader")
    planned = cut.settle(cut.plan(0, "seed"))
    assert "no leader answered" in planned.plan["note"]
    assert planned.targets == (planned.plan["fallback"],)


def test_system_that_fails_to_name_a_leader_does_not_stop_the_nemesis() -> None:
    class Mute(FakeSystem):
        def leaders(self) -> tuple[str, ...]:
            raise OSError("connection refused")

    cut = partition(FakeEnvironment(), Mute(), "isolate-leader")
    assert "no leader answered" in cut.settle(cut.plan(0, "seed")).plan["note"]


def test_six_turns_play_every_group_of_shapes() -> None:
    cut = partition(FakeEnvironment())
    for seed in map(str, range(50)):
        played = {cut.plan(turn, seed)["shape"] for turn in range(6)}
        assert all(played & set(group) for group in GROUPS), seed


def test_many_turns_play_every_shape() -> None:
    cut = partition(FakeEnvironment())
    assert {cut.plan(turn, "seed")["shape"] for turn in range(200)} == set(SHAPES)


def test_plans_are_a_function_of_the_seed() -> None:
    one, other = partition(FakeEnvironment()), partition(FakeEnvironment())
    plans = [one.plan(turn, "seed") for turn in range(20)]
    assert plans == [other.plan(turn, "seed") for turn in range(20)]
    assert plans != [other.plan(turn, "another seed") for turn in range(20)]


def test_only_the_wanted_shapes_are_played() -> None:
    cut = partition(FakeEnvironment(), None, "bridge", "one-way")
    assert {cut.plan(turn, "seed")["shape"] for turn in range(20)} == {"bridge", "one-way"}


def test_single_node_cannot_be_partitioned() -> None:
    with pytest.raises(UsageError, match="at least 2 nodes"):
        partition(FakeEnvironment(("n1",)))
