"""A run as Chrome trace events, which Perfetto (ui.perfetto.dev) and chrome://tracing draw.

Three groups of tracks: the faults, the roles of the nodes, and the processes of the clients. The
format is that of Google's "Trace Event Format"; its times are microseconds.
"""

from collections.abc import Iterator
from typing import Any, Final

from labrys.checkers.op import NEMESIS
from labrys.control.report.faults import fault_lives
from labrys.control.report.labels import error_text
from labrys.control.report.operations import OUTCOME_NAMES, Operation, Timeline
from labrys.control.report.roles import role_spans
from labrys.control.report.run_files import RunFiles
from labrys.control.report.schema import OPEN, FaultData

_FAULTS, _NODES, _CLIENTS = 1, 2, 3
_COLOR: Final = {"ok": "good", "fail": "grey", "info": "terrible"}


def trace(run: RunFiles) -> dict[str, Any]:
    """Return the trace of a run as JSON values. Missing parts are empty, never an error."""
    timeline = Timeline(run.ops)
    moments = [op.time for op in run.ops] + [event.time for event in run.faults]
    end_ns = max(moments, default=0)
    return {
        "displayTimeUnit": "ms",
        "otherData": {
            "name": run.results.name or run.spec.get("name"),
            "seed": run.results.seed,
            "verdict": run.results.verdict,
            "rerun": run.results.rerun,
        },
        "traceEvents": [
            *_names(_FAULTS, "faults"),
            *_names(_NODES, "nodes"),
            *_names(_CLIENTS, "clients"),
            *_phases(run),
            *_faults(run, end_ns),
            *_roles(run, end_ns),
            *_operations(timeline, end_ns),
        ],
    }


def _names(group: int, name: str) -> Iterator[dict[str, Any]]:
    yield {"ph": "M", "pid": group, "name": "process_name", "args": {"name": name}}
    yield {"ph": "M", "pid": group, "name": "process_sort_index", "args": {"sort_index": group}}


def _track(group: int, track: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": group, "tid": track, "name": "thread_name", "args": {"name": name}}


def _slice(
    group: int, track: int, name: str, span_ns: tuple[int, int], args: dict[str, Any]
) -> dict[str, Any]:
    start, end = span_ns
    return {
        "ph": "X",
        "pid": group,
        "tid": track,
        "name": name,
        "ts": start / 1000,
        "dur": max(0, end - start) / 1000,
        "args": {key: value for key, value in args.items() if value not in (None, "", [])},
    }


def _phases(run: RunFiles) -> Iterator[dict[str, Any]]:
    for op in run.ops:
        if op.process == NEMESIS and op.f == "phase":
            yield {
                **{"ph": "i", "s": "g", "pid": _FAULTS, "tid": 0},
                **{"name": f"phase {op.value}", "ts": op.time / 1000},
            }


def _faults(run: RunFiles, end_ns: int) -> Iterator[dict[str, Any]]:
    """A track for each kind; where two of a kind overlap, the later one gets one of its own."""
    tracks: dict[tuple[str, int], tuple[int, int]] = {}
    """By kind and lane: number of the track, and when its last fault ended."""
    for fault in fault_lives(run.faults, run.results.nodes):
        start = _ns(fault.applied, fault.planned)
        end = end_ns if fault.undone is None else fault.undone * 1000
        lane = 0
        while (fault.kind, lane) in tracks and tracks[fault.kind, lane][1] > start:
            lane += 1
        number = tracks.get((fault.kind, lane), (len(tracks), 0))[0]
        if (fault.kind, lane) not in tracks:
            yield _track(_FAULTS, number, fault.kind)
        tracks[fault.kind, lane] = (number, end)
        yield _slice(_FAULTS, number, _fault_name(fault), (start, end), _fault_args(fault))


def _ns(*moments_us: int | None) -> int:
    """Return the first moment that is known."""
    return next((at * 1000 for at in moments_us if at is not None), 0)


def _fault_name(fault: FaultData) -> str:
    return " ".join((fault.kind, ",".join(fault.targets))).strip()


def _fault_args(fault: FaultData) -> dict[str, Any]:
    return {
        "id": fault.id,
        "targets": fault.targets,
        "plan": fault.plan,
        "seen to bite": fault.bit,
        "evidence": fault.evidence,
        "error": fault.error,
    }


def _roles(run: RunFiles, end_ns: int) -> Iterator[dict[str, Any]]:
    for track, log in enumerate(run.logs):
        spans = list(role_spans(log, end_ns))
        if spans:
            yield _track(_NODES, track, log.name)
        for span in spans:
            name = f"{span.role} {span.term}"
            yield _slice(_NODES, track, name, (span.start, span.end), {"term": span.term})


def _operations(timeline: Timeline, end_ns: int) -> Iterator[dict[str, Any]]:
    processes = {int(operation.invoke.process) for operation in timeline.operations}
    for process in sorted(processes):
        yield _track(_CLIENTS, process, f"process {process}")
    for operation in timeline.operations:
        yield _operation(operation, end_ns)


def _operation(operation: Operation, end_ns: int) -> dict[str, Any]:
    invoke, done = operation.invoke, operation.completion
    outcome = OUTCOME_NAMES[operation.outcome]
    args = {
        "index": invoke.index,
        "outcome": "open" if operation.outcome == OPEN else outcome,
        "f": invoke.f,
        "key": invoke.key,
        "value": invoke.value,
        "result": operation.result,
        "error": error_text(done.error) if done and done.error else None,
        "node": invoke.node,
    }
    name = operation.label if invoke.key is None else f"{invoke.key} {operation.label}"
    span = (invoke.time, end_ns if done is None else done.time)
    track = int(invoke.process)
    return {
        **_slice(_CLIENTS, track, name, span, args),
        **{"cat": outcome, "cname": _COLOR[outcome]},
    }
