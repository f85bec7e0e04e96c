"""Delay, loss, resets and hand-overs: as data, and with real packets in network namespaces."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tests.control.inside import run_inside
from tests.control.nemesis_fakes import FIVE, FakeEnvironment, FakeSystem

from labrys.control.environments import netns
from labrys.control.errors import UsageError
from labrys.control.nemesis.aimed import AimedFault
from labrys.control.nemesis.delay import Delay, DelayOptions
from labrys.control.nemesis.leadership import Leadership
from labrys.control.nemesis.loss import Loss, LossOptions
from labrys.control.nemesis.nemesis import parse_faults
from labrys.control.nemesis.package import Options, Planned

_REASON = netns.probe()


def faults() -> list[AimedFault]:
    env, system = FakeEnvironment(), FakeSystem()
    return [Delay(env, system, DelayOptions()), Loss(env, system, LossOptions())]


def test_plans_come_from_the_seed_alone_and_draw_every_intensity() -> None:
    for fault, again in zip(faults(), faults(), strict=True):
        plans = [fault.plan(turn, "seed") for turn in range(40)]
        assert plans == [again.plan(turn, "seed") for turn in range(40)]
        assert plans != [fault.plan(turn, "other") for turn in range(40)]
        name = "delay_ms" if isinstance(fault, Delay) else "percent"
        assert len({plan[name] for plan in plans}) == 3
        assert {plan["targets"] for plan in plans} >= {"leader", "one", "minority"}


def test_loss_is_a_rule_for_each_peer_in_the_nodes_that_are_hurt_and_in_no_other() -> None:
    env = FakeEnvironment()
    loss = Loss(env, FakeSystem(), LossOptions())
    outcome = loss.apply(Planned(("n2",), {"percent": 20.0}))
    assert outcome.done == {"n2": "loses 20 %"}
    (script,) = env.scripts["n2"]
    lose = "-m statistic --mode random --probability 0.20000000 -j DROP"
    assert f"-A LABRYS-LOSS -s 10.213.0.1 {lose}" in script.splitlines()
    assert "-s 10.213.0.2 " not in script, "what a node sends itself does not travel"
    assert all(not env.scripts[node] for node in FIVE if node != "n2")


def test_undo_of_a_loss_goes_to_all_nodes_even_if_one_does_not_answer() -> None:
    env = FakeEnvironment()
    env.broken.add("n4")
    outcome = Loss(env, FakeSystem(), LossOptions()).undo()
    assert set(outcome.errors) == {"n4"}
    assert set(outcome.done) == {*FIVE} - {"n4"}
    assert outcome.bit is False


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"loss": {"percent": []}}, "percent: name at least one"),
        ({"loss": {"percent": [0]}}, "each above 0 and at most 100"),
        ({"loss": {"percent": [101]}}, "each above 0 and at most 100"),
        ({"loss": {"targets": ["nobody"]}}, "unknown target 'nobody'"),
        ({"delay": {"delay_ms": [0]}}, "delay_ms: name at least one, each above 0"),
        ({"delay": {"jitter": 1.5}}, "jitter: a part of the delay, from 0 to 1, not 1.5"),
        ({"delay": {"jiter": 1}}, "did you mean 'jitter'?"),
    ],
)
def test_options_that_cannot_be_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_faults(given, FIVE)
    assert told in str(refused.value)


def test_one_node_has_no_links() -> None:
    for kind, options in ((Delay, DelayOptions()), (Loss, LossOptions())):
        with pytest.raises(UsageError, match="needs at least 2 nodes, not 1"):
            kind(FakeEnvironment(("n1",)), FakeSystem(("n1",)), options)  # type: ignore[arg-type]


_PRELUDE = f"""
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import json, threading
from labrys.control import process
from labrys.control.nemesis.delay import Delay, DelayOptions
from labrys.control.nemesis.leadership import Leadership
from labrys.control.nemesis.loss import Loss, LossOptions
from labrys.control.nemesis.package import Planned
from labrys.control.process import State
from tests.control.probes import Sleepers, within

env = environment(3)
env.provision()
system = Sleepers(env, leader="n3")

