"""Cycles in a dependency graph, by kind: which there are, and one short one of each.

A kind of cycle is a small automaton over the kinds of edges. A walk through the product of graph
and automaton finds a cycle of that kind, whatever else there is. A cycle through real time needs
only one such step (see `dependencies.sort`): so it is a path, of the kind asked for, from a
transaction to one that returned before the first was called. Who can be reached from whom is found
for all transactions at once by starting from the one called last: who is reached later by another
one has nothing to gain from it.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple, TypeAlias

from labrys.checkers.budget import Budget, BudgetSpent
from labrys.checkers.transactions.dependencies import (
    PROCESS,
    REALTIME,
    RW,
    SAME,
    WR,
    WW,
    Edge,
    Graph,
)
from labrys.checkers.transactions.levels import CYCLES
from labrys.checkers.transactions.levels import PROCESS as PROCESS_FORM
from labrys.checkers.transactions.levels import REALTIME as REALTIME_FORM

_State: TypeAlias = tuple[int, ...]
_WORK_PER_KIND: Final = 1_000_000
"""Edges looked at to find a cycle of one kind; then an existing one of another shape must do."""


class Cycle(NamedTuple):
    """A cycle and what it is."""

    name: str
    edges: tuple[Edge, ...]


class _Kind(NamedTuple):
    """An automaton: how a state goes on with a kind of edge, and where it may end."""

    start: _State
    step: Callable[[_State, int], _State | None]
    closes: Callable[[_State], bool]
    """Whether a path from a transaction back to itself is such a cycle."""
    ends: Callable[[_State], bool]
    """Whether a path that real time closes is one."""
    through: int
    """An edge of this kind is in every such cycle: look only from those."""


def _g0(state: _State, kind: int) -> _State | None:
    return state if kind in (WW, PROCESS) else None


def _g1c(state: _State, kind: int) -> _State | None:
    return (1,) if kind == WR else state if kind != RW else None


def _single(state: _State, kind: int) -> _State | None:
    if kind == RW:
        return None if state[0] else (1,)
    return state


def _nonadjacent(state: _State, kind: int) -> _State | None:
    count, was_rw = state
    if kind != RW:
        return (count, 0)
    return None if was_rw else (min(count + 1, 2), 1)


def _g2(state: _State, kind: int) -> _State | None:
    adjacent, was_rw = state
    return (adjacent | was_rw, 1) if kind == RW else (adjacent, 0)


def _fractured(state: _State, kind: int) -> _State | None:
    (stage,) = state
    if kind == RW:
        return (1,) if stage == 0 else None
    if kind == WW:
        return state if stage == 1 else None
    return (2,) if stage == 1 else None


def _causal(state: _State, kind: int) -> _State | None:
    (stage,) = state
    if kind == RW:
        return (1,) if stage == 0 else None
    if kind == WW:
        return state if stage == 1 else None
    return (2,) if stage in (1, 2) else state


_KINDS: Final[dict[str, _Kind]] = {
    "G0": _Kind((0,), _g0, lambda s: True, lambda s: True, WW),
    "G1c": _Kind((0,), _g1c, lambda s: s == (1,), lambda s: s == (1,), WR),
    "fractured-read": _Kind((0,), _fractured, lambda s: s == (2,), lambda s: s == (1,), RW),
    "causal-violation": _Kind((0,), _causal, lambda s: s == (2,), lambda s: s[0] > 0, RW),
    "G-single": _Kind((0,), _single, lambda s: s == (1,), lambda s: s == (1,), RW),
    # Both are looked for from an rw edge on: one at the end stands next to it.
    "G-nonadjacent": _Kind((0, 0), _nonadjacent, lambda s: s == (2, 0), lambda s: s[0] == 2, RW),
    "G2-item": _Kind((0, 0), _g2, lambda s: s != (0, 0), lambda s: s[0] == 1, RW),
}


class _View(NamedTuple):
    """A graph as a search sees it: plain, or with the order of each process."""

    edges: list[list[tuple[int, int]]]
    """By node: (target, kind)."""
    call: list[int]
    ret: list[int]
    real: int
    """How many nodes are transactions."""


def find_cycles(graph: Graph, budget: Budget, *, cyclic: bool, late: bool) -> Iterator[Cycle]:
    """Yield a cycle of each kind that there is, the plain ones first.

    A process or real-time form is looked for only where its plain form is not there. `cyclic` and
    `late` say what `dependencies.sort` found. Raises `BudgetSpent`.
    """
    if not (cyclic or late):
        return  # what a process did one after the other is in order in real time too
    view = _View(
        [graph.edges(node) for node in range(len(graph.successors))],
        graph.call,
        graph.ret,
        graph.size,
    )
    found: set[str] = set()
    if cyclic:
        for cycle in _plain(view, budget, needs_process=False, skip=found):
            found.add(cycle.name)
            yield cycle
    with_process = view._replace(edges=[list(edges) for edges in view.edges])
    for source, target in graph.process_edges():
        with_process.edges[source].append((target, PROCESS))
    for cycle in _plain(with_process, budget, needs_process=True, skip=found):
        yield cycle._replace(name=cycle.name + PROCESS_FORM)
    for name in CYCLES:
        if name not in found:
            edges = _late(view, _KINDS[name], budget)
            if edges is not None:
                yield Cycle(name + REALTIME_FORM, edges)


def _plain(view: _View, budget: Budget, *, needs_process: bool, skip: set[str]) -> Iterator[Cycle]:
    """Yield one short cycle of each kind, but of those in `skip`."""
    found: dict[str, tuple[Edge, ...]] = {}

    def look(name: str, inside: list[int]) -> None:
        if name in skip:
            return
        edges = _shortest(view, _KINDS[name], inside, budget, needs_process)
        if edges is not None and (name not in found or len(edges) < len(found[name])):
            found[name] = edges

    for component in _components(view, range(len(view.edges)), lambda kind: True):
        before = set(found)
        for inner in _components(view, component, lambda kind: kind in (WW, PROCESS, SAME)):
            look("G0", inner)
        for inner in _components(view, component, lambda kind: kind != RW):
            look("G1c", inner)
        single = _without_adjacent(view, component)
        if single:
            for name in ("G-single", "G-nonadjacent"):
                look(name, component)
            if "G-single" in found or "G-single" in skip:
                for name in ("fractured-read", "causal-violation"):
                    look(name, component)
            if before == set(found) and not needs_process:
                # There is one, but it was not found in its budget: any of its kind will do.
                edges = _walk(view, single)
                name = _name_of(edges)
                if name not in skip:
                    found.setdefault(name, edges)
        look("G2-item", component)
    yield from (Cycle(name, found[name]) for name in CYCLES if name in found)


def _name_of(edges: tuple[Edge, ...]) -> str:
    """Name a cycle without two adjacent rw edges."""
    count = sum(edge.kind == RW for edge in edges)
    if count:
        return "G-single" if count == 1 else "G-nonadjacent"
    return "G1c" if any(edge.kind == WR for edge in edges) else "G0"


def _without_adjacent(view: _View, component: list[int]) -> list[tuple[int, int]]:
    """Return nodes that are on a cycle without two adjacent rw edges, with their layer.

    Every node stands twice: where an rw edge led, no other one leaves. A cycle there is one that
    snapshot isolation forbids (Cerone and Gotsman, PODC 2016).
    """
    place = {node: 2 * number for number, node in enumerate(component)}
    edges: list[list[tuple[int, int]]] = [[] for _ in range(2 * len(component))]
    for node in component:
        for target, kind in view.edges[node]:
            if target not in place:
                continue
            if kind == RW:
                edges[place[node]].append((place[target] + 1, kind))
            else:
                edges[place[node]].append((place[target], kind))
                edges[place[node] + 1].append((place[target] + (kind == SAME), kind))
    layered = _View(edges, [], [], 0)
    cycles = _components(layered, range(len(edges)), lambda kind: True)
    return [(component[number // 2], number % 2) for number in cycles[0]] if cycles else []


def _walk(view: _View, layered: list[tuple[int, int]]) -> tuple[Edge, ...]:
    """Return a shortest way round from the first of these nodes, among them."""
    inside = set(layered)
    start = layered[0]
    came: dict[tuple[int, int], tuple[tuple[int, int], int]] = {}
    queue = deque([start])
    while queue:
        node, layer = queue.popleft()
        for target, kind in view.edges[node]:
            after = (target, int(kind == RW or (kind == SAME and layer)))
            if (layer and kind == RW) or after not in inside or after in came:
                continue
            came[after] = ((node, layer), kind)
            queue.append(after)
    path: list[Edge] = []
    at = start
    while not path or at != start:
        before, kind = came[at]
        path.append(Edge(before[0], kind, at[0]))
        at = before
    return tuple(reversed(path))


def _shortest(
    view: _View, kind: _Kind, component: list[int], budget: Budget, needs_process: bool
) -> tuple[Edge, ...] | None:
    """Return a short cycle of a kind within a component; None if none was found in its budget."""
    inside = set(component)
    wanted = PROCESS if needs_process else kind.through
    starts = [
        (len(view.edges[target]), node, edge, target)
        for node in component
        for target, edge in view.edges[node]
        if edge == wanted and target in inside
    ]
    starts.sort()
    best: tuple[Edge, ...] | None = None
    part = budget.part(_WORK_PER_KIND)
    try:
        for _, source, edge, target in starts:
            edges = _around(view, kind, Edge(source, edge, target), inside, part, best)
            if edges is not None:
                best = edges
                if len(best) == 2:
                    break
    except BudgetSpent:
        budget.poll()
    budget.spend(part.moves)
    return best


def _around(
    view: _View,
    kind: _Kind,
    edge: Edge,
    inside: set[int],
    budget: Budget,
    best: tuple[Edge, ...] | None,
) -> tuple[Edge, ...] | None:
    """Return a shortest cycle of a kind that begins with one edge, if shorter than `best`."""
    # The order of a process closes a path just as real time does.
    is_closed = kind.ends if edge.kind == PROCESS else kind.closes
    first = kind.start if edge.kind == PROCESS else kind.step(kind.start, edge.kind)
    if first is None:
        return None
    came: dict[tuple[int, _State], tuple[int, _State, int] | None] = {(edge.target, first): None}
    queue = deque([(edge.target, first, 1)])
    while queue:
        node, state, length = queue.popleft()
        if best is not None and length + 1 >= len(best):
            return None
        for after, by in view.edges[node]:
            if after not in inside:
                continue
            budget.spend()
            state_after = state if by == SAME else kind.step(state, by)
            if state_after is None:
                continue
            if after == edge.source:
                if is_closed(state_after):
                    return (edge, *_path(came, (node, state)), Edge(node, by, after))
            elif (after, state_after) not in came:
                came[(after, state_after)] = (node, state, by)
                queue.append((after, state_after, length + 1))
    return None


def _path(
    came: dict[tuple[int, _State], tuple[int, _State, int] | None], at: tuple[int, _State]
) -> list[Edge]:
    """Return the way that led to `at`."""
    path: list[Edge] = []
    while (before := came[at]) is not None:
        path.append(Edge(before[0], before[2], at[0]))
        at = before[:2]
    path.reverse()
    return path


def _late(view: _View, kind: _Kind, budget: Budget) -> tuple[Edge, ...] | None:
    """Return a path of a kind to a transaction that had returned before the first was called."""
    came: dict[tuple[int, _State], tuple[int, _State, int] | None] = {}
    best: tuple[Edge, ...] | None = None
    work_left = _WORK_PER_KIND
    for source in sorted(range(view.real), key=view.call.__getitem__, reverse=True):
        if (source, kind.start) in came:
            continue
        came[(source, kind.start)] = None
        called = view.call[source]
        queue = deque([(source, kind.start, 2)])
        while queue:
            node, state, length = queue.popleft()
            budget.spend(1 + len(view.edges[node]))
            if best is not None:
                work_left -= 1
            for after, by in view.edges[node]:
                state_after = state if by == SAME else kind.step(state, by)
                if state_after is None or (after, state_after) in came:
                    continue
                came[(after, state_after)] = (node, state, by)
                queue.append((after, state_after, length + 1))
                if (
                    view.ret[after] < called
                    and kind.ends(state_after)
                    and (best is None or length < len(best))
                ):
                    way = _path(came, (after, state_after))
                    best = (*way, Edge(after, REALTIME, source))
        if best is not None and (len(best) == 2 or work_left < 0):
            break
    return best


def _components(
    view: _View, nodes: Iterable[int], allowed: Callable[[int], bool]
) -> list[list[int]]:
    """Return the strongly connected components of more than one node (Tarjan 1972, by a loop)."""
    among = set(nodes)
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    waiting: list[int] = []
    is_waiting: set[int] = set()
    found: list[list[int]] = []
    for root in sorted(among):
        if root in index:
            continue
        index[root] = low[root] = len(index)
        waiting.append(root)
        is_waiting.add(root)
        stack = [(root, iter(view.edges[root]))]
        while stack:
            node, edges = stack[-1]
            for target, kind in edges:
                if target not in among or not allowed(kind):
                    continue
                if target not in index:
                    index[target] = low[target] = len(index)
                    waiting.append(target)
                    is_waiting.add(target)
                    stack.append((target, iter(view.edges[target])))
                    break
                if target in is_waiting:
                    low[node] = min(low[node], index[target])
            else:
                stack.pop()
                if stack:
                    parent = stack[-1][0]
                    low[parent] = min(low[parent], low[node])
                if low[node] == index[node]:
                    component = []
                    while True:
                        one = waiting.pop()
                        is_waiting.discard(one)
                        component.append(one)
                        if one == node:
                            break
                    if len(component) > 1:
                        found.append(sorted(component))
    return found
