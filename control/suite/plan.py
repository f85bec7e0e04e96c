"""The order of a night: which run of which cell comes when, and what the last night left over.

A pass is one run of each cell, and then further runs of those with more weight, so that a budget
which ends early has seen every cell before it sees one again. What is not started is written down
and goes first the next time: nothing starves, however short the nights are.
"""

import itertools
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from labrys.control.errors import UsageError
from labrys.control.spec import stream
from labrys.control.store import write_atomically
from labrys.control.suite.cells import Cell

SEED_BELOW: Final = 10**6


class Run(msgspec.Struct, frozen=True):
    """One run of a cell that is planned."""

    cell: Cell
    number: int
    """1 for the first run of its cell in a night."""
    seed: int


class Shard(msgspec.Struct, frozen=True):
    """One of `of` machines that share a night; the first has the number 1."""

    number: int
    of: int


def passes(
    cells: Sequence[Cell], seed: int, *, count: int | None, shard: Shard, owed: Sequence[str]
) -> Iterator[list[Run]]:
    """Yield the runs of this shard, pass by pass; `count` None: without end.

    The cells that are `owed` a run have it before all others of the first pass, in that order. The
    seed of a run is derived from `seed` by cell and number, whatever else is in the suite, unless
    the cell has one of its own.
    """
    numbered = enumerate(
        run
        for number in (itertools.count() if count is None else range(count))
        for run in _pass(cells, seed, number)
    )
    size = sum(cell.weight for cell in cells)
    while chunk := list(itertools.islice(numbered, size)):
        mine = [run for place, run in chunk if place % shard.of == shard.number - 1]
        yield _owed_first(mine, owed) if chunk[0][0] == 0 else mine


def _owed_first(runs: Sequence[Run], owed: Sequence[str]) -> list[Run]:
    places: dict[str, deque[int]] = {}
    for place, name in enumerate(owed):
        places.setdefault(name, deque()).append(place)
    keys = [
        places[run.cell.name].popleft() if places.get(run.cell.name) else len(owed) for run in runs
    ]
    order = sorted(range(len(runs)), key=keys.__getitem__)
    return [runs[place] for place in order]


def assert_shard_has_runs(cells: Sequence[Cell], count: int | None, shard: Shard) -> None:
    """Raise UsageError if there are more shards than runs, so that one would do nothing."""
    runs = sum(cell.weight for cell in cells) * (count or 1)
    if count is not None and shard.of > runs:
        raise UsageError(
            f"--shard {shard.number}/{shard.of}: there are only {runs} runs; at most {runs} "
            "shards have something to do"
        )


def _pass(cells: Sequence[Cell], seed: int, number: int) -> Iterator[Run]:
    for turn in range(max(cell.weight for cell in cells)):
        for cell in cells:
            if turn < cell.weight:
                which = number * cell.weight + turn + 1
                own = cell.spec.seed
                drawn = stream(seed, f"{cell.name}#{which}").randrange(SEED_BELOW)
                yield Run(cell, which, drawn if own is None else own)


def still_owed(
    cells: Sequence[Cell], owed: Sequence[str], ran: Sequence[Run], skipped: Sequence[Run]
) -> list[str]:
    """Return the names of the cells that are owed a run now, one for each run.

    What was owed and not run still is, other shards' too; what was skipped now comes behind it.
    Cells that are no longer in the suite are forgotten, and none is owed more than a pass.
    """
    paid = Counter(each.cell.name for each in ran)
    rest = []
    for name in owed:
        if paid[name]:
            paid[name] -= 1
        else:
            rest.append(name)
    room = Counter({cell.name: cell.weight for cell in cells})
    kept = []
    for name in (*rest, *(each.cell.name for each in skipped)):
        if room[name]:
            room[name] -= 1
            kept.append(name)
    return kept


class _State(msgspec.Struct, frozen=True):
    """What is kept from one night to the next."""

    version: int
    owed: list[str]


def read_owed(path: Path) -> list[str] | None:
    """Return the names of the cells that are owed a run; None if the file cannot be used."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_State).owed
    except FileNotFoundError:
        return []
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def write_owed(path: Path, owed: Sequence[str]) -> None:
    """Keep what `still_owed` says. Raises MachineError."""
    write_atomically(path, msgspec.json.encode(_State(1, list(owed))) + b"\n")
