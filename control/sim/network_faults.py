"""Faults of the network in the simulation: see the kinds of the same names."""

from random import Random
from typing import Any

from labrys.control.nemesis import grudge as grudges
from labrys.control.nemesis.bandwidth import Bandwidth
from labrys.control.nemesis.delay import Delay
from labrys.control.nemesis.flap import Flap
from labrys.control.nemesis.loss import Loss
from labrys.control.nemesis.package import FaultPackage, Outcome, Planned
from labrys.control.nemesis.partition import Partition
from labrys.control.nemesis.reset import Reset
from labrys.control.sim.environment import simulated
from labrys.control.sim.line import Line
from labrys.control.sim.network import Counts, Network
from labrys.control.sim.world import MS_NS, SECOND_NS


def _network(package: FaultPackage) -> Network:
    return simulated(package.env).network


def _told(nodes: tuple[str, ...], done: str, counts: Counts) -> Outcome:
    """What an undo saw: the packets that did not arrive, by node and sender."""
    return Outcome(
        done=dict.fromkeys(nodes, done),
        observed={
            node: {
                "packets": sum(counts[node].values()),
                "from": dict(sorted(counts[node].items())),
            }
            for node in nodes
            if node in counts
        },
        bit=bool(counts),
    )


class SimPartition(Partition):
    """Lets nothing arrive from those that a node holds a grudge against."""

    mechanism = "packets that do not arrive"
    cure_word = "letting them arrive"

    def apply(self, planned: Planned) -> Outcome:
        """See `Partition`."""
        network, grudge = _network(self), grudges.from_json(planned.plan["grudge"])
        network.cut_counts.clear()
        network.grudge = grudge
        return Outcome(
            done={node: f"drops {', '.join(sorted(drops))}" for node, drops in grudge.items()}
        )

    def undo(self) -> Outcome:
        """See `Partition`."""
        network = _network(self)
        outcome = _told(self.env.nodes, "hears everybody", network.cut_counts)
        network.grudge = {}
        network.cut_counts.clear()
        return outcome

    def set_up(self) -> None:
        """Nothing to prepare."""
        self.backends = dict.fromkeys(self.env.nodes, "simulation")

    def tear_down(self) -> None:
        """Nothing to put in order."""


class SimLoss(Loss):
    """Lets a part of the packets arrive only when they were sent again."""

    mechanism = "packets that are sent again"
    cure_word = "losing no more"

    def apply(self, planned: Planned) -> Outcome:
        """See `Loss`."""
        network, percent = _network(self), planned.plan["percent"]
        network.loss_counts.clear()
        network.loss = dict.fromkeys(planned.targets, percent / 100)
        return Outcome(done=dict.fromkeys(planned.targets, f"loses {percent:g} %"))

    def undo(self) -> Outcome:
        """See `Loss`."""
        network = _network(self)
        outcome = _told(self.env.nodes, "loses nothing", network.loss_counts)
        network.loss = {}
        network.loss_counts.clear()
        return outcome

    def set_up(self) -> None:
        """Nothing to prepare."""

    def tear_down(self) -> None:
        """Nothing to put in order."""


class SimDelay(Delay):
    """Lets packets arrive later. They stay in order, as TCP sees to it whatever packets do."""

    mechanism = "packets that arrive later"
    cure_word = "holding none back"

    def apply(self, planned: Planned) -> Outcome:
        """See `Delay`."""
        network, plan = _network(self), planned.plan
        network.held.clear()
        network.delay = dict.fromkeys(
            planned.targets, (round(plan["delay_ms"] * MS_NS), round(plan["jitter_ms"] * MS_NS))
        )
        told = f"hears {plan['delay_ms']:g} ms late"
        return Outcome(done=dict.fromkeys(planned.targets, told))

    def undo(self) -> Outcome:
        """See `Delay`."""
        network = _network(self)
        observed = {
            node: {
                "packets": count,
                "mean_ms": round(held_ns / count / MS_NS, 3),
                "asked_ms": round(network.delay[node][0] / MS_NS, 3),
            }
            for node, (count, held_ns) in sorted(network.held.items())
            if node in network.delay
        }
        network.delay = {}
        network.held.clear()
        return Outcome(
            done=dict.fromkeys(self.env.nodes, "hears at once"),
            observed=observed,
            bit=any(facts["mean_ms"] >= facts["asked_ms"] / 2 for facts in observed.values()),
        )

    def set_up(self) -> None:
        """Nothing to prepare."""

    def tear_down(self) -> None:
        """Nothing to put in order."""


