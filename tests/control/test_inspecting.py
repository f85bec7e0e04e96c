"""What `labrys show` says of a run without results."""

from pathlib import Path

import pytest

from labrys.control.inspecting import show_run
from labrys.control.spec import resolve
from labrys.control.store import Recorder, create_run


def test_show_tells_a_run_that_goes_on_from_one_that_died(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = create_run(tmp_path / "my runs", resolve({"seed": 1}))
    recorder = Recorder(run.history)
    show_run(str(run.path), tmp_path, as_json=False)
    said = capsys.readouterr().out
    assert "the run goes on" in said
    assert "heal" not in said
    recorder.close()
    show_run(str(run.path), tmp_path, as_json=False)
    said = capsys.readouterr().out
    assert "the run died" in said
    assert f"labrys check '{run.path}'" in said
