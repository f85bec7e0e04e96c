"""The errors checker: what went wrong for the clients, by kind, the most frequent kind first."""

from typing import Any, Final

from labrys.checkers.checker import Evidence
from labrys.checkers.history import History, Operation
from labrys.checkers.models import json_text
from labrys.checkers.op import Op, OpType
from labrys.checkers.verdict import CheckResult, Finding, Verdict

_ANSWERS: Final = frozenset({"mismatch", "not-found"})
"""Codes of failures that are answers: the object was reached and said no."""
_EXAMPLE_CHARS_MAX: Final = 200
_KINDS_MAX: Final = 50
"""So many kinds are told one by one; codes that never repeat must not flood the report."""


class UnhandledErrors:
    """Groups the errors of the clients' operations by code. No violation in them: always valid."""

    name = "errors"

    def check(self, history: History, evidence: Evidence) -> CheckResult:
        """Group the errors in `history`."""
        kinds: dict[str, list[Op]] = {}
        for op in history.client_ops:
            if op.type in (OpType.FAIL, OpType.INFO):
                kinds.setdefault(error_code(op), []).append(op)
        ranked = sorted(kinds.items(), key=lambda kind: (-len(kind[1]), kind[0]))
        total = sum(map(len, kinds.values()))
        return CheckResult(
            Verdict.VALID,
            f"{total} operations without success, {len(kinds)} kinds of error"
            if total
            else "no errors",
            findings=tuple(_finding(code, ops) for code, ops in ranked[:_KINDS_MAX]),
            data={"kinds": {code: _counts(ops) for code, ops in ranked[:_KINDS_MAX]}},
        )


def error_code(op: Op) -> str:
    """Return the short code of a completion's error; what has no code is told as JSON."""
    error = op.error
    if isinstance(error, list | tuple) and error:
        error = error[0]
    if error is None:
        return "no error given"
    return error if isinstance(error, str) else json_text(error)


def was_answered(operation: Operation) -> bool:
    """Whether the object answered: with success, or with a definite no such as a cas mismatch."""
    if operation.is_ok:
        return True
    completion = operation.completion
    return operation.is_fail and completion is not None and error_code(completion) in _ANSWERS


def _counts(ops: list[Op]) -> dict[str, Any]:
    fail = sum(op.type is OpType.FAIL for op in ops)
    return {"count": len(ops), "fail": fail, "info": len(ops) - fail, "example": ops[0].index}


def _example(op: Op) -> str:
    """What the error says beyond its code."""
    said = op.error[1:] if isinstance(op.error, list | tuple) else ()
    words = ", ".join(one if isinstance(one, str) else json_text(one) for one in said)
    return f": {words[:_EXAMPLE_CHARS_MAX]}" if words else ""


def _finding(code: str, ops: list[Op]) -> Finding:
    counts, first = _counts(ops), ops[0]
    node = "" if first.node is None else f" on {first.node}"
    return Finding(
        f"{code}: {counts['count']} times ({counts['fail']} fail, {counts['info']} info), "
        f"first at op {first.index}, process {first.process} {first.f}{node}{_example(first)}",
        ops=(first.index,),
        key=first.key,
        data={"code": code, **counts},
    )
