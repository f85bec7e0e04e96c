"""Two runs side by side: what was asked of them, what came of it, and where they parted.

Pure: from the files of two runs to one `Comparison`, which the terminal and the viewer show.
"""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, Final

import msgspec

from labrys.checkers.op import Op, OpType
from labrys.checkers.verdict import Verdict
from labrys.control.report.cause import cause
from labrys.control.report.faults import fault_lives
from labrys.control.report.latencies import latencies
from labrys.control.report.operations import OUTCOME_NAMES, Timeline
from labrys.control.report.run_files import RunFiles
from labrys.control.report.schema import FaultData, Latency

FAULTS_TOLD_MAX: Final = 200
"""Pairs of faults that are listed; of the rest only the count is told."""


class Side(msgspec.Struct, frozen=True):
    """One of the two runs."""

    path: str
    verdict: Verdict | None
    cause: str
    seed: int | None
    duration_s: float | None
    revision: str | None
    counts: dict[str, int]
    """Operations by outcome: ok, fail, info."""
    faults: int
    notices: list[str]
    """What is missing or damaged."""


class Difference(msgspec.Struct, frozen=True):
    """Something that the two runs have both, but not the same: a field of the spec, a verdict."""

    name: str
    a: Any
    b: Any


class LatencyPair(msgspec.Struct, frozen=True):
    """How long operations of one function took, in microseconds; None where there were none."""

    f: str
    a: Latency | None
    b: Latency | None


class FaultPair(msgspec.Struct, frozen=True):
    """The faults in the same place of the two schedules; None where one has no more."""

    a: FaultData | None
    b: FaultData | None
    same: bool
    """Whether kind, targets and plan are; the moment is not looked at."""


class Divergence(msgspec.Struct, frozen=True):
    """The first place in which two sequences of events differ."""

    place: int
    """So many events before it are the same."""
    a: Op | None
    b: Op | None
    """None: this run has no more."""


class Comparison(msgspec.Struct, frozen=True):
    """Two runs side by side."""

    a: Side
    b: Side
    spec: list[Difference]
    """Fields of the spec that differ."""
    checkers: list[Difference]
    """Checkers whose verdicts differ."""
    latencies: list[LatencyPair]
    faults: list[FaultPair]
    faults_cut: int
    """Pairs of faults that are not listed."""
    same_faults: int
    """Pairs that are the same, listed or not."""
    same_seed: bool
    asked: Divergence | None
    """With the same seed: the first invocation that differs in function, key or value."""
    seen: Divergence | None
    """With the same seed: the first event that differs in more than its time."""


def compare(a: RunFiles, b: RunFiles) -> Comparison:
    """Compare two runs. What is missing in one of them is empty, never an error."""
    timelines = Timeline(a.ops), Timeline(b.ops)
    lives = _faults(a), _faults(b)
    pairs = [
        FaultPair(x, y, x is not None and y is not None and _plan(x) == _plan(y))
        for x, y in zip_longest(*lives)
    ]
    same_seed = _seed(a) is not None and _seed(a) == _seed(b)
    return Comparison(
        a=_side(a, timelines[0], len(lives[0])),
        b=_side(b, timelines[1], len(lives[1])),
        spec=_differences(a.spec, b.spec),
        checkers=_differences(
            {name: check.verdict for name, check in a.results.checkers.items()},
            {name: check.verdict for name, check in b.results.checkers.items()},
        ),
        latencies=_latency_pairs(*timelines),
        faults=pairs[:FAULTS_TOLD_MAX],
        faults_cut=len(pairs[FAULTS_TOLD_MAX:]),
        same_faults=sum(pair.same for pair in pairs),
        same_seed=same_seed,
        asked=_divergence(*map(_invocations, (a, b))) if same_seed else None,
        seen=_divergence(*map(_events, (a, b))) if same_seed else None,
    )


def _side(run: RunFiles, timeline: Timeline, faults: int) -> Side:
    counts = {"ok": 0, "fail": 0, "info": 0}
    for operation in timeline.operations:
        counts[OUTCOME_NAMES[operation.outcome]] += 1
    return Side(
        path=str(run.path),
        verdict=run.results.verdict,
        cause=cause(run.results),
        seed=_seed(run),
        duration_s=run.results.duration_s,
        revision=run.results.revision,
        counts=counts,
        faults=faults,
        notices=list(run.notices),
    )


def _seed(run: RunFiles) -> int | None:
    seed = run.results.seed if run.results.seed is not None else run.spec.get("seed")
    return seed if isinstance(seed, int) else None


def _faults(run: RunFiles) -> list[FaultData]:
    return fault_lives(run.faults, run.results.nodes)


def _plan(fault: FaultData) -> tuple[str, list[str], str]:
    return fault.kind, fault.targets, fault.plan


def _differences(a: dict[str, Any], b: dict[str, Any]) -> list[Difference]:
    return [
        Difference(name, a.get(name), b.get(name))
        for name in dict.fromkeys((*a, *b))
        if a.get(name) != b.get(name)
    ]


def _latency_pairs(a: Timeline, b: Timeline) -> list[LatencyPair]:
    rows = [{row.f: row for row in latencies(timeline.operations)} for timeline in (a, b)]
    return [
        LatencyPair(f, rows[0].get(f), rows[1].get(f)) for f in dict.fromkeys((*rows[0], *rows[1]))
    ]


_Told = tuple[tuple[Any, ...], Op]
"""What of an event is compared, and the event."""


def _invocations(run: RunFiles) -> Iterator[_Told]:
    """What the clients were asked to do, in order, whichever of them did it."""
    for op in run.ops:
        if op.is_client and op.type is OpType.INVOKE:
            yield (op.f, op.key, op.value), op


def _events(run: RunFiles) -> Iterator[_Told]:
    for op in run.ops:
        # The message behind the code names ports and moments, which are never the same twice.
        error = op.error[0] if isinstance(op.error, list) and op.error else op.error
        yield (op.type, op.process, op.f, op.key, op.value, error), op


def _divergence(a: Iterator[_Told], b: Iterator[_Told]) -> Divergence | None:
    for place, (one, other) in enumerate(zip_longest(a, b)):
        if one is None or other is None or one[0] != other[0]:
            return Divergence(place, one and one[1], other and other[1])
    return None
