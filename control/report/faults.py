"""The life of each fault, told by its events in the ledger."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from labrys.checkers.fault import FaultEvent, FaultStage
from labrys.control.report.labels import plan_text, value_text
from labrys.control.report.schema import FaultData


def fault_lives(events: Iterable[FaultEvent], nodes: Sequence[str]) -> list[FaultData]:
    """Return what became of every fault, in the order in which they were planned."""
    faults: defaultdict[int, list[FaultEvent]] = defaultdict(list)
    for event in events:
        faults[event.id].append(event)
    return [_life(of_one, nodes) for of_one in faults.values()]


def _life(events: Sequence[FaultEvent], nodes: Sequence[str]) -> FaultData:
    at: dict[FaultStage, int] = {}
    for event in events:
        at.setdefault(event.stage, event.time // 1000)
    plan = next((event.plan for event in events if event.plan), {})
    looked = [event.bit for event in events if event.bit is not None]
    observed = next((event.observed for event in reversed(events) if event.observed), {})
    errors = [event.error for event in events if event.error]
    return FaultData(
        id=events[0].id,
        kind=events[0].kind,
        targets=list(next((event.targets for event in events if event.targets), ())),
        plan=plan_text(plan, nodes),
        planned=at.get(FaultStage.PLANNED),
        applied=at.get(FaultStage.APPLIED),
        undone=at.get(FaultStage.UNDONE),
        bit=any(looked) if looked else None,
        evidence=", ".join(f"{node} {_evidence(seen)}" for node, seen in observed.items()),
        error="; ".join(errors) if errors else None,
    )


def _evidence(seen: Any) -> str:
    if isinstance(seen, dict):
        return " ".join(f"{name} {_evidence(value)}" for name, value in seen.items())
    return seen if isinstance(seen, str) else value_text(seen)
