"""Summaries of suites that were never run."""

from typing import Any

import msgspec

from labrys.checkers.verdict import Verdict
from labrys.control.suite.summary import Confirmed, Result, Skipped, Summary

HOSTILE = "</script><img src=x onerror=alert(1)> `x` ```\n| a | {{ 7 * 7 }} %0A ::error::x \x00"


def result(cell: str, verdict: Verdict = Verdict.VALID, **changes: Any) -> Result:
    is_valid = verdict is Verdict.VALID
    fields: dict[str, Any] = {
        "cell": cell,
        "number": 1,
        "env": "sim",
        "nodes": 3,
        "workload": "register",
        "bug": None,
        "faults": "kill",
        "seed": 8817,
        "verdict": verdict,
        "why": "" if is_valid else "linearizable: 1 of 40 keys",
        "seconds": 1.25,
        "path": f"../../../{cell}/20260101T000000Z-8817",
        "report": f"../../../{cell}/20260101T000000Z-8817/report.html",
        "rerun": f"labrys test --name {cell} --env sim --seed 8817",
        "recheck": f"labrys check runs/{cell}/20260101T000000Z-8817",
        "told": "" if is_valid else f"verdict {verdict.value.upper()}\n  linearizable  ...",
    }
    return Result(**{**fields, **changes})


def summary(*results: Result, **changes: Any) -> Summary:
    fields: dict[str, Any] = {
        "suite": "nightly",
        "seed": 7,
        "shard": "1/1",
        "rerun": "labrys suite suites/nightly.yaml --seed 7",
        "started_at": "2026-01-01T00:00:00.000Z",
        "seconds": 1234.5,
        "finished": True,
        "stopped": None,
        "interrupted": False,
        "passes": 1,
        "passes_asked": 1,
        "runs": list(results),
        "skipped": [],
    }
    return Summary(**{**fields, **changes})


MIXED = summary(
    result("good"),
    result("vacuous", Verdict.UNKNOWN, why="coverage: vacuous", faults="partition"),
    result("broken", Verdict.ERROR, why="set-up: n3 did not start", path=None, report=None),
    result("wrong", Verdict.INVALID, env="netns", confirmed=Confirmed(runs=3, invalid=2), number=2),
    result("retried", retried=["no port"], env="netns"),
    stopped="the time budget is spent",
    skipped=[Skipped("late", 1), Skipped("good", 2)],
)

NASTY = summary(
    result(
        "wrong",
        Verdict.INVALID,
        why=HOSTILE,
        told=HOSTILE,
        faults=HOSTILE,
        bug=HOSTILE,
        retried=[HOSTILE],
        rerun=HOSTILE,
        recheck=HOSTILE,
        path=f"../{HOSTILE}",
        report=f"../{HOSTILE}/report.html",
    ),
    stopped=HOSTILE,
    failures=[HOSTILE],
    skipped=[Skipped("late", 1)],
)


def many(count: int, verdict: Verdict, **changes: Any) -> Summary:
    one = result("cell", verdict, **changes)
    return summary(
        *(msgspec.structs.replace(one, cell=f"cell-{number}") for number in range(count))
    )
