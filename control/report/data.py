"""The data of a report: every number and word on the page, computed here and only drawn there.

`report_data` is a pure function from the files of a run to one `ReportData`, which is encoded as
JSON and embedded into the page. Times are whole microseconds since the run began. Operations are
columns, not records: 100 000 of them then compress to about a megabyte. Everything that refers to
an operation does so by its position in these columns.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from labrys.checkers.fault import FaultEvent, FaultStage
from labrys.checkers.op import NEMESIS, Op, OpType
from labrys.checkers.verdict import Finding, Verdict
from labrys.control.report.labels import error_text, op_label, plan_text, value_text
from labrys.control.report.run_files import Results, RunFiles

VERSION: Final = 1
OPS_DRAWN_MAX: Final = 100_000
"""Operations embedded in a page; of more, an even sample plus all that findings speak of."""
STEPS_SHOWN_MAX: Final = 40
"""Steps of a linearizable prefix that are listed: the last ones."""
PAST_STEPS: Final = 6
"""Steps before an anomaly that are shown with it, as its past."""
WINDOW_OPS_MAX: Final = 200
"""Operations listed for one anomaly."""
ANOMALIES_MAX: Final = 20
FINDINGS_MAX: Final = 50
"""Findings listed for one checker."""
RATE_BUCKETS_MAX: Final = 1_200

OK, FAIL, INFO, OPEN = range(4)
"""Outcomes as the page codes them; an open operation has no completion at all."""
_OUTCOME: Final = {OpType.OK: OK, OpType.FAIL: FAIL, OpType.INFO: INFO}


class OpColumns(msgspec.Struct, frozen=True):
    """Client operations in order of invocation; all columns are of one length."""

    index: list[int]
    """Index of the invocation in the history."""
    ret_index: list[int]
    """Index of the completion, -1 if there is none."""
    call_delta: list[int]
    """Time of the invocation as the difference to the row before."""
    took: list[int]
    """Time until the completion, -1 if there is none."""
    outcome: list[int]
    """0 ok, 1 fail, 2 info, 3 open."""
    process: list[int]
    thread: list[int]
    f: list[int]
    """Place in `f_names`."""
    key: list[int]
    """Place in `keys`, -1 for none."""
    node: list[int]
    """Place in `nodes`, -1 for none."""
    label: list[str]
    value: list[str]
    """The value of the invocation as JSON text."""
    result: list[str | None]
    """The value of an ok completion as JSON text, if it differs."""
    error: list[str | None]
    f_names: list[str]
    keys: list[str]
    nodes: list[str]


class FindingData(msgspec.Struct, frozen=True):
    """One finding of a checker."""

    message: str
    key: str | None
    ops: list[int]
    """Rows of the operations it names."""
    start: int | None
    end: int | None
    """The window that shows it, if it names any operation."""
    anomaly: int | None = None
    """Place in `anomalies`, if it is explained there."""


class CheckerData(msgspec.Struct, frozen=True):
    """What one checker concluded."""

    name: str
    verdict: Verdict
    summary: str
    hint: str | None
    findings: list[FindingData]
    findings_cut: int


class Step(msgspec.Struct, frozen=True):
    """One operation of a linearizable prefix, and the state it leaves."""

    op: int
    at: int
    """A moment inside the operation; the moments of a prefix never run backwards."""
    state: str | None


class Rejected(msgspec.Struct, frozen=True):
    """An operation that cannot come next, and why."""

    op: int
    at: int
    reason: str


class Anomaly(msgspec.Struct, frozen=True):
    """Why one key is invalid."""

    checker: str
    key: str | None
    message: str
    start: int
    end: int
    steps: list[Step]
    steps_cut: int
    """Earlier steps that are not listed."""
    state: str | None
    """What the prefix leaves behind."""
    rejected: list[Rejected]
    core: list[int]
    """A few operations that contradict each other all by themselves."""
    ops: list[int]
    """Rows of this key's operations around the window, those that set its state included."""
    ops_cut: int


class FaultData(msgspec.Struct, frozen=True):
    """The life of one fault."""

    id: int
    kind: str
    targets: list[str]
    plan: str
    planned: int | None
    applied: int | None
    undone: int | None
    bit: bool | None
    """Whether it was seen to take effect; None: nobody looked."""
    evidence: str
    error: str | None


class Phase(msgspec.Struct, frozen=True):
    """A phase of the run, from here to the next one."""

    name: str
    start: int


