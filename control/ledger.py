"""The ledger of faults, `faults.jsonl`: what was planned, done, seen and undone.

It is written ahead: an event is on the disk before the action it announces begins. Whatever kills
the rig, the file then names every fault that may still be in force, and `labrys heal` undoes it.
"""

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from labrys.checkers.fault import FaultEvent, FaultStage
from labrys.control.errors import MachineError, UsageError


class Ledger:
    """Appends fault events to a file; each is on the disk when the call returns.

    May be used from several threads. A failed write leaves the file as it was before it.
    """

    def __init__(self, path: Path, clock: Callable[[], int], *, is_durable: bool = True) -> None:
        """Open or create the ledger at `path`; `clock` gives nanoseconds since the run began.

        One that is not durable waits for no disk: for faults that end with labrys anyway.

        A torn last line, left by a rig that died while writing, is cut off. Raises MachineError
        when the file cannot be opened or written, UsageError when it holds something else.
        """
        self._path = path
        self._clock = clock
        self._is_durable = is_durable
        self._lock = threading.Lock()
        events, whole_bytes = _parse(path)
        self._last_id = max((event.id for event in events), default=0)
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.ftruncate(self._fd, whole_bytes)
            os.lseek(self._fd, 0, os.SEEK_END)
            # The name of a new file is safe only once its directory is.
            directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise MachineError(f"{path}: cannot open the fault ledger: {error.strerror}") from error

    def new_id(self) -> int:
        """Return a number for a new fault, one that this ledger has not seen."""
        with self._lock:
            self._last_id += 1
            return self._last_id

    def record(
        self,
        fault_id: int,
        stage: FaultStage,
        kind: str,
        *,
        targets: Sequence[str] = (),
        plan: Mapping[str, Any] | None = None,
        observed: Mapping[str, Any] | None = None,
        bit: bool | None = None,
        error: str | None = None,
    ) -> FaultEvent:
        """Write one event with the time of now, bring it to the disk and return it.

        Raises MachineError when it cannot be written (a full disk, say); the caller must then
        not begin the action that the event announces.
        """
        with self._lock:
            event = FaultEvent(
                id=fault_id,
                stage=stage,
                time=self._clock(),
                kind=kind,
                targets=tuple(targets),
                plan=dict(plan or {}),
                observed=dict(observed or {}),
                bit=bit,
                error=error,
            )
            self._append(msgspec.json.encode(event) + b"\n")
        return event

    def close(self) -> None:
        """Close the file. Idempotent."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _append(self, line: bytes) -> None:
        assert self._fd >= 0, f"{self._path} is closed"
        before = os.lseek(self._fd, 0, os.SEEK_CUR)
        try:
            rest = line
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            if self._is_durable:
                os.fsync(self._fd)
        except OSError as error:
            # Half a line would spoil the next one, which may be written once there is room again.
            with suppress(OSError):  # the first error tells more than one of cleaning up
                os.ftruncate(self._fd, before)
                os.lseek(self._fd, before, os.SEEK_SET)
            raise MachineError(
                f"{self._path}: cannot record a fault: {error.strerror}; "
                "what was recorded before is kept. Make room and run `labrys heal`."
            ) from error


def read_ledger(path: Path) -> tuple[FaultEvent, ...]:
    """Return the events of a ledger in order.

    A run that died before its first fault has no file: no events. A torn last line (one without
    its newline) was never acknowledged and is left out. Raises UsageError naming file and line
    for any other line that is not a fault event, and for a file that cannot be read.
    """
    return _parse(path)[0]


def in_force(events: Iterable[FaultEvent]) -> tuple[FaultEvent, ...]:
    """Return the last event of each fault that was planned and never undone, oldest first.

    A fault that was only planned counts: its rig may have died in the middle of applying it.
    """
    last: dict[int, FaultEvent] = {}
    undone = set()
    for event in events:
        last[event.id] = event
        if event.stage is FaultStage.UNDONE:
            undone.add(event.id)
    return tuple(event for fault_id, event in last.items() if fault_id not in undone)


def _parse(path: Path) -> tuple[tuple[FaultEvent, ...], int]:
    """Return the events of the file and the number of bytes that hold them."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return (), 0
    except OSError as error:
        raise UsageError(f"{path}: cannot read the fault ledger: {error.strerror}") from error
    whole_bytes = content.rfind(b"\n") + 1
    decoder = msgspec.json.Decoder(FaultEvent)
    events = []
    for number, line in enumerate(content[:whole_bytes].split(b"\n")[:-1], start=1):
        try:
            events.append(decoder.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}:{number}: not a fault event: {error}") from error
    return tuple(events), whole_bytes
