"""The checkers by the name that `labrys check --model` takes."""

from typing import Any, Final

from labrys.checkers.checker import Checker
from labrys.checkers.linearizable import Linearizable
from labrys.checkers.models import MODELS

NIL_READ: Final = ("absent", "any")
FAILED_CAS: Final = ("dropped", "asserted")
_CAS_MODELS: Final = ("cas-register", "kv")
_NIL_MODELS: Final = ("register", "cas-register", "kv", "multi-register", "txn")


def names() -> tuple[str, ...]:
    """Return every name that `checker_for` takes."""
    return tuple(MODELS)


def checker_for(
    model: str,
    *,
    initial: Any = None,
    nil_read: str | None = None,
    failed_cas: str | None = None,
    all_keys: bool = True,
) -> Checker:
    """Return the checker for a kind of data. What is None is left at its default.

    Raises `ValueError` for an unknown model, and for an option that means nothing to it.
    """
    if model not in names():
        raise ValueError(f"no model {model!r}: choose from {', '.join(names())}")
    if nil_read is not None and model not in _NIL_MODELS:
        raise ValueError(f"a read of null has only one meaning for {model}: drop nil_read")
    if failed_cas is not None and model not in _CAS_MODELS:
        raise ValueError(f"{model} has no cas: drop failed_cas")
    how: dict[str, Any] = {"initial": initial}
    if nil_read is not None:
        how["nil_read"] = _one_of("nil_read", nil_read, NIL_READ)
    if failed_cas is not None:
        how["failed_cas"] = _one_of("failed_cas", failed_cas, FAILED_CAS)
    return Linearizable(model, all_keys=all_keys, **how)


def _one_of(name: str, value: str, values: tuple[str, ...]) -> str:
    if value not in values:
        raise ValueError(f"{name} is {value!r}: choose from {', '.join(values)}")
    return value