class Rate(msgspec.Struct, frozen=True):
    """Completed operations per bucket of time."""

    bucket: int
    """Length of a bucket in microseconds."""
    ok: list[int]
    fail: list[int]
    info: list[int]


class Latency(msgspec.Struct, frozen=True):
    """How long ok operations of one kind took, in microseconds."""

    f: str
    ok: int
    fail: int
    info: int
    """Including operations that never completed."""
    p50: int | None
    p95: int | None
    p99: int | None
    max: int | None


class LogData(msgspec.Struct, frozen=True):
    """The tail of one node log: a time (or None) and a text for each line."""

    name: str
    at: list[int | None]
    text: list[str]


class ReportData(msgspec.Struct, frozen=True):
    """Everything the page shows."""

    version: int
    title: str
    verdict: Verdict | None
    """None: the run has no results."""
    cause: str
    """Why it ended so, in one sentence."""
    facts: list[tuple[str, str]]
    """Name and value of what was run, in reading order."""
    seed: int | None
    name: str
    workload: str
    environment: str
    duration_s: float | None
    nodes: list[str]
    planned_faults: list[str]
    rerun: str | None
    recheck: str | None
    errors: list[str]
    """Errors of the rig itself."""
    counts: dict[str, int]
    """Operations by outcome: ok, fail, info (open ones included)."""
    end: int
    """The last moment of the time axis."""
    concurrency: int
    checkers: list[CheckerData]
    anomalies: list[Anomaly]
    ops: OpColumns
    faults: list[FaultData]
    phases: list[Phase]
    rate: Rate
    latencies: list[Latency]
    logs: list[LogData]
    notices: list[str]


class _Operation(msgspec.Struct, frozen=True):
    """A paired operation, more forgiving than the one that checkers are given."""

    invoke: Op
    completion: Op | None

    @property
    def outcome(self) -> int:
        return OPEN if self.completion is None else _OUTCOME[self.completion.type]

    @property
    def call_us(self) -> int:
        return self.invoke.time // 1000

    @property
    def ret_us(self) -> int | None:
        return None if self.completion is None else self.completion.time // 1000

    @property
    def result(self) -> Any:
        return self.completion.value if self.completion and self.outcome == OK else None

    @property
    def label(self) -> str:
        kind = self.completion.type if self.completion else OpType.INFO
        return op_label(self.invoke.f, self.invoke.value, kind, self.result)


class _Timeline:
    """The operations of a run and the ways to find them."""

    def __init__(self, ops: Sequence[Op]) -> None:
        self.operations, self.unmatched = _paired(ops)
        self.by_index: dict[int, _Operation] = {}
        self.time_us: dict[int, int] = {}
        for op in ops:
            self.time_us[op.index] = op.time // 1000
        for operation in self.operations:
            self.by_index[operation.invoke.index] = operation
            if operation.completion:
                self.by_index[operation.completion.index] = operation
        self.row: dict[int, int] = {}
        """Row of an operation in the columns, by the index of its invocation or completion."""

    def rows(self, indices: Iterable[int]) -> list[int]:
        """Rows of the operations that history indices name; unknown indices are left out."""
        return list(dict.fromkeys(self.row[index] for index in indices if index in self.row))

    def span(self, indices: Iterable[int]) -> tuple[int, int] | None:
        """The time that the events with these indices, and their operations, take up."""
        moments: list[int] = []
        for index in indices:
            operation = self.by_index.get(index)
            if operation is not None:
                moments.append(operation.call_us)
                if operation.outcome in (OK, FAIL):
                    moments.append(operation.ret_us or operation.call_us)
            elif index in self.time_us:
                moments.append(self.time_us[index])
        return (min(moments), max(moments)) if moments else None


