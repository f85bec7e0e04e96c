"""What a suite says while it goes on, to people, to programs and to a CI system."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from labrys.checkers.verdict import Verdict
from labrys.control.suite.annotations import annotations
from labrys.control.suite.cells import Cell
from labrys.control.suite.markdown import BYTES_MAX, markdown
from labrys.control.suite.plan import Shard
from labrys.control.suite.summary import Result, Summary, counts_text
from labrys.control.suite.writing import INDEX


class Teller:
    """Prints what happens: lines for people, or JSON for programs."""

    def __init__(self, say: Callable[[str], None], say_json: Callable[[str], None] | None) -> None:
        """`say` gets the lines for people, `say_json` those for programs, if there are any."""
        self._say = say
        self._say_json = say_json

    def begin(
        self, name: str, seed: int, shard: Shard, cells: Sequence[Cell], count: int | None
    ) -> None:
        """The first line."""
        runs = sum(cell.weight for cell in cells)
        often = "" if count == 1 else " until one fails" if count is None else f" {count} times"
        part = f"  shard {shard.number}/{shard.of}" if shard.of > 1 else ""
        self._say(
            f"labrys: suite {name}  seed {seed}  {len(cells)} cells, {runs} runs{often}{part}"
        )

    def result(self, result: Result, folder: Path) -> None:
        """How one run ended."""
        if self._say_json is not None:
            self._say_json(msgspec.json.encode(result).decode())
            return
        is_valid = result.verdict is Verdict.VALID
        word = result.verdict.value if is_valid else result.verdict.value.upper()
        facts = f"seed {result.seed}  {result.seconds:.1f} s"
        self._say(f"{word:<8} {result.id}  {facts}  {result.why}".rstrip())
        for note in result.notes:
            self._say(f"  {note}")
        if is_valid:
            return
        self._say(f"  re-run     {result.rerun}")
        if result.report:
            self._say(f"  report     {os.path.relpath(folder.resolve() / result.report)}")

    def end(self, summary: Summary, folder: Path) -> None:
        """The last lines."""
        why = f": {summary.stopped}" if summary.stopped else ""
        asked = f" of {summary.passes_asked}" if summary.passes_asked else ""
        passes = "" if summary.passes_asked == 1 else f", in pass {summary.passes}{asked}"
        self._say(f"{counts_text(summary.counts)} in {summary.seconds:.1f} s{passes}{why}")
        self._say(f"re-run     {summary.rerun}")
        self._say(f"index      {folder / INDEX}")
        self._say(
            f"labrys: suite {summary.suite}  seed {summary.seed}  {summary.verdict.value.upper()}"
            f"{'  interrupted' if summary.interrupted else ''}  exit {summary.exit_code}"
        )
        if self._say_json is not None:
            facts = {**summary.facts(), "path": str(folder)}
            self._say_json(msgspec.json.encode(facts).decode())


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
