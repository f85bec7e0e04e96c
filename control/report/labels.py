"""The short words for ops, values and faults that the page and the terminal share."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from labrys.checkers.op import OpType

VALUE_CHARS_MAX: Final = 160
"""Longer values are cut, and end in an ellipsis."""

_NAMES_ITSELF: Final = ("shape", "target", "targets")
"""Parameters of a fault whose value needs no name in front: `halves`, `minority`."""
_TOLD_ELSEWHERE: Final = ("grudge", "nodes", "mechanism", "fallback")
"""Parameters that stand beside the plan, or that say how rather than what."""
_SHORT: Final = {"read": "r", "write": "w"}


def planned_kinds(spec: Mapping[str, Any]) -> list[str]:
    """Return the kinds of faults that a stored spec plans, in rounds or at fixed times.

    A damaged spec plans what can be read of it.
    """
    faults, plan = spec.get("faults"), spec.get("fault_plan")
    kinds = list(faults) if isinstance(faults, list | tuple | dict) else []
    planned = plan if isinstance(plan, list) else []
    at_times = dict.fromkeys(
        str(fault["kind"]) for fault in planned if isinstance(fault, dict) and "kind" in fault
    )
    return [str(kind) for kind in kinds or at_times]


def value_text(value: Any) -> str:
    """Return `value` as compact JSON, cut to a length that fits a line."""
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        text = repr(value)
    return text if len(text) <= VALUE_CHARS_MAX else text[: VALUE_CHARS_MAX - 1] + "…"


def error_text(error: Any) -> str:
    """Return an op's error, a code or `[code, message]`, as `code: message`."""
    if isinstance(error, str):
        text = error
    elif isinstance(error, list | tuple) and all(isinstance(part, str) for part in error):
        text = ": ".join(error)
    else:
        return value_text(error)
    return text if len(text) <= VALUE_CHARS_MAX else text[: VALUE_CHARS_MAX - 1] + "…"


def op_label(f: str, value: Any, type_: OpType, result: Any = None) -> str:
    """Return an op in a few characters: `w 3`, `r→3`, `cas 3→4`, `enqueue 5`.

    `value` is what it was invoked with, `result` what an ok completion carried.
    """
    word = _SHORT.get(f, f)
    if f == "cas" and isinstance(value, list | tuple) and len(value) == 2:
        return f"{word} {value_text(value[0])}→{value_text(value[1])}"
    asked = "" if value is None else f" {value_text(value)}"
    if type_ is OpType.OK and (f == "read" or result != value):
        return f"{word}{asked if f != 'read' else ''}→{value_text(result)}"
    return f"{word}{asked}"


def plan_text(plan: Mapping[str, Any], nodes: Sequence[str]) -> str:
    """Return what a fault was meant to do: its parameters, and who cannot hear whom."""
    words = [
        _plain(value) if name in _NAMES_ITSELF else f"{name} {_plain(value)}"
        for name, value in plan.items()
        if name not in _TOLD_ELSEWHERE
    ]
    grudge = plan.get("grudge")
    if isinstance(grudge, Mapping):
        words.append(grudge_text(grudge, nodes))
    return "  ".join(word for word in words if word)


def grudge_text(grudge: Mapping[str, Any], nodes: Sequence[str]) -> str:
    """Return a grudge as `n1,n2 | n3,n4,n5` where it splits the nodes cleanly, else by node."""
    drops = {node: set(map(str, others)) for node, others in grudge.items() if others}
    everyone = sorted({*nodes, *drops, *(other for others in drops.values() for other in others)})
    sides: dict[frozenset[str], list[str]] = {}
    for node in everyone:
        friends = {
            o for o in everyone if o not in drops.get(node, ()) and node not in drops.get(o, ())
        }
        sides.setdefault(frozenset(friends | {node}), []).append(node)
    is_two_way = all(node in drops.get(other, ()) for node in drops for other in drops[node])
    if is_two_way and all(side == frozenset(members) for side, members in sides.items()):
        return " | ".join(",".join(members) for members in sides.values())
    return "; ".join(f"{node} drops {','.join(sorted(drops[node]))}" for node in sorted(drops))


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return value_text(value)
