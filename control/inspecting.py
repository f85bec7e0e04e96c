"""`labrys runs`, `show` and `history`: look at what is stored."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from labrys.checkers.history import encode_op
from labrys.checkers.op import Op
from labrys.control.errors import UsageError
from labrys.control.report import text
from labrys.control.store import RunDirectory, all_runs, find_run

_AROUND_NS = 500_000_000


def list_runs(runs_dir: Path, *, limit: int, as_json: bool) -> None:
    """Print the newest `limit` runs, one line each, the newest last."""
    found = all_runs(runs_dir)
    first = max(0, len(found) - limit)
    for number, run in enumerate(found[first:], start=first):
        facts = _facts(number - len(found), run)
        if as_json:
            click.echo(msgspec.json.encode(facts))
        else:
            click.echo(
                f"{facts['number']:>4}  {facts['verdict'] or 'unfinished':<10} "
                f"{facts['path']}  {facts['summary']}".rstrip()
            )
    if not found:
        click.echo(f"no runs in {runs_dir} yet; 'labrys test' makes one", err=True)


def _facts(number: int, run: RunDirectory) -> dict[str, Any]:
    try:
        results = run.read_results() or {}
    except UsageError as error:
        results = {"verdict": "damaged", "checkers": {"results": {"summary": str(error)}}}
    checkers = results.get("checkers", {})
    verdict = results.get("verdict")
    reasons = [c["summary"] for c in checkers.values() if c.get("verdict") == verdict]
    if verdict == "error" and results.get("errors"):
        reasons = results["errors"]
    return {
        "number": number,
        "path": str(run.path),
        "verdict": verdict,
        "summary": reasons[0] if reasons and verdict != "valid" else "",
        "seed": results.get("seed"),
        "started_at": results.get("started_at"),
    }


def show_run(reference: str, runs_dir: Path, *, as_json: bool) -> None:
    """Print how a run ended and why."""
    run = find_run(reference, runs_dir)
    results = run.read_results()
    if as_json:
        click.echo(msgspec.json.encode(results if results is not None else {"verdict": None}))
        return
    if results is None:
        if run.goes_on():
            click.echo(f"{run.path}: no results yet: the run goes on")
        else:
            click.echo(
                f"{run.path}: no results: the run died. 'labrys heal' cleans up after it; "
                f"'labrys check {shlex.quote(str(run.path))}' judges what it recorded"
            )
        return
    click.echo(text.run_page(run.path, color=True), nl=False)


def print_history(reference: str, runs_dir: Path, *, as_json: bool, **filters: Any) -> None:
    """Print the ops of a run that pass all filters, one line each."""
    run = find_run(reference, runs_dir)
    history = run.read_history()
    ops = list(_filtered(history.ops, **filters))
    if not ops:
        click.echo(f"no op of the {len(history.ops)} in {run.history} matches", err=True)
        return
    for line in map(encode_op, ops) if as_json else text.op_lines(ops):
        click.echo(line)


def _filtered(
    ops: tuple[Op, ...],
    *,
    key: str | None,
    process: str | None,
    f: str | None,
    op_type: str | None,
    node: str | None,
    from_s: float | None,
    to_s: float | None,
    around: int | None,
) -> Iterator[Op]:
    middle = None
    if around is not None:
        middle = next((op.time for op in ops if op.index == around), None)
        if middle is None:
            raise UsageError(f"--around {around}: there is no such op; the last is {len(ops) - 1}")
    for op in ops:
        if (
            (key is None or op.key == key)
            and (process is None or str(op.process) == process)
            and (f is None or op.f == f)
            and (op_type is None or op.type == op_type)
            and (node is None or op.node == node)
            and (from_s is None or op.time >= from_s * 1e9)
            and (to_s is None or op.time <= to_s * 1e9)
            and (middle is None or abs(op.time - middle) <= _AROUND_NS)
        ):
            yield op