def report_data(run: RunFiles) -> ReportData:
    """Compute what the report of `run` shows. Pure; missing parts are empty, never an error."""
    results = run.results
    notices = list(run.notices)
    timeline = _Timeline(run.ops)
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
    faults = [_fault(events, nodes) for events in _by_fault(run.faults)]
    anomalies: list[Anomaly] = []
    checkers = _checkers(results, timeline, drawn, anomalies, notices)
    moments = [op.time // 1000 for op in run.ops] + [event.time // 1000 for event in run.faults]
    counts = Counter(_OUTCOME_NAME[operation.outcome] for operation in timeline.operations)
    spec = run.spec
    planned = [str(kind) for kind in results.faults or spec.get("faults") or ()]
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
        cause=_cause(results),
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
        latencies=_latencies(timeline.operations),
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


_OUTCOME_NAME: Final = {OK: "ok", FAIL: "fail", INFO: "info", OPEN: "info"}


def _paired(ops: Sequence[Op]) -> tuple[list[_Operation], int]:
    """Pair events by process. An invoke that is overtaken by the next one stays open."""
    operations: list[_Operation] = []
    place: dict[int | str, int] = {}
    unmatched = 0
    for op in ops:
        if not op.is_client:
            continue
        if op.type is OpType.INVOKE:
            unmatched += op.process in place
            place[op.process] = len(operations)
            operations.append(_Operation(invoke=op, completion=None))
        elif op.process in place:
            at = place.pop(op.process)
            operations[at] = _Operation(invoke=operations[at].invoke, completion=op)
        else:
            unmatched += 1
    operations.sort(key=lambda operation: operation.invoke.time)
    return operations, unmatched


def _concurrency(run: RunFiles, operations: Sequence[_Operation]) -> int:
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


def _drawn(timeline: _Timeline, results: Results, notices: list[str]) -> list[_Operation]:
    """The operations that the page gets: all, or a sample that keeps what findings name."""
    operations = timeline.operations
    if len(operations) <= OPS_DRAWN_MAX:
        return operations
    named: set[int] = set()
    for check in results.checkers.values():
        for finding in check.findings[:FINDINGS_MAX]:
            for index in _indices(finding):
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


def _columns(operations: Sequence[_Operation], concurrency: int) -> OpColumns:
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


def _indices(finding: Finding) -> list[int]:
    """Every history index that a finding names."""
    prefix = finding.data.get("prefix")
    refused = [index for index, _ in _refused(finding)]
    return [*finding.ops, *_integers(prefix), *refused]


def _refused(finding: Finding) -> list[tuple[int, str]]:
    """The operations that a finding says cannot come next, with the reasons."""
    entries = finding.data.get("rejected")
    return [
        (entry["op"], str(entry.get("reason", "")))
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict) and isinstance(entry.get("op"), int)
    ]


