"""What checkers have in common that judge the operations of each key by themselves."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec

from labrys.checkers.checker import Evidence
from labrys.checkers.history import History, HistoryError, Operation
from labrys.checkers.models.model import known_function
from labrys.checkers.text import json_text
from labrys.checkers.verdict import CheckResult, Finding, Verdict, combine, vacuous

TOLD_MAX: Final = 10
"""Findings of one kind that are told one by one; the rest is counted."""
_NAMED_MAX: Final = 3


class ByKey:
    """A checker of one kind of data. A subclass needs `functions`, `judge` and `missing`."""

    name: ClassVar[str]
    functions: ClassVar[Mapping[str, str]]
    """The `f`s that may stand in a history, and what each means."""
    levels: ClassVar[tuple[str, ...]] = ()
    """How strict it can be, what is demanded by default first; empty: there is no choice."""
    has_start: ClassVar[bool] = False
    """Whether it can begin with something: whether `initial` means anything."""

    def __init__(self, level: str | None = None, initial: Any = None) -> None:
        """Judge as strictly as `level` says, from the start `initial`.

        Raises `ValueError` for a level or a start that there is not.
        """
        if initial is not None and not self.has_start:
            raise ValueError(f"{self.name} starts empty: drop initial")
        if level is not None and level not in self.levels:
            known = ", ".join(self.levels) or "there is only one, leave it out"
            raise ValueError(f"no level {level!r} of {self.name}: choose from {known}")
        self.level = level or (self.levels[0] if self.levels else None)

    def assert_fits(self, history: History) -> None:
        """Raise `HistoryError` naming the first operation that this checker does not know."""
        for operation in history.operations:
            known_function(operation, self.functions)
            self.assert_sound(operation)

    def assert_sound(self, operation: Operation) -> None:
        """Raise `HistoryError` if the values of a known operation are of the wrong type."""

    def judge(self, operations: Sequence[Operation]) -> CheckResult:
        """Judge the operations of one key, in order of invocation."""
        raise NotImplementedError

    def missing(self, operations: Sequence[Operation]) -> str | None:
        """Say what `valid` would have to rest on but is not there; None if all is."""
        raise NotImplementedError

    def check(self, history: History, evidence: Evidence) -> CheckResult:
        """Judge `history`, each key by itself."""
        try:
            self.assert_fits(history)
        except HistoryError as error:
            return CheckResult(
                Verdict.ERROR,
                f"the history does not fit {self.name}: {error}",
                hint="choose another model, or say how the history is keyed",
            )
        results: dict[str | None, CheckResult] = {}
        missing: dict[str | None, str] = {}
        for key, operations in history.operations_by_key().items():
            result = self.judge(operations)
            what = self.missing(operations) if result.verdict is Verdict.VALID else None
            if what is None:
                results[key] = result
            else:
                missing[key] = what
        if not results:
            return vacuous(next(iter(missing.values()), "no operation at all"))
        if len(results) == 1 and not missing:
            ((key, result),) = results.items()
            return msgspec.structs.replace(result, findings=_of(key, result.findings))
        return _combined(results, missing)


def _combined(
    results: Mapping[str | None, CheckResult], missing: Mapping[str | None, str]
) -> CheckResult:
    """Put the answers for several keys together; keys that saw too little only count."""
    verdict = combine(result.verdict for result in results.values())
    worst = {key: one for key, one in results.items() if one.verdict is verdict}
    total = len(results) + len(missing)
    if verdict is Verdict.VALID:
        summary = f"all {len(results)} keys valid"
    else:
        named = "; ".join(
            f"{json_text(key)}: {one.summary}" for key, one in list(worst.items())[:_NAMED_MAX]
        )
        more = "; ..." if len(worst) > _NAMED_MAX else ""
        summary = f"{len(worst)} of {total} keys {verdict}: {named}{more}"
    if missing:
        summary += f"; {len(missing)} keys saw too little ({next(iter(missing.values()))})"
    findings = [
        finding for key, one in worst.items() for finding in _of(key, one.findings[:TOLD_MAX])
    ]
    hints = dict.fromkeys(one.hint for one in worst.values() if one.hint is not None)
    return CheckResult(
        verdict,
        summary,
        hint="; ".join(hints) or None,
        findings=tuple(findings[: 10 * TOLD_MAX]),
        data={
            "keys": total,
            "per_key": {
                key or "": {"verdict": one.verdict.value, **one.data} for key, one in worst.items()
            }
            if verdict is not Verdict.VALID
            else {},
        },
    )


def _of(key: str | None, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(msgspec.structs.replace(finding, key=key) for finding in findings)


class Tally:
    """Findings by kind: all are counted, and the first few of each kind told."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._findings: list[Finding] = []

    def tell(self, kind: str, message: str, ops: Iterable[int], **data: Any) -> None:
        """Add a finding about a few operations: they are its core, and their span its window."""
        self.counts[kind] += 1
        if self.counts[kind] > TOLD_MAX:
            return
        core = sorted(set(ops))
        window = [core[0], core[-1]] if core else [0, 0]
        facts = {"anomaly": kind, "core": core, "window": window, "short": message, **data}
        self._findings.append(Finding(message, ops=tuple(core), data=facts))

    def findings(self, kinds: Iterable[str]) -> tuple[Finding, ...]:
        """Return what is told of these kinds, or of all where there is nothing of these."""
        kinds = set(kinds)
        chosen = tuple(one for one in self._findings if one.data["anomaly"] in kinds)
        return chosen or tuple(self._findings)
