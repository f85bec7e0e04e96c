"""The terminal twin of the page: the same facts as stable, greppable plain text.

The first and the last line carry seed and verdict. Colour only ever adds to words. All of it is
pure, except for `run_page`, which reads a run directory; nothing knows whether there is a terminal.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from labrys.checkers.op import Op
from labrys.checkers.verdict import CheckResult, Finding, Verdict
from labrys.control.report.data import report_data
from labrys.control.report.labels import error_text, planned_kinds, value_text
from labrys.control.report.run_files import Results, RunFiles, read_run
from labrys.control.report.schema import FAIL, INFO, OPEN, Anomaly, ReportData

FINDINGS_PRINTED_MAX: Final = 3
"""Findings printed for one checker."""
LINES_PRINTED_MAX: Final = 40
"""Lines printed of one finding."""
_REST: Final = "all in results.json"
STEPS_PRINTED_MAX: Final = 12
"""Last steps of a linearizable prefix that are listed."""
LANE_OPS_MAX: Final = 24
"""Operations drawn as lanes: those nearest to the end of the window."""

_COLOR: Final = {
    Verdict.VALID: "green",
    Verdict.INVALID: "red",
    Verdict.UNKNOWN: "yellow",
    Verdict.ERROR: "magenta",
}
_EXIT_CODE: Final = {
    Verdict.VALID: 0,
    Verdict.INVALID: 1,
    Verdict.UNKNOWN: 3,
    Verdict.ERROR: 4,
    None: 4,
}
_EXIT_INTERRUPTED: Final = 130
_OP_ROW: Final = "{:>8} {:>13} {:>8} {:<4} {:<6} {:<8} {:<6} {:<24} {}"
OP_HEADER: Final = _OP_ROW.format(
    "index", "time", "process", "node", "type", "f", "key", "value", "error"
).rstrip()
"""The names of the columns that `op_line` prints."""


def first_line(spec: Mapping[str, Any]) -> str:
    """Return the line that opens the output of a test, from its resolved spec or its results.

    `labrys: seed 8817  register  partition,kill  60 s  5 nodes  netns`
    """
    faults = ",".join(planned_kinds(spec)) or "no faults"
    nodes = spec.get("nodes", "?")
    count = len(nodes) if isinstance(nodes, list | tuple) else nodes
    seconds = spec.get("time_limit", spec.get("duration_s"))
    words = [
        f"labrys: seed {spec.get('seed', '?')}",
        str(spec.get("workload") or "?"),
        *([f"bug {spec['bug']}"] if spec.get("bug") else []),
        faults,
        *([f"{seconds:g} s"] if isinstance(seconds, int | float) else []),
        f"{count} nodes",
        str(spec.get("environment") or spec.get("env") or "?"),
    ]
    return one_line("  ".join(words))


def run_page(run_dir: Path, *, color: bool = False) -> str:
    """Return everything that `labrys show` prints about a run, with a newline at the end.

    Missing and damaged files become notices; nothing is raised for them.
    """
    run = read_run(run_dir)
    return page_text(run, report_data(run), color=color) + "\n"


def page_text(run: RunFiles, data: ReportData, *, color: bool = False) -> str:
    """Return the page of a run in words: notices, the windows of its anomalies, the verdict."""
    results: dict[str, Any] = msgspec.to_builtins(run.results)
    lines = [first_line({**results, **run.spec})]
    lines += [f"notice: {one_line(notice)}" for notice in data.notices]
    for anomaly in data.anomalies:
        name = "the history" if anomaly.key is None else f"key {one_line(anomaly.key)}"
        start, end = anomaly.start / 1e6, anomaly.end / 1e6
        lines += [f"anomaly of {name}, {start:.3f} s to {end:.3f} s", anomaly_text(data, anomaly)]
    code = _EXIT_INTERRUPTED if run.results.interrupted else _EXIT_CODE[run.results.verdict]
    lines.append(verdict_block(run.path, results, exit_code=code, color=color))
    return "\n".join(lines)


def verdict_block(
    run_dir: Path | str, results: Mapping[str, Any], *, exit_code: int, color: bool = False
) -> str:
    """Return what a run concluded and why, several lines, from its results.json.

    Raises `msgspec.ValidationError` if `results` are not the results of a run.
    """
    run = msgspec.convert(dict(results), Results)
    lines = verdict_tree(results, color=color)
    if run.rerun:
        lines.append(f"re-run     {one_line(run.rerun)}")
    if run.recheck:
        lines.append(f"re-check   {one_line(run.recheck)}")
    lines.append(f"report     {run_dir}/report.html")
    seed = "?" if run.seed is None else run.seed
    ending = f"labrys: seed {seed}  {_styled(run.verdict, color)}  exit {exit_code}"
    return "\n".join([*lines, ending])


def verdict_tree(results: Mapping[str, Any], *, color: bool = False) -> list[str]:
    """Return the verdict, what failed in the rig, and what each checker concluded, as lines.

    Raises `msgspec.ValidationError` as `verdict_block` does.
    """
    run = msgspec.convert(dict(results), Results)
    return [
        f"verdict {_styled(run.verdict, color)}{'  (interrupted)' * run.interrupted}",
        *rig_error_lines(run.errors),
        *checker_lines(run.checkers, color=color),
    ]


def reason(results: Mapping[str, Any]) -> str:
    """Return in a line why a run is not valid: what its checkers, or the rig, had to say."""
    run = msgspec.convert(dict(results), Results)
    said = [
        f"{name}: {check.summary}"
        for name, check in run.checkers.items()
        if check.verdict is run.verdict
    ]
    if run.verdict is Verdict.ERROR:
        said = [*map(str, run.errors), *said]
    return one_line("; ".join(said))


def rig_error_lines(errors: Iterable[Any]) -> list[str]:
    """Return what failed in the rig itself, a line each."""
    return [f"  rig error: {one_line(str(error))}" for error in errors]


def checker_lines(
    checkers: Mapping[str, CheckResult], *, rest: str = _REST, color: bool = False
) -> list[str]:
    """Return what each checker concluded: a line, its hint, and its findings unless it is valid.

    `rest` says where findings and lines stand that are too many to be printed.
    """
    width = max((len(name) for name in checkers), default=0)
    lines: list[str] = []
    for name, check in checkers.items():
        word = _styled(check.verdict, color, quiet=True, width=7)
        lines.append(f"  {name:<{width}}  {word}  {one_line(check.summary)}")
        if check.hint:
            lines.append(f"    hint: {one_line(check.hint)}")
        if check.verdict is Verdict.VALID:
            continue
        for finding in check.findings[:FINDINGS_PRINTED_MAX]:
            lines += [f"    {line}" for line in finding_lines(finding, rest)]
        if (more := len(check.findings) - FINDINGS_PRINTED_MAX) > 0:
            lines.append(f"    ... and {more} more findings, {rest}")
    return lines


def finding_lines(finding: Finding, rest: str = _REST) -> list[str]:
    """Return a finding as lines: its headline, then the rest of its message indented by two."""
    head, *others = [one_line(line) for line in finding.message.splitlines()] or [""]
    lines = [head, *(f"  {line}" for line in others)]
    if len(lines) > LINES_PRINTED_MAX:
        cut = len(lines) - LINES_PRINTED_MAX
        lines = [*lines[:LINES_PRINTED_MAX], f"  ... {cut} more lines, {rest}"]
    return lines


def op_line(op: Op) -> str:
    """Return one event of a history in aligned columns; what is absent is a dash."""
    return one_line(
        _OP_ROW.format(
            op.index,
            f"{op.time / 1e9:.6f}",
            str(op.process),
            "-" if op.node is None else op.node,
            op.type.value,
            op.f,
            "-" if op.key is None else op.key,
            value_text(op.value),
            "-" if op.error is None else error_text(op.error),
        )
    )


def op_lines(ops: Iterable[Op]) -> Iterator[str]:
    """Return a header and a line for each event."""
    yield OP_HEADER
    yield from map(op_line, ops)


def anomaly_text(data: ReportData, anomaly: Anomaly, *, width: int = 100) -> str:
    """Return the window of an anomaly as lanes of text, a lane per process, and its legend.

    Time is warped: one column per event, stretched where a label needs room. `[w 3]` was ok,
    `(w 3)` failed, `[w 3~~` has an unknown outcome and may still take effect. The number in
    front of a label is the operation's place in the linearizable prefix; an X marks a rejected one.
    """
    if not anomaly.ops:
        return ""
    ops = data.ops
    number = {step.op: anomaly.steps_cut + i for i, step in enumerate(anomaly.steps, 1)}
    rejected = {entry.op for entry in anomaly.rejected}
    wanted = sorted({*anomaly.ops, *rejected})
    starts = list(accumulate(ops.call_delta))
    bars = [
        _Bar(
            row=row,
            lane=f"process {ops.process[row]}",
            call=ops.index[row],
            ret=ops.ret_index[row] if ops.outcome[row] not in (INFO, OPEN) else None,
            label=(f"{number[row]}:" if row in number else "X:" if row in rejected else "")
            + ops.label[row],
            is_fail=ops.outcome[row] == FAIL,
        )
        for row in wanted[-LANE_OPS_MAX:]
    ]
    gutter = max(len(bar.lane) for bar in bars) + 2
    columns = _warp(bars)
    # What explains an anomaly stands at its end, so what does not fit is dropped at the front.
    while max(columns.values()) + 2 > width - gutter and len(bars) > 2:
        bars = bars[1:]
        columns = _warp(bars)
    end = max(columns.values()) + 1
    lanes: dict[str, list[str]] = {bar.lane: [" "] * (end + 1) for bar in bars}
    for bar in bars:
        left = columns[bar.call]
        right = end if bar.ret is None else columns[bar.ret]
        body = bar.label.ljust(right - left - 1, "~" if bar.ret is None else "-")
        opening, closing = "()" if bar.is_fail else "[]"
        text = f"{opening}{body[: right - left - 1]}{'~' if bar.ret is None else closing}"
        lanes[bar.lane][left : right + 1] = text
    clock = f"{starts[bars[0].row] / 1e6:.3f} s"
    until = f"{anomaly.end / 1e6:.3f} s"
    lines = [f"{'':<{gutter}}{clock}{until:>{max(2, end + 1 - len(clock))}}"]
    room = max(20, width - gutter)
    for lane, cells in lanes.items():
        drawn = "".join(cells).rstrip()
        lines.append(f"{lane:<{gutter}}{drawn if len(drawn) <= room else drawn[: room - 1] + '>'}")
    if len(bars) < len(wanted):
        lines.append(f"{len(wanted) - len(bars)} earlier operations of the window are left out")
    if anomaly.steps:
        steps = anomaly.steps[-STEPS_PRINTED_MAX:]
        count = anomaly.steps_cut + len(anomaly.steps)
        last = f", the last {len(steps)}" if len(steps) < count else ""
        lines.append(f"longest linearizable prefix: {count} operations{last}")
        for step in steps:
            state = "" if step.state is None else f"  state {step.state}"
            lines.append(f"  {number[step.op]}: {ops.index[step.op]} {ops.label[step.op]}{state}")
    lines += [
        f"  X: {ops.index[entry.op]} {ops.label[entry.op]} rejected: {entry.reason}"
        for entry in anomaly.rejected
    ]
    return "\n".join(map(one_line, lines))


class _Bar(msgspec.Struct, frozen=True):
    """An operation as it stands in a lane; `call` and `ret` are history indices."""

    row: int
    lane: str
    call: int
    ret: int | None
    label: str
    is_fail: bool


def _warp(bars: list[_Bar]) -> dict[int, int]:
    """Give every event a column: in the order of the history, with room for the labels."""
    events = sorted({i for bar in bars for i in (bar.call, bar.ret) if i is not None})
    opened = {bar.ret: bar for bar in bars if bar.ret is not None}
    room = {bar.call: len(bar.label) + 1 for bar in bars if bar.ret is None}
    columns: dict[int, int] = {}
    free = 0
    for event in events:
        if event in opened:
            bar = opened[event]
            free = max(free, columns[bar.call] + len(bar.label) + 1)
        columns[event] = free
        free += 1
    # A bar without an end reaches to the last column, which must leave room for its label.
    last = max(columns[call] + length for call, length in room.items()) if room else 0
    columns[-1] = max(free - 1, last)
    return columns


def verdict_word(verdict: Verdict | None) -> str:
    """Return a verdict in capitals; None is a run without results."""
    return "NO VERDICT" if verdict is None else verdict.value.upper()


def _styled(verdict: Verdict | None, color: bool, *, quiet: bool = False, width: int = 0) -> str:
    """The verdict as a word: upper case, but `valid` stays small where many stand in a list."""
    word = "valid" if quiet and verdict is Verdict.VALID else verdict_word(verdict)
    padded = word.ljust(width)
    if not color or verdict is None:
        return padded
    return click.style(padded, fg=_COLOR[verdict], bold=verdict is not Verdict.VALID)


def one_line(text: str) -> str:
    """Escape what would break a line or drive a terminal: values of a run are text, no more."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
