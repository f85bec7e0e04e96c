"""Ctrl-C and SIGTERM: ask once, and the run ends in order; ask twice, and it only cleans up."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """Raised in the main thread by a signal while nothing is recorded yet.

    Like KeyboardInterrupt it is no Exception, so that no handler of ordinary failures eats it.
    """


class Interruption:
    """Knows whether the user has asked to stop, and how often.

    While `eager` is true the first signal raises `Interrupted` in the main thread: during set-up
    there is nothing to keep and no reason to wait. Otherwise it only sets `asked`, which the run
    watches, so that the history is recorded to its end.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.count = 0
        self.eager = False

    @property
    def impatient(self) -> bool:
        """Whether the user asked more than once: undo and remove, and skip everything else."""
        return self.count > 1

    @contextmanager
    def installed(self) -> Iterator["Interruption"]:
        """Handle SIGINT and SIGTERM in this block. Only the main thread may do so."""
        before = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.asked.set()
        if self.eager:
            self.eager = False
            raise Interrupted
