"""Session guarantees: what one process may rely on, whatever the others see.

Terry et al., *Session guarantees for weakly consistent replicated data* (PDIS 1994), for registers
in which no value is written twice. Each guarantee says that some version of a key comes before
another one; it holds iff these demands, and what every cas says about the two versions it joins, do
not go in a circle. Versions of different keys have nothing to do with each other here: that is what
the transactional checkers look at.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, ClassVar, Final, NamedTuple

from labrys.checkers.by_key import ByKey, Tally
from labrys.checkers.history import Operation
from labrys.checkers.models.model import wanted
from labrys.checkers.text import as_key, told
from labrys.checkers.verdict import CheckResult, Verdict

MONOTONIC_READS: Final = "monotonic-reads"
READ_YOUR_WRITES: Final = "read-your-writes"
MONOTONIC_WRITES: Final = "monotonic-writes"
WRITES_FOLLOW_READS: Final = "writes-follow-reads"
ALL: Final = "all"
GUARANTEES: Final = (MONOTONIC_READS, READ_YOUR_WRITES, MONOTONIC_WRITES, WRITES_FOLLOW_READS)
_STARTS_MAX: Final = 50
"""From so many places a short circle is looked for."""
_FACTS: Final = ("cas", "start")


class _Demand(NamedTuple):
    """One version of a key comes before another one, and why.

    A number beyond the versions stands for all that a session has read, or written, up to some
    point: that keeps demands few.
    """

    before: int
    after: int
    guarantee: str
    op: int
    """Who found or wrote the version; of two versions, the later op."""
    process: int | str


class Sessions(ByKey):
    """Do the sessions, one for each process, get what they were promised?

    Levels: each guarantee by itself, and `all` of them together: one order of versions for all.
    """

    name = "sessions"
    has_start = True
    functions: ClassVar[Mapping[str, str]] = {"read": "read", "write": "write", "cas": "cas"}
    levels = (ALL, *GUARANTEES)

    def __init__(self, level: str | None = None, initial: Any = None) -> None:
        """Begin with the value `initial` under every key."""
        super().__init__(level, initial)
        self._initial = as_key(initial)

    def assert_sound(self, operation: Operation) -> None:
        value = operation.invoke.value
        if operation.f == "cas" and not (isinstance(value, list) and len(value) == 2):
            raise wanted(operation, "[expected, new]", value)

    def missing(self, operations: Sequence[Operation]) -> str | None:
        if not any(operation.is_ok and operation.f != "write" for operation in operations):
            return "no read succeeded"
        return None

    def judge(self, operations: Sequence[Operation]) -> CheckResult:
        versions = {self._initial: 0}
        writers = [-1]
        """By version: the call of who writes it."""
        for operation in operations:
            if operation.f == "read" or operation.is_fail:
                continue
            version = as_key(_written(operation))
            if version in versions:
                return CheckResult(
                    Verdict.UNKNOWN,
                    f"{told(version)} is written twice (again by op {operation.call}): nobody "
                    "knows which of the two a read found",
                    hint="let the workload write distinct values",
                )
            versions[version] = len(versions)
            writers.append(operation.call)
        names = [told(version) for version in versions]
        tally = Tally()
        demands = _Demands(versions, writers, tally)
        idle = _idle(operations)
        for operation in operations:
            if operation.call not in idle:
                demands.take(operation)
        violated: dict[str, list[_Demand]] = {}
        for guarantee in self.levels:
            circle = _circle(
                [d for d in demands.all if guarantee in (ALL, d.guarantee) or d.guarantee in _FACTS]
            )
            if circle:
                violated[guarantee] = circle
            elif guarantee == ALL:
                break  # where there is an order for all of them, there is one for each
        for guarantee, circle in violated.items():
            if guarantee != ALL or len(violated) == 1:
                _tell(guarantee, circle, names, tally)
        assert self.level is not None, "there are levels"
        is_bad = self.level in violated or tally.counts["unexpected"] > 0
        held = [guarantee for guarantee in GUARANTEES if guarantee not in violated]
        broken = [guarantee for guarantee in violated if guarantee != ALL]
        if ALL in violated and not broken:
            broken = ["all together"]
        if tally.counts["unexpected"]:
            broken.insert(0, "values out of nowhere")
        return CheckResult(
            Verdict.INVALID if is_bad else Verdict.VALID,
            "; ".join(
                [
                    *([f"violated: {', '.join(broken)}"] if broken else []),
                    f"held: {', '.join(held) or 'none'}",
                    f"{len({operation.process for operation in operations})} sessions",
                ]
            ),
            findings=tally.findings(
                ["unexpected", *(violated if self.level == ALL else [self.level])]
            ),
            data={"level": self.level, "held": held, "violated": sorted(violated)},
        )


def _written(operation: Operation) -> Any:
    value = operation.invoke.value
    return value[1] if operation.f == "cas" else value


def _idle(operations: Sequence[Operation]) -> set[int]:
    """Return the crashed cas that nobody needs: two that expect each other's value say nothing.

    One happened for certain if somebody found what it left, or it left what another one, which
    happened, expects.
    """
    crashed = {as_key(_written(o)): o for o in operations if o.is_info and o.f == "cas"}
    found = [
        as_key(o.value if o.f == "read" else o.invoke.value[0])
        for o in operations
        if o.is_ok and o.f != "write"
    ]
    idle = {operation.call for operation in crashed.values()}
    while found:
        operation = crashed.get(found.pop())
        if operation is not None and operation.call in idle:
            idle.remove(operation.call)
            found.append(as_key(operation.invoke.value[0]))
    return idle


class _Session:
    """What one process has read and written so far."""

    def __init__(self) -> None:
        self.last_read = -1
        self.last_write = -1
        self.all_read = -1
        """The node for all reads so far; -1: none."""
        self.all_written = -1
        self.writes: list[tuple[int, int]] = []
        """(version, the node for all writes before)."""
        self.place: dict[int, int] = {}
        """By own version: its place in `writes`."""
        self.asked_all: dict[int, int] = {}
        """By version that others wrote: the node of own writes that was demanded before it."""
        self.asked_own: dict[int, int] = {}
        """By own version: so many of the own writes were demanded before it."""


class _Demands:
    """Collects what the guarantees demand, session by session.

    What follows from others of the same guarantee is left out: reads among themselves and writes
    among themselves need only neighbours.
    """

    def __init__(self, versions: Mapping[Any, int], writers: Sequence[int], tally: Tally) -> None:
        self.all: list[_Demand] = []
        self._versions = versions
        self._writers = writers
        self._tally = tally
        self._sessions: dict[int | str, _Session] = {}
        self._nodes = len(versions)

    def take(self, operation: Operation) -> None:
        """Add what an operation demands; those of a session come in order."""
        if operation.is_fail or (operation.f == "read" and not operation.is_ok):
            return
        session = self._sessions.setdefault(operation.process, _Session())
        if operation.f == "read":
            self._find(operation, operation.value, session)
            return
        written = self._versions[as_key(_written(operation))]
        self._add(0, written, "start", operation)
        if operation.f == "cas":
            expected = operation.invoke.value[0]
            before = self._versions.get(as_key(expected))
            if before is not None and before != written:
                self._add(before, written, "cas", operation)
            elif before is None and not operation.is_ok:
                message = f"op {operation.call} must have found {told(as_key(expected))}, for its "
                message += f"{told(as_key(_written(operation)))} was found, and nobody wrote that"
                self._tally.tell("unexpected", message, [operation.call])
            if operation.is_ok:
                self._find(operation, expected, session)
        # A crashed write is the last of its session: nobody relies on it there.
        self._write(operation, written, session)

    def _add(self, before: int, after: int, guarantee: str, operation: Operation) -> None:
        self.all.append(_Demand(before, after, guarantee, operation.call, operation.process))

    def _joined(self, node: int, version: int, guarantee: str, operation: Operation) -> int:
        """Return a node for `version` and all that `node` stands for."""
        new = self._nodes
        self._nodes += 1
        self._add(version, new, guarantee, operation)
        if node >= 0:
            self._add(node, new, guarantee, operation)
        return new

    def _find(self, operation: Operation, value: Any, session: _Session) -> None:
        version = self._versions.get(as_key(value))
        if version is None:
            message = f"op {operation.call} found {told(as_key(value))}, which nobody wrote"
            self._tally.tell("unexpected", message, [operation.call])
            return
        writer = self._writers[version]
        if writer > (operation.ret or 0):
            message = f"op {operation.call} found {told(as_key(value))} before op {writer} began to"
            self._tally.tell("unexpected", f"{message} write it", [operation.call, writer])
        own = session.place.get(version)
        if own is None:
            if session.all_written >= 0 and session.asked_all.get(version) != session.all_written:
                self._add(session.all_written, version, READ_YOUR_WRITES, operation)
                session.asked_all[version] = session.all_written
        else:
            before = session.writes[own][1]
            asked = session.asked_own.get(version, own + 1)
            if version not in session.asked_own and before >= 0:
                self._add(before, version, READ_YOUR_WRITES, operation)
            for later, _ in session.writes[asked:]:
                self._add(later, version, READ_YOUR_WRITES, operation)
            session.asked_own[version] = len(session.writes)
        if session.last_read != version:
            if session.last_read >= 0:
                self._add(session.last_read, version, MONOTONIC_READS, operation)
            session.all_read = self._joined(
                session.all_read, version, WRITES_FOLLOW_READS, operation
            )
        session.last_read = version

    def _write(self, operation: Operation, version: int, session: _Session) -> None:
        if session.last_write >= 0:
            self._add(session.last_write, version, MONOTONIC_WRITES, operation)
        if session.all_read >= 0:
            self._add(session.all_read, version, WRITES_FOLLOW_READS, operation)
        session.place[version] = len(session.writes)
        session.writes.append((version, session.all_written))
        session.all_written = self._joined(
            session.all_written, version, READ_YOUR_WRITES, operation
        )
        session.last_write = version


def _circle(demands: Sequence[_Demand]) -> list[_Demand]:
    """Return demands that go in a circle, a short one; none if there is an order."""
    successors: dict[int, dict[int, _Demand]] = {}
    sorter: TopologicalSorter[int] = TopologicalSorter()
    for demand in demands:
        sorter.add(demand.after, demand.before)
        successors.setdefault(demand.before, {}).setdefault(demand.after, demand)
    try:
        sorter.prepare()
    except CycleError as error:
        nodes = error.args[1]
        circles = (_around(node, successors) for node in nodes[:_STARTS_MAX])
        return min(circles, key=len)
    return []


def _around(start: int, successors: Mapping[int, Mapping[int, _Demand]]) -> list[_Demand]:
    """Return the shortest circle through `start`, which is on one."""
    came_by: dict[int, _Demand] = {}
    queue = deque([start])
    while start not in came_by:
        node = queue.popleft()
        for after, demand in successors.get(node, {}).items():
            if after not in came_by:
                came_by[after] = demand
                queue.append(after)
    path = [came_by[start]]
    while path[-1].before != start:
        path.append(came_by[path[-1].before])
    return path[::-1]


def _tell(level: str, circle: Sequence[_Demand], names: Sequence[str], tally: Tally) -> None:
    """Tell a circle version by version."""
    place = next(i for i, demand in enumerate(circle) if demand.before < len(names))
    circle = [*circle[place:], *circle[:place]]
    lines, ops = [], []
    start: _Demand | None = None
    for demand in circle:
        if start is None:
            start = demand
        if demand.after >= len(names):
            continue
        before, after = names[start.before], names[demand.after]
        ops += [start.op, demand.op]
        lines.append(f"{before} before {after}: {_reason(start, demand, before, after)}")
        start = None
    tally.tell(level, "\n  ".join([f"{level} is violated: versions go in a circle", *lines]), ops)


def _reason(first: _Demand, last: _Demand, before: str, after: str) -> str:
    who, op = f"process {last.process}", f"op {last.op}"
    match last.guarantee:
        case "start":
            return f"{before} was there before anything was written"
        case "cas":
            return f"{who} replaced it ({op})"
        case "monotonic-reads":
            return f"{who} found the one and later the other ({op})"
        case "monotonic-writes":
            return f"{who} wrote the one and later the other ({op})"
        case "read-your-writes":
            wrote = f" (op {first.op})" if first is not last else ""
            return f"{who} wrote {before}{wrote} and later found {after} ({op})"
        case "writes-follow-reads":
            return f"{who} found {before} (op {first.op}) and later wrote {after} ({op})"
    raise AssertionError(f"no such guarantee: {last.guarantee}")
