"""The dependency graph: which transaction came before which, and how that is known.

Adya (1999): *ww*, one overwrote what the other wrote; *wr*, one read it; *rw*, one read what the
other then overwrote (an anti-dependency: the reader came first).
"""

from typing import Any, Final, NamedTuple

from labrys.checkers.history import FOREVER
from labrys.checkers.transactions.txn import Txns

WW, WR, RW, PROCESS, REALTIME, SAME = range(6)
"""`SAME` leads on from a node that stands for a version nobody knows: it adds nothing to what led
there, for the version may have been the one of the target."""
KINDS: Final = ("ww", "wr", "rw", "process", "realtime", "same")
_SHIFT: Final = 3


class Edge(NamedTuple):
    """One step of a cycle."""

    source: int
    kind: int
    target: int


class Direct(NamedTuple):
    """An anomaly that is seen in one or a few transactions, without any cycle."""

    name: str
    message: str
    ops: tuple[int, ...]


class Graph:
    """Successors of every transaction. Nodes from `txns` on stand for a version nobody knows."""

    def __init__(self, txns: Txns) -> None:
        self.txns = txns
        self.size = len(txns.call)
        self.successors: list[list[int]] = [[] for _ in range(self.size)]
        """Encoded: `target << 3 | kind`."""
        self.call = list(txns.call)
        self.ret = list(txns.ret)
        self.after: dict[int, Any] = {}
        """By node that stands for what came after the last version read: the key."""
        self.direct: list[Direct] = []
        self.orders: dict[Any, list[Any]] = {}
        """By key: its versions in order, as far as they were read."""
        self.notes: list[str] = []
        """What could not be inferred."""

    def add(self, source: int, kind: int, target: int) -> None:
        """Add an edge between different nodes."""
        if source != target:
            self.successors[source].append(target << _SHIFT | kind)

    def add_after(self, key: Any) -> int:
        """Add a node for whatever came directly after the last version of `key` that was read."""
        node = len(self.successors)
        self.successors.append([])
        self.call.append(-1)
        self.ret.append(FOREVER)
        self.after[node] = key
        return node

    def edges(self, node: int) -> list[tuple[int, int]]:
        """Return (target, kind) of every edge from `node`."""
        return [(code >> _SHIFT, code & 7) for code in self.successors[node]]

    def process_edges(self) -> list[tuple[int, int]]:
        """Return the edges between one transaction of a process and its next one."""
        last: dict[int | str, int] = {}
        edges = []
        for number, operation in enumerate(self.txns.operations):
            before = last.get(operation.process)
            if before is not None:
                edges.append((before, number))
            last[operation.process] = number
        return edges


class Sorted(NamedTuple):
    """What is left of a graph when everything that comes in an order is taken away."""

    cyclic: list[int]
    """The nodes on or behind cycles."""
    late: bool
    """Whether some transaction returned before one began on which it depends."""


def sort(graph: Graph) -> Sorted:
    """Sort topologically, and see whether the order agrees with real time.

    Let M(t) be the latest call of t and all it depends on. Dependencies and real time together
    have a cycle iff the dependencies have one or some t returned before M(t): of two real-time
    edges in a cycle one always suffices. So no edge for real time is needed; the rest is Kahn's
    algorithm (1962).
    """
    successors, ret = graph.successors, graph.ret
    count = len(successors)
    open_edges = [0] * count
    for codes in successors:
        for code in codes:
            open_edges[code >> _SHIFT] += 1
    latest = list(graph.call)
    ready = [node for node in range(count) if not open_edges[node]]
    late = False
    done = 0
    while ready:
        node = ready.pop()
        done += 1
        call = latest[node]
        if call > ret[node]:
            late = True
        for code in successors[node]:
            target = code >> _SHIFT
            if call > latest[target]:
                latest[target] = call
            open_edges[target] -= 1
            if not open_edges[target]:
                ready.append(target)
    cyclic = [] if done == count else [node for node in range(count) if open_edges[node] > 0]
    return Sorted(cyclic, late)