def _checkers(
    results: Results,
    timeline: _Timeline,
    drawn: Sequence[_Operation],
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
                anomaly = _anomaly(name, finding, timeline, drawn)
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


def _anomaly(
    checker: str, finding: Finding, timeline: _Timeline, drawn: Sequence[_Operation]
) -> Anomaly | None:
    """Explain an invalid key; None when the history does not hold what the finding names."""
    data = finding.data
    prefix = timeline.rows(_integers(data.get("prefix")))
    refused = [
        (row, reason) for index, reason in _refused(finding) for row in timeline.rows([index])
    ]
    span = timeline.span([*_integers(data.get("window")), *_integers(data.get("core"))])
    span = span or timeline.span(_indices(finding))
    if span is None or not (prefix or refused):
        return None
    start, end = span

    # Somewhere inside each operation there is a moment at which it took effect. Taking the
    # earliest one that does not run backwards gives a line that can be drawn through the prefix.
    states = _states(prefix, drawn, data)
    steps: list[Step] = []
    at = 0
    for row, state in zip(prefix, states, strict=True):
        at = max(at, drawn[row].call_us)
        steps.append(Step(op=row, at=at, state=state))
    shown = steps[-STEPS_SHOWN_MAX:]

    # The window of a contradiction can be so tight that what set its state lies before it.
    past = min([start, *(drawn[row].call_us for row in prefix[-PAST_STEPS:])])

    # The checker may itself have kept only the end of a long prefix.
    stated = data.get("prefix_length")
    length = max(len(steps), stated if isinstance(stated, int) else 0)

    key = finding.key if finding.key is not None else data.get("key")
    ops = [
        row
        for row, operation in enumerate(drawn)
        if operation.invoke.key == key
        and operation.call_us <= end
        and (operation.outcome in (INFO, OPEN) or (operation.ret_us or end) >= past)
    ]
    return Anomaly(
        checker=checker,
        key=key,
        message=finding.message,
        start=start,
        end=end,
        steps=shown,
        steps_cut=length - len(shown),
        state=value_text(data["state"]) if "state" in data else None,
        rejected=[
            Rejected(op=row, at=max(at, drawn[row].call_us), reason=reason)
            for row, reason in refused
        ],
        core=timeline.rows(_integers(data.get("core"))),
        ops=ops[-WINDOW_OPS_MAX:],
        ops_cut=max(0, len(ops) - WINDOW_OPS_MAX),
    )


def _integers(value: Any) -> list[int]:
    return [item for item in value if isinstance(item, int)] if isinstance(value, list) else []


def _states(
    prefix: Sequence[int], drawn: Sequence[_Operation], data: dict[str, Any]
) -> list[str | None]:
    """The state after each step: as the checker says, or replayed where that is plain.

    Only registers are replayed, and only if the replay ends in the state that the checker found.
    """
    stated = data.get("states")
    if isinstance(stated, list) and len(stated) == len(prefix):
        return [value_text(state) for state in stated]
    replayed: list[Any] = []
    for row in prefix:
        operation = drawn[row]
        value = operation.invoke.value
        match operation.invoke.f:
            case "write":
                replayed.append(value)
            case "read":
                replayed.append(operation.result if operation.outcome == OK else None)
            case "cas" if isinstance(value, list) and len(value) == 2:
                replayed.append(value[1])
            case _:
                return [None] * len(prefix)
    if not replayed or ("state" in data and replayed[-1] != data["state"]):
        return [None] * len(prefix)
    return [value_text(state) for state in replayed]


def _by_fault(events: Iterable[FaultEvent]) -> list[list[FaultEvent]]:
    faults: defaultdict[int, list[FaultEvent]] = defaultdict(list)
    for event in events:
        faults[event.id].append(event)
    return list(faults.values())


def _fault(events: Sequence[FaultEvent], nodes: Sequence[str]) -> FaultData:
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


def _phases(ops: Sequence[Op]) -> list[Phase]:
    marks = [
        Phase(name=str(op.value), start=op.time // 1000)
        for op in ops
        if op.process == NEMESIS and op.f == "phase"
    ]
    return [Phase(name="setup", start=0), *marks] if marks and marks[0].start > 0 else marks


def _rate(operations: Sequence[_Operation], end_us: int) -> Rate:
    bucket = 100_000 if end_us < 20_000_000 else 1_000_000
    bucket *= -(-(end_us // bucket + 1) // RATE_BUCKETS_MAX)
    columns = {name: [0] * (end_us // bucket + 1) for name in ("ok", "fail", "info")}
    for operation in operations:
        if operation.ret_us is not None:
            columns[_OUTCOME_NAME[operation.outcome]][max(0, operation.ret_us) // bucket] += 1
    return Rate(bucket=bucket, ok=columns["ok"], fail=columns["fail"], info=columns["info"])


def _latencies(operations: Sequence[_Operation]) -> list[Latency]:
    took: defaultdict[str, list[int]] = defaultdict(list)
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for operation in operations:
        f = operation.invoke.f
        counts[f][_OUTCOME_NAME[operation.outcome]] += 1
        if operation.outcome == OK and operation.ret_us is not None:
            took[f].append(operation.ret_us - operation.call_us)
    rows: list[Latency] = []
    for f, count in counts.items():
        sample = sorted(took[f])
        rows.append(
            Latency(
                f=f,
                ok=count["ok"],
                fail=count["fail"],
                info=count["info"],
                p50=_quantile(sample, 0.50),
                p95=_quantile(sample, 0.95),
                p99=_quantile(sample, 0.99),
                max=sample[-1] if sample else None,
            )
        )
    return rows


def _quantile(ordered: Sequence[int], share: float) -> int | None:
    """Nearest rank: the smallest value that at least `share` of the sample does not exceed."""
    if not ordered:
        return None
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def _cause(results: Results) -> str:
    """Say in one sentence why the run ended as it did."""
    verdict = results.verdict
    if verdict is None:
        return "The run has no results: it was stopped before it was judged, or they are damaged."
    if verdict is Verdict.ERROR and results.errors:
        return f"The rig failed: {error_text(results.errors[0])}"
    for name, check in results.checkers.items():
        if check.verdict is verdict and verdict is not Verdict.VALID:
            if check.findings:
                return check.findings[0].message.splitlines()[0]
            return f"{name}: {check.summary}"
    if verdict is Verdict.VALID:
        summaries = [f"{name}: {check.summary}" for name, check in results.checkers.items()]
        found = f"No violation was found by {len(summaries)} checkers."
        return f"{found} {summaries[0]}" if summaries else found
    return "No checker says why."


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
        ("started", results.started_at and results.started_at[:19].replace("T", " ") + " UTC"),
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
