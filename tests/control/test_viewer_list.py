"""What the viewer makes of whatever lies in a runs directory."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.control.viewer_runs import (
    BARE,
    DIED,
    FOREIGN,
    HURT,
    INVALID,
    NEW,
    RUNNING,
    TORN,
    VALID,
    Runs,
    edit,
)

from labrys.control.errors import UsageError
from labrys.control.report.run_files import read_run
from labrys.control.viewer import entry as entries
from labrys.control.viewer import progress
from labrys.control.viewer.catalogue import Catalogue
from labrys.control.viewer.entry import Entry, State
from labrys.control.viewer.heat import ROWS_MAX, heat
from labrys.control.viewer.progress import Progress


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    made = Runs(tmp_path / "runs")
    yield made
    made.end()


def by_id(catalogue: Catalogue) -> dict[str, Entry]:
    return {entry.id: entry for entry in catalogue.listing().entries}


def test_every_folder_is_listed_as_what_it_is(runs: Runs) -> None:
    found = by_id(Catalogue(runs.root))
    assert {id_: entry.state for id_, entry in found.items()} == {
        VALID: State.VALID,
        INVALID: State.INVALID,
        HURT: State.INVALID,
        RUNNING: State.RUNNING,
        DIED: State.UNFINISHED,
        NEW: State.UNFINISHED,
        TORN: State.DAMAGED,
        FOREIGN: State.FOREIGN,
        BARE: State.UNFINISHED,
    }
    assert found[INVALID].reason.startswith("linearizable: 1 of 20 keys is not linearizable")
    assert found[TORN].reason.startswith("results.json is damaged: ")
    assert "died" in found[DIED].reason
    assert "nothing is recorded yet" in found[NEW].reason
    assert found[BARE].reason.endswith("there is no test.yaml")


def test_an_entry_tells_what_was_run(runs: Runs) -> None:
    entry = by_id(Catalogue(runs.root))[INVALID]
    assert (entry.name, entry.subject) == ("register-partition-kill", "register stale-read")
    assert (entry.faults, entry.env, entry.nodes) == ("partition,kill", "netns", 5)
    assert (entry.started, entry.night) == ("2026-03-04 05:06:07", "2026-03-04")
    assert entry.seed == 8817
    planned = by_id(Catalogue(runs.root))[TORN]
    assert (planned.workload, planned.faults, planned.seed) == ("register", "partition,kill", 8817)


def test_operations_are_counted_as_the_stats_checker_did(runs: Runs) -> None:
    assert by_id(Catalogue(runs.root))[INVALID].counts is None
    phases = {"main": {"read": {"ok": 5, "fail": 1, "info": 0}}, "final": {"read": {"ok": 2}}}
    stats = {"stats": {"verdict": "valid", "summary": "", "data": {"phases": phases}}}
    edit(runs.root / INVALID / "results.json", checkers=stats)
    assert by_id(Catalogue(runs.root))[INVALID].counts == {"ok": 7, "fail": 1, "info": 0}


def test_the_newest_run_is_first(runs: Runs) -> None:
    listed = [entry.id for entry in Catalogue(runs.root).listing().entries]
    assert listed[:4] == [NEW, TORN, DIED, RUNNING]
    assert listed[4:7] == [VALID, INVALID, HURT]


def test_a_run_that_goes_on_is_followed_until_it_ends(runs: Runs) -> None:
    catalogue = Catalogue(runs.root)
    before = catalogue.listing()
    one = next(entry for entry in before.entries if entry.id == RUNNING)
    assert catalogue.listing().version == before.version
    lines = (runs.root / INVALID / "history.jsonl").read_bytes().splitlines(keepends=True)
    runs.grow(lines[40:80])
    after = catalogue.listing()
    other = next(entry for entry in after.entries if entry.id == RUNNING)
    assert one.counts is not None
    assert other.counts is not None
    assert other.counts["ok"] > one.counts["ok"]
    assert {id_ for id_, at in after.changed_at.items() if at > before.version} == {RUNNING}
    runs.end()
    assert by_id(catalogue)[RUNNING].state is State.UNFINISHED


def test_a_run_that_is_removed_is_no_longer_listed(runs: Runs) -> None:
    catalogue = Catalogue(runs.root)
    before = catalogue.listing()
    shutil.rmtree(runs.root / INVALID)
    after = catalogue.listing()
    assert INVALID not in {entry.id for entry in after.entries}
    assert after.removed_at[INVALID] > before.version


def test_only_what_changed_is_read_again(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = entries.read_entry

    def counted(folder: Path, id_: str, progress: Progress) -> Entry:
        read.append(id_)
        return original(folder, id_, progress)

    monkeypatch.setattr("labrys.control.viewer.catalogue.read_entry", counted)
    catalogue = Catalogue(runs.root)
    catalogue.listing()
    read.clear()
    edit(runs.root / VALID / "results.json", verdict="error", errors=["no disk"])
    catalogue.listing()
    assert sorted(read) == sorted([RUNNING, VALID])
    assert by_id(catalogue)[VALID].reason == "no disk"


def test_results_that_are_too_large_are_not_read(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "RESULTS_BYTES_MAX", 1_000)
    entry = by_id(Catalogue(runs.root))[VALID]
    assert entry.state is State.DAMAGED
    assert "too large for a list" in entry.reason


@pytest.mark.parametrize(
    "content", [b"", b"[" * 100_000, b"\xff\xfe", b"null", b'{"verdict": "fine"}', b"{}"]
)
def test_results_that_are_none_are_damaged(runs: Runs, content: bytes) -> None:
    (runs.root / VALID / "results.json").write_bytes(content)
    assert by_id(Catalogue(runs.root))[VALID].state is State.DAMAGED
    assert read_run(runs.root / VALID).results.verdict is None


@pytest.mark.parametrize("content", ["- a", "a: [", "x: 2001-99-99", "[" * 5_000])
def test_a_spec_that_is_none_is_told(runs: Runs, content: str) -> None:
    (runs.root / DIED / "test.yaml").write_text(content)
    entry = by_id(Catalogue(runs.root))[DIED]
    assert entry.state is State.UNFINISHED
    assert "test.yaml is damaged" in entry.reason
    assert read_run(runs.root / DIED).spec == {}


def test_what_is_no_file_is_not_opened(runs: Runs) -> None:
    (runs.root / DIED / "history.jsonl").unlink()
    os.mkfifo(runs.root / DIED / "history.jsonl")
    (runs.root / VALID / "results.json").unlink()
    (runs.root / VALID / "results.json").mkdir()
    found = by_id(Catalogue(runs.root))
    assert found[DIED].reason == "cannot be read: history.jsonl is no file"
    assert found[VALID].state is State.DAMAGED


def test_names_that_are_no_text_are_listed(runs: Runs) -> None:
    os.mkdir(os.fsencode(runs.root / "register-kill") + b"/\xff\xfe")
    assert by_id(Catalogue(runs.root))["register-kill/??"].state is State.FOREIGN


def test_a_runs_directory_that_is_gone_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be listed"):
        Catalogue(tmp_path / "absent").listing()


def test_a_history_is_counted_across_looks_and_broken_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def event(kind: str, process: object = 1) -> bytes:
        return f'{{"type":"{kind}","process":{process},"f":"read","time":5000000000}}\n'.encode()

    path = tmp_path / "history.jsonl"
    path.write_bytes(event("invoke") + event("ok") + b"{broken\n" + event("info", '"nemesis"'))
    seen = Progress()
    seen.look(path)
    assert (seen.counts, seen.duration_s) == ({"ok": 1, "fail": 0, "info": 0}, 5.0)
    with path.open("ab") as file:
        file.write(event("fail") + event("info")[:20])
    seen.look(path)
    assert seen.counts == {"ok": 1, "fail": 1, "info": 0}
    with path.open("ab") as file:
        file.write(event("info")[20:])
    monkeypatch.setattr(progress, "READ_BYTES_MAX", 10)
    seen.look(path)
    assert seen.is_behind
    for _ in range(20):
        seen.look(path)
    assert not seen.is_behind


def made(**fields: object) -> Entry:
    base = {
        "id": "x", "state": State.VALID, "reason": "", "name": "x", "workload": "register",
        "faults": "kill", "env": "sim", "started": "2026-03-04 01:00:00",
    }  # fmt: skip
    return Entry(**{**base, **fields})  # type: ignore[arg-type]  # a test writes what it means


def test_a_tile_is_a_night_and_shows_the_worst() -> None:
    grid = heat(
        [
            made(started="2026-03-05 01:00:00"),
            made(state=State.INVALID),
            made(),
            made(faults="pause", bug="stale-read", started="2026-03-05 02:00:00"),
            made(state=State.RUNNING, faults="clock"),
        ]
    )
    assert grid.nights == ["2026-03-04", "2026-03-05"]
    assert grid.rows == ["kill", "pause"]
    assert grid.columns == ["register, sim", "register stale-read, sim"]
    first, second = grid.cells["kill", "register, sim"]
    assert first is not None
    assert second is not None
    assert (first.state, second.state) == (State.INVALID, State.VALID)
    assert first.title == "2026-03-04: 1 invalid, 1 valid"
    assert first.query == 'started:2026-03-04 workload="register" faults="kill" env:sim'
    assert grid.cells["pause", "register stale-read, sim"][0] is None


def test_of_many_nights_and_faults_the_last_are_shown() -> None:
    many = [
        made(faults=f"kind-{number:02}", started=f"2026-03-{30 - number % 20:02} 01:00:00")
        for number in range(200)
    ]
    grid = heat(many)
    assert len(grid.nights) == 7
    assert grid.nights[-1] == "2026-03-30"
    assert len(grid.rows) + grid.rows_cut == 70
    assert len(grid.rows) == ROWS_MAX
    assert heat([]).nights == []
