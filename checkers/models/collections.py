"""Sets, counters and lists that are read as a whole."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, ClassVar

from labrys.checkers.distinct import counter, whole_reads
from labrys.checkers.distinct.outcome import NotApplicable, Outcome
from labrys.checkers.history import Operation
from labrys.checkers.models.model import (
    UNSEEN,
    Action,
    Illegal,
    Model,
    known_function,
    listed,
    wanted,
)
from labrys.checkers.text import json_text


class SetModel(Model):
    """A set: `add v`, `remove v`, `contains v`, which returns true or false, and whole `read`s.

    A `contains` may also answer with [v, true].
    """

    functions: ClassVar[dict[str, str]] = {
        "add": "add",
        "remove": "remove",
        "contains": "contains",
        "read": "read",
    }
    pure = frozenset({"read", "contains"})
    observers = frozenset({"read", "contains"})
    initial: Hashable = frozenset()

    def __init__(self, initial: Any = None) -> None:
        if not isinstance(initial, list | None):
            raise ValueError(f"a set starts with a list of elements, not {json_text(initial)}")
        self.initial = frozenset(json_text(value) for value in initial or ())
        self._start = initial or []

    def distinct(self, operations: Sequence[Operation]) -> Outcome:
        if any(operation.invoke.f not in ("add", "read") for operation in operations):
            return NotApplicable("the set does not only grow")
        self.assert_fit(operations)
        return whole_reads.check_set(operations, self._start)

    def action(self, operation: Operation) -> Action | None:
        f = known_function(operation, self.functions)
        if f == "read":
            elements = operation.value if operation.is_ok else None
            if operation.is_ok and not isinstance(elements, list):
                raise wanted(operation, "a list of elements as its result", elements)
            return Action(f, None, tuple(sorted(json_text(value) for value in elements or ())))
        argument = json_text(operation.invoke.value)
        if f != "contains" or not operation.is_ok:
            return Action(f, argument)
        answer = operation.value
        if isinstance(answer, list) and len(answer) == 2 and json_text(answer[0]) == argument:
            answer = answer[1]
        if not isinstance(answer, bool):
            raise wanted(operation, "true or false as its result", answer)
        return Action(f, argument, json_text(answer))

    def step(self, state: Hashable, action: Action) -> Hashable | Illegal:
        if state == UNSEEN:
            return Illegal("it holds what nobody reads") if action.f in self.pure else UNSEEN
        assert isinstance(state, frozenset), f"no state of a set: {state}"
        match action:
            case ("add", value, _):
                return state | {value}
            case ("remove", value, _):
                return state - {value}
            case ("contains", value, result):
                holds = json_text(value in state)
                return state if holds == result else Illegal(f"the set is {self.shown(state)}")
            case ("read", _, tuple(elements)):
                # An element twice is no set at all.
                if len(elements) == len(state) and state.issuperset(elements):
                    return state
                return Illegal(f"the set is {self.shown(state)}")
        raise AssertionError(f"no such action: {action}")

    def unseen(self, certain: Iterable[Action], crashed: Iterable[Action]) -> Callable[[Any], bool]:
        certain, crashed = list(certain), list(crashed)
        if any(action.f not in ("add", "read") for action in certain + crashed):
            return lambda state: False
        # A set that only grows becomes what a read returned only from a subset of it.
        reads = [frozenset(a.result) for a in certain if isinstance(a.result, tuple)]
        return lambda state: state == UNSEEN or not any(state <= read for read in reads)

    def parts(self, operations: Sequence[Operation]) -> list[tuple[str, list[Operation]]] | None:
        """An element is there or not, whatever the others do, unless all are read at once."""
        elements: dict[str, list[Operation]] = {}
        for operation in operations:
            if operation.invoke.f == "read":
                return None
            elements.setdefault(json_text(operation.invoke.value), []).append(operation)
        return list(elements.items())

    def shown(self, state: Hashable) -> str:
        return listed(sorted(state)) if isinstance(state, frozenset) else str(state)


class Counter(Model):
    """A number: `add n` (`inc` and `dec` change it by n, or by 1), and `read`.

    A state is where it stands. With `low` or `high` a change that leads beyond is impossible.
    """

    functions: ClassVar[dict[str, str]] = {
        "add": "add",
        "inc": "add",
        "increment": "add",
        "dec": "subtract",
        "decrement": "subtract",
        "read": "read",
    }
    pure = frozenset({"read"})
    observers = frozenset({"read"})
    initial: Hashable = 0

    def __init__(self, initial: Any = 0, low: int | None = None, high: int | None = None) -> None:
        if initial is not None and type(initial) is not int:
            raise ValueError(f"a counter starts with an integer, not {json_text(initial)}")
        self.initial = initial or 0
        self._start = initial or 0
        self._low, self._high = low, high

    def distinct(self, operations: Sequence[Operation]) -> Outcome:
        if self._low is not None or self._high is not None:
            return NotApplicable("the counter has bounds")
        self.assert_fit(operations)
        return counter.check(operations, self._start)

    def action(self, operation: Operation) -> Action | None:
        f = known_function(operation, self.functions)
        if f == "read":
            if not operation.is_ok:
                return Action(f)
            if type(operation.value) is not int:
                raise wanted(operation, "an integer as its result", operation.value)
            return Action(f, None, operation.value)
        by = operation.invoke.value
        if by is None:
            by = 1
        if type(by) is not int:
            raise wanted(operation, "an integer", by)
        return Action("add", by if f == "add" else -by)

    def step(self, state: Hashable, action: Action) -> Hashable | Illegal:
        assert isinstance(state, int), f"no state of a counter: {state}"
        if action.f == "read":
            return state if state == action.result else Illegal(f"the counter is at {state}")
        assert isinstance(action.arg, int), f"no change: {action.arg}"
        after = state + action.arg
        if self._low is not None and after < self._low:
            return Illegal(f"the counter is at {state} and may not fall below {self._low}")
        if self._high is not None and after > self._high:
            return Illegal(f"the counter is at {state} and may not rise above {self._high}")
        return after


class AppendList(Model):
    """A list: `append v`, and `read`, which returns all of it in order."""

    functions: ClassVar[dict[str, str]] = {"append": "append", "read": "read"}
    pure = frozenset({"read"})
    observers = frozenset({"read"})
    initial: Hashable = ()

    def __init__(self, initial: Any = None) -> None:
        if not isinstance(initial, list | None):
            raise ValueError(f"it starts with a list of values, not {json_text(initial)}")
        self.initial = tuple(json_text(value) for value in initial or ())
        self._start = initial or []

    def distinct(self, operations: Sequence[Operation]) -> Outcome:
        self.assert_fit(operations)
        return whole_reads.check_list(operations, self._start)

    def action(self, operation: Operation) -> Action | None:
        f = known_function(operation, self.functions)
        if f == "append":
            return Action(f, json_text(operation.invoke.value))
        if not operation.is_ok:
            return Action(f)
        elements = operation.value
        if elements is None:
            elements = []  # nothing was ever appended
        if not isinstance(elements, list):
            raise wanted(operation, "a list as its result", elements)
        return Action(f, None, tuple(json_text(value) for value in elements))

    def step(self, state: Hashable, action: Action) -> Hashable | Illegal:
        if state == UNSEEN:
            return UNSEEN if action.f == "append" else Illegal("it holds what nobody reads")
        assert isinstance(state, tuple), f"no state of a list: {state}"
        if action.f == "append":
            return (*state, action.arg)
        return state if state == action.result else Illegal(f"the list is {listed(state)}")

    def unseen(self, certain: Iterable[Action], crashed: Iterable[Action]) -> Callable[[Any], bool]:
        # A list can become what a read returned only while it is a prefix of it.
        prefixes: set[Hashable] = set()
        for action in certain:
            if isinstance(action.result, tuple):
                whole = action.result
                prefixes.update(whole[:length] for length in range(len(whole) + 1))
        return lambda state: state not in prefixes

    def shown(self, state: Hashable) -> str:
        return listed(state) if isinstance(state, tuple) else str(state)
