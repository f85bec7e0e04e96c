"""Transactions over several keys, taken as operations of one object. For small histories."""

from collections.abc import Callable, Hashable, Iterable
from functools import cache
from typing import Any, ClassVar, Final

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

_REGISTERS: Final = {"r": "r", "read": "r", "w": "w", "write": "w"}


class Txn(Model):
    """A map of keys to values under transactions of reads, writes and appends to lists.

    The value of a `txn` is a list of `["r", key, value]`, `["w", key, value]` and
    `["append", key, element]`. Search costs grow fast with length; the checks for list-append and
    rw-register go by dependencies and have no such limit.
    """

    functions: ClassVar[dict[str, str]] = {"txn": "txn"}
    micros: ClassVar[dict[str, str]] = _REGISTERS | {"append": "append"}
    """What may stand in a transaction, and what each means."""
    pure = frozenset({"look"})
    observers = frozenset({"txn", "look"})

    def __init__(self, initial: Any = None, nil_read: str = "absent") -> None:
        if not isinstance(initial, dict | None):
            raise ValueError(f'it starts with a map like {{"x": 0}}, not {json_text(initial)}')
        self.initial: Hashable = frozenset(
            (json_text(key), json_text(value)) for key, value in (initial or {}).items()
        )
        self._nil_says_nothing = nil_read == "any"

    def action(self, operation: Operation) -> Action | None:
        known_function(operation, self.functions)
        value = operation.value
        if not isinstance(value, list):
            raise wanted(operation, "a list of micro-operations", value)
        micros: list[tuple[str, str, str | None]] = []
        for micro in value:
            if (
                not isinstance(micro, list)
                or len(micro) not in (2, 3)
                or not isinstance(micro[0], str)
                or micro[0] not in self.micros
            ):
                known = "|".join(f'"{f}"' for f in dict.fromkeys(self.micros.values()))
                raise wanted(operation, f"[{known}, key, value]", micro)
            f, key = self.micros[micro[0]], json_text(micro[1])
            seen: str | None = json_text(micro[2] if len(micro) == 3 else None)
            if f == "r" and (not operation.is_ok or (self._nil_says_nothing and seen == ABSENT)):
                seen = None
            micros.append((f, key, seen))
        only_reads = all(f == "r" for f, _, _ in micros)
        return Action("look" if only_reads else "txn", tuple(micros))

    def observes(self, action: Action) -> bool:
        assert isinstance(action.arg, tuple), f"no transaction: {action.arg}"
        return any(f == "r" and seen is not None for f, _, seen in action.arg)

    def step(self, state: Hashable, action: Action) -> Hashable | Illegal:
        assert isinstance(state, frozenset), f"no state of a map: {state}"
        assert isinstance(action.arg, tuple), f"no transaction: {action.arg}"
        now = dict(state)
        for f, key, value in action.arg:
            held = now.get(key, ABSENT)
            if f == "w":
                now[key] = value
            elif f == "append":
                if held == UNSEEN:
                    continue  # what nobody observes does not grow into what somebody did
                if held == ABSENT or held == "[]":
                    now[key] = f"[{value}]"
                elif held.startswith("["):
                    now[key] = f"{held[:-1]},{value}]"
                else:
                    return Illegal(f"{key} is {held}, which is no list")
            # A list that nobody appended to reads as null or as empty.
            elif value not in (None, held) and (
                value != "[]" or key in now or "append" not in self.micros
            ):
                return Illegal(f"{key} is {held}")
        return frozenset(now.items())

    def blurred(
        self, certain: Iterable[Action], crashed: Iterable[Action]
    ) -> Callable[[Hashable], Hashable]:
        # A value matters while it is, or as a list can become, what a read returned.
        observed: dict[str, set[str]] = {}
        appended: set[str] = set()
        certain = list(certain)
        for action in (*certain, *crashed):
            assert isinstance(action.arg, tuple), f"no transaction: {action.arg}"
            appended.update(key for f, key, _ in action.arg if f == "append")
        for action in certain:
            assert isinstance(action.arg, tuple), f"no transaction: {action.arg}"
            for f, key, seen in action.arg:
                if f == "r" and seen is not None:
                    observed.setdefault(key, set()).add(seen)

        @cache
        def is_seen(key: str, held: str) -> bool:
            if held in (ABSENT, "[]", *observed.get(key, ())):
                return True
            if not held.startswith("["):
                return key in appended  # to append to it is impossible, which is another thing
            return any(seen.startswith(f"{held[:-1]},") for seen in observed.get(key, ()))

        def blur(state: Hashable) -> Hashable:
            assert isinstance(state, frozenset), f"no state of a map: {state}"
            return frozenset((key, held if is_seen(key, held) else UNSEEN) for key, held in state)

        return blur

    def shown(self, state: Hashable) -> str:
        if not isinstance(state, frozenset):
            return str(state)
        return "{" + ",".join(f"{key}:{value}" for key, value in sorted(state)) + "}"


class MultiRegister(Txn):
    """Several registers, read and written together: a `txn` of `read` and `write`."""

    micros: ClassVar[dict[str, str]] = _REGISTERS
