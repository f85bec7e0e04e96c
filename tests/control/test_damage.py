"""Damage to real files, by the program that runs in nodes."""

import random
from pathlib import Path
from typing import Any

import pytest
from tests.control.loopback import LoopbackEnvironment

from labrys.control.nemesis.damage import MIDDLE, damage, draw_cut, draw_flips

DATA = bytes(range(250)) * 4


def damaged(tmp_path: Path, plan: dict[str, Any], within: float = 1.0) -> tuple[Any, bytes]:
    file = tmp_path / "a file"
    file.write_bytes(DATA)
    env = LoopbackEnvironment(("n1",), tmp_path, print)
    told = damage(env, "n1", [f"{tmp_path}/a f*"], plan, within=within)
    return told, file.read_bytes()


@pytest.mark.parametrize("count", [1, 16, 2000])
def test_so_many_bits_are_flipped_and_told(tmp_path: Path, count: int) -> None:
    told, after = damaged(tmp_path, draw_flips(count, random.Random(1)), MIDDLE)
    assert len(after) == len(DATA)
    changed = {at: (a, b) for at, (a, b) in enumerate(zip(DATA, after, strict=True)) if a != b}
    assert max(changed) < MIDDLE * len(DATA)
    flipped = sum((a ^ b).bit_count() for a, b in changed.values())
    assert told["bits"] == flipped <= count
    assert flipped == count or count == 2000, "the same bit drawn twice is flipped once"
    for change in told["changes"]:
        before, now = change["before"], change["after"]
        assert DATA[change["offset"]] == before or len(told["changes"]) > 1
        assert (before ^ now).bit_count() == 1
    assert len(told["changes"]) <= 8


@pytest.mark.parametrize(("percent", "left"), [(0.001, 999), (1, 990), (50, 500), (100, 0)])
def test_so_much_is_cut_off_and_at_least_a_byte(tmp_path: Path, percent: float, left: int) -> None:
    told, after = damaged(tmp_path, draw_cut(percent, random.Random(1)))
    assert after == DATA[:left]
    assert (told["size_bytes"], told["cut_bytes"]) == (1000, 1000 - left)


def test_nothing_is_damaged_where_no_file_is_or_only_an_empty_one(tmp_path: Path) -> None:
    env = LoopbackEnvironment(("n1",), tmp_path, print)
    (tmp_path / "empty").touch()
    plan = draw_cut(50, random.Random(1))
    for pattern in ("absent*", "empty"):
        assert damage(env, "n1", [f"{tmp_path}/{pattern}"], plan, within=1.0) is None


def test_the_draw_chooses_among_the_files(tmp_path: Path) -> None:
    env = LoopbackEnvironment(("n1",), tmp_path, print)
    for name in "abc":
        (tmp_path / name).write_bytes(DATA)
    files = set()
    for seed in range(20):
        told = damage(
            env, "n1", [f"{tmp_path}/[abc]"], draw_flips(1, random.Random(seed)), within=1.0
        )
        assert told is not None
        files.add(told["file"][-1])
    assert files == {"a", "b", "c"}
