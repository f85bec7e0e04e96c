"""How far a run without results has come: its history, read as it grows."""

from pathlib import Path
from typing import Final

import msgspec

READ_BYTES_MAX: Final = 16 << 20
"""Of one look; the next one goes on from there."""


class _Event(msgspec.Struct):
    type: str
    process: int | str
    time: int = -1


_decoder = msgspec.json.Decoder(_Event)


class Progress:
    """Counts the completions in a history, each look from where the last one ended."""

    def __init__(self) -> None:
        self._offset = 0
        self.counts = {"ok": 0, "fail": 0, "info": 0}
        self.duration_s = 0.0
        """Time of the last event that was read."""
        self.is_behind = False
        """Whether there is more to read than one look takes."""

    def look(self, history: Path) -> None:
        """Read what is new. Broken lines do not count. Raises OSError."""
        with history.open("rb") as file:
            file.seek(self._offset)
            data = file.read(READ_BYTES_MAX)
            self.is_behind = len(data) == READ_BYTES_MAX
        # The last line may still be written, unless it is longer than any line of ours.
        whole = data if len(data) == READ_BYTES_MAX and b"\n" not in data else _lines(data)
        self._offset += len(whole)
        for event in _events(whole):
            if isinstance(event.process, int) and event.type in self.counts:
                self.counts[event.type] += 1
            self.duration_s = max(self.duration_s, event.time / 1e9)


def _lines(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]


def _events(lines: bytes) -> list[_Event]:
    try:
        return _decoder.decode_lines(lines)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    events = []
    for line in lines.split(b"\n"):
        try:
            events.append(_decoder.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue  # what is broken is told by the report
    return events
