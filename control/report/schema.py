"""What the page is given: the schema of the report data.

Times are whole microseconds since the run began. Operations are columns, not records: 100 000 of
them then compress to about a megabyte. Everything that refers to an operation does so by its row,
its position in these columns.
"""

from typing import Final

import msgspec

from labrys.checkers.verdict import Verdict

VERSION: Final = 1
"""Of the schema; raised whenever a reader of an older one would be misled."""

OK, FAIL, INFO, OPEN = range(4)
"""Outcomes as the page codes them; an open operation has no completion at all."""


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
