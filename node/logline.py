"""Log lines that people read and reports parse: `WALL mono_ms=N ID key=value ...` on stderr."""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

Say = Callable[..., None]
"""Writes one line from keyword arguments, in their order."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def speaker(node: str) -> Say:
    """A function that logs for this node; values with spaces are quoted."""

    def say(**facts: object) -> None:
        mono_ms = time.monotonic_ns() // 1_000_000
        write_line(f"{wall_iso()} mono_ms={mono_ms} {node} {words(facts)}")

    return say


def words(facts: Mapping[str, object]) -> str:
    """The facts as they stand in a line."""
    return " ".join(f"{name}={_word(value)}" for name, value in facts.items())


def write_line(text: str) -> None:
    """Write to stderr, at once; what cannot be written is lost.

    A log on a full disk or a pipe that nobody reads any more must change nothing: an error here
    would come up in the middle of whatever the node was about to do, an orderly stop included.
    """
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode(errors="backslashreplace"))


def wall_iso(at_ms: int | None = None) -> str:
    """The wall clock, of now or `at_ms` since 1970, for people: UTC with milliseconds."""
    at = datetime.now(UTC) if at_ms is None else _EPOCH + timedelta(milliseconds=at_ms)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _word(value: object) -> str:
    text = "-" if value is None else str(value)
    text = text.replace("\n", "\\n")
    if text and not any(letter in text for letter in ' "='):
        return text
    return '"' + text.replace('"', '\\"') + '"'
