"""The raft checker: what the nodes logged about themselves must not contradict Raft.

Election safety (Ongaro and Ousterhout, 2014, section 5.2): one leader a term. A node's term never
falls, restarts included, for it is kept on disk before anything is said, unless a fault took it
from the disk; its commit index never falls while it runs. State machine safety: what two nodes have
after the same index is the same.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from labrys.checkers.checker import Evidence
from labrys.checkers.history import History
from labrys.checkers.verdict import CheckResult, Finding, Verdict

_WORD: Final = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)')
_LINE: Final = re.compile(
    r"^\S+ mono_ms=\d+ \S+ (?:event=(?:boot|start|stop|commit|state|violation)|role=)"
)
_TOLD_MAX: Final = 20


class RaftLog:
    """Looks for broken invariants in the nodes' logs; any is invalid. No such lines: unknown."""

    name = "raft"

    def check(self, history: History, evidence: Evidence) -> CheckResult:
        """Read the logs of `evidence`."""
        seen = _Seen()
        forgetful = {
            node
            for fault in evidence.faults
            if fault.plan.get("forgets") is True
            for node in fault.targets
        }
        for node, lines in evidence.logs.items():
            _read(node, lines, seen, may_forget=node in forgetful)
        data: dict[str, Any] = {
            "leaders": {str(term): nodes for term, nodes in sorted(seen.leaders.items())},
            "terms": len(seen.terms),
            "commits": seen.commits,
            "states": len(seen.states),
        }
        if seen.findings:
            kinds = dict.fromkeys(finding.data["anomaly"] for finding in seen.findings)
            return CheckResult(
                Verdict.INVALID,
                f"{len(seen.findings)} broken invariants: {', '.join(kinds)}",
                findings=tuple(_one_of_each_first(seen.findings)[:_TOLD_MAX]),
                data=data,
            )
        if not seen.terms:
            return CheckResult(
                Verdict.UNKNOWN,
                "no log tells of terms",
                hint="the logs of the nodes were not collected; run.log says why",
                data=data,
            )
        return CheckResult(
            Verdict.VALID,
            f"one leader in each of {len(seen.leaders)} terms; {seen.commits} commit indexes rise; "
            f"{seen.compared} states compared",
            data=data,
        )


def _one_of_each_first(findings: Sequence[Finding]) -> list[Finding]:
    told: Counter[str] = Counter()
    ranked = []
    for finding in findings:
        ranked.append((told[finding.data["anomaly"]], finding))
        told[finding.data["anomaly"]] += 1
    return [finding for _, finding in sorted(ranked, key=lambda pair: pair[0])]


class _Seen:
    """What all logs together say."""

    def __init__(self) -> None:
        self.leaders: dict[int, list[str]] = {}
        """By term: who said it leads."""
        self.terms: set[int] = set()
        self.commits = 0
        self.states: dict[int, tuple[str, str]] = {}
        """By index: who told its state first, and the hash."""
        self.compared = 0
        self.findings: list[Finding] = []

    def tell(self, kind: str, message: str, **data: Any) -> None:
        self.findings.append(Finding(f"{kind}: {message}", data={"anomaly": kind, **data}))


def _facts(lines: Sequence[str]) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield line number and facts of the lines about terms, commits and states."""
    for number, line in enumerate(lines, 1):
        if not _LINE.match(line) or line.count(" mono_ms=") > 1:
            continue  # on a full disk lines are torn, and the next one goes on where they end
        facts = dict(_WORD.findall(line))
        last = next(reversed(facts))
        if number == len(lines) and last != "state_hash" and not facts[last].endswith('"'):
            facts.popitem()  # the last word of all may be torn: term=1 of term=12
        yield number, facts


def _number(facts: Mapping[str, str], name: str) -> int | None:
    """Return a fact as a number; None if it is not there, or torn with its line."""
    text = facts.get(name, "")
    return int(text) if text.isdecimal() else None


def _read(node: str, lines: Sequence[str], seen: _Seen, *, may_forget: bool) -> None:
    """Take in the log of one node, which may begin anew where a fault took its data."""
    last_term = last_commit = -1
    for number, facts in _facts(lines):
        event = facts.get("event")
        if event == "boot":
            last_commit = -1  # it is not kept on disk: a node finds out anew
            if may_forget:
                last_term = -1
        term, commit = _number(facts, "term"), _number(facts, "commit")
        where = f"{node} log line {number}"
        if term is not None:
            seen.terms.add(term)
            if term < last_term:
                message = f"{where}: term {term} after term {last_term}"
                seen.tell("term-fell", message, node=node, line=number, term=term)
            last_term = term
        if commit is not None:
            seen.commits += 1
            if commit < last_commit:
                message = f"{where}: commit index {commit} after {last_commit}"
                seen.tell("commit-fell", message, node=node, line=number, commit=commit)
            last_commit = commit
        if facts.get("role") == "leader" and term is not None:
            _lead(node, number, term, seen)
        if event == "state":
            _compare(node, number, facts, seen)
        if event == "violation":
            # Somebody who saw all nodes at once, as the simulation does, has put it there.
            what = facts.get("what", "").strip('"')
            promise = what.partition(":")[0]
            seen.tell("violation", f"{where}: {what}", node=node, line=number, promise=promise)


def _lead(node: str, number: int, term: int, seen: _Seen) -> None:
    nodes = seen.leaders.setdefault(term, [])
    if node in nodes:
        return
    if nodes:
        seen.tell(
            "two-leaders",
            f"{node} led in term {term} (its log, line {number}), and so did {', '.join(nodes)}",
            node=node,
            line=number,
            term=term,
        )
    nodes.append(node)


def _compare(node: str, number: int, facts: Mapping[str, str], seen: _Seen) -> None:
    index, state_hash = _number(facts, "index"), facts.get("state_hash")
    if index is None or state_hash is None or len(state_hash) != 16:
        return
    other, known = seen.states.setdefault(index, (node, state_hash))
    if other == node and known == state_hash:
        return  # after a restart it applies the same entries again
    seen.compared += 1
    if known != state_hash:
        seen.tell(
            "states-differ",
            f"after index {index} {node} had {state_hash} (its log, line {number}) "
            f"and {other}{' before' if other == node else ''} {known}",
            node=node,
            line=number,
            index=index,
        )
