"""Swarm testing: a seed draws the configuration of its test as well.

One configuration, however long it is tried, keeps missing what only another one brings about: a
test of all faults at once hardly ever sees a long run of one of them. So each seed leaves some
faults out, and draws the size of the cluster, the rhythm, the load, and what the system is told of
snapshots, batches and files (Groce et al., Swarm Testing, 2012). What somebody has asked for stays
as it is.
"""

import random
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import msgspec

from labrys.control.errors import UsageError
from labrys.control.nemesis.nemesis import PACKAGES, obstacle
from labrys.control.spec import Spec, resolve, stream
from labrys.workloads.registry import WORKLOADS

NODES: Final = (3, 3, 5, 5, 7)
TIME_LIMIT_S: Final = (10.0, 40.0)
KEPT: Final = 0.4
"""How often a kind of fault takes part."""
NARROWED: Final = 0.4
"""How often one that takes part, and has no options, is narrowed to some of its choices."""
FEW: Final = 3
"""To how many at most."""
AT_ONCE_MAX: Final = 3
INTERVAL_S: Final = (0.4, 5.0)
QUIET: Final = (0.0, 1.5)
"""The quiet, as a part of the interval."""
RATE: Final = (10.0, 400.0)
CONCURRENCY: Final = (5, 10, 20)
WORKLOAD_OPTIONS: Final[Mapping[str, tuple[Any, ...]]] = {
    "ops_per_key": (None, 20, 400),
    "threads_per_key": (None, None, 1, 2, 10),
    "values": (None, None, None, "small"),
    "consistency": (None, None, "lease"),
    "sessions": (None, None, True),
}
"""Of the workloads that have such an option. None: as the workload has it."""
SYSTEM_OPTIONS: Final[Mapping[str, tuple[int | None, ...]]] = {
    "snapshot-entries": (None, 20, 100, 1000),
    "append-entries": (None, None, 1, 5),
    "inflight-appends": (None, None, 1, 2),
    "chunk-kib": (None, 1),
    "segment-kib": (None, 2, 16),
}
"""None: as the system has it, which a short run never reaches."""
ATTEMPTS: Final = 50
"""How often is drawn what goes together with what was asked for, before nothing is drawn."""


def vary(spec: Spec, seed: int, asked_for: Collection[str]) -> Spec:
    """Return the test of one seed; the fields `asked_for` stay, but of faults some are left out.

    What does not fit what was asked for (a fault that aims at n5, in a cluster of three) is drawn
    again.
    """
    for attempt in range(ATTEMPTS):
        try:
            return resolve(_drawn(spec, seed, attempt, asked_for))
        except UsageError:
            continue
    return msgspec.structs.replace(spec, seed=seed)


def _drawn(spec: Spec, seed: int, attempt: int, asked_for: Collection[str]) -> dict[str, Any]:
    def rng(what: str) -> random.Random:
        return stream(seed, f"swarm/{what}/{attempt}")

    drawn: dict[str, Any] = {
        "nodes": rng("nodes").choice(NODES),
        "time_limit": _between(rng("time"), TIME_LIMIT_S),
        "fault_interval": _between(rng("interval"), INTERVAL_S),
        "rate": _between(rng("rate"), RATE),
        "concurrency": rng("concurrency").choice(CONCURRENCY),
    }
    fields = msgspec.to_builtins(spec)
    fields |= {name: value for name, value in drawn.items() if name not in asked_for}
    if "fault_quiet" not in asked_for:
        part = rng("quiet").uniform(*QUIET)
        fields["fault_quiet"] = round(fields["fault_interval"] * part, 2)
    known = WORKLOADS[spec.workload].options.__struct_fields__
    options = {name: among for name, among in WORKLOAD_OPTIONS.items() if name in known}
    fields["workload_options"] = _chosen(options, rng) | spec.workload_options
    fields["system_options"] = _chosen(SYSTEM_OPTIONS, rng) | spec.system_options
    if not spec.fault_plan:
        faults = fields["faults"] = _faults(spec, fields["nodes"], rng)
        if "faults_at_once" not in asked_for:
            fields["faults_at_once"] = rng("at once").randint(1, min(AT_ONCE_MAX, len(faults)))
    return {**fields, "seed": seed}


def _chosen(
    among: Mapping[str, tuple[Any, ...]], rng: Callable[[str], random.Random]
) -> dict[str, Any]:
    chosen = {name: rng(name).choice(values) for name, values in among.items()}
    return {name: value for name, value in chosen.items() if value is not None}


def _faults(
    spec: Spec, nodes: int, rng: Callable[[str], random.Random]
) -> dict[str, dict[str, Any]]:
    """Some of the faults that were named, or of all there are; some of them narrowed."""
    given = spec.faults or [
        kind
        for kind, package in PACKAGES.items()
        if obstacle(kind, "sim") is None and package.nodes_min <= nodes
    ]
    takes_part = {kind: rng(kind).random() < KEPT for kind in given}
    if not any(takes_part.values()):
        takes_part[rng("the only one").choice(list(given))] = True
    options = given if isinstance(given, dict) else {}
    return {
        kind: options.get(kind) or _narrowed(kind, rng(f"{kind}/choices"), nodes)
        for kind, does in takes_part.items()
        if does
    }


def _narrowed(kind: str, rng: random.Random, nodes: int) -> dict[str, Any]:
    package = PACKAGES[kind]
    every = getattr(package.options_type(), package.choices)
    # Of fewer than three nodes none is a minority, for one.
    if every is None or nodes < 3 or rng.random() >= NARROWED:
        return {}
    few = rng.sample(every, rng.randint(1, min(FEW, len(every))))
    return {package.choices: [choice for choice in every if choice in few]}


def _between(rng: random.Random, bounds: tuple[float, float]) -> float:
    """Draw a number of any size between the bounds, small ones as often as great ones."""
    low, high = bounds
    return float(f"{low * (high / low) ** rng.random():.2g}")
