"""The files of a suite, written whole or not at all, whatever becomes of each other."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from labrys.control.errors import MachineError
from labrys.control.store import JUNIT, write_atomically
from labrys.control.suite.index_page import index_page
from labrys.control.suite.junit import suite_junit_xml
from labrys.control.suite.markdown import markdown
from labrys.control.suite.summary import Summary

SUMMARY: Final = "summary.json"
MARKDOWN: Final = "summary.md"
INDEX: Final = "index.html"

ROOM_BYTES: Final = 2 * 2**20
"""What is kept back on the disk, so that a suite can be summed up when its runs have filled it."""
_ROOM: Final = ".room"


def keep_room(folder: Path) -> None:
    """Take up some room that `write_all` gives back. Raises MachineError."""
    write_atomically(folder / _ROOM, bytes(ROOM_BYTES))


def write_summary(summary: Summary, folder: Path) -> None:
    """Write summary.json. Raises MachineError."""
    content = {**summary.facts(), "runs": summary.runs, "skipped": summary.skipped}
    encoded = msgspec.json.format(msgspec.json.encode(content), indent=1)
    write_atomically(folder / SUMMARY, encoded + b"\n")


def write_all(summary: Summary, folder: Path, say: Callable[[str], None]) -> list[str]:
    """Write everything; return what could not be written.

    What could not be drawn is only said: a drawing problem never changes a verdict.
    """
    files: dict[str, Callable[[], bytes]] = {
        JUNIT: lambda: suite_junit_xml(summary),
        MARKDOWN: lambda: markdown(summary).encode(),
        INDEX: lambda: index_page(summary).encode(),
    }
    with suppress(OSError):
        (folder / _ROOM).unlink(missing_ok=True)
    failures = []
    try:
        write_summary(summary, folder)
    except MachineError as error:
        failures.append(str(error))
    for name, content in files.items():
        try:
            write_atomically(folder / name, content())
        except MachineError as error:
            failures.append(str(error))
        except Exception as error:
            say(f"{name} could not be made: {type(error).__name__}: {error}")
    return failures
