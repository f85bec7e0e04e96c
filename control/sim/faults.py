"""Faults in the simulation: the same plans, schedules and evidence as in the real environments.

Only what is done to a node differs, so each is its real kind with another way to apply, undo and
observe. Kinds that go through the system alone (leadership, membership) are the very same.
"""

from collections.abc import Mapping
from typing import Final

from labrys.control.nemesis import grudge as grudges
from labrys.control.nemesis.delay import Delay
from labrys.control.nemesis.kill import Kill
from labrys.control.nemesis.leadership import Leadership
from labrys.control.nemesis.loss import Loss
from labrys.control.nemesis.membership import Membership
from labrys.control.nemesis.package import FaultPackage, Outcome, Planned
from labrys.control.nemesis.partition import Partition
from labrys.control.nemesis.pause import Pause
from labrys.control.nemesis.reset import Reset
from labrys.control.sim.clock_faults import SimClock
from labrys.control.sim.corrupt_fault import SimCorrupt
from labrys.control.sim.disk_faults import SimDiskFault, SimPower
from labrys.control.sim.environment import simulated
from labrys.control.sim.network import Counts, Network
from labrys.control.sim.world import MS_NS


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


class SimKill(Kill):
    """Ends the process, and with it what it had not flushed: as harsh as a power cut."""

    mechanism = "the process and what it did not flush are gone"


class SimPause(Pause):
    """Lets nothing happen in the process."""

    mechanism = "nothing in the process happens"
    cure_word = "letting it go on"


SIM_PACKAGES: Final[Mapping[str, type[FaultPackage]]] = {
    package.kind: package
    for package in (
        SimPartition,
        SimReset,
        SimLoss,
        SimDelay,
        SimKill,
        SimPause,
        SimClock,
        SimDiskFault,
        SimPower,
        SimCorrupt,
        Leadership,
        Membership,
    )
}
"""The kinds of faults that can be simulated."""
