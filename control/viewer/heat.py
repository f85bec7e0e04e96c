"""The heat grid: what came of each kind of faults against each workload, night by night."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from labrys.control.viewer.entry import Entry, State

NIGHTS_MAX: Final = 7
ROWS_MAX: Final = 30
COLUMNS_MAX: Final = 12
WORST_FIRST: Final = (State.INVALID, State.ERROR, State.UNKNOWN, State.VALID)


class Tile(msgspec.Struct, frozen=True):
    """The runs of one night."""

    state: State
    """The worst."""
    title: str
    query: str
    """What finds these runs in the list."""


class Heat(msgspec.Struct, frozen=True):
    """Rows are kinds of faults, columns workloads, and each cell has a place for every night."""

    nights: list[str]
    """The last ones with runs, the oldest first."""
    rows: list[str]
    columns: list[str]
    cells: dict[tuple[str, str], list[Tile | None]]
    """By row and column, a tile for each night; absent where nothing was run."""
    rows_cut: int
    columns_cut: int


def heat(entries: Sequence[Entry]) -> Heat:
    """Arrange the judged runs of the last nights; `entries` are the newest first.

    Of too many rows or columns those stay that were run last.
    """
    judged = [entry for entry in entries if entry.state in WORST_FIRST and entry.night]
    nights = sorted({entry.night for entry in judged}, reverse=True)[:NIGHTS_MAX][::-1]
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in judged:
        if entry.night in nights:
            groups.setdefault((entry.faults, _column(entry), entry.night), []).append(entry)
    rows = list(dict.fromkeys(row for row, _, _ in groups))
    columns = list(dict.fromkeys(column for _, column, _ in groups))
    shown = (
        sorted(rows[:ROWS_MAX]),
        sorted(columns[:COLUMNS_MAX], key=lambda name: name.split(", ")),
    )
    return Heat(
        nights=nights,
        rows=shown[0],
        columns=shown[1],
        cells={
            (row, column): tiles
            for row in shown[0]
            for column in shown[1]
            if any(tiles := [_tile(groups.get((row, column, night))) for night in nights])
        },
        rows_cut=len(rows) - len(shown[0]),
        columns_cut=len(columns) - len(shown[1]),
    )


def _column(entry: Entry) -> str:
    return f"{entry.subject}, {entry.env}"


def _tile(entries: list[Entry] | None) -> Tile | None:
    if not entries:
        return None
    count = Counter(entry.state for entry in entries)
    told = ", ".join(f"{count[state]} {state.value}" for state in WORST_FIRST if count[state])
    one = entries[0]
    return Tile(
        state=next(state for state in WORST_FIRST if count[state]),
        title=f"{one.night}: {told}",
        query=(f'started:{one.night} workload="{one.subject}" faults="{one.faults}" env:{one.env}'),
    )
