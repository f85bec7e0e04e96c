"""Registers: one value that is read, written, compared-and-set, or appended to."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, ClassVar

from labrys.checkers.distinct import register
from labrys.checkers.distinct.outcome import NotApplicable, Outcome
from labrys.checkers.history import Operation
from labrys.checkers.models.model import (
    ABSENT,
    UNSEEN,
    Action,
    Illegal,
    Model,
    known_function,
    wanted,
)
from labrys.checkers.text import json_text


class CasRegister(Model):
    """A register: `read`, `write v`, and `cas [expected, new]`, which fails unless it applies.

    A cas that found another value is a `fail` and, as Knossos reads it, no part of the history.
    With `failed_cas` "asserted" (Porcupine's reading) it says that the value was not the expected
    one. With `nil_read` "any", a read of null says nothing (Knossos); with "absent", it saw none.
    """

    functions: ClassVar[dict[str, str]] = {"read": "read", "write": "write", "cas": "cas"}
    pure = frozenset({"read", "failed-cas"})
    blind = frozenset({"write"})
    observers = frozenset({"read", "cas", "failed-cas"})
    is_register = True

    def __init__(
        self, initial: Any = None, nil_read: str = "absent", failed_cas: str = "dropped"
    ) -> None:
        self.initial = json_text(initial)
        self._start = initial
        self.asserts_failures = failed_cas == "asserted"
        self._nil_says_nothing = nil_read == "any"

    def action(self, operation: Operation) -> Action | None:
        f = known_function(operation, self.functions)
        if operation.is_fail and f != "cas":
            return None
        if f == "read":
            text = json_text(operation.value)
            return None if self._nil_says_nothing and text == ABSENT else Action(f, result=text)
        argument = operation.invoke.value
        if f != "cas":
            return Action(f, json_text(argument))
        if not isinstance(argument, list | tuple) or len(argument) != 2:
            raise wanted(operation, "[expected, new]", argument)
        if operation.is_fail:
            return Action("failed-cas", json_text(argument[0]))
        return Action(f, (json_text(argument[0]), json_text(argument[1])))

    def step(self, state: Hashable, action: Action) -> Hashable | Illegal:
        match action:
            case ("read", _, result):
                return state if state == result else Illegal(f"the register holds {state}")
            case ("write", value, _):
                return value
            case ("cas", (expected, new), _):
                return new if state == expected else Illegal(f"the register holds {state}")
            case ("failed-cas", expected, _):
                return state if state != expected else Illegal(f"the register holds {state}")
        raise AssertionError(f"no such action: {action}")

    def unseen(self, certain: Iterable[Action], crashed: Iterable[Action]) -> Callable[[Any], bool]:
        # A crashed cas matters only if somebody sees what it leaves: walk back from what was seen.
        seen = {
            action.arg if action.f == "failed-cas" else needed
            for action in certain
            if (needed := self.needs(action)) is not None or action.f == "failed-cas"
        }
        cas = [action.arg for action in crashed if isinstance(action.arg, tuple)]
        while fresh := {expected for expected, new in cas if new in seen} - seen:
            seen |= fresh
        return lambda state: state not in seen

    def states(self, actions: Iterable[Action]) -> set[Hashable] | None:
        mentioned: set[Hashable] = {UNSEEN}
        for action in actions:
            mentioned |= {self.needs(action), self.leaves(action)}
            if action.f == "failed-cas":
                mentioned.add(action.arg)
        return mentioned - {None}

    def distinct(self, operations: Sequence[Operation]) -> Outcome:
        if self.asserts_failures:
            return NotApplicable("a failed cas says that a value was not there")
        return register.check(
            operations, self._start, functions=self.functions, nil_any=self._nil_says_nothing
        )

    def needs(self, action: Action) -> str | None:
        match action:
            case ("read", _, str(result)):
                return result
            case ("cas", (str(expected), _), _):
                return expected
        return None

    def leaves(self, action: Action) -> str | None:
        match action:
            case ("write", str(value), _):
                return value
            case ("cas", (_, str(new)), _):
                return new
        return None


class Register(CasRegister):
    """A register with `read` and `write v` only."""

    functions: ClassVar[dict[str, str]] = {"read": "read", "write": "write"}


class Kv(CasRegister):
    """The value under one key: a register that also knows `append s`, which joins strings.

    Nothing written yet counts as "" for an append. `get` is `read`, `put` is `write`, and `delete`
    leaves null.
    """

    functions: ClassVar[dict[str, str]] = {
        "get": "read",
        "put": "write",
        "append": "append",
        "delete": "delete",
        **CasRegister.functions,
    }

    def action(self, operation: Operation) -> Action | None:
        if operation.f == "append" and not isinstance(operation.invoke.value, str):
            raise wanted(operation, "a string", operation.invoke.value)
        if operation.f == "delete":
            return None if operation.is_fail else Action("write", ABSENT)
        return super().action(operation)

    def step(self, state: Hashable, action: Action) -> Hashable | Illegal:
        if action.f != "append":
            return super().step(state, action)
        if state == UNSEEN:
            return UNSEEN  # what nobody observes does not grow into what somebody did
        if state == ABSENT:
            return action.arg
        if not _is_string(state):
            return Illegal(f"the register holds {state}, which is no string")
        return str(state)[:-1] + str(action.arg)[1:]

    def unseen(self, certain: Iterable[Action], crashed: Iterable[Action]) -> Callable[[Any], bool]:
        certain, crashed = list(certain), list(crashed)
        actions = certain + crashed
        if all(action.f != "append" for action in actions):
            return super().unseen(certain, crashed)
        mentioned = [self.initial, *(self.leaves(action) or ABSENT for action in actions)]
        if any(action.f == "cas" for action in actions) or not all(map(_is_text, mentioned)):
            return lambda state: False  # rare, and then no state may be given up so easily
        # A state can become what a read returned only if it is a prefix of it.
        observed = {str(action.result) for action in certain if action.f == "read"}

        def is_unseen(state: Any) -> bool:
            if state in observed:
                return False
            prefix = '"' if state == ABSENT else str(state)[:-1]
            return not any(text.startswith(prefix) for text in observed)

        return is_unseen

    def states(self, actions: Iterable[Action]) -> set[Hashable] | None:
        actions = list(actions)
        if any(action.f == "append" for action in actions):
            return None
        return super().states(actions)


def _is_string(state: Hashable) -> bool:
    return isinstance(state, str) and state.startswith('"')


def _is_text(state: Hashable) -> bool:
    return state == ABSENT or _is_string(state)
