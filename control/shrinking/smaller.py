"""Smaller tests: what can be taken away from one whose faults and operations are lists.

Each function returns another spec and runs nothing. Whether what is left still fails is for others
to find out; a spec that cannot be run at all is theirs to refuse, too.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from labrys.control.nemesis.fault_plan import PlannedFault
from labrys.control.planning import faults_in, operations_in
from labrys.control.spec import Spec, node_names
from labrys.control.store import RunDirectory
from labrys.workloads.operation_plan import PlannedOperation

HOLD_MIN_S: Final = 0.001
_GONE: Final = object()


def explicit(run: RunDirectory) -> Spec:
    """Return the test that does again what a run did: its faults and operations as lists.

    In the simulation that is the same run, up to the final reads.
    """
    default = Spec()
    return msgspec.structs.replace(
        run.spec(),
        faults=[],
        fault_plan=faults_in(run),
        operations=operations_in(run),
        # What no list depends on.
        fault_interval=default.fault_interval,
        fault_quiet=default.fault_quiet,
        faults_at_once=default.faults_at_once,
        rate=default.rate,
    )


def operations_of(spec: Spec) -> list[PlannedOperation]:
    """Return the list of operations."""
    assert spec.operations is not None, "only a test with a list of operations can be made smaller"
    return spec.operations


def with_faults(spec: Spec, faults: Sequence[PlannedFault]) -> Spec:
    """Return the test with these faults only."""
    return msgspec.structs.replace(spec, fault_plan=list(faults))


def with_operations(spec: Spec, operations: Sequence[PlannedOperation]) -> Spec:
    """Return the test with these operations only."""
    return msgspec.structs.replace(spec, operations=list(operations))


def of_key(spec: Spec, key: str) -> Spec:
    """Return the test with the operations on one key only."""
    return with_operations(spec, [each for each in operations_of(spec) if each.key == key])


# ---- Time ----------------------------------------------------------------------------------------


def until(spec: Spec, end_s: float) -> Spec:
    """Return the test that is over after so many seconds."""
    return msgspec.structs.replace(
        spec,
        fault_plan=[
            msgspec.structs.replace(fault, hold_s=round(min(fault.until_s, end_s) - fault.at_s, 9))
            for fault in spec.fault_plan
            if fault.at_s < end_s
        ],
        operations=[each for each in operations_of(spec) if each.at_s < end_s],
        time_limit=end_s,
    )


def moments(spec: Spec) -> list[float]:
    """Return when anything begins or ends, from 0 to the time limit."""
    times = {0.0, spec.time_limit}
    for fault in spec.fault_plan:
        times |= {fault.at_s, min(fault.until_s, spec.time_limit)}
    return sorted(times | {each.at_s for each in operations_of(spec)})


def without_span(spec: Spec, start_s: float, end_s: float) -> Spec:
    """Return the test in which everything after the span comes so much earlier."""

    def moved(at_s: float) -> float:
        return at_s if at_s <= start_s else max(start_s, at_s - (end_s - start_s))

    return _at_other_times(spec, moved)


def in_milliseconds(spec: Spec) -> Spec:
    """Return the test with times that are easy to read."""
    return _at_other_times(spec, lambda at_s: at_s)


def _at_other_times(spec: Spec, moved: Callable[[float], float]) -> Spec:
    def fault_moved(fault: PlannedFault) -> PlannedFault:
        at_s, until_s = round(moved(fault.at_s), 3), round(moved(fault.until_s), 3)
        hold_s = max(HOLD_MIN_S, round(until_s - at_s, 3))
        return msgspec.structs.replace(fault, at_s=at_s, hold_s=hold_s)

    operations = [
        msgspec.structs.replace(each, at_s=round(moved(each.at_s), 3))
        for each in operations_of(spec)
    ]
    faults = [fault_moved(fault) for fault in spec.fault_plan]
    last_s = max([f.at_s for f in faults] + [each.at_s for each in operations], default=0.0)
    return msgspec.structs.replace(
        spec,
        fault_plan=faults,
        operations=operations,
        time_limit=max(round(moved(spec.time_limit), 3), round(last_s + HOLD_MIN_S, 3)),
    )


# ---- Nodes and workers ---------------------------------------------------------------------------


def by_mention(spec: Spec) -> list[str]:
    """Return the nodes, those first that most operations and then most faults are about."""
    count: Counter[str] = Counter()
    for each in operations_of(spec):
        count[spec.node_names[each.worker % spec.nodes]] += 1000
    for fault in spec.fault_plan:
        count.update(set(_named(fault.plan, spec.node_names)))
    return sorted(spec.node_names, key=lambda node: (-count[node], spec.node_names.index(node)))


def on_nodes(spec: Spec, kept: Sequence[str], *, is_one_worker_each: bool = False) -> Spec:
    """Return the test on these nodes, which are called n1, n2, ... in this order.

    Operations at other nodes are left out, and faults that hurt nobody any more. There are as many
    workers as the operations need, or one for each node.
    """
    names = dict(zip(kept, node_names(len(kept)), strict=True))
    ranks: dict[str, dict[int, int]] = {node: {} for node in kept}
    operations = []
    for each in operations_of(spec):
        node = spec.node_names[each.worker % spec.nodes]
        if node in names:
            rank = ranks[node].setdefault(each.worker, len(ranks[node]))
            worker = kept.index(node) + (0 if is_one_worker_each else rank * len(kept))
            operations.append(msgspec.structs.replace(each, worker=worker))
    plans = [(fault, _plan_on(fault.plan, names, spec.node_names)) for fault in spec.fault_plan]
    return msgspec.structs.replace(
        spec,
        nodes=len(kept),
        concurrency=max([each.worker + 1 for each in operations], default=1),
        operations=operations,
        fault_plan=[
            msgspec.structs.replace(fault, plan=plan) for fault, plan in plans if plan is not None
        ],
    )


def sparing(spec: Spec) -> Iterator[Spec]:
    """Yield the tests in which one fault hurts one node less."""
    for place, fault in enumerate(spec.fault_plan):
        for node in dict.fromkeys(_named(fault.plan, spec.node_names)):
            names = {name: name for name in spec.node_names if name != node}
            plan = _plan_on(fault.plan, names, spec.node_names, substitute=False)
            if plan is not None and plan != fault.plan:
                faults = [*spec.fault_plan]
                faults[place] = msgspec.structs.replace(fault, plan=plan)
                yield with_faults(spec, faults)


def _plan_on(
    plan: Mapping[str, Any] | None,
    names: Mapping[str, str],
    nodes: Sequence[str],
    *,
    substitute: bool = True,
) -> dict[str, Any] | None:
    """Return a plan with other nodes' names; None when one of its parts is about nobody then.

    Where it names a single node that is gone, the first of the others may be its substitute.
    """
    renamed: dict[str, Any] = {}
    for field, value in (plan or {}).items():
        found = _renamed(value, names, nodes)
        if found is _GONE and isinstance(value, str) and substitute:
            found = next(iter(names.values()))
        if found is _GONE:
            return None
        renamed[field] = found
    if plan and "targets" in plan and len(renamed.get("nodes", ())) != len(plan.get("nodes", ())):
        renamed["targets"] = "named"  # a minority, say, may be none any more
    return renamed


def _renamed(value: Any, names: Mapping[str, str], nodes: Sequence[str]) -> Any:
    if isinstance(value, str):
        return names.get(value, _GONE) if value in nodes else value
    if isinstance(value, list):
        kept = [found for each in value if (found := _renamed(each, names, nodes)) is not _GONE]
        return kept if kept or not value else _GONE
    if isinstance(value, dict):
        pairs = {
            _renamed(key, names, nodes): _renamed(each, names, nodes) for key, each in value.items()
        }
        left = {key: each for key, each in pairs.items() if _GONE not in (key, each)}
        return left if left or not value else _GONE
    return value


def _named(value: Any, nodes: Sequence[str]) -> Iterator[str]:
    if isinstance(value, str):
        if value in nodes:
            yield value
    elif isinstance(value, list):
        for each in value:
            yield from _named(each, nodes)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _named(key, nodes)
            yield from _named(each, nodes)


# ---- What else there is --------------------------------------------------------------------------


def plainer(spec: Spec) -> Iterator[Spec]:
    """Yield the tests with one option less."""
    for field in ("workload_options", "system_options"):
        options: dict[str, Any] = getattr(spec, field)
        for name in options:
            rest = {key: value for key, value in options.items() if key != name}
            yield msgspec.structs.replace(spec, **{field: rest})
