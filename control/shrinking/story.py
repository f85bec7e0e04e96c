"""A short run told as a story: what was done to the cluster, what it did, what clients saw.

One line for each thing that happened, in order of time, in seconds since the main phase began, as
in the lists of the spec. Only a simulated run can be told so: its nodes' logs have one clock.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from labrys.checkers.history import FINAL, HEAL, PHASE, History, Operation
from labrys.checkers.op import NEMESIS, Op, OpType
from labrys.control.nemesis.nemesis import PACKAGES
from labrys.control.report.labels import error_text, value_text
from labrys.control.shrinking.failure import Sighting, main_began_s
from labrys.control.store import RunDirectory

LINES_MAX: Final = 60
MESSAGE_MAX: Final = 160
"""Characters of what the checker says."""
OPERATIONS_MAX: Final = 20
"""Of more operations only those on the failing key are told."""
_ROLE: Final = re.compile(r"^(\S+) mono_ms=\d+ (\S+) role=(\S+) term=(\d+)")
_AT: Final = re.compile(r" at \d+\.\d+ s\b")
_PHASES: Final = {HEAL: "all faults are undone", FINAL: "the final reads begin"}

Line = tuple[float, str]
"""When, in seconds since the run began, and what."""


def story(run: RunDirectory, results: Mapping[str, Any], sighting: Sighting) -> list[str]:
    """Return the lines of the story of a run that failed."""
    history = run.read_history()
    main_s = main_began_s(history)
    zero = datetime.fromisoformat(results["started_at"])
    before, after = _split(_roles(run.node_logs(), zero), main_s)
    lines: list[Line] = [(main_s, f"so far: {before[-1][1]}")] if before else []
    lines += [*_faults(history), *after, *_operations(history, sighting.key)]
    # Its times are counted from the start of the run.
    message = _AT.sub("", sighting.message)
    shown = message if len(message) <= MESSAGE_MAX else f"{message[: MESSAGE_MAX - 1]}…"
    lines.append((main_s + sighting.ended_s, shown))
    lines.sort(key=lambda line: line[0])  # what happens at one time stays in the order of above
    told = [f"{max(0.0, at_s - main_s):8.3f} s  {what}" for at_s, what in lines]
    if len(told) > LINES_MAX:
        cut = len(told) - LINES_MAX
        told = [*told[: LINES_MAX // 2], f"... {cut} more", *told[-LINES_MAX // 2 :]]
    return told


def _split(lines: list[Line], at_s: float) -> tuple[list[Line], list[Line]]:
    return [line for line in lines if line[0] < at_s], [line for line in lines if line[0] >= at_s]


def _roles(logs: Mapping[str, list[str]], zero: datetime) -> list[Line]:
    """Who comes to lead, and who leads no more."""
    told: list[Line] = []
    for node, lines in logs.items():
        leads = False
        for line in lines:
            found = _ROLE.match(line)
            if found is None:
                leads = leads and " event=boot " not in line
                continue
            stamp, _, role, term = found.groups()
            at_s = (datetime.fromisoformat(stamp) - zero).total_seconds()
            if role == "leader":
                told.append((at_s, f"{node} becomes leader in term {term}"))
            elif leads:
                told.append((at_s, f"{node} leads no more: it is {role} in term {term}"))
            leads = role == "leader"
    return sorted(told, key=lambda line: line[0])


def _faults(history: History) -> Iterator[Line]:
    kinds = {package.start_f: kind for kind, package in PACKAGES.items()}
    ends = {package.stop_f: kind for kind, package in PACKAGES.items()}
    is_completion = False
    for op in history.ops:
        if op.process != NEMESIS:
            continue
        if op.f == PHASE:
            if op.value in _PHASES:
                yield op.time / 1e9, _PHASES[op.value]
            continue
        # The nemesis does one thing at a time: a line that begins it, a line that ends it.
        if is_completion:
            is_start = op.f in kinds
            word = kinds[op.f] if is_start else f"end of {ends.get(op.f, op.f)}"
            done = _done(op, is_start=is_start)
            yield op.time / 1e9, f"{word}: {done}" if done else word
        is_completion = not is_completion


def _done(op: Op, *, is_start: bool) -> str:
    value = op.value if isinstance(op.value, dict) else {}
    by_text: dict[str, list[str]] = {}
    for node, text in (value.get("done") or {}).items():
        by_text.setdefault(str(text), []).append(node)
    grudge = value.get("grudge")
    cut = _cut(grudge) if grudge and is_start else None
    if cut is not None:
        words = [cut]
    elif len(by_text) == 1 and not is_start:
        words = []  # of all nodes the same
    else:
        words = [f"{', '.join(nodes)} ({text})" for text, nodes in by_text.items()]
    return "; ".join(words + ([error_text(op.error)] if op.error else []))


def _cut(grudge: Mapping[str, list[str]]) -> str | None:
    """Return a grudge in words if it cuts some nodes from others, both ways and completely."""
    drops = {node: frozenset(peers) for node, peers in grudge.items() if peers}
    sides = sorted(
        {frozenset(n for n in drops if drops[n] == peers) for peers in drops.values()},
        key=lambda side: (len(side), sorted(side)),
    )
    if len(sides) != 2 or any(drops[node] != sides[1] for node in sides[0]):
        return None
    if any(drops[node] != sides[0] for node in sides[1]):
        return None
    one, other = (", ".join(sorted(side)) for side in sides)
    return f"cut {one} from {other}"


def _operations(history: History, key: str | None) -> Iterator[Line]:
    chosen = history.operations
    if len(chosen) > OPERATIONS_MAX:
        chosen = tuple(each for each in chosen if key is not None and each.key == key)
    for operation in chosen[:LINES_MAX]:
        invoke = operation.invoke
        where = f"{invoke.node or '?'}: process {invoke.process}"
        asked = "" if invoke.value is None else f" {value_text(invoke.value)}"
        what = f"{invoke.f} {invoke.key or ''}".rstrip() + asked
        yield invoke.time / 1e9, f"{where}: {what}{_outcome(operation)}"


def _outcome(operation: Operation) -> str:
    invoke, completion = operation.invoke, operation.completion
    if completion is None:
        return ", which never ends"
    taken = f"after {(completion.time - invoke.time) / 1e6:.1f} ms"
    if completion.type is OpType.OK:
        result = f" -> {value_text(completion.value)}" if completion.value != invoke.value else ""
        if not result and invoke.value is None:
            result = " -> null"
        return f"{result}, ok {taken}"
    error = f" ({error_text(completion.error)})" if completion.error else ""
    return f", {completion.type.value} {taken}{error}"
