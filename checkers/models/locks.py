"""Locks: who may hold them, and whether anybody else holds them too."""

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, ClassVar

from labrys.checkers.distinct import owned_mutex
from labrys.checkers.distinct.outcome import Outcome
from labrys.checkers.history import Operation
from labrys.checkers.models.model import Action, Illegal, Model, known_function, wanted
from labrys.checkers.text import json_text

FREE = "free"
HELD = "held"


class Mutex(Model):
    """A lock without an owner: `acquire` needs it free, `release` needs it held."""

    functions: ClassVar[dict[str, str]] = {"acquire": "acquire", "release": "release"}
    observers = frozenset({"acquire", "release"})

    def __init__(self, initial: Any = FREE) -> None:
        if initial not in (None, FREE, HELD):
            raise ValueError(f'a mutex is "free" or "held" at first, not {json_text(initial)}')
        self.initial = initial or FREE

    def action(self, operation: Operation) -> Action | None:
        return Action(known_function(operation, self.functions))

    def step(self, state: Hashable, action: Action) -> Hashable | Illegal:
        before, after = (FREE, HELD) if action.f == "acquire" else (HELD, FREE)
        return after if state == before else Illegal(f"the mutex is {state}")

    def states(self, actions: Iterable[Action]) -> set[Hashable] | None:
        return {FREE, HELD}


class OwnedMutex(Model):
    """A lock with an owner: only the process that acquired it may release it."""

    functions: ClassVar[dict[str, str]] = {"acquire": "acquire", "release": "release"}
    observers = frozenset({"acquire", "release"})
    by_process = True
    initial: Hashable = FREE

    def __init__(self, initial: Any = FREE) -> None:
        if initial not in (None, FREE):
            raise ValueError(f'an owned mutex is "free" at first, not {json_text(initial)}')

    def distinct(self, operations: Sequence[Operation]) -> Outcome:
        self.assert_fit(operations)
        return owned_mutex.check(operations)

    def action(self, operation: Operation) -> Action | None:
        f = known_function(operation, self.functions)
        return Action(f, f"by process {operation.process}")

    def step(self, state: Hashable, action: Action) -> Hashable | Illegal:
        if action.f == "acquire":
            if state == FREE:
                return str(action.arg).replace("by", "held by", 1)
            return Illegal(f"the mutex is {state}")
        if state == str(action.arg).replace("by", "held by", 1):
            return FREE
        return Illegal(f"the mutex is {state}")

    def states(self, actions: Iterable[Action]) -> set[Hashable] | None:
        return {FREE, *(str(a.arg).replace("by", "held by", 1) for a in actions)}


class FencedLock(Model):
    """A lock whose `acquire` returns a fencing token, larger than every one before.

    Only the process that acquired it may release it. An `acquire` whose token nobody learnt may
    have had any.
    """

    functions: ClassVar[dict[str, str]] = {"acquire": "acquire", "release": "release"}
    observers = frozenset({"acquire", "release"})
    by_process = True
    initial: Hashable = (FREE, None)

    def __init__(self, initial: Any = None) -> None:
        if initial is not None and type(initial) is not int:
            raise ValueError(
                f"a fenced lock starts with the last token given, an integer, "
                f"not {json_text(initial)}"
            )
        self.initial = (FREE, initial)

    def action(self, operation: Operation) -> Action | None:
        f = known_function(operation, self.functions)
        token = None
        if f == "acquire" and operation.is_ok:
            token = operation.value
            if type(token) is not int:
                raise wanted(operation, "a token (an integer) as its result", token)
        return Action(f, f"by process {operation.process}", token)

    def step(self, state: Hashable, action: Action) -> Hashable | Illegal:
        assert isinstance(state, tuple), f"no state of a fenced lock: {state}"
        holder, last = state
        if action.f == "release":
            if holder == action.arg:
                return (FREE, last)
            return Illegal(f"the lock is {self._held(holder)}")
        if holder != FREE:
            return Illegal(f"the lock is {self._held(holder)}")
        if action.result is None:
            return (action.arg, last)
        assert isinstance(action.result, int), f"no token: {action.result}"
        if last is not None and action.result <= last:
            return Illegal(f"token {last} was given out before")
        return (action.arg, action.result)

    def shown(self, state: Hashable) -> str:
        assert isinstance(state, tuple), f"no state of a fenced lock: {state}"
        return f"{self._held(state[0])}, last token {json_text(state[1])}"

    @staticmethod
    def _held(holder: str) -> str:
        return holder if holder == FREE else f"held {holder}"
