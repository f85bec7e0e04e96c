"""A runs directory with everything that may lie in one."""

import json
import shutil
from pathlib import Path
from typing import Any

from tests.control.report_runs import HOSTILE, make_run

from labrys.control.store import Recorder

INVALID = "register-partition-kill/20260304T050607Z-8817"
VALID = "register-partition-kill/20260305T050607Z-8818"
HURT = "register-kill/20260303T000000Z-1"
RUNNING = "register-kill/20260306T000000Z-2"
DIED = "register-kill/20260306T000000Z-3"
TORN = "register-kill/20260306T000000Z-4"
NEW = "register-kill/20260306T000000Z-5"
FOREIGN = "notes/old"
BARE = "bare"


class Runs:
    """A runs directory; the run that goes on ends with `end`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        one = make_run(root / INVALID, operation_count=200)
        other = make_run(root / VALID, operation_count=200, invalid=False)
        edit(other / "results.json", seed=8818, started_at="2026-03-05T05:06:07.25Z")
        (one / "report.html").write_text("<!doctype html>\n<html><body>\n<p>as left</p>\n")
        make_run(root / HURT, operation_count=60, hostile=True)
        edit(root / HURT / "results.json", name=HOSTILE, workload=HOSTILE, bug=HOSTILE)
        lines = (one / "history.jsonl").read_bytes().splitlines(keepends=True)
        for id_ in (RUNNING, DIED, TORN, NEW):
            (root / id_).mkdir(parents=True)
            shutil.copy(one / "test.yaml", root / id_)
        self._recorder: Recorder | None = Recorder(root / RUNNING / "history.jsonl")
        self.grow(lines[:40])
        (root / DIED / "history.jsonl").write_bytes(b"".join(lines[:31]) + lines[31][:20])
        (root / TORN / "results.json").write_bytes((one / "results.json").read_bytes()[:300])
        (root / FOREIGN).mkdir(parents=True)
        (root / FOREIGN / "readme").write_text("nothing of ours")
        (root / BARE).mkdir()
        shutil.copy(one / "history.jsonl", root / BARE)
        (root / "latest").symlink_to(VALID)
        (root / "file").write_text("in the way")

    def grow(self, lines: list[bytes]) -> None:
        """Record more of the run that goes on."""
        with (self.root / RUNNING / "history.jsonl").open("ab") as file:
            file.writelines(lines)

    def end(self) -> None:
        """Let the run that goes on be killed."""
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None


def edit(path: Path, **fields: Any) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
