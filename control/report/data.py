"""The data of a report: every number and word on the page, computed here and only drawn there.

`report_data` is a pure function from the files of a run to one `ReportData` (`schema.py`), which
is encoded as JSON and embedded into the page; so tests look at numbers, not at pictures.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from labrys.checkers.op import NEMESIS, Op
from labrys.checkers.verdict import Verdict
from labrys.control.report.anomalies import explained, named_indices
from labrys.control.report.cause import cause
from labrys.control.report.faults import fault_lives
from labrys.control.report.labels import error_text, planned_kinds, value_text
from labrys.control.report.latencies import latencies
from labrys.control.report.operations import OUTCOME_NAMES, Operation, Timeline
from labrys.control.report.run_files import Results, RunFiles
from labrys.control.report.schema import (
    INFO,
    OK,
    OPEN,
    VERSION,
    Anomaly,
    CheckerData,
    FaultData,
    FindingData,
    LogData,
    OpColumns,
    Phase,
    Rate,
    ReportData,
)

OPS_DRAWN_MAX: Final = 100_000
"""Operations embedded in a page; of more, an even sample plus all that findings speak of."""
ANOMALIES_MAX: Final = 20
FINDINGS_MAX: Final = 50
"""Findings listed for one checker."""
RATE_BUCKETS_MAX: Final = 1_200


def report_data(run: RunFiles) -> ReportData:
    """Compute what the report of `run` shows. Pure; missing parts are empty, never an error."""
    results = run.results
    notices = list(run.notices)
    timeline = Timeline(run.ops)
    if timeline.unmatched:
        notices.append(
            f"history.jsonl: {timeline.unmatched} events do not pair up and are not drawn as usual"
        )
    concurrency = _concurrency(run, timeline.operations)
    drawn = _drawn(timeline, results, notices)
    columns = _columns(drawn, concurrency)
    for row, operation in enumerate(drawn):
        timeline.row[operation.invoke.index] = row
        if operation.completion:
            timeline.row[operation.completion.index] = row
    nodes = list(results.nodes) or columns.nodes
    faults = fault_lives(run.faults, nodes)
    anomalies: list[Anomaly] = []
    checkers = _checkers(results, timeline, drawn, anomalies, notices)
    moments = [op.time // 1000 for op in run.ops] + [event.time // 1000 for event in run.faults]
    counts = Counter(OUTCOME_NAMES[operation.outcome] for operation in timeline.operations)
    spec = run.spec
    planned = list(results.faults) or planned_kinds(spec)
    environment = results.environment or str(spec.get("env") or "?")
    workload = results.workload or str(spec.get("workload") or "?")
    name = results.name or str(spec.get("name") or run.path.resolve().parent.name)
    seed = results.seed if results.seed is not None else spec.get("seed")
    for log in run.logs:
        if log.cut_lines:
            count = "the earlier" if log.cut_lines < 0 else f"{log.cut_lines} earlier"
            notices.append(
                f"log of {log.name}: only the last {len(log.lines)} lines are shown, "
                f"{count} lines are in nodes/"
            )
    return ReportData(
        version=VERSION,
        title=name,
        verdict=results.verdict,
        cause=cause(results),
        facts=_facts(run, workload, environment, nodes, planned, counts, faults, concurrency),
        seed=seed if isinstance(seed, int) else None,
        name=name,
        workload=workload,
        environment=environment,
        duration_s=results.duration_s,
        nodes=nodes,
        planned_faults=planned,
        rerun=results.rerun,
        recheck=results.recheck,
        errors=[error_text(error) for error in results.errors],
        counts={outcome: counts[outcome] for outcome in ("ok", "fail", "info")},
        end=max(moments, default=0),
        concurrency=concurrency,
        checkers=checkers,
        anomalies=anomalies,
        ops=columns,
        faults=faults,
        phases=_phases(run.ops),
        rate=_rate(timeline.operations, max(moments, default=0)),
        latencies=latencies(timeline.operations),
        logs=[
            LogData(
                name=log.name,
                at=[None if at is None else at // 1000 for at, _ in log.lines],
                text=[text for _, text in log.lines],
            )
            for log in run.logs
        ],
        notices=notices,
    )


def _concurrency(run: RunFiles, operations: Sequence[Operation]) -> int:
    """Number of worker threads: a process that crashed goes on as its number plus this one."""
    stated = run.spec.get("concurrency")
    if isinstance(stated, int) and stated > 0:
        return stated
    processes = [int(operation.invoke.process) for operation in operations]
    before_crash = []
    for operation, process in zip(operations, processes, strict=True):
        before_crash.append(process)
        if operation.outcome in (INFO, OPEN):
            break
    return max(before_crash, default=0) + 1


def _drawn(timeline: Timeline, results: Results, notices: list[str]) -> list[Operation]:
    """The operations that the page gets: all, or a sample that keeps what findings name."""
    operations = timeline.operations
    if len(operations) <= OPS_DRAWN_MAX:
        return operations
    named: set[int] = set()
    for check in results.checkers.values():
        for finding in check.findings[:FINDINGS_MAX]:
            for index in named_indices(finding):
                if (operation := timeline.by_index.get(index)) is not None:
                    named.add(operation.invoke.index)
    stride = -(-len(operations) // OPS_DRAWN_MAX)
    sample = [
        operation
        for place, operation in enumerate(operations)
        if place % stride == 0 or operation.invoke.index in named
    ]
    notices.append(
        f"{len(operations)} operations are more than a page should hold: one in {stride} is drawn "
        f"({len(sample)}), and all that findings name; counts, rates and latencies are of all"
    )
    return sample


def _columns(operations: Sequence[Operation], concurrency: int) -> OpColumns:
    f_names: dict[str, int] = {}
    keys: dict[str, int] = {}
    nodes: dict[str, int] = {}
    for operation in operations:
        f_names.setdefault(operation.invoke.f, len(f_names))
        if operation.invoke.key is not None:
            keys.setdefault(operation.invoke.key, len(keys))
        if operation.invoke.node is not None:
            nodes.setdefault(operation.invoke.node, len(nodes))
    calls = [operation.call_us for operation in operations]
    return OpColumns(
        index=[operation.invoke.index for operation in operations],
        ret_index=[o.completion.index if o.completion else -1 for o in operations],
        call_delta=[now - before for before, now in zip([0, *calls], calls, strict=False)],
        took=[-1 if o.ret_us is None else max(0, o.ret_us - o.call_us) for o in operations],
        outcome=[operation.outcome for operation in operations],
        process=[int(operation.invoke.process) for operation in operations],
        thread=[int(operation.invoke.process) % concurrency for operation in operations],
        f=[f_names[operation.invoke.f] for operation in operations],
        key=[-1 if o.invoke.key is None else keys[o.invoke.key] for o in operations],
        node=[-1 if o.invoke.node is None else nodes[o.invoke.node] for o in operations],
        label=[operation.label for operation in operations],
        value=[value_text(operation.invoke.value) for operation in operations],
        result=[
            value_text(o.result) if o.outcome == OK and o.result != o.invoke.value else None
            for o in operations
        ],
        error=[
            error_text(o.completion.error) if o.completion and o.completion.error else None
            for o in operations
        ],
        f_names=list(f_names),
        keys=list(keys),
        nodes=list(nodes),
    )


def _checkers(
    results: Results,
    timeline: Timeline,
    drawn: Sequence[Operation],
    anomalies: list[Anomaly],
    notices: list[str],
) -> list[CheckerData]:
    """The checkers, worst verdict first; explained findings are added to `anomalies`."""
    order = {Verdict.INVALID: 0, Verdict.ERROR: 1, Verdict.UNKNOWN: 2, Verdict.VALID: 3}
    checkers: list[CheckerData] = []
    unexplained = 0
    for name, check in sorted(results.checkers.items(), key=lambda item: order[item[1].verdict]):
        findings: list[FindingData] = []
        for finding in check.findings[:FINDINGS_MAX]:
            place: int | None = None
            if isinstance(finding.data.get("rejected"), list):
                anomaly = explained(name, finding, timeline, drawn)
                if len(anomalies) >= ANOMALIES_MAX:
                    unexplained += 1
                elif anomaly is not None:
                    place = len(anomalies)
                    anomalies.append(anomaly)
            if place is not None:
                span: tuple[int, int] | None = (anomalies[place].start, anomalies[place].end)
            else:
                span = timeline.span(finding.ops)
            findings.append(
                FindingData(
                    message=finding.message,
                    key=finding.key,
                    ops=timeline.rows(finding.ops),
                    start=span[0] if span else None,
                    end=span[1] if span else None,
                    anomaly=place,
                )
            )
        checkers.append(
            CheckerData(
                name=name,
                verdict=check.verdict,
                summary=check.summary,
                hint=check.hint,
                findings=findings,
                findings_cut=max(0, len(check.findings) - FINDINGS_MAX),
            )
        )
    if unexplained:
        notices.append(f"{unexplained} more invalid keys are listed but not drawn step by step")
    return checkers


def _phases(ops: Sequence[Op]) -> list[Phase]:
    marks = [
        Phase(name=str(op.value), start=op.time // 1000)
        for op in ops
        if op.process == NEMESIS and op.f == "phase"
    ]
    return [Phase(name="setup", start=0), *marks] if marks and marks[0].start > 0 else marks


def _rate(operations: Sequence[Operation], end_us: int) -> Rate:
    bucket = 100_000 if end_us < 20_000_000 else 1_000_000
    bucket *= -(-(end_us // bucket + 1) // RATE_BUCKETS_MAX)
    columns = {name: [0] * (end_us // bucket + 1) for name in ("ok", "fail", "info")}
    for operation in operations:
        if operation.ret_us is not None:
            columns[OUTCOME_NAMES[operation.outcome]][max(0, operation.ret_us) // bucket] += 1
    return Rate(bucket=bucket, ok=columns["ok"], fail=columns["fail"], info=columns["info"])


def _facts(
    run: RunFiles,
    workload: str,
    environment: str,
    nodes: Sequence[str],
    planned: Sequence[str],
    counts: Counter[str],
    faults: Sequence[FaultData],
    concurrency: int,
) -> list[tuple[str, str]]:
    results = run.results
    bit = sum(1 for fault in faults if fault.bit is True)
    facts = [
        ("workload", f"{workload}, {concurrency} threads"),
        ("system", str(run.spec.get("system", "?"))),
        ("bug", results.bug or run.spec.get("bug")),
        ("faults", ", ".join(planned) or "none"),
        ("environment", f"{environment}, {len(nodes)} nodes"),
        ("revision", results.revision),
        ("started", results.started_at and results.started_at[:19].replace("T", " ") + " UTC"),
        ("ended", "interrupted" if results.interrupted else None),
        ("duration", None if results.duration_s is None else f"{results.duration_s:.1f} s"),
        ("operations", f"{counts['ok']} ok, {counts['fail']} fail, {counts['info']} info"),
        ("faults played", f"{len(faults)}, {bit} seen to bite" if faults else "none"),
        *(
            (name.removesuffix("_s"), f"{value:.1f} s")
            for name, value in results.timings.items()
            if isinstance(value, int | float)
        ),
    ]
    return [(name, str(value)) for name, value in facts if value is not None]
