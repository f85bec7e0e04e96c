"""Levels of consistency by the anomalies that they forbid.

After Adya (1999), Cerone, Bernardi and Gotsman (CONCUR 2015) and Biswas and Enea (OOPSLA 2019).
Each comes in three forms: plain; session, where a process does one transaction after the other; and
strict, where what ended before something else began comes first.
"""

from collections.abc import Iterable
from typing import Final

PLAIN: Final = ""
PROCESS: Final = "-process"
REALTIME: Final = "-realtime"

CYCLES: Final = (
    "G0",
    "G1c",
    "fractured-read",
    "causal-violation",
    "G-single",
    "G-nonadjacent",
    "G2-item",
)
"""Cycles, the worst first."""

_READ_UNCOMMITTED: Final = frozenset({"G0", "duplicate-elements", "cyclic-versions"})
_READ_COMMITTED: Final = _READ_UNCOMMITTED | {
    "G1a",
    "G1b",
    "G1c",
    "incompatible-order",
    "dirty-update",
    "future-read",
    "phantom-element",
}
_READ_ATOMIC: Final = _READ_COMMITTED | {"internal", "fractured-read"}
_CAUSAL: Final = _READ_ATOMIC | {"causal-violation"}
_SNAPSHOT: Final = _CAUSAL | {"G-single", "G-nonadjacent", "lost-update"}
_REPEATABLE: Final = _READ_COMMITTED | {"G-single", "G-nonadjacent", "G2-item", "lost-update"}
_SERIALIZABLE: Final = _SNAPSHOT | {"G2-item", "not-serializable"}

BASE: Final[dict[str, frozenset[str]]] = {
    "read-uncommitted": _READ_UNCOMMITTED,
    "read-committed": _READ_COMMITTED,
    "read-atomic": _READ_ATOMIC,
    "causal": _CAUSAL,
    "repeatable-read": _REPEATABLE,
    "snapshot-isolation": _SNAPSHOT,
    "serializable": _SERIALIZABLE,
}
"""What each level forbids, the weakest first."""


def _forms() -> dict[str, frozenset[str]]:
    forms: dict[str, frozenset[str]] = dict(BASE)
    for name, forbidden in BASE.items():
        cycles = forbidden & set(CYCLES)
        session = forbidden | {cycle + PROCESS for cycle in cycles}
        strict = session | {cycle + REALTIME for cycle in cycles}
        forms[f"strong-session-{name}"] = session
        forms["strict-serializable" if name == "serializable" else f"strong-{name}"] = strict
    forms["strict-serializable"] |= {"not-strict-serializable"}
    return forms


LEVELS: Final = _forms()
"""What each level forbids, by its name."""
STRONGEST: Final = "strict-serializable"


def survivors(anomalies: Iterable[str]) -> list[str]:
    """Return the strongest levels that none of `anomalies` rules out."""
    found = set(anomalies)
    holding = [name for name, forbidden in LEVELS.items() if not forbidden & found]
    return [name for name in holding if not any(LEVELS[name] < LEVELS[other] for other in holding)]


def ruled_out(anomalies: Iterable[str]) -> list[str]:
    """Return the weakest levels that `anomalies` rule out."""
    found = set(anomalies)
    broken = [name for name, forbidden in LEVELS.items() if forbidden & found]
    return [name for name in broken if not any(LEVELS[other] < LEVELS[name] for other in broken)]
