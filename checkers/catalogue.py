"""The checkers by the name that `labrys check --model` takes."""

from typing import Any, Final

from labrys.checkers.by_key import ByKey
from labrys.checkers.checker import DataChecker
from labrys.checkers.counting.bank import Bank
from labrys.checkers.counting.counter_bounds import CounterBounds
from labrys.checkers.counting.long_fork import LongFork
from labrys.checkers.counting.set_full import SetFull
from labrys.checkers.counting.total_queue import TotalQueue
from labrys.checkers.counting.unique_ids import UniqueIds
from labrys.checkers.linearizable import Linearizable
from labrys.checkers.models import MODELS
from labrys.checkers.sessions import Sessions
from labrys.checkers.transactions.checker import Transactions
from labrys.checkers.transactions.levels import LEVELS, STRONGEST

NIL_READ: Final = ("absent", "any")
FAILED_CAS: Final = ("dropped", "asserted")
_CAS_MODELS: Final = ("cas-register", "kv")
_TRANSACTIONS: Final = ("list-append", "rw-register")
_BY_KEY: Final[dict[str, type[ByKey]]] = {
    checker.name: checker
    for checker in (SetFull, TotalQueue, UniqueIds, CounterBounds, Bank, LongFork, Sessions)
}
_NIL_MODELS: Final = ("register", "cas-register", "kv", "multi-register", "txn")


def names() -> tuple[str, ...]:
    """Return every name that `checker_for` takes."""
    return (*MODELS, *_TRANSACTIONS, *_BY_KEY)


def levels_of(model: str) -> tuple[str, ...]:
    """Return what `level` may be for a model, the default first; empty where there is no choice."""
    if model in _TRANSACTIONS:
        return (STRONGEST, *(level for level in LEVELS if level != STRONGEST))
    return _BY_KEY[model].levels if model in _BY_KEY else ()


def has_start(model: str) -> bool:
    """Return whether a model can start with something: whether `initial` means anything."""
    return model in MODELS or (model in _BY_KEY and _BY_KEY[model].has_start)


def checker_for(
    model: str,
    *,
    initial: Any = None,
    nil_read: str | None = None,
    failed_cas: str | None = None,
    level: str | None = None,
    all_keys: bool = True,
) -> DataChecker:
    """Return the checker for a kind of data. What is None is left at its default.

    Raises `ValueError` for an unknown model, and for an option that means nothing to it.
    """
    if model not in names():
        raise ValueError(f"no model {model!r}: choose from {', '.join(names())}")
    if level is not None:
        if not levels_of(model):
            with_levels = ", ".join(name for name in names() if levels_of(name))
            raise ValueError(f"{model} has one level: drop level; these have more: {with_levels}")
        _one_of("level", level, levels_of(model))
    if initial is not None and not has_start(model):
        raise ValueError(f"{model} starts empty: drop initial")
    if model not in _NIL_MODELS:
        if nil_read == "any":
            raise ValueError(f"a read of null has only one meaning for {model}: drop nil_read")
        nil_read = None
    if failed_cas is not None and model not in _CAS_MODELS:
        raise ValueError(f"{model} has no cas: drop failed_cas")
    if model in _TRANSACTIONS:
        return Transactions(model, level or STRONGEST)
    if model in _BY_KEY:
        return _BY_KEY[model](level, initial)
    how: dict[str, Any] = {"initial": initial}
    if nil_read is not None:
        how["nil_read"] = _one_of("nil_read", nil_read, NIL_READ)
    if failed_cas is not None:
        how["failed_cas"] = _one_of("failed_cas", failed_cas, FAILED_CAS)
    return Linearizable(model, all_keys=all_keys, **how)


def default_nil_read(model: str, file_format: str) -> str | None:
    """Return what a read of null says in a file of this format; None where it has one meaning.

    Knossos lets it match anything, and its histories are written for that.
    """
    if model not in _NIL_MODELS:
        return None
    return "any" if file_format == "jepsen-edn" else "absent"


def default_failed_cas(model: str) -> str | None:
    """Return how a failed cas is read; None where there is none."""
    return "dropped" if model in _CAS_MODELS else None


def _one_of(name: str, value: str, values: tuple[str, ...]) -> str:
    if value not in values:
        raise ValueError(f"{name} is {value!r}: choose from {', '.join(values)}")
    return value
