"""The set checker: what became of every element, and how long it took to be seen.

After Jepsen's set-full. An element is *known* from the moment its add was acknowledged or a read
returned with it, whichever came first. What a read that began later lacks is lost, unless some read
that has it may have come after that one: then it was only stale.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from labrys.checkers.by_key import ByKey, Tally
from labrys.checkers.history import FOREVER, Operation
from labrys.checkers.models.model import wanted
from labrys.checkers.op import Op
from labrys.checkers.quantiles import quantiles_ms
from labrys.checkers.text import as_key, told
from labrys.checkers.verdict import CheckResult, Verdict

EVENTUAL: Final = "eventual"
LINEARIZABLE: Final = "linearizable"


class _Element:
    """What happened to one element."""

    def __init__(self) -> None:
        self.adds: list[Operation] = []
        """Those that did not fail."""
        self.known = FOREVER
        """Since which event it has to be there."""
        self.known_ns = -1
        self.last_seen: Operation | None = None
        """The read with it that returned last."""
        self.missed: Operation | None = None
        """The read without it that began last."""

    def note(self, completion: Op) -> None:
        """From this completion on it has to be there."""
        if completion.index < self.known:
            self.known, self.known_ns = completion.index, completion.time

    @property
    def is_missed(self) -> bool:
        """Whether some read began when it had to be there and did not have it."""
        return self.missed is not None and self.missed.call > self.known

    @property
    def hidden_ns(self) -> int:
        """How long after it was known a read could still begin and not have it."""
        if self.missed is None or not self.is_missed:
            return 0
        return max(0, self.missed.invoke.time - self.known_ns)


class SetFull(ByKey):
    """Is every element that was added there for good? With `linearizable`, also at once?

    Lost, unexpected and repeated elements are violations; stale ones only where reads have to be
    linearizable. Runs should end in reads after recovery: what the last of them lacks is lost.
    """

    name = "set-full"
    functions: ClassVar[Mapping[str, str]] = {"add": "add", "read": "read"}
    levels = (EVENTUAL, LINEARIZABLE)

    def assert_sound(self, operation: Operation) -> None:
        if operation.f == "read" and operation.is_ok and not isinstance(operation.value, list):
            raise wanted(operation, "a list of elements as its result", operation.value)

    def missing(self, operations: Sequence[Operation]) -> str | None:
        if not any(operation.f == "read" and operation.is_ok for operation in operations):
            return "no read succeeded"
        if not any(operation.f == "add" and operation.is_ok for operation in operations):
            return "no add succeeded"
        return None

    def judge(self, operations: Sequence[Operation]) -> CheckResult:
        elements, reads = _elements(operations), _reads(operations)
        tally = Tally()
        for read, seen, values in reads:
            if len(values) > len(seen):
                twice = Counter(map(as_key, values)).most_common(1)[0][0]
                message = f"op {read.call} read {told(twice)} more than once"
                tally.tell("duplicated", message, [read.call])
            _look(elements, read, seen, tally)
        _look_for_absence(elements, reads)
        latest = max((read.call for read, _, _ in reads), default=-1)
        stable = never_read = 0
        visible_ns: list[int] = []
        for value, element in elements.items():
            if element.known == FOREVER:
                continue  # never acknowledged and never read: it need not have happened
            if element.is_missed:
                _tell_of(value, element, tally)
            elif element.last_seen is None and latest < element.known:
                never_read += 1
                continue
            else:
                stable += 1
            if element.last_seen is not None and element.known_ns >= 0:
                visible_ns.append(element.hidden_ns)
        bad = ["lost", "unexpected", "duplicated"]
        if self.level == LINEARIZABLE:
            bad.append("stale")
        counts = {"stable": stable, "never read": never_read} | {
            kind: tally.counts[kind] for kind in ("lost", "stale", "unexpected", "duplicated")
        }
        what = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
        return CheckResult(
            Verdict.INVALID if any(tally.counts[kind] for kind in bad) else Verdict.VALID,
            f"{what or 'nothing known'} of {len(elements)} elements",
            findings=tally.findings(bad),
            data={
                **{kind.replace(" ", "_"): count for kind, count in counts.items()},
                "attempts": len(elements),
                "visible_after_ms": quantiles_ms(visible_ns) if visible_ns else {},
            },
        )


def _tell_of(value: Any, element: _Element, tally: Tally) -> None:
    """Say of an element that was missing whether it came back."""
    missed, seen = element.missed, element.last_seen
    assert missed is not None, "it was missing"
    add = element.adds[0]
    story = f"added by op {add.call}, there since event {element.known}"
    ops = [add.call, missed.call, *(() if seen is None else (seen.call,))]
    if seen is None:
        message = f"{told(value)} is lost: {story}, and no read has it, not even op {missed.call}"
    elif (seen.ret or 0) < missed.call:
        message = (
            f"{told(value)} is lost: {story}, last read by op {seen.call}, and no more by op "
            f"{missed.call}"
        )
    else:
        tally.tell(
            "stale",
            f"{told(value)} was missing for a while: {story}, but op {missed.call} did not read "
            f"it; op {seen.call} did",
            ops,
        )
        return
    tally.tell("lost", message, ops)


def _elements(operations: Sequence[Operation]) -> dict[Any, _Element]:
    elements: dict[Any, _Element] = {}
    for operation in operations:
        if operation.f == "add" and not operation.is_fail:
            element = elements.setdefault(as_key(operation.invoke.value), _Element())
            element.adds.append(operation)
            if operation.is_ok and operation.completion is not None:
                element.note(operation.completion)
    return elements


def _reads(operations: Sequence[Operation]) -> list[tuple[Operation, set[Any], list[Any]]]:
    """Return the reads that succeeded: (read, what it has, the same as it was answered)."""
    reads = []
    for operation in operations:
        if operation.f == "read" and operation.is_ok:
            values = operation.value
            is_plain = set(map(type, values)) <= {int, str}
            reads.append((operation, set(values if is_plain else map(as_key, values)), values))
    return reads


def _look(elements: dict[Any, _Element], read: Operation, seen: set[Any], tally: Tally) -> None:
    """Note what a read has."""
    completion = read.completion
    assert completion is not None, "it succeeded"
    for value in seen:
        element = elements.get(value)
        if element is None:
            message = f"op {read.call} read {told(value)}, which nobody added"
            tally.tell("unexpected", message, [read.call])
            continue
        early = element.adds[0].call
        if early > completion.index:
            message = f"op {read.call} read {told(value)} before op {early} began to add it"
            tally.tell("unexpected", message, [read.call, early])
        element.note(completion)
        if element.last_seen is None or completion.index > (element.last_seen.ret or 0):
            element.last_seen = read


def _look_for_absence(
    elements: dict[Any, _Element], reads: Sequence[tuple[Operation, set[Any], list[Any]]]
) -> None:
    """Find the last read without each element: going back in time, what is found is done with."""
    rest = set(elements)
    for read, seen, _ in sorted(reads, key=lambda one: -one[0].call):
        missing = rest - seen
        rest &= seen
        for value in missing:
            elements[value].missed = read
        if not rest:
            break
