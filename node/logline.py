"""Log lines that people read and reports parse: `WALL mono_ms=N ID key=value ...` on stderr."""

import contextlib
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime

Say = Callable[..., None]
"""Writes one line from keyword arguments, in their order."""


def speaker(node: str) -> Say:
    """A function that logs for this node; values with spaces are quoted."""

    def say(**facts: object) -> None:
        mono_ms = time.monotonic_ns() // 1_000_000
        words = " ".join(f"{name}={_word(value)}" for name, value in facts.items())
        write_line(f"{wall_iso()} mono_ms={mono_ms} {node} {words}")

    return say


def write_line(text: str) -> None:
    """Write to stderr, at once; what cannot be written is lost.

    A log on a full disk or a pipe that nobody reads any more must change nothing: an error here
    would come up in the middle of whatever the node was about to do, an orderly stop included.
    """
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode(errors="backslashreplace"))


def wall_iso() -> str:
    """The wall clock, for people: UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _word(value: object) -> str:
    text = "-" if value is None else str(value)
    text = text.replace("\n", "\\n")
    if text and not any(letter in text for letter in ' "='):
        return text
    return '"' + text.replace('"', '\\"') + '"'
