"""Cycles told edge by edge, as text, as data and as a drawing."""

from collections.abc import Callable
from typing import Any, Final

from labrys.checkers.history import FOREVER
from labrys.checkers.subject import at
from labrys.checkers.text import json_text
from labrys.checkers.transactions.cycles import Cycle
from labrys.checkers.transactions.dependencies import (
    KINDS,
    PROCESS,
    REALTIME,
    RW,
    Edge,
    Graph,
)
from labrys.checkers.verdict import Finding

Reason = Callable[[Graph, Edge], str]

_MEANINGS: Final = {
    "G0": "writes of two transactions were mixed",
    "G1c": "transactions saw each other's writes in a circle",
    "fractured-read": "a transaction saw one part of another and missed the rest",
    "causal-violation": "a transaction saw an effect without its cause",
    "G-single": "a transaction missed what came before something that it saw",
    "G-nonadjacent": "transactions each missed what others saw, which snapshots cannot explain",
    "G2-item": "transactions each missed what the other wrote",
}


def without_unknown(graph: Graph, cycle: Cycle) -> tuple[Edge, ...]:
    """Return the edges of a cycle, leading past the nodes that stand for an unknown version."""
    edges = list(cycle.edges)
    while edges[0].source in graph.after:
        edges.append(edges.pop(0))
    kept: list[Edge] = []
    for edge in edges:
        if kept and kept[-1].target in graph.after:
            kept[-1] = kept[-1]._replace(target=edge.target)
        else:
            kept.append(edge)
    return tuple(edge for edge in kept if edge.source != edge.target)


def tell(graph: Graph, cycle: Cycle, reason: Reason) -> Finding:
    """Return the finding for a cycle: who came before whom, and why that cannot be."""
    edges = without_unknown(graph, cycle)
    names = {edge.source: f"T{number}" for number, edge in enumerate(edges, 1)}
    base = cycle.name.removesuffix("-process").removesuffix("-realtime")
    lines = [
        f"{cycle.name}: {_MEANINGS[base]}{_FORMS[cycle.name[len(base) :]]}",
        "  " + drawn(edges, names),
    ]
    for node, name in names.items():
        lines.append(f"  {name} = {_txn(graph, node)}")
    steps: list[dict[str, Any]] = []
    for number, edge in enumerate(edges, 1):
        why = _why(graph, edge, names, reason)
        last = number == len(edges)
        lines.append(
            f"  {names[edge.source]} {'came' if not last else 'came, too,'} before "
            f"{names[edge.target]} ({KINDS[edge.kind]}): {why}{': a contradiction' if last else ''}"
        )
        steps.append(
            {
                "from": graph.call[edge.source],
                "to": graph.call[edge.target],
                "kind": KINDS[edge.kind],
                "why": why,
            }
        )
    ops = tuple(graph.call[edge.source] for edge in edges)
    return Finding(
        "\n".join(lines),
        ops=ops,
        data={
            "anomaly": cycle.name,
            "cycle": steps,
            "txns": [
                {"name": name, "op": graph.call[node], "value": graph.txns.micros[node]}
                for node, name in names.items()
            ],
            "core": sorted(set(ops)),
            "window": [
                min(ops),
                max((r for e in edges if (r := graph.ret[e.source]) < FOREVER), default=max(ops)),
            ],
            "dot": dot(graph, edges, names),
        },
    )


_FORMS: Final = {
    "": "",
    "-process": ", given the order in which a process worked",
    "-realtime": ", given what had ended before something else began",
}


def drawn(edges: tuple[Edge, ...], names: dict[int, str]) -> str:
    """Return a cycle as one line: `T1 --rw--> T2 --wr--> T1`."""
    text = names[edges[0].source]
    for edge in edges:
        text += f" --{KINDS[edge.kind]}--> {names[edge.target]}"
    return text


def dot(graph: Graph, edges: tuple[Edge, ...], names: dict[int, str]) -> str:
    """Return a cycle in the language of Graphviz."""
    lines = ["digraph {", "  node [shape=box fontname=monospace]"]
    for node, name in names.items():
        lines.append(f"  {name} [label={json_text(f'{name}: {_txn(graph, node)}')}]")
    for edge in edges:
        style = " style=dashed" if edge.kind == RW else ""
        lines.append(
            f"  {names[edge.source]} -> {names[edge.target]} [label={KINDS[edge.kind]}{style}]"
        )
    return "\n".join([*lines, "}"])


def _txn(graph: Graph, node: int) -> str:
    operation = graph.txns.operations[node]
    end = "" if operation.completion is None else at(operation.completion.time)
    text = f"op {graph.call[node]} process {operation.process} "
    return text + json_text(graph.txns.micros[node]) + end


def _why(graph: Graph, edge: Edge, names: dict[int, str], reason: Reason) -> str:
    if edge.kind == REALTIME:
        return (
            f"{names[edge.source]} had returned (at {graph.ret[edge.source]}) "
            f"before {names[edge.target]} was invoked (at {graph.call[edge.target]})"
        )
    if edge.kind == PROCESS:
        process = graph.txns.operations[edge.source].process
        return f"process {process} did one after the other"
    return reason(graph, edge).replace("the next one", names[edge.target])
