"""The model: what one object is supposed to do, one operation at a time.

A model is a pure step function over immutable states. JSON values are kept as canonical JSON text:
that makes any of them hashable, keeps 1, true and "1" apart, and is what people are shown.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from labrys.checkers.distinct.outcome import NotApplicable, Outcome
from labrys.checkers.history import HistoryError, Operation
from labrys.checkers.text import json_text

ABSENT: Final = "null"
"""The state of a register that nobody has written."""
UNSEEN: Final = "(a value that no operation observes)"
"""Stands for all states that no operation of the history can tell apart. No JSON text equals it."""


class Action(NamedTuple):
    """What an operation does to an object. Operations with equal actions are interchangeable."""

    f: str
    arg: Hashable = None
    result: Hashable = None


class Illegal(NamedTuple):
    """The action cannot happen in this state, and why: `the register holds 4, not 5`."""

    reason: str


class Model:
    """A sequential object. A subclass needs `functions`, `initial`, `step`; see docs/checkers.md.

    `action` as it stands here takes argument and result of every operation as JSON text; override
    it to check them or to make other values of them.
    """

    functions: ClassVar[Mapping[str, str]] = {}
    """The `f`s that may stand in a history, and what each means to `step`."""
    pure: frozenset[str] = frozenset()
    """The functions that never change the state."""
    blind: frozenset[str] = frozenset()
    """The functions that are always legal and whose new state does not depend on the old."""
    observers: frozenset[str] = frozenset()
    """The functions whose result says something about the state; others have none."""
    by_process: bool = False
    """Whether it matters who does an operation."""
    asserts_failures: bool = False
    """Whether a failed operation says something about the state."""
    is_register: ClassVar[bool] = False
    """Whether `read`, `write` and `cas` do here what they do to a register."""
    initial: Hashable = ABSENT
    """The state before any operation."""

    def action(self, operation: Operation) -> Action | None:
        """Say what `operation` does, or None if it says nothing about the object.

        Raises `HistoryError` if it is no operation of this model.
        """
        f = known_function(operation, self.functions)
        if f not in self.observers:
            return Action(f, json_text(operation.invoke.value))
        argument = json_text(operation.invoke.value)
        return Action(f, argument, json_text(operation.value) if operation.is_ok else None)

    def step(self, state: Hashable, action: Action) -> Hashable | Illegal:
        """Return the state after `action`, or why it cannot happen."""
        raise NotImplementedError

    def unseen(self, certain: Iterable[Action], crashed: Iterable[Action]) -> Callable[[Any], bool]:
        """Return whether no action, out of these, can tell a state from the other unseen ones.

        The search puts `UNSEEN` in their place: orders that differ in nothing anybody saw are one.
        """
        return lambda state: False

    def blurred(
        self, certain: Iterable[Action], crashed: Iterable[Action]
    ) -> Callable[[Hashable], Hashable]:
        """Return how to forget of a state what no action, out of these, can tell from others.

        By default all that is `unseen` becomes one state.
        """
        unseen = self.unseen(certain, crashed)
        return lambda state: UNSEEN if unseen(state) else state

    def states(self, actions: Iterable[Action]) -> set[Hashable] | None:
        """Return all states that `actions` can tell apart, or None if they cannot be listed."""
        return None

    def parts(self, operations: Sequence[Operation]) -> list[tuple[str, list[Operation]]] | None:
        """Split into independent objects, each with a name: all is well iff each part is.

        None if these operations cannot be split (Horn and Kroening 2015, P-compositionality).
        """
        return None

    def distinct(self, operations: Sequence[Operation]) -> Outcome:
        """Judge operations in which no value stands twice without a search, if that is known.

        They come as they stand in the history, before `action` has seen them. For those that are
        none of this model: `NotApplicable`, or what `action` raises.
        """
        return NotApplicable("this model is always searched")

    def assert_fit(self, operations: Iterable[Operation]) -> None:
        """Raise `HistoryError` for the first operation that is none of this model."""
        for operation in operations:
            self.action(operation)

    def observes(self, action: Action) -> bool:
        """Whether the outcome of `action` is evidence, for a wrong object could give another one.

        A history without any such operation cannot be judged.
        """
        return action.f in self.observers

    def needs(self, action: Action) -> str | None:
        """Return the one state that `action` can happen in, as text; None if there are several."""
        return None

    def leaves(self, action: Action) -> str | None:
        """Return the state after `action`, as text, or None if that depends on the one before."""
        return None

    def shown(self, state: Hashable) -> str:
        """Return `state` as JSON text or words."""
        return state if isinstance(state, str) else json_text(state)


def described(action: Action) -> str:
    """Return `action` for people: `read -> 5`, `write 4`, `cas 4 -> 7`."""
    if isinstance(action.result, tuple):  # the elements of a list or a set
        action = action._replace(result=listed(map(str, action.result)))
    match action:
        case (_, tuple(micros), _) if all(isinstance(micro, tuple) for micro in micros):
            return f"txn {listed(_micro_told(*micro) for micro in micros)}"
        case (f, (old, new), _):
            return f"{f} {old} -> {new}"
        case (f, None | "null", None):
            return f
        case (f, None | "null", result):
            return f"{f} -> {result}"
        case (f, argument, None):
            return f"{f} {argument}"
        case (f, argument, result):
            return f"{f} {argument} -> {result}"
    raise AssertionError(f"no such action: {action}")


def _micro_told(f: str, key: str, value: str | None) -> str:
    return f'["{f}",{key},{value or ABSENT}]'


def known_function(operation: Operation, functions: Mapping[str, str]) -> str:
    """Return what the operation's function means. Raises `HistoryError` if it is not known."""
    f = operation.invoke.f
    if f not in functions:
        raise HistoryError(f"op {operation.call}: {f!r} is not one of {', '.join(functions)}")
    return functions[f]


def listed(texts: Iterable[str]) -> str:
    """Return JSON texts as the text of a list."""
    return f"[{','.join(texts)}]"


def wanted(operation: Operation, what: str, value: Any) -> HistoryError:
    """Return the error for an operation whose value is of the wrong type."""
    return HistoryError(
        f"op {operation.call}: {operation.f} needs {what}, not {json_text(value)[:80]}"
    )
