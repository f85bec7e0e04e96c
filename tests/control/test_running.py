"""What `labrys test` shows on a terminal while it runs."""

import io
import re
import sys

import pytest

from labrys.checkers.op import Op, OpType
from labrys.control.running import _progress
from labrys.control.spec import resolve


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_that_are_said_beside_the_progress_bar_stand_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    long = "run directory /" + "x" * 80
    with _progress(resolve({"seed": 1})) as (say, watch):
        say(long)
        watch(Op(type=OpType.INFO, process="nemesis", f="phase", value="main", time=0))
        say("[red]heal[/red]: undo every fault")
    drawn = terminal.getvalue()
    # At the beginning of a line that was wiped, whole, and not wrapped: paths are to be copied.
    alone = r"(^|\n|\x1b\[2K){}\n"
    assert re.search(alone.format(re.escape(long)), drawn), repr(drawn)
    assert re.search(alone.format(re.escape("[red]heal[/red]: undo every fault")), drawn)
