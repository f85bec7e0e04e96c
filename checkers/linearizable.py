"""The linearizability checker: every key on its own, under one budget."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from labrys.checkers.budget import Budget
from labrys.checkers.checker import Evidence
from labrys.checkers.decide import GaveUp, decide
from labrys.checkers.explain import Subject, explain, told
from labrys.checkers.history import History, HistoryError, Operation
from labrys.checkers.models import MODELS, UNSEEN, Illegal, Model, json_text
from labrys.checkers.search import Step, Stuck
from labrys.checkers.verdict import CheckResult, Finding, Verdict, combine

_EXPLAINED_MAX: Final = 10
"""How many invalid keys are explained at length; the others are named."""
_NAMED_MAX: Final = 5


class Linearizable:
    """Is there, for every key, one order of its operations that fits real time and the model?

    Operations that failed did not happen. Those with an unknown outcome may have taken effect at
    any time after their invocation, or never.
    """

    name = "linearizable"

    def __init__(self, model_name: str, initial: Any = None, nil_read: str = "absent") -> None:
        """Judge by the model `model_name` of `MODELS`, in state `initial` (JSON) at the start.

        Raises `ValueError` for an unknown model, or a start that it cannot have.
        """
        if model_name not in MODELS:
            raise ValueError(f"no model {model_name!r}: choose from {', '.join(MODELS)}")
        self._model_name = model_name
        self._model: Model = MODELS[model_name](initial=initial, nil_read=nil_read)

    def assert_fits(self, history: History) -> None:
        """Raise `HistoryError` naming the first operation that the model does not know."""
        for operation in history.operations:
            try:
                self._model.action(operation)
            except RecursionError:
                raise HistoryError(f"op {operation.call}: its value is nested too deeply") from None

    def check(self, history: History, evidence: Evidence) -> CheckResult:
        """Judge `history`, each key by itself."""
        try:
            subjects = [
                self._subject(key, part.operations) for key, part in history.by_key().items()
            ]
        except HistoryError as error:
            return CheckResult(
                Verdict.ERROR,
                f"the history does not fit the model {self._model_name}: {error}",
                hint="choose another model, or say how the history is keyed",
            )
        budget = Budget(evidence.limits)
        verdicts: list[Verdict] = []
        findings: list[Finding] = []
        per_key: dict[str, Any] = {}
        invalid: list[str | None] = []
        undecided: list[str | None] = []
        hints: dict[str, None] = {}
        # Short ones first: one hard key may use up the budget, but not at the cost of easy ones.
        for subject in sorted(subjects, key=lambda subject: len(subject.steps)):
            outcome = decide(self._model, subject.steps, budget)
            if isinstance(outcome, Stuck):
                verdicts.append(Verdict.INVALID)
                invalid.append(subject.key)
                if len(findings) < _EXPLAINED_MAX:
                    findings.append(_explained(subject, outcome, budget))
                per_key[subject.key or ""] = {"verdict": "invalid", "ops": len(subject.steps)}
            elif isinstance(outcome, GaveUp):
                verdicts.append(Verdict.UNKNOWN)
                undecided.append(subject.key)
                hints[outcome.spent.hint] = None
                findings.append(finding := _undecided(subject, outcome))
                per_key[subject.key or ""] = {
                    "verdict": "unknown",
                    "ops": len(subject.steps),
                    "reason": finding.message,
                }
            else:
                verdicts.append(Verdict.VALID)
        missing = self._what_is_missing(subjects)
        verdict = combine(verdicts)
        if missing is not None and verdict in (Verdict.VALID, Verdict.UNKNOWN):
            return CheckResult(
                Verdict.UNKNOWN,
                f"vacuous: {missing}",
                hint="a longer run, a higher rate, or fewer faults at a time",
                data=_figures(subjects, [], [], {}),
            )
        return CheckResult(
            verdict,
            _summary(subjects, invalid, undecided),
            hint="; ".join(hints) or None,
            findings=tuple(findings),
            data=_figures(subjects, invalid, undecided, per_key),
        )

    def _subject(self, key: str | None, operations: Iterable[Operation]) -> Subject:
        steps: list[Step] = []
        kept: list[Operation] = []
        for operation in operations:
            action = self._model.action(operation)
            if action is None or operation.is_fail:
                continue
            if operation.ret is None and action.f in self._model.pure:
                continue  # nobody saw its result, and it had no effect
            steps.append(Step(action, operation.call, operation.ret))
            kept.append(operation)
        return Subject(key, self._model, steps, kept)

    def _what_is_missing(self, subjects: Sequence[Subject]) -> str | None:
        """Say what a verdict would have to rest on but is not there; None if all is there."""
        certain = [
            step.action for subject in subjects for step in subject.steps if step.ret is not None
        ]
        if not certain:
            return "no operation succeeded"
        # What can be done in a state that nobody has named says nothing about the state: a write,
        # but also an append.
        if not any(isinstance(self._model.step(UNSEEN, action), Illegal) for action in certain):
            return "nothing was ever observed: no read succeeded"
        return None


def _explained(subject: Subject, stuck: Stuck, budget: Budget) -> Finding:
    """Explain, but never let a fault of the explanation hide the violation itself."""
    try:
        return explain(subject, stuck, budget)
    except Exception as fault:
        return Finding(
            f"not linearizable: {told(subject, stuck.step)} fits nowhere\n"
            f"(no more can be said: {type(fault).__name__}: {fault}; this is a bug in labrys)",
            ops=(subject.steps[stuck.step].call,),
            key=subject.key,
            data={"key": subject.key, "window": [subject.steps[0].call, stuck.event]},
        )


def _undecided(subject: Subject, gave_up: GaveUp) -> Finding:
    owed = [told(subject, number) for number in gave_up.owed[:_NAMED_MAX]]
    what = "the history" if subject.key is None else f"key {json_text(subject.key)}"
    lines = [
        f"{what} is undecided: reached {gave_up.spent.limit} at op {gave_up.event}; "
        f"{gave_up.spent.hint}",
        *(f"  to be placed there: {text}" for text in owed),
    ]
    return Finding(
        "\n".join(lines),
        ops=tuple(subject.steps[number].call for number in gave_up.owed[:_NAMED_MAX]),
        key=subject.key,
        data={"key": subject.key, "event": gave_up.event, "limit": gave_up.spent.limit},
    )


def _summary(
    subjects: Sequence[Subject], invalid: Sequence[str | None], undecided: Sequence[str | None]
) -> str:
    total = len(subjects)
    operations = sum(len(subject.steps) for subject in subjects)
    if total == 1:
        what = "not linearizable" if invalid else "undecided" if undecided else "linearizable"
        return f"{what}: {operations} operations on one object"
    parts = []
    if invalid:
        parts.append(f"{len(invalid)} of {total} keys not linearizable{_listed(invalid)}")
    if undecided:
        parts.append(f"{len(undecided)} of {total} keys undecided{_listed(undecided)}")
    if not parts:
        parts.append(f"all {total} keys linearizable")
    return f"{'; '.join(parts)}; {operations} operations"


def _listed(keys: Sequence[str | None]) -> str:
    named = [json_text(key) for key in keys if key is not None]
    if not named:
        return ""
    more = ", ..." if len(named) > _NAMED_MAX else ""
    return f" ({', '.join(named[:_NAMED_MAX])}{more})"


def _figures(
    subjects: Sequence[Subject],
    invalid: Sequence[str | None],
    undecided: Sequence[str | None],
    per_key: dict[str, Any],
) -> dict[str, Any]:
    return {
        "keys": len(subjects),
        "ops": sum(len(subject.steps) for subject in subjects),
        "invalid_keys": list(invalid),
        "unknown_keys": list(undecided),
        "per_key": per_key,
    }
