"""Swarm testing: a seed draws the configuration of its test as well.

One configuration, however long it is tried, keeps missing what only another one brings about: a
test of all faults at once hardly ever sees a long run of one of them. So each seed leaves some
faults out, and draws the size of the cluster, the rhythm, the load and the snapshots (Groce et al.,
Swarm Testing, 2012). What somebody has asked for stays as it is.
"""

import random
from collections.abc import Collection
from typing import Any, Final

import msgspec

from labrys.control.nemesis.nemesis import PACKAGES, obstacle
from labrys.control.spec import Spec, resolve, stream

NODES: Final = (3, 3, 5, 5, 7)
KEPT: Final = 0.4
"""How often a kind of fault takes part."""
INTERVAL_S: Final = (0.4, 5.0)
QUIET: Final = (0.0, 1.5)
"""The quiet, as a part of the interval."""
RATE: Final = (20.0, 400.0)
CONCURRENCY: Final = (5, 10, 20)
OPS_PER_KEY: Final = (20, 150, 400)
SNAPSHOT_ENTRIES: Final = (None, 20, 100, 1000)
"""None: no snapshot in a short run."""


def vary(spec: Spec, seed: int, asked_for: Collection[str]) -> Spec:
    """Return the test of one seed; the fields `asked_for` stay, but of faults some are left out."""
    rng = stream(seed, "swarm")
    drawn: dict[str, Any] = {
        "nodes": rng.choice(NODES),
        "fault_interval": _between(rng, INTERVAL_S),
        "rate": _between(rng, RATE),
        "concurrency": rng.choice(CONCURRENCY),
        "workload_options": {"ops_per_key": rng.choice(OPS_PER_KEY)},
    }
    drawn["fault_quiet"] = round(drawn["fault_interval"] * rng.uniform(*QUIET), 2)
    entries = rng.choice(SNAPSHOT_ENTRIES)
    drawn["system_options"] = {"snapshot-entries": entries} if entries else {}
    faults = spec.faults or [kind for kind in PACKAGES if obstacle(kind, "sim") is None]
    taking_part = [kind for kind in faults if rng.random() < KEPT] or [rng.choice(list(faults))]
    at_once = rng.randint(1, min(3, len(taking_part)))
    fields = msgspec.to_builtins(spec)
    fields |= {name: value for name, value in drawn.items() if name not in asked_for}
    if not spec.fault_plan:
        fields["faults"] = (
            {kind: faults[kind] for kind in taking_part}
            if isinstance(faults, dict)
            else taking_part
        )
        # A weight means nothing to those that always strike.
        if "faults_at_once" not in asked_for and not isinstance(faults, dict):
            fields["faults_at_once"] = at_once
    return resolve({**fields, "seed": seed})


def _between(rng: random.Random, bounds: tuple[float, float]) -> float:
    """Draw a number of any size between the bounds, small ones as often as great ones."""
    low, high = bounds
    return float(f"{low * (high / low) ** rng.random():.2g}")