def udp_socket(address):
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    made.bind((address, 9001))
    made.settimeout(2)
    return made

ends = {{node: within(node, lambda: udp_socket(env.address(node))) for node in env.nodes}}
ends["controller"] = udp_socket("10.213.0.254")

def sent(source, target, count=20, gap_s=0.002):
    '''What came of so many datagrams: (number, how long it took in ms), in order of arrival.'''
    came = []
    def receive():
        try:
            while len(came) < count:
                number, at = json.loads(ends[target].recv(99))
                came.append((number, 1000 * (time.monotonic() - at)))
        except TimeoutError:
            pass
    receiver = threading.Thread(target=receive)
    receiver.start()
    for number in range(count):
        message = json.dumps([number, time.monotonic()]).encode()
        ends[source].sendto(message, (env.address(target), 9001))
        time.sleep(gap_s)
    receiver.join()
    return came

def plan(ms, jitter_ms=0, order="keep"):
    return {{"delay_ms": ms, "jitter_ms": jitter_ms, "order": order, "seed": "x"}}
"""


def inside(tmp_path: Path, code: str) -> list[Any]:
    return [json.loads(line) for line in run_inside(tmp_path, _PRELUDE + code).splitlines()]


@pytest.mark.netns
@pytest.mark.skipif(_REASON is not None, reason=str(_REASON))
class TestInNamespaces:
    """With real packets."""

    def test_delay_bites_on_its_way_in_and_nowhere_else_and_heals(self, tmp_path: Path) -> None:
        code = """
