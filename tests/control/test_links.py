"""What is done to links, and hand-overs: as data, and with real packets in network namespaces."""

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
from labrys.control.nemesis.bandwidth import Bandwidth, BandwidthOptions
from labrys.control.nemesis.delay import Delay, DelayOptions
from labrys.control.nemesis.flap import Flap, FlapOptions
from labrys.control.nemesis.leadership import Leadership
from labrys.control.nemesis.loss import Loss, LossOptions
from labrys.control.nemesis.nemesis import parse_faults
from labrys.control.nemesis.package import Options, Planned
from labrys.control.process import State

_REASON = netns.probe()


def faults() -> list[AimedFault]:
    env, system = FakeEnvironment(), FakeSystem()
    return [
        Delay(env, system, DelayOptions()),
        Loss(env, system, LossOptions()),
        Bandwidth(env, system, BandwidthOptions()),
        Flap(env, system, FlapOptions()),
    ]


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


def test_undo_goes_to_all_nodes_even_if_one_does_not_answer() -> None:
    for fault in faults():
        assert isinstance(fault.env, FakeEnvironment)
        fault.env.broken.add("n4")
        outcome = fault.undo()
        assert set(outcome.errors) == {"n4"}
        assert set(outcome.done) == {*FIVE} - {"n4"}
        assert outcome.bit is False


def test_links_flap_by_the_jump_to_a_chain_that_is_cut_at_first() -> None:
    env = FakeEnvironment()
    fault = Flap(env, FakeSystem(), FlapOptions(flap_ms=(250,)))
    outcome = fault.apply(fault.settle(fault.plan(0, "seed") | {"nodes": ["n2"]}))
    assert outcome.done == {"n2": "hears peers for 250 ms and not, by turns"}
    scripts = "\n".join(env.scripts["n2"])
    assert "-A LABRYS-FLAP -s 10.213.0.1 -j DROP" in scripts
    assert "flapper.py 'iptables -w 5 -t filter' INPUT LABRYS-FLAP 250 seed/0/n2 " in scripts
    assert all(not env.scripts[node] for node in FIVE if node != "n2")


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
        ({"bandwidth": {"kbit_s": [0]}}, "kbit_s: name at least one, each from 1 to 1000000"),
        ({"bandwidth": {"kbit_s": []}}, "kbit_s: name at least one"),
        ({"flap": {"flap_ms": [1]}}, "flap_ms: name at least one, each from 20 to 60000"),
        ({"flap": {"flap_ms": []}}, "flap_ms: name at least one"),
    ],
)
def test_options_that_cannot_be_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_faults(given, FIVE)
    assert told in str(refused.value)


def test_one_node_has_no_links() -> None:
    for kind, options in (
        (Delay, DelayOptions()),
        (Loss, LossOptions()),
        (Bandwidth, BandwidthOptions()),
        (Flap, FlapOptions()),
    ):
        with pytest.raises(UsageError, match="needs at least 2 nodes, not 1"):
            kind(FakeEnvironment(("n1",)), FakeSystem(("n1",)), options)  # type: ignore[arg-type]