class SimReset(Reset):
    """Breaks all connections between the targets and their peers."""

    mechanism = "connections that break"

    def apply(self, planned: Planned) -> Outcome:
        """See `Reset`."""
        died = {node: _network(self).reset(node) for node in planned.targets}
        observed = {node: {"connections": by} for node, by in died.items() if by}
        return Outcome(
            done={node: f"lost {sum(by.values())} connections" for node, by in died.items()},
            observed=observed,
            bit=bool(observed),
        )

    def set_up(self) -> None:
        """Nothing to prepare."""


class Flapper:
    """Lets the links to one node come and go, at the moments of the real one."""

    def __init__(self, network: Network, node: str, mean_ms: float, seed: str) -> None:
        self._network, self._node = network, node
        self._mean_ms = mean_ms
        self._rng = Random(seed)
        self._has_ended = False
        self.cuts = 0
        self._cut_ns = 0
        self._begun_ns = 0
        self._turn()

    def end(self) -> dict[str, Any]:
        """Let the links stand; tells how often and how long they were cut."""
        self._has_ended = True
        if self._node in self._network.flapped:
            self._toggle()
        return {"cuts": self.cuts, "cut_s": round(self._cut_ns / SECOND_NS, 3)}

    def _turn(self) -> None:
        if not self._has_ended:
            self._toggle()
            world = self._network.world
            due_ns = world.now_ns + round(self._rng.uniform(0.5, 1.5) * self._mean_ms * MS_NS)
            world.call_at(due_ns, self._turn)

    def _toggle(self) -> None:
        flapped, now_ns = self._network.flapped, self._network.world.now_ns
        if self._node in flapped:
            flapped.discard(self._node)
            self._cut_ns += now_ns - self._begun_ns
        else:
            flapped.add(self._node)
            self.cuts += 1
            self._begun_ns = now_ns


class SimFlap(Flap):
    """Cuts the links from all peers to the targets, for moments."""

    mechanism = "packets that do not arrive, by turns"
    cure_word = "letting them arrive"

    def apply(self, planned: Planned) -> Outcome:
        """See `Flap`."""
        network, plan = _network(self), planned.plan
        self._calm_down()
        self._flappers = {
            node: Flapper(network, node, plan["flap_ms"], f"{plan['seed']}/{node}")
            for node in planned.targets
        }
        told = f"hears peers for {plan['flap_ms']:g} ms and not, by turns"
        return Outcome(done=dict.fromkeys(planned.targets, told))

    def undo(self) -> Outcome:
        """See `Flap`."""
        observed = self._calm_down()
        return Outcome(
            done=dict.fromkeys(self.env.nodes, "hears everybody"),
            observed=observed,
            bit=any(facts["packets"] for facts in observed.values()),
        )

    def set_up(self) -> None:
        """Nothing to prepare."""
        self._flappers = {}

    def tear_down(self) -> None:
        """Let all links stand."""
        self._calm_down()

    def _calm_down(self) -> dict[str, Any]:
        counts = _network(self).flap_counts
        facts = {
            node: flapper.end() | {"packets": sum(counts.get(node, {}).values())}
            for node, flapper in self._flappers.items()
        }
        self._flappers = {}
        counts.clear()
        return facts


class SimBandwidth(Bandwidth):
    """Gives the targets a slow line from their peers."""

    mechanism = "packets that wait for a line"
    cure_word = "a fast line"

    def apply(self, planned: Planned) -> Outcome:
        """See `Bandwidth`."""
        network, plan = _network(self), planned.plan
        network.lines = {node: Line(plan["kbit_s"] * 1000) for node in planned.targets}
        return Outcome(done=dict.fromkeys(planned.targets, self.hurt_word(plan)))

    def undo(self) -> Outcome:
        """See `Bandwidth`."""
        network = _network(self)
        observed = {node: line.facts() for node, line in network.lines.items() if line.packets}
        network.lines = {}
        return Outcome(
            done=dict.fromkeys(self.env.nodes, self.healed_word),
            observed=observed,
            bit=any(self.bites(facts) for facts in observed.values()),
        )

    def set_up(self) -> None:
        """Nothing to prepare."""

    def tear_down(self) -> None:
        """Give everybody a fast line."""
        _network(self).lines = {}