fault = Delay(env, system, DelayOptions())
fault.set_up()
applied = fault.apply(Planned(("n1",), plan(200)))
slow = [ms for _, ms in sent("n2", "n1")]
fast = [ms for link in (("n1", "n2"), ("n3", "n2"), ("controller", "n1")) for _, ms in sent(*link)]
undone = fault.undo()
healed = [ms for _, ms in sent("n2", "n1")]
say(json.dumps([
    applied.done, len(slow), min(slow) >= 200, sorted(fast)[len(fast) // 2] < 100,
    sorted(healed)[10] < 100, undone.bit, undone.observed["n1"]["packets"] >= 20,
    undone.observed["n1"]["mean_ms"] >= 200, list(undone.observed), applied.errors | undone.errors,
    fault.undo().bit,
]))
"""
        assert inside(tmp_path, code) == [
            [{"n1": "hears 200 ms late"}, 20, True, True, True, True, True, True, ["n1"], {}, False]
        ]

    def test_jitter_reorders_only_when_it_is_asked_to(self, tmp_path: Path) -> None:
        code = """
fault = Delay(env, system, DelayOptions())
fault.set_up()
for order in ("keep", "reorder"):
    fault.apply(Planned(("n1",), plan(60, 50, order)))
    numbers = [number for number, _ in sent("n2", "n1", count=60)]
    say(json.dumps([len(numbers), numbers == sorted(numbers)]))
    fault.undo()
"""
        assert inside(tmp_path, code) == [[60, True], [60, False]]

    def test_packets_pass_when_the_delayer_dies(self, tmp_path: Path) -> None:
        code = """
fault = Delay(env, system, DelayOptions())
fault.set_up()
fault.apply(Planned(("n1",), plan(500)))
process.kill(env, "n1", "delayer")
say(json.dumps([len(sent("n2", "n1")), fault.undo().errors]))
"""
        assert inside(tmp_path, code) == [[20, {}]]

    def test_set_up_and_tear_down_leave_nothing_of_a_rig_that_died(self, tmp_path: Path) -> None:
        code = """
def left():
    return [
        [process.state(env, node, "delayer"), env.run(node, "iptables -S").out.count("LABRYS")]
        for node in env.nodes
    ]

before = left()
for fault in (Delay(env, system, DelayOptions()), Loss(env, system, LossOptions())):
    fault.set_up()
    fault.apply(Planned(("n1", "n2"), plan(50) | {"percent": 20.0}))
during = left()
for fault in (Delay(env, system, DelayOptions()), Loss(env, system, LossOptions())):
    fault.set_up()
slowest = max(ms for _, ms in sent("n3", "n1"))
for _ in range(2):
    for fault in (Delay(env, system, DelayOptions()), Loss(env, system, LossOptions())):
        fault.tear_down()
say(json.dumps([during != before, len(sent("n3", "n2")), left() == before]))
"""
        assert inside(tmp_path, code) == [[True, 20, True]]

    def test_loss_takes_about_its_share_and_heals(self, tmp_path: Path) -> None:
        code = """
fault = Loss(env, system, LossOptions())
fault.set_up()
fault.apply(Planned(("n1",), {"percent": 30.0}))
came = len(sent("n2", "n1", count=1000, gap_s=0.0005))
others = len(sent("n1", "n2")), len(sent("controller", "n1"))
undone = fault.undo()
say(json.dumps([came, others, undone.observed["n1"]["from"]["n2"] == 1000 - came, undone.bit,
                len(sent("n2", "n1"))]))
"""
        ((came, others, is_told, bit, healed),) = inside(tmp_path, code)
        assert 700 - 100 < came < 700 + 100, "seven times the standard deviation"
        assert (others, is_told, bit, healed) == ([20, 20], True, True, 20)

    def test_resets_abort_connections_of_peers_and_spare_those_of_clients(
        self, tmp_path: Path
    ) -> None:
        code = """
from labrys.control.nemesis.aimed import AimedOptions
from labrys.control.nemesis.reset import Reset

servers = {node: within(node, lambda: socket.create_server((env.address(node), 9002)))
           for node in env.nodes}

def connected(node):
    make = lambda: socket.create_connection((env.address("n1"), 9002))
    ends = (make() if node is None else within(node, make)), servers["n1"].accept()[0]
    for end in ends:
        end.settimeout(1)
    return ends

def is_alive(ends):
    try:
        ends[0].send(b"x")
        return ends[1].recv(1) == b"x"
    except OSError:
        return False

fault = Reset(env, system, AimedOptions())
fault.set_up()
silent = fault.apply(Planned(("n1",), {})).bit
peers, client = [connected("n2"), connected("n3")], connected(None)
outcome = fault.apply(Planned(("n1",), {}))
say(json.dumps([
    silent, outcome.bit, outcome.observed, outcome.errors, list(map(is_alive, peers)),
    is_alive(client), is_alive(connected("n2")),
]))
"""
        died = {"n1": {"connections": {"n2": 1, "n3": 1}}}
        assert inside(tmp_path, code) == [[False, True, died, {}, [False, False], True, True]]


def test_leadership_goes_to_somebody_else_and_is_seen_to() -> None:
    system = FakeSystem()
    fault = Leadership(FakeEnvironment(), system, Options())
    successors = set()
    for turn in range(20):
        (leader,) = system.leading
        planned = fault.settle(fault.plan(turn, "seed"))
        outcome = fault.apply(planned)
        (successor,) = planned.targets
        assert successor != leader
        assert system.leading == (successor,)
        assert (outcome.bit, outcome.observed) == (
            True,
            {successor: {"before": leader, "after": successor}},
        )
        successors.add(successor)
    assert successors == {*FIVE}
    assert fault.undo().errors == {}


def test_leader_that_does_not_hand_over_was_not_hurt_and_nothing_went_wrong() -> None:
    system = FakeSystem()
    fault = Leadership(FakeEnvironment(), system, Options())
    planned = fault.settle(fault.plan(0, "seed"))
    system.refusing = {("transfer", planned.targets[0])}
    outcome = fault.apply(planned)
    assert (outcome.bit, outcome.errors) == (False, {})
    assert outcome.done[planned.targets[0]].startswith("does not lead: ")
    system.leading = ()
    assert fault.apply(fault.settle(fault.plan(0, "seed"))).bit is False


def test_every_draw_of_a_delay_has_its_own_stream() -> None:
    """The delayer's choices are a function of the plan: a replay holds packets back alike."""
    fault = Delay(FakeEnvironment(), FakeSystem(), DelayOptions())
    seeds = [fault.plan(turn, "seed")["seed"] for turn in range(5)]
    assert len(set(seeds)) == 5
    streams = [random.Random(seed).random() for seed in seeds]
    assert len(set(streams)) == 5
