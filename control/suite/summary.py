"""What a suite has come to: `summary.json`, from which everything else that CI reads is made."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from labrys.checkers.verdict import Verdict, combine
from labrys.control.judge import EXIT_CODES

EXIT_INTERRUPTED: Final = 130


class Confirmed(msgspec.Struct, frozen=True):
    """An invalid run that was made again with the same seed."""

    runs: int
    invalid: int
    paths: list[str] = []


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How one run of a cell ended."""

    cell: str
    number: int
    """1 for the first run of the cell in this suite."""
    env: str
    nodes: int
    workload: str
    bug: str | None
    faults: str
    """As `--faults` takes them; `none` for no faults."""
    seed: int
    verdict: Verdict
    why: str
    """In a line, unless it is valid."""
    seconds: float
    """Of real time, all attempts together."""
    retried: list[str] = []
    """Why it was tried again: errors of the rig, one for each earlier attempt."""
    confirmed: Confirmed | None = None
    interrupted: bool = False
    path: str | None = None
    """The run directory, as seen from that of the suite; None if it was not kept."""
    report: str | None = None
    """Its page, likewise; None if there is none."""
    rerun: str
    recheck: str | None = None
    told: str = ""
    """What `labrys show` says of it, unless it is valid."""

    @property
    def id(self) -> str:
        """Names the run in the suite."""
        return run_id(self.cell, self.number)

    @property
    def notes(self) -> list[str]:
        """What is to be said beside the verdict."""
        told = []
        if self.confirmed is not None:
            again = self.confirmed
            told.append(f"confirmed {again.invalid} of {again.runs} times with the same seed")
        if self.retried:
            told.append(f"tried again after errors of the rig: {'; '.join(self.retried)}")
        if self.interrupted:
            told.append("interrupted")
        return told


class Skipped(msgspec.Struct, frozen=True):
    """A run that was due and was not started."""

    cell: str
    number: int

    @property
    def id(self) -> str:
        """Names the run in the suite."""
        return run_id(self.cell, self.number)


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A suite, finished or not."""

    suite: str
    seed: int
    shard: str
    """`1/1` for a suite that was not shared out."""
    rerun: str
    started_at: str
    seconds: float
    finished: bool
    """False while it goes on; it stays so when labrys died on the way."""
    stopped: str | None
    """Why not everything was started, if so."""
    interrupted: bool
    """Whether it ended before its time: somebody asked, or no room was left on the disk."""
    passes: int
    """How many passes were begun."""
    passes_asked: int | None
    """None: without end."""
    failures: list[str] = []
    """What went wrong in the suite itself."""
    runs: list[Result]
    skipped: list[Skipped]

    @property
    def verdict(self) -> Verdict:
        """Of all together: invalid beats error beats unknown beats valid."""
        verdicts = [result.verdict for result in self.runs]
        return combine([*verdicts, Verdict.ERROR] if self.failures else verdicts)

    @property
    def exit_code(self) -> int:
        """As documented."""
        by_somebody = self.interrupted and not self.failures
        return EXIT_INTERRUPTED if by_somebody else EXIT_CODES[self.verdict]

    @property
    def counts(self) -> dict[str, int]:
        """How many runs ended so, and how many were not started."""
        found = Counter(result.verdict for result in self.runs)
        return {**{v.value: found[v] for v in WORST_FIRST}, "skipped": len(self.skipped)}

    @property
    def findings(self) -> list[Result]:
        """What is not valid, the worst first."""
        return [r for verdict in WORST_FIRST[:-1] for r in self.runs if r.verdict is verdict]

    def facts(self) -> dict[str, Any]:
        """All but the runs, as JSON values."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        del fields["runs"], fields["skipped"]
        return {
            "version": 1,
            "suite": fields.pop("suite"),
            "verdict": self.verdict.value,
            "exit": self.exit_code,
            "counts": self.counts,
            **fields,
        }


WORST_FIRST: Final = (Verdict.INVALID, Verdict.ERROR, Verdict.UNKNOWN, Verdict.VALID)


def run_id(cell: str, number: int) -> str:
    """Name a run in its suite: the cell, and its number unless it is the first."""
    return cell if number == 1 else f"{cell}#{number}"


def counts_text(counts: dict[str, int]) -> str:
    """Return counts in words, without those that are 0: `11 valid, 1 invalid`."""
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "no runs"


class Grid(msgspec.Struct, frozen=True):
    """The heat table: what came of each kind of fault against each workload and environment."""

    columns: list[str]
    rows: list[str]
    cells: dict[tuple[str, str], list[Result]]
    """By row and column; absent where nothing was run."""


def grid(results: Sequence[Result]) -> Grid:
    """Arrange results as a heat table, in the order in which rows and columns first appear."""
    cells: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        subject = f"{result.workload} {result.bug}" if result.bug else result.workload
        cells.setdefault((result.faults, f"{subject}, {result.env}"), []).append(result)
    return Grid(
        columns=sorted({column for _, column in cells}),
        rows=sorted({row for row, _ in cells}),
        cells=cells,
    )
