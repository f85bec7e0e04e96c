"""An invalid key told for the page: the prefix that works, and what cannot come next."""

from collections.abc import Sequence
from typing import Any, Final

from labrys.checkers.verdict import Finding
from labrys.control.report.labels import value_text
from labrys.control.report.operations import Operation, Timeline
from labrys.control.report.schema import INFO, OK, OPEN, Anomaly, Rejected, Step

STEPS_SHOWN_MAX: Final = 40
"""Steps of a linearizable prefix that are listed: the last ones."""
PAST_STEPS: Final = 6
"""Steps before an anomaly that are shown with it, as its past."""
WINDOW_OPS_MAX: Final = 200
"""Operations listed for one anomaly."""


def explained(
    checker: str, finding: Finding, timeline: Timeline, drawn: Sequence[Operation]
) -> Anomaly | None:
    """Explain an invalid key; None when the history does not hold what the finding names."""
    data = finding.data
    prefix = timeline.rows(_integers(data.get("prefix")))
    refused = [
        (row, reason) for index, reason in _refused(finding) for row in timeline.rows([index])
    ]
    span = timeline.span([*_integers(data.get("window")), *_integers(data.get("core"))])
    span = span or timeline.span(named_indices(finding))
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
    prefix: Sequence[int], drawn: Sequence[Operation], data: dict[str, Any]
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


def named_indices(finding: Finding) -> list[int]:
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
