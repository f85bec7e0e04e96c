"""The four verdicts and the one function that combines them."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import msgspec


class Verdict(StrEnum):
    """How a check ended. There is no truth value: name the case you mean."""

    VALID = "valid"
    INVALID = "invalid"
    UNKNOWN = "unknown"
    ERROR = "error"

    def __bool__(self) -> bool:
        raise TypeError(f"a verdict is not a bool: compare with Verdict.VALID, not {self.value!r}")


# Worst first: a proven violation is never masked by a check that could not run.
_PRECEDENCE = (Verdict.INVALID, Verdict.ERROR, Verdict.UNKNOWN, Verdict.VALID)


def combine(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict of the whole: invalid beats error beats unknown beats valid.

    Nothing to combine is `unknown`: a check that looked at nothing has shown nothing.
    """
    seen = set(verdicts)
    return next((verdict for verdict in _PRECEDENCE if verdict in seen), Verdict.UNKNOWN)


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that a checker has to say, with the ops that show it."""

    message: str
    """One greppable line, or several: the first is the headline."""
    ops: tuple[int, ...] = ()
    """Indices into the history."""
    key: str | None = None
    data: dict[str, Any] = {}
    """The same as JSON values, for reports."""


class CheckResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one checker concluded and why."""

    verdict: Verdict
    summary: str
    """One line in words."""
    hint: str | None = None
    """For `unknown` and `error`: what was missing or which limit was hit, and the knob to turn."""
    findings: tuple[Finding, ...] = ()
    data: dict[str, Any] = {}
    """Figures of this checker, as JSON values."""


def vacuous(what: str, data: dict[str, Any] | None = None) -> CheckResult:
    """Return the answer for a history in which a wrong object could have gone unseen: `what`."""
    return CheckResult(
        Verdict.UNKNOWN,
        f"vacuous: {what}",
        hint="a longer run, a higher rate, or fewer faults at a time",
        data=data or {},
    )
