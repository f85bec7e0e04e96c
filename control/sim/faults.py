"""Faults in the simulation: the same plans, schedules and evidence as in the real environments.

Only what is done to a node differs, so each is its real kind with another way to apply, undo and
observe. Kinds that go through the system alone (leadership, membership) are the very same.
"""

from collections.abc import Mapping
from typing import Final

from labrys.control.nemesis.leadership import Leadership
from labrys.control.nemesis.membership import Membership
from labrys.control.nemesis.package import FaultPackage
from labrys.control.sim.clock_faults import SimClock
from labrys.control.sim.corrupt_fault import SimCorrupt
from labrys.control.sim.disk_faults import SimDiskFault, SimPower
from labrys.control.sim.network_faults import (
    SimBandwidth,
    SimDelay,
    SimFlap,
    SimLoss,
    SimPartition,
    SimReset,
)
from labrys.control.sim.process_faults import (
    SimFreeze,
    SimKill,
    SimOom,
    SimPause,
    SimSlowCpu,
    SimStorm,
)

SIM_PACKAGES: Final[Mapping[str, type[FaultPackage]]] = {
    package.kind: package
    for package in (
        SimPartition,
        SimFlap,
        SimReset,
        SimLoss,
        SimDelay,
        SimBandwidth,
        SimKill,
        SimStorm,
        SimPause,
        SimSlowCpu,
        SimOom,
        SimFreeze,
        SimClock,
        SimDiskFault,
        SimPower,
        SimCorrupt,
        Leadership,
        Membership,
    )
}
"""The kinds of faults that can be simulated."""
