"""What a suite says while it goes on, to people, to programs and to a CI system."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import click
import msgspec

from labrys.checkers.verdict import Verdict
from labrys.control.suite.annotations import annotations
from labrys.control.suite.cells import Cell
from labrys.control.suite.markdown import BYTES_MAX, markdown
from labrys.control.suite.plan import Shard
from labrys.control.suite.summary import Result, Summary, counts_text
from labrys.control.suite.writing import INDEX


class Teller:
    """Prints what happens: lines for people, or JSON for programs and the lines beside it."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._is_terminal = sys.stderr.isatty() and not as_json

    def say(self, line: str) -> None:
        """Print a line for people."""
        self._print(line, err=self._as_json)

    def started(self, name: str) -> None:
        """What is running now, on a terminal, until the next line."""
        if self._is_terminal:
            self._print(f"running {name} ...", err=True, nl=False)

    def begin(
        self, name: str, seed: int, shard: Shard, cells: Sequence[Cell], count: int | None
    ) -> None:
        """The first line."""
        runs = sum(cell.weight for cell in cells)
        often = "" if count == 1 else " until one fails" if count is None else f" {count} times"
        part = f"  shard {shard.number}/{shard.of}" if shard.of > 1 else ""
        self.say(f"labrys: suite {name}  seed {seed}  {len(cells)} cells, {runs} runs{often}{part}")

    def result(self, result: Result, folder: Path) -> None:
        """How one run ended."""
        if self._as_json:
            self._print(msgspec.json.encode(result).decode())
            return
        is_valid = result.verdict is Verdict.VALID
        word = result.verdict.value if is_valid else result.verdict.value.upper()
        facts = f"seed {result.seed}  {result.seconds:.1f} s"
        self.say(f"{word:<8} {result.id}  {facts}  {result.why}".rstrip())
        for note in result.notes:
            self.say(f"  {note}")
        if is_valid:
            return
        self.say(f"  re-run     {result.rerun}")
        if result.report:
            self.say(f"  report     {os.path.relpath(folder.resolve() / result.report)}")

    def end(self, summary: Summary, folder: Path) -> None:
        """The last lines."""
        why = f": {summary.stopped}" if summary.stopped else ""
        asked = f" of {summary.passes_asked}" if summary.passes_asked else ""
        passes = "" if summary.passes_asked == 1 else f", in pass {summary.passes}{asked}"
        self.say(f"{counts_text(summary.counts)} in {summary.seconds:.1f} s{passes}{why}")
        self.say(f"re-run     {summary.rerun}")
        self.say(f"index      {folder / INDEX}")
        self.say(
            f"labrys: suite {summary.suite}  seed {summary.seed}  {summary.verdict.value.upper()}"
            f"{'  interrupted' if summary.interrupted else ''}  exit {summary.exit_code}"
        )
        if self._as_json:
            facts = {**summary.facts(), "path": str(folder)}
            self._print(msgspec.json.encode(facts).decode())

    def _print(self, line: str, *, err: bool = False, nl: bool = True) -> None:
        with suppress(OSError):  # a pipe or terminal that has gone must not end the suite
            if self._is_terminal:
                click.echo("\r\x1b[K", nl=False, err=True)
            click.echo(line, nl=nl, err=err)


def tell_github(
    summary: Summary, folder: Path, environ: Mapping[str, str], say: Callable[[str], None]
) -> None:
    """Leave the summary and annotations where a GitHub job looks for them, if this is one."""
    if environ.get("GITHUB_ACTIONS") == "true":
        for line in annotations(summary):
            say(line)
    target = environ.get("GITHUB_STEP_SUMMARY")
    if not target:
        return
    try:
        with open(target, "ab") as file:
            file.write(markdown(summary, BYTES_MAX - file.tell()).encode())
    except OSError as error:
        say(f"{target}: the job summary cannot be written: {error.strerror}; see {folder}")
