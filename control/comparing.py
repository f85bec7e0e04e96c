"""`labrys compare`: two runs side by side."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from labrys.control.comparison import Comparison, LatencyPair, Side, compare
from labrys.control.report.labels import value_text
from labrys.control.report.run_files import read_run
from labrys.control.report.schema import FaultData, Latency
from labrys.control.report.text import one_line, op_line, verdict_word
from labrys.control.store import find_run

FAULTS_PRINTED_MAX: Final = 20
"""Pairs of faults that differ; --json has them all."""


def compare_and_print(a: str, b: str, runs_dir: Path, *, as_json: bool) -> None:
    """Print what two stored runs have in common and where they differ."""
    sides = [read_run(find_run(reference, runs_dir).path, with_logs=False) for reference in (a, b)]
    comparison = compare(*sides)
    if as_json:
        click.echo(msgspec.json.encode(comparison))
        return
    for line in comparison_lines(comparison):
        click.echo(line)


def comparison_lines(found: Comparison) -> Iterator[str]:
    """Return a comparison in words: A is the first run, B the second."""
    for letter, side in (("A", found.a), ("B", found.b)):
        yield f"{letter}  {_side(side)}"
        yield f"   {one_line(side.cause)}"
        yield from (f"   note: {one_line(notice)}" for notice in side.notices)
    yield "spec" if found.spec else "spec       the same"
    for row in found.spec:
        yield f"  {row.name}: {_words(row.a)} | {_words(row.b)}"
    yield "verdicts" if found.checkers else "verdicts   the same of every checker"
    for row in found.checkers:
        yield f"  {row.name}: {_words(row.a)} | {_words(row.b)}"
    yield f"operations {counts_text(found.a)} | {counts_text(found.b)}"
    if found.latencies:
        yield "latency    p50/p95/p99 of ok operations in ms"
    for pair in found.latencies:
        yield f"  {one_line(pair.f)}: {_latency(pair.a)} | {_latency(pair.b)}{_ratio(pair)}"
    yield from _fault_lines(found)
    yield from _divergence_lines(found)


def counts_text(side: Side) -> str:
    """Return how many operations ended how."""
    return ", ".join(f"{count} {name}" for name, count in side.counts.items())


def fault_text(fault: FaultData | None) -> str:
    """Return a fault in a line: when, what, whom, how, and for how long."""
    if fault is None:
        return "none"
    began = fault.planned if fault.applied is None else fault.applied
    when = "?" if began is None else f"{began / 1e6:.2f} s"
    held = (
        ""
        if fault.applied is None or fault.undone is None
        else f" for {(fault.undone - fault.applied) / 1e6:.2f} s"
    )
    what = " ".join(part for part in (fault.kind, ",".join(fault.targets), fault.plan) if part)
    return one_line(f"{when} {what}{held}")


def _side(side: Side) -> str:
    facts = [
        f"seed {'?' if side.seed is None else side.seed}",
        "" if side.duration_s is None else f"{side.duration_s:.1f} s",
        "" if side.revision is None else f"labrys {side.revision}",
    ]
    return "  ".join([verdict_word(side.verdict), side.path, *filter(None, facts)])


def _words(value: Any) -> str:
    return one_line(value if isinstance(value, str) else value_text(value))


def _latency(row: Latency | None) -> str:
    if row is None or row.p50 is None:
        return "none"
    return "/".join(f"{(q or 0) / 1e3:.3g}" for q in (row.p50, row.p95, row.p99))


def _ratio(pair: LatencyPair) -> str:
    if pair.a is None or pair.b is None or not pair.a.p99 or pair.b.p99 is None:
        return ""
    return f"  p99 x{pair.b.p99 / pair.a.p99:.2f}"


def _fault_lines(found: Comparison) -> Iterator[str]:
    a, b = found.a.faults, found.b.faults
    if a == b == found.same_faults:
        yield (
            f"faults     {a}, the same ones in the same order" if a else "faults     none in either"
        )
        return
    yield f"faults     {a} | {b}, {found.same_faults} of them the same in the same place"
    differing = [pair for pair in found.faults if not pair.same]
    for pair in differing[:FAULTS_PRINTED_MAX]:
        yield f"  {fault_text(pair.a)} | {fault_text(pair.b)}"
    more = max(a, b) - found.same_faults - len(differing[:FAULTS_PRINTED_MAX])
    if more:
        yield f"  and {more} more; --json lists {len(found.faults)}"


def _divergence_lines(found: Comparison) -> Iterator[str]:
    if not found.same_seed:
        yield "history    not compared: the seeds differ"
        return
    for name, what, divergence in (
        ("asked", "invocations", found.asked),
        ("history", "events", found.seen),
    ):
        if divergence is None:
            yield f"{name:<10} the same {what} in both, whatever their times"
            continue
        yield f"{name:<10} the first {divergence.place} {what} are the same, then"
        for letter, op in (("A", divergence.a), ("B", divergence.b)):
            yield f"  {letter}  {'has no more' if op is None else op_line(op)}"
