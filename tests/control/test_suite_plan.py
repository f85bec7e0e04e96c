"""The order of a suite's runs: weights, passes, shards, seeds, and what is owed from last time."""

import itertools
from pathlib import Path

import pytest

from labrys.control.errors import UsageError
from labrys.control.spec import Spec
from labrys.control.suite.cells import Cell
from labrys.control.suite.flags import parse_duration, parse_shard
from labrys.control.suite.plan import (
    Run,
    Shard,
    assert_shard_has_runs,
    passes,
    read_owed,
    still_owed,
    write_owed,
)

ALL = Shard(1, 1)


def cell(name: str, weight: int = 1, seed: int | None = None) -> Cell:
    return Cell(name, Spec(name=name, env="sim", seed=seed), "none", weight, "some.yaml:1")


def ids(runs: list[Run]) -> list[str]:
    return [f"{run.cell.name}{run.number}" for run in runs]


def planned(
    *cells: Cell,
    seed: int = 1,
    count: int | None = 1,
    shard: Shard = ALL,
    owed: tuple[str, ...] = (),
) -> list[list[Run]]:
    return list(passes(cells, seed, count=count, shard=shard, owed=owed))


def test_every_cell_is_run_once_before_any_is_run_again() -> None:
    a, b, c = cell("a", 3), cell("b"), cell("c", 2)
    assert list(map(ids, planned(a, b, c, count=2))) == [
        ["a1", "b1", "c1", "a2", "c2", "a3"],
        ["a4", "b2", "c3", "a5", "c4", "a6"],
    ]


def test_runs_go_on_without_end_if_nobody_says_how_often() -> None:
    endless = passes([cell("a")], 1, count=None, shard=ALL, owed=())
    assert [ids(runs) for runs in itertools.islice(endless, 3)] == [["a1"], ["a2"], ["a3"]]


def test_seeds_depend_on_the_suite_seed_the_cell_and_the_number_and_on_nothing_else() -> None:
    def seeds(*cells: Cell, seed: int = 1) -> dict[str, int]:
        runs = itertools.chain(*planned(*cells, seed=seed, count=2))
        return {f"{run.cell.name}{run.number}": run.seed for run in runs}

    few, many = seeds(cell("a"), cell("b")), seeds(cell("c"), cell("b"), cell("a", 2))
    assert few == {name: many[name] for name in few}
    assert len(set(many.values())) == len(many)
    assert seeds(cell("a"), seed=2) != seeds(cell("a"))
    assert set(seeds(cell("a", seed=77)).values()) == {77}


def test_shards_share_out_all_runs_and_overlap_in_none() -> None:
    cells = [cell("a", 3), cell("b"), cell("c", 2), cell("d")]
    whole = planned(*cells, count=2)
    parts = [planned(*cells, count=2, shard=Shard(number, 3)) for number in (1, 2, 3)]
    for number, runs in enumerate(whole):
        shared = [ids(part[number]) for part in parts]
        assert sorted(itertools.chain(*shared)) == sorted(ids(runs))
    assert {run.seed for part in parts for runs in part for run in runs} == {
        run.seed for runs in whole for run in runs
    }


def test_more_shards_than_runs_are_refused() -> None:
    cells = [cell("a", 2), cell("b")]
    assert_shard_has_runs(cells, 1, Shard(3, 3))
    assert_shard_has_runs(cells, 2, Shard(4, 4))
    assert_shard_has_runs(cells, None, Shard(9, 9))
    with pytest.raises(UsageError, match=r"--shard 4/4: there are only 3 runs; at most 3 shards"):
        assert_shard_has_runs(cells, 1, Shard(4, 4))


def test_what_is_owed_goes_first_and_no_cell_starves_however_short_the_nights() -> None:
    cells = [cell("a", 3), cell("b"), cell("c"), cell("d")]
    owed: list[str] = []
    nights = []
    for _ in range(2):
        (runs,) = planned(*cells, owed=tuple(owed))
        nights.append(ids(runs[:3]))
        owed = still_owed(cells, owed, runs[:3], runs[3:])
    assert nights == [["a1", "b1", "c1"], ["d1", "a1", "a2"]]
    # Over the two nights each cell had what its weight says, and the next begins anew.
    assert owed == ["b", "c", "a"]


def test_what_other_shards_are_owed_stays_and_strangers_are_forgotten() -> None:
    cells = [cell("a"), cell("b"), cell("c")]
    (runs,) = planned(*cells, shard=Shard(1, 3), owed=("b", "gone", "a"))
    assert ids(runs) == ["a1"]
    assert still_owed(cells, ["b", "gone", "a"], runs, []) == ["b"]
    assert still_owed(cells, ["b", "b", "a"], [], runs) == ["b", "a"]


def test_state_survives_its_file_and_damage_is_told_apart_from_absence(tmp_path: Path) -> None:
    path = tmp_path / "owed.json"
    assert read_owed(path) == []
    write_owed(path, ["b", "a"])
    assert read_owed(path) == ["b", "a"]
    path.write_text('{"version":1,"ow')
    assert read_owed(path) is None
    path.write_bytes(b"\xff\xfe")
    assert read_owed(path) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("45m", 2700), ("1h30m", 5400), ("90s", 90), ("90", 90), ("0.5", 0.5), ("2h0m1s", 7201)],
)
def test_time_budget_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text, "--time-budget") == seconds


@pytest.mark.parametrize("text", ["", "0", "0m", "-5m", "m", "5 m", "30m1h", "1e9", "nan", "5d"])
def test_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--time-budget .*: write a time above 0 such as 45m"):
        parse_duration(text, "--time-budget")


def test_shard_is_read() -> None:
    assert parse_shard("2/4") == Shard(2, 4)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "1", "/", "a/b", "-1/3", "1/3/5", ""])
def test_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--shard .*: write I/N with I from 1 to N, e.g. 2/4"):
        parse_shard(text)