_PRELUDE = f"""
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import json, threading
from labrys.control import process
from labrys.control.nemesis.bandwidth import Bandwidth, BandwidthOptions
from labrys.control.nemesis.delay import Delay, DelayOptions
from labrys.control.nemesis.flap import Flap, FlapOptions
from labrys.control.nemesis.loss import Loss, LossOptions
from labrys.control.nemesis.package import Planned
from labrys.control.nemesis.partition import Partition, PartitionOptions
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
        [*(process.state(env, node, name) for name in ("delayer", "line", "flapper")),
         env.run(node, "iptables -S; iptables -t mangle -S").out.count("LABRYS")]
        for node in env.nodes
    ]

def faults():
    return (Delay(env, system, DelayOptions()), Loss(env, system, LossOptions()),
            Bandwidth(env, system, BandwidthOptions()), Flap(env, system, FlapOptions()))

before = left()
more = {"percent": 20.0, "kbit_s": 64, "flap_ms": 100}
for fault in faults():
    fault.set_up()
    assert fault.apply(Planned(("n1", "n2"), plan(50) | more)).errors == {}
during = left()
for fault in faults():
    fault.set_up()
healed = len(sent("n3", "n1"))
for _ in range(2):
    for fault in faults():
        fault.tear_down()
say(json.dumps([during[0][:3], healed, len(sent("n3", "n2")), left() == before]))
"""
        assert inside(tmp_path, code) == [[["running"] * 3, 20, 20, True]]

    def test_partition_cuts_off_a_node_that_is_slow_to_hear_as_well(self, tmp_path: Path) -> None:
        """What a delayer lets pass skips the other rules at its place, so it has its own."""
        code = """
cut = Partition(env, system, PartitionOptions())
others = Delay(env, system, DelayOptions()), Bandwidth(env, system, BandwidthOptions())
for fault in (cut, *others):
    fault.set_up()
for fault in others:
    fault.apply(Planned(("n1",), plan(20) | {"kbit_s": 64}))
cut.apply(Planned(("n1",), {"grudge": {"n1": ["n2"]}}))
came = len(sent("n2", "n1"))
say(json.dumps([came, cut.undo().observed["n1"]["packets"], *(f.undo().bit for f in others)]))
say(json.dumps(len(sent("n2", "n1"))))
"""
        assert inside(tmp_path, code) == [[0, 20, True, True], 20]

    def test_slow_line_holds_packets_and_drops_what_waits_for_too_long(
        self, tmp_path: Path
    ) -> None:
        code = """
fault = Bandwidth(env, system, BandwidthOptions())
fault.set_up()
for kbit_s in (64, 1):
    applied = fault.apply(Planned(("n1",), {"kbit_s": kbit_s}))
    began = time.monotonic()
    slow = len(sent("n2", "n1", count=60, gap_s=0))
    took_s = time.monotonic() - began
    fast = [len(sent(*link)) for link in (("n1", "n2"), ("n3", "n2"), ("controller", "n1"))]
    undone = fault.undo()
    say(json.dumps([applied.done, slow, took_s, fast, undone.bit, undone.observed,
                    applied.errors | undone.errors]))
healed = [ms for _, ms in sent("n2", "n1", count=60, gap_s=0)]
say(json.dumps([len(healed), fault.undo().bit]))
"""
        narrow, narrowest, healed = inside(tmp_path, code)
        done, came, took_s, fast, bit, observed, errors = narrow
        assert (done, came, fast, bit, errors) == (
            {"n1": "hears at 64 kbit/s"}, 60, [20, 20, 20], True, {}
        )  # fmt: skip
        assert took_s > 0.28, "60 packets of 38 bytes and more, at 8 bytes a millisecond"
        line = observed["n1"]
        assert (line["packets"], line["dropped"], line["queued"] > 0) == (60, 0, True)
        assert line["kbit_s"] <= 64
        assert narrowest[1] < 10, "a second is for two packets"
        assert narrowest[5]["n1"]["dropped"] > 30
        assert narrowest[3] == [20, 20, 20]
        assert healed == [60, False]

    def test_links_flap_and_are_whole_at_the_end(self, tmp_path: Path) -> None:
        code = """
fault = Flap(env, system, FlapOptions())
fault.set_up()
applied = fault.apply(Planned(("n1",), {"flap_ms": 50, "seed": "x"}))
tried = came = 0
deadline = time.monotonic() + 20
cuts = set()
while (tried == came or not came or len(cuts) < 4) and time.monotonic() < deadline:
    tried += 1
    env.run("n1", "true")
    ends["n2"].sendto(b"x", (env.address("n1"), 9001))
    ends["n1"].settimeout(0.02)
    try:
        came += len(ends["n1"].recv(99))
    except TimeoutError:
        pass
    cuts.add(json.loads(Path(env.home("n1"), "flapper.json").read_text())["cuts"])
ends["n1"].settimeout(2)
others = [len(sent(*link)) for link in (("n1", "n2"), ("n3", "n2"), ("controller", "n1"))]
undone = fault.undo()
jumps = env.run("n1", "iptables -S INPUT").out.count("-j LABRYS-FLAP")
say(json.dumps([applied.errors | undone.errors, 0 < came < tried, len(cuts) >= 4, others,
                undone.bit, undone.observed["n1"]["packets"] == tried - came, jumps,
                len(sent("n2", "n1")), fault.undo().bit]))
"""
        assert inside(tmp_path, code) == [[{}, True, True, [20, 20, 20], True, True, 1, 20, False]]

    def test_undo_mends_links_whose_flapper_has_died(self, tmp_path: Path) -> None:
        code = """
fault = Flap(env, system, FlapOptions())
fault.set_up()
fault.apply(Planned(("n1",), {"flap_ms": 60_000, "seed": "x"}))
process.kill(env, "n1", "flapper")
cut = len(sent("n2", "n1"))
say(json.dumps([cut, fault.undo().errors, len(sent("n2", "n1"))]))
"""
        assert inside(tmp_path, code) == [[0, {}, 20]]

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


def test_leadership_goes_to_a_member_that_is_up_and_whole_if_there_is_one() -> None:
    system = FakeSystem()
    fault = Leadership(FakeEnvironment(), system, Options())
    system.states["n1"], system.blank = State.DEAD, {"n2"}
    system.voters = ("n1", "n2", "n3", "n5")
    chosen = {fault.settle(fault.plan(turn, "seed")).targets for turn in range(20)}
    assert chosen == {("n5",)}
    system.states["n5"] = State.DEAD
    chosen = {fault.settle(fault.plan(turn, "seed")).targets for turn in range(20)}
    assert chosen == {("n1",), ("n2",), ("n4",), ("n5",)}


def test_every_draw_of_a_delay_has_its_own_stream() -> None:
    """The delayer's choices are a function of the plan: a replay holds packets back alike."""
    fault = Delay(FakeEnvironment(), FakeSystem(), DelayOptions())
    seeds = [fault.plan(turn, "seed")["seed"] for turn in range(5)]
    assert len(set(seeds)) == 5
    streams = [random.Random(seed).random() for seed in seeds]
    assert len(set(streams)) == 5
