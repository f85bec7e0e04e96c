"""The agreement checker: in the end all nodes hold the same."""

from collections.abc import Mapping
from typing import Any

from labrys.checkers.checker import Evidence
from labrys.checkers.history import History
from labrys.checkers.verdict import CheckResult, Finding, Verdict


class Agreement:
    """Do all nodes that applied the same entries have the same state, by its hash?

    Nodes are asked after recovery, when no client writes any more: then all should have applied the
    same. One that did not answer or lags behind has not shown what it holds, so that is unknown.
    """

    name = "agreement"

    def check(self, history: History, evidence: Evidence) -> CheckResult:
        """Compare the states that the nodes ended in."""
        states = {node: _state(status) for node, status in evidence.end_states.items()}
        told = {node: state for node, state in states.items() if state is not None}
        data: dict[str, Any] = {
            "nodes": {
                node: None if state is None else {"applied": state[0], "state_hash": state[1]}
                for node, state in states.items()
            }
        }
        by_index: dict[int, dict[str, list[str]]] = {}
        for node, (applied, state_hash) in told.items():
            by_index.setdefault(applied, {}).setdefault(state_hash, []).append(node)
        findings = tuple(
            Finding(
                f"at index {applied} the nodes hold different states: "
                + ", ".join(f"{' '.join(nodes)} {found}" for found, nodes in hashes.items()),
                data={"anomaly": "divergence", "index": applied, "hashes": hashes},
            )
            for applied, hashes in by_index.items()
            if len(hashes) > 1
        )
        if findings:
            return CheckResult(
                Verdict.INVALID, "the nodes hold different states", findings=findings, data=data
            )
        if not told:
            return CheckResult(
                Verdict.UNKNOWN,
                "no node told its state at the end",
                hint="let the run come to its end: nodes are asked after recovery",
                data=data,
            )
        applied = max(by_index)
        rest = [node for node, state in states.items() if state is None or state[0] != applied]
        if rest or len(told) == 1:
            return CheckResult(
                Verdict.UNKNOWN,
                f"not comparable at the end: {', '.join(rest) or 'one node alone'}",
                hint="see the logs of these nodes: they did not answer, or lag behind",
                data=data,
            )
        return CheckResult(
            Verdict.VALID, f"{len(told)} nodes hold the same at index {applied}", data=data
        )


def _state(status: Mapping[str, Any] | None) -> tuple[int, str] | None:
    """Return what a node said it has applied, and the hash of its state; None if it did not."""
    if status is None or "applied" not in status or "state_hash" not in status:
        return None
    return int(status["applied"]), str(status["state_hash"])
