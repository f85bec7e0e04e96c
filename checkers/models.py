"""Models: what one object is supposed to do, one operation at a time.

A model is a pure step function over immutable states. States and values are kept as canonical JSON
text: that makes any JSON value hashable, keeps 1, true and "1" apart, and is what people are shown.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Any, ClassVar, Final, NamedTuple, Protocol

import msgspec

from labrys.checkers.history import HistoryError, Operation

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


class Model(Protocol):
    """A sequential object."""

    @property
    def initial(self) -> Hashable:
        """The state before any operation."""

    @property
    def pure(self) -> frozenset[str]:
        """The functions that never change the state."""

    @property
    def blind(self) -> frozenset[str]:
        """The functions that are always legal and whose new state does not depend on the old."""

    def action(self, operation: Operation) -> Action | None:
        """Say what `operation` does, or None if it says nothing about the object.

        Raises `HistoryError` if it is no operation of this model.
        """

    def step(self, state: Hashable, action: Action) -> Hashable | Illegal:
        """Return the state after `action`, or why it cannot happen."""

    def unseen(self, certain: Iterable[Action], crashed: Iterable[Action]) -> Callable[[Any], bool]:
        """Return whether no action, out of these, can tell a state from the other unseen ones.

        The search puts `UNSEEN` in their place: orders that differ in nothing anybody saw are one.
        """

    def states(self, actions: Iterable[Action]) -> set[Hashable] | None:
        """Return all states that `actions` can tell apart, or None if they cannot be listed."""


class CasRegister:
    """A register: `read`, `write v`, and `cas [expected, new]`, which fails unless it applies.

    A cas that found another value is a `fail` and thus no part of the history. With `nil_read`
    "any", a read of null says nothing (Knossos' convention); with "absent", it saw no value.
    """

    functions: ClassVar[dict[str, str]] = {"read": "read", "write": "write", "cas": "cas"}
    """What each function that may stand in a history means."""
    pure = frozenset({"read"})
    blind = frozenset({"write"})

    def __init__(self, initial: Any = None, nil_read: str = "absent") -> None:
        self.initial: Hashable = json_text(initial)
        self._nil_says_nothing = nil_read == "any"

    def action(self, operation: Operation) -> Action | None:
        f = _known(operation, self.functions)
        if f == "read":
            text = json_text(operation.value)
            return None if self._nil_says_nothing and text == ABSENT else Action(f, result=text)
        argument = operation.invoke.value
        if f != "cas":
            return Action(f, json_text(argument))
        if not isinstance(argument, list | tuple) or len(argument) != 2:
            raise HistoryError(
                f"op {operation.call}: cas needs [expected, new], not {json_text(argument)}"
            )
        return Action(f, (json_text(argument[0]), json_text(argument[1])))

    def step(self, state: Hashable, action: Action) -> Hashable | Illegal:
        match action:
            case ("read", _, result):
                return state if state == result else Illegal(f"the register holds {state}")
            case ("write", value, _):
                return value
            case ("cas", (expected, new), _):
                return new if state == expected else Illegal(f"the register holds {state}")
        raise AssertionError(f"no such action: {action}")

    def unseen(self, certain: Iterable[Action], crashed: Iterable[Action]) -> Callable[[Any], bool]:
        # A crashed cas matters only if somebody sees what it leaves: walk back from what was seen.
        seen = {needed for action in certain if (needed := needs(action)) is not None}
        cas = [action.arg for action in crashed if isinstance(action.arg, tuple)]
        while fresh := {expected for expected, new in cas if new in seen} - seen:
            seen |= fresh
        return lambda state: state not in seen

    def states(self, actions: Iterable[Action]) -> set[Hashable] | None:
        mentioned = {value for action in actions for value in (needs(action), leaves(action))}
        return {UNSEEN, *(value for value in mentioned if value is not None)}


class Register(CasRegister):
    """A register with `read` and `write v` only."""

    functions: ClassVar[dict[str, str]] = {"read": "read", "write": "write"}


class Kv(CasRegister):
    """The value under one key: a register that also knows `append s`, which joins strings.

    Nothing written yet counts as "" for an append. `get` is `read`, `put` is `write`.
    """

    functions: ClassVar[dict[str, str]] = {
        "get": "read",
        "put": "write",
        "append": "append",
        **CasRegister.functions,
    }

    def action(self, operation: Operation) -> Action | None:
        if operation.f == "append" and not isinstance(operation.invoke.value, str):
            raise HistoryError(
                f"op {operation.call}: append needs a string, "
                f"not {json_text(operation.invoke.value)}"
            )
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
        mentioned = [self.initial, *(leaves(action) or ABSENT for action in actions)]
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


class Mutex:
    """A lock without an owner: `acquire` needs it free, `release` needs it held."""

    functions: ClassVar[dict[str, str]] = {"acquire": "acquire", "release": "release"}
    pure: frozenset[str] = frozenset()
    blind: frozenset[str] = frozenset()

    def __init__(self, initial: Any = "free", nil_read: str = "absent") -> None:
        if initial not in (None, "free", "held"):
            raise ValueError(f'a mutex is "free" or "held" at first, not {json_text(initial)}')
        self.initial: Hashable = initial or "free"

    def action(self, operation: Operation) -> Action | None:
        return Action(_known(operation, self.functions))

    def step(self, state: Hashable, action: Action) -> Hashable | Illegal:
        before, after = ("free", "held") if action.f == "acquire" else ("held", "free")
        return after if state == before else Illegal(f"the mutex is {state}")

    def unseen(self, certain: Iterable[Action], crashed: Iterable[Action]) -> Callable[[Any], bool]:
        return lambda _: False

    def states(self, actions: Iterable[Action]) -> set[Hashable] | None:
        return {"free", "held"}


MODELS: Final[dict[str, Callable[..., Model]]] = {
    "register": Register,
    "cas-register": CasRegister,
    "kv": Kv,
    "mutex": Mutex,
}
"""The models by contract name; each takes `initial` (a JSON value) and `nil_read`."""


def json_text(value: Any) -> str:
    """Return `value` as canonical JSON: equal values, equal text."""
    return msgspec.json.encode(value, order="sorted").decode()


def needs(action: Action) -> str | None:
    """Return the one value that a register must hold for `action`, or None if any will do."""
    match action:
        case ("read" | "get", _, str(result)):
            return result
        case ("cas", (str(expected), _), _):
            return expected
    return None


def leaves(action: Action) -> str | None:
    """Return the value that a register holds after `action`, or None if that depends."""
    match action:
        case ("write" | "put", str(value), _):
            return value
        case ("cas", (_, str(new)), _):
            return new
    return None


def described(action: Action) -> str:
    """Return `action` for people: `read -> 5`, `write 4`, `cas 4 -> 7`."""
    match action:
        case (f, (old, new), _):
            return f"{f} {old} -> {new}"
        case (f, None, None):
            return f
        case (f, None, result):
            return f"{f} -> {result}"
        case (f, argument, _):
            return f"{f} {argument}"
    raise AssertionError(f"no such action: {action}")


def _known(operation: Operation, functions: dict[str, str]) -> str:
    if operation.f not in functions:
        raise HistoryError(
            f"op {operation.call}: {operation.f!r} is not one of {', '.join(functions)}"
        )
    return functions[operation.f]


def _is_string(state: Hashable) -> bool:
    return isinstance(state, str) and state.startswith('"')


def _is_text(state: Hashable) -> bool:
    return state == ABSENT or _is_string(state)
