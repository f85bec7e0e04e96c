"""Queues, bags and stacks: what goes in comes out once, in some order."""

from collections.abc import Hashable, Sequence
from typing import Any, ClassVar

from labrys.checkers.distinct import bag, fifo, stack
from labrys.checkers.distinct.outcome import NotApplicable, Outcome
from labrys.checkers.history import Operation
from labrys.checkers.models.model import ABSENT, Action, Illegal, Model, known_function, listed
from labrys.checkers.text import json_text


class FifoQueue(Model):
    """First in, first out: `enqueue v`, and `dequeue`, which returns null when there is nothing.

    A dequeue that nobody saw the result of may have taken whatever was first.
    """

    functions: ClassVar[dict[str, str]] = {"enqueue": "put", "dequeue": "take"}
    observers = frozenset({"take"})
    initial: Hashable = ()

    def __init__(self, initial: Any = None) -> None:
        if not isinstance(initial, list | None):
            raise ValueError(f"it starts with a list of values, not {json_text(initial)}")
        self.initial = tuple(json_text(value) for value in initial or ())

    def action(self, operation: Operation) -> Action | None:
        f = known_function(operation, self.functions)
        if f == "put":
            return Action(f, json_text(operation.invoke.value))
        return Action(f, None, json_text(operation.value) if operation.is_ok else None)

    def step(self, state: Hashable, action: Action) -> Hashable | Illegal:
        assert isinstance(state, tuple), f"no state of a queue: {state}"
        if action.f == "put":
            return self._put(state, str(action.arg))
        if action.result is None:  # nobody saw what it took
            return self._rest(state) if state else state
        if action.result == ABSENT:
            return Illegal(f"it holds {listed(state)}") if state else state
        return self._without(state, str(action.result))

    def _put(self, state: tuple[str, ...], value: str) -> tuple[str, ...]:
        return (*state, value)

    def _rest(self, state: tuple[str, ...]) -> tuple[str, ...]:
        return state[1:]

    def _without(self, state: tuple[str, ...], value: str) -> tuple[str, ...] | Illegal:
        if not state:
            return Illegal("it is empty")
        return state[1:] if state[0] == value else Illegal(f"{state[0]} comes first")

    def distinct(self, operations: Sequence[Operation]) -> Outcome:
        if self.initial:
            return NotApplicable("it is not empty first")
        return self._distinct(operations)

    def _distinct(self, operations: Sequence[Operation]) -> Outcome:
        return fifo.check(operations)

    def shown(self, state: Hashable) -> str:
        assert isinstance(state, tuple), f"no state of a queue: {state}"
        return listed(state)


class Stack(FifoQueue):
    """Last in, first out: `push v`, and `pop`, which returns null when there is nothing."""

    functions: ClassVar[dict[str, str]] = {"push": "put", "pop": "take"}

    def _distinct(self, operations: Sequence[Operation]) -> Outcome:
        return stack.check(operations)

    def _rest(self, state: tuple[str, ...]) -> tuple[str, ...]:
        return state[:-1]

    def _without(self, state: tuple[str, ...], value: str) -> tuple[str, ...] | Illegal:
        if not state:
            return Illegal("it is empty")
        return state[:-1] if state[-1] == value else Illegal(f"{state[-1]} is on top")


class UnorderedQueue(Model):
    """A bag: `enqueue v`, and `dequeue`, which returns any one of what is in it, or null.

    A dequeue that nobody saw the result of may have taken anything, so a state is the set of all
    bags that it could be.
    """

    functions: ClassVar[dict[str, str]] = {"enqueue": "put", "dequeue": "take"}
    pure = frozenset({"find-empty"})
    observers = frozenset({"take", "find-empty"})
    initial: Hashable = frozenset({()})

    def __init__(self, initial: Any = None) -> None:
        if not isinstance(initial, list | None):
            raise ValueError(f"it starts with a list of values, not {json_text(initial)}")
        self.initial = frozenset({tuple(sorted(json_text(value) for value in initial or ()))})

    def action(self, operation: Operation) -> Action | None:
        f = known_function(operation, self.functions)
        if f == "put":
            return Action(f, json_text(operation.invoke.value))
        if not operation.is_ok:
            return Action(f)
        result = json_text(operation.value)
        return Action("find-empty", None, result) if result == ABSENT else Action(f, None, result)

    def step(self, state: Hashable, action: Action) -> Hashable | Illegal:
        assert isinstance(state, frozenset), f"no state of a bag: {state}"
        after: set[tuple[str, ...]]
        match action:
            case ("put", str(value), _):
                after = {tuple(sorted((*bag, value))) for bag in state}
            case ("take", _, None):
                after = {_without(bag, value) for bag in state for value in bag} | (state & {()})
            case ("take", _, str(value)):
                after = {_without(bag, value) for bag in state if value in bag}
            case _:
                after = set(state & {()})
        return frozenset(after) if after else Illegal(f"it holds {self.shown(state)}")

    def distinct(self, operations: Sequence[Operation]) -> Outcome:
        if self.initial != frozenset({()}):
            return NotApplicable("it is not empty first")
        return bag.check(operations)

    def parts(self, operations: Sequence[Operation]) -> list[tuple[str, list[Operation]]] | None:
        values: dict[str, list[Operation]] = {}
        for operation in operations:
            action = self.action(operation)
            if operation.is_fail or action is None:
                continue
            if action.f == "find-empty" or self.initial != frozenset({()}):
                return None  # that is about all values at once
            if action == ("take", None, None):
                continue  # it need not have taken anything: nobody ever looks for emptiness
            value = str(action.arg if action.f == "put" else action.result)
            values.setdefault(value, []).append(operation)
        return list(values.items())

    def shown(self, state: Hashable) -> str:
        assert isinstance(state, frozenset), f"no state of a bag: {state}"
        return " or ".join(sorted(listed(bag) for bag in state))


def _without(bag: tuple[str, ...], value: str) -> tuple[str, ...]:
    place = bag.index(value)
    return bag[:place] + bag[place + 1 :]
