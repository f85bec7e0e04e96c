"""Ctrl-C and its kin: ask once, and the run ends in order; ask twice, and it only cleans up."""

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

    A signal only sets `asked`, which the run watches, so that the history is recorded to its end;
    but see `raised`.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.count = 0
        self._eager = False

    @property
    def impatient(self) -> bool:
        """Whether the user asked more than once: undo and remove, and skip everything else."""
        return self.count > 1

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Have the first signal in this block raise `Interrupted` in the main thread.

        For the set-up: there is nothing to keep yet, and no reason to wait.
        """
        try:
            self._eager = True
            yield
        finally:
            self._eager = False

    @contextmanager
    def installed(self) -> Iterator["Interruption"]:
        """Handle SIGINT, SIGTERM and SIGHUP in this block. Only the main thread may do so."""
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._handle) for number in numbers}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.asked.set()
        if self._eager:
            self._eager = False
            raise Interrupted
