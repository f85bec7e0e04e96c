"""The linearizability checker: every key on its own, the cheapest sufficient check first."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from labrys.checkers.budget import Budget
from labrys.checkers.checker import Evidence
from labrys.checkers.core import Core
from labrys.checkers.decide import GaveUp, decide
from labrys.checkers.distinct.outcome import NotApplicable, Violation
from labrys.checkers.explain import explain
from labrys.checkers.history import FOREVER, History, HistoryError
from labrys.checkers.models import MODELS
from labrys.checkers.models.model import Model
from labrys.checkers.search import Stuck, Survived
from labrys.checkers.subject import Subject, subjects
from labrys.checkers.text import json_text
from labrys.checkers.verdict import CheckResult, Finding, Verdict, combine, vacuous

_EXPLAINED_MAX: Final = 10
"""How many invalid keys are explained at length; the others are named."""
_NAMED_MAX: Final = 5
_SPREAD_MIN: Final = 50_000
"""From so many operations on it pays to use all cores."""
_EXPLAINING_MOVES: Final = 20_000
"""Work spent on explaining what is known to be wrong by other means."""
_SEARCHED_MAX: Final = 20_000
"""A violation among more operations than that is explained from its surroundings only."""


class Judged(msgspec.Struct, frozen=True):
    """What was found out about one object."""

    verdict: Verdict
    finding: Finding | None = None
    hint: str | None = None


class Linearizable:
    """Is there, for every key, one order of its operations that fits real time and the model?

    Operations that failed did not happen. Those with an unknown outcome may have taken effect at
    any time after their invocation, or never.
    """

    name = "linearizable"

    def __init__(self, model: str | Model, *, all_keys: bool = True, **how: Any) -> None:
        """Judge by a model, or by one of `MODELS` made with `how` (initial, nil_read, ...).

        Without `all_keys` the first invalid key ends the check.
        Raises `ValueError` for an unknown model, or a start that it cannot have.
        """
        if isinstance(model, str):
            if model not in MODELS:
                raise ValueError(f"no model {model!r}: choose from {', '.join(MODELS)}")
            self._model = MODELS[model](**how)
            self._model_name = model
        else:
            self._model = model
            self._model_name = type(model).__name__
        self._all_keys = all_keys
        self._prepared: tuple[History, list[Subject]] | None = None

    def assert_fits(self, history: History) -> None:
        """Raise `HistoryError` naming the first operation that the model does not know."""
        try:
            found = subjects(self._model, history.operations_by_key())
            for subject in found:
                if isinstance(subject.outcome, NotApplicable):
                    subject.compile()
            self._prepared = (history, found)
        except RecursionError:
            raise HistoryError(_nested(self._model, history)) from None

    def check(self, history: History, evidence: Evidence) -> CheckResult:
        """Judge `history`, each key by itself."""
        try:
            if self._prepared is None or self._prepared[0] is not history:
                self.assert_fits(history)
            assert self._prepared is not None, "just prepared"
            found = self._prepared[1]
            self._prepared = None
        except HistoryError as error:
            return CheckResult(
                Verdict.ERROR,
                f"the history does not fit the model {self._model_name}: {error}",
                hint="choose another model, or say how the history is keyed",
            )
        # Short ones first: they are the easiest to read, and the first to end the check.
        found.sort(key=lambda subject: len(subject.operations))
        judged = self._judge_all(found, evidence)
        verdict = combine(one.verdict for one in judged)
        missing = _what_is_missing(self._model, found)
        if missing is not None and verdict in (Verdict.VALID, Verdict.UNKNOWN):
            return vacuous(missing, _figures(found, []))
        hints = dict.fromkeys(one.hint for one in judged if one.hint is not None)
        findings = [one.finding for one in judged if one.finding is not None]
        return CheckResult(
            verdict,
            _summary(found, judged),
            hint="; ".join(hints) or None,
            findings=tuple(findings[:_EXPLAINED_MAX]),
            data=_figures(found, judged),
        )

    def _judge_all(self, found: Sequence[Subject], evidence: Evidence) -> list[Judged]:
        deadline = Budget(evidence.limits)

        def judged(place: int) -> Judged:
            try:
                return judge(found[place], deadline.part(evidence.limits.moves))
            except RecursionError:
                return Judged(Verdict.ERROR, Finding("a value is nested too deeply"))

        each: Iterable[Judged] = map(judged, range(len(found)))
        size = sum(
            len(subject.steps) for subject in found if isinstance(subject.outcome, NotApplicable)
        )
        if evidence.spread is not None and len(found) > 1 and size >= _SPREAD_MIN:
            each = evidence.spread(judged, len(found))
        results: list[Judged] = []
        for one in each:
            results.append(one)
            if one.verdict is Verdict.INVALID and not self._all_keys:
                break
        return results


def judge(subject: Subject, budget: Budget) -> Judged:
    """Judge one object: without a search where its values are distinct, else by a search."""
    outcome = subject.outcome
    if isinstance(outcome, NotApplicable):
        decided = decide(subject.search(budget), budget)
        if isinstance(decided, Survived):
            return Judged(Verdict.VALID)
        if isinstance(decided, GaveUp):
            return _undecided(subject, decided)
        return Judged(Verdict.INVALID, _explained(subject, decided, budget))
    if isinstance(outcome, Violation):
        return _convicted(subject, outcome, budget)
    return Judged(Verdict.VALID)


def _convicted(subject: Subject, violation: Violation, budget: Budget) -> Judged:
    """Explain what a check without a search has found; a search has to see it too."""
    if len(subject.steps) <= _SEARCHED_MAX:
        part = budget.part(_EXPLAINING_MOVES)
        decided = decide(subject.search(part), part)
        if isinstance(decided, Survived):
            return Judged(
                Verdict.ERROR,
                Finding(
                    f"{subject.name()}: two checks disagree, this is a bug in labrys: "
                    f"one says {violation.message}, the other finds an order",
                    ops=violation.ops,
                    key=subject.key,
                ),
            )
        if isinstance(decided, Stuck):
            finding = _explained(subject, decided, budget, _core_of(subject, violation))
            lines = finding.message.split("\n")
            lines.insert(1, f"in short: {violation.message}")
            told = msgspec.structs.replace(finding, message="\n".join(lines))
            told.data["short"] = violation.message
            return Judged(Verdict.INVALID, told)
    ops = set(violation.ops)
    numbers = [n for n, call in enumerate(subject.steps.call) if call in ops]
    return Judged(
        Verdict.INVALID,
        Finding(
            "\n".join(
                [
                    f"{subject.name()} is not linearizable: {violation.message}",
                    *(f"  {subject.told(number)}" for number in numbers),
                ]
            ),
            ops=violation.ops,
            key=subject.key,
            data={
                "key": subject.key,
                "part": subject.part,
                "short": violation.message,
                "core": list(violation.ops),
                "window": [
                    min(violation.ops, default=0),
                    max((r for n in numbers if (r := subject.steps.ret[n]) != FOREVER), default=0),
                ],
            },
        ),
    )


def _core_of(subject: Subject, violation: Violation) -> Core | None:
    """Take the operations of a violation for its core where searching for one would be slow."""
    if subject.table is not None:
        return None
    ops = set(violation.ops)
    return Core([n for n, call in enumerate(subject.steps.call) if call in ops], None)


def _explained(subject: Subject, stuck: Stuck, budget: Budget, core: Core | None = None) -> Finding:
    """Explain, but never let a fault of the explanation hide the violation itself."""
    try:
        return explain(subject, stuck, budget, core)
    except Exception as fault:
        return Finding(
            f"{subject.name()} is not linearizable: {subject.told(stuck.step)} fits nowhere\n"
            f"(no more can be said: {type(fault).__name__}: {fault}; this is a bug in labrys)",
            ops=(subject.steps.call[stuck.step],),
            key=subject.key,
            data={"key": subject.key, "window": [subject.steps.call[0], stuck.event]},
        )


def _undecided(subject: Subject, gave_up: GaveUp) -> Judged:
    owed = gave_up.owed[:_NAMED_MAX]
    lines = [
        f"{subject.name()} is undecided: reached {gave_up.spent.limit} at op {gave_up.event}; "
        f"{gave_up.spent.hint}",
        *(f"  to be placed there: {subject.told(number)}" for number in owed),
    ]
    finding = Finding(
        "\n".join(lines),
        ops=tuple(subject.steps.call[number] for number in owed),
        key=subject.key,
        data={"key": subject.key, "event": gave_up.event, "limit": gave_up.spent.limit},
    )
    return Judged(Verdict.UNKNOWN, finding, gave_up.spent.hint)


def _what_is_missing(model: Model, found: Sequence[Subject]) -> str | None:
    """Say what a verdict would have to rest on but is not there; None if all is there."""
    happened = False
    for subject in found:
        for operation in subject.operations:
            if operation.is_ok or (model.asserts_failures and operation.is_fail):
                action = model.action(operation)
                if action is not None and model.observes(action):
                    return None
                happened |= action is not None
    if happened:
        return "nothing was ever observed: no read succeeded"
    return "no operation succeeded"


def _summary(found: Sequence[Subject], judged: Sequence[Judged]) -> str:
    total = len({subject.key for subject in found})
    operations = sum(len(subject.operations) for subject in found)
    invalid, undecided, broken = (
        list(dict.fromkeys(s.key for s, j in zip(found, judged, strict=False) if j.verdict is v))
        for v in (Verdict.INVALID, Verdict.UNKNOWN, Verdict.ERROR)
    )
    if total == 1 and not broken:
        what = "not linearizable" if invalid else "undecided" if undecided else "linearizable"
        return f"{what}: {operations} operations on one object"
    parts = []
    if invalid:
        parts.append(f"{len(invalid)} of {total} keys not linearizable{_listed(invalid)}")
    if broken:
        parts.append(f"{len(broken)} of {total} keys could not be judged{_listed(broken)}")
    if undecided:
        parts.append(f"{len(undecided)} of {total} keys undecided{_listed(undecided)}")
    if len(judged) < len(found):
        parts.append(f"{len(found) - len(judged)} not looked at after that")
    if not parts:
        parts.append(f"all {total} keys linearizable")
    return f"{'; '.join(parts)}; {operations} operations"


def _listed(keys: Sequence[str | None]) -> str:
    named = [json_text(key) for key in keys if key is not None]
    if not named:
        return ""
    more = ", ..." if len(named) > _NAMED_MAX else ""
    return f" ({', '.join(named[:_NAMED_MAX])}{more})"


def _figures(found: Sequence[Subject], judged: Sequence[Judged]) -> dict[str, Any]:
    bad: dict[str, Any] = {}
    named: dict[Verdict, dict[str | None, None]] = {v: {} for v in Verdict}
    for subject, one in zip(found, judged, strict=False):
        if one.verdict is Verdict.VALID:
            continue
        named[one.verdict][subject.key] = None
        entry = {"verdict": one.verdict.value, "ops": len(subject.operations)}
        if one.verdict is Verdict.UNKNOWN and one.finding is not None:
            entry["reason"] = one.finding.message
        bad.setdefault(subject.key or "", entry)
    return {
        "keys": len({subject.key for subject in found}),
        "ops": sum(len(subject.operations) for subject in found),
        "invalid_keys": list(named[Verdict.INVALID]),
        "unknown_keys": list(named[Verdict.UNKNOWN]),
        "unchecked": len(found) - len(judged) if judged else 0,
        "per_key": bad,
    }


def _nested(model: Model, history: History) -> str:
    for operation in history.operations:
        try:
            model.action(operation)
        except RecursionError:
            return f"op {operation.call}: its value is nested too deeply"
    return "a value is nested too deeply"
