"""The long-lived process of a node that runs one script after the other.

Docker and ssh both reach a node through a stream of bytes that costs much to open and little to
use. At its far end `scripts.serve` reads a line for each script and answers with a line. How the
stream is opened, and how lines are read from it, is the environment's own affair: a `Link`.
"""

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

from labrys.control.environments import scripts
from labrys.control.errors import ClusterError

BOOT: Final = "import json, sys; exec(json.loads(sys.stdin.readline()))"
"""Fetches its program from standard input, which keeps it out of every `ps` in the node."""
_GRACE_S: Final = 5.0
"""How much longer than its time limit a script may take until the node's shell counts as dead."""


class Link(Protocol):
    """A stream to a process in a node. What goes wrong is an OSError, EOFError or ValueError."""

    def send(self, data: bytes) -> None:
        """Send all of `data`."""

    def line(self, deadline: float) -> bytes:
        """Return the next line, with its end, if it comes before `deadline` (monotonic)."""

    def is_alive(self) -> bool:
        """Whether nothing is known that has ended the stream."""

    def close(self) -> None:
        """Close it; what it holds at the far end then ends by itself."""


def program() -> bytes:
    """Return the line that makes `python3 -c BOOT` serve scripts."""
    return json.dumps(Path(scripts.__file__).read_text()).encode() + b"\n"


class Shell:
    """A long-lived process in a node that runs one script after the other.

    One that has died, or answers too late, costs the script that noticed it an error: whether that
    script ran is not known. The next script gets a new process.
    """

    def __init__(self, node: str, connect: Callable[[], Link]) -> None:
        """Nothing is started before the first script; `connect` returns a link that serves them."""
        self._node = node
        self._connect = connect
        self._lock = threading.Lock()
        self._link: Link | None = None

    def run(self, script: str, timeout_s: float) -> scripts.Ended:
        """Run `script` and return how it ended. Raises ClusterError if nobody knows."""
        with self._lock:
            try:
                if self._link is not None and not self._link.is_alive():
                    self._drop()  # it died while idle, so no script's fate depends on it
                if self._link is None:
                    self._link = self._connect()
                deadline = time.monotonic() + timeout_s + _GRACE_S
                self._link.send(json.dumps([script, timeout_s]).encode() + b"\n")
                answer: Any = json.loads(self._link.line(deadline))
                return scripts.Ended(*answer)
            except (OSError, EOFError, ValueError) as error:
                self._drop()
                raise ClusterError(
                    f"{self._node}: its shell failed while running {script.strip()[:200]!r}: "
                    f"{error or type(error).__name__}; the next script gets a new one"
                ) from error
            except BaseException:  # Ctrl-C: an answer that is still to come must find nobody
                self._drop()
                raise

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._link is not None:
            with suppress(OSError):
                self._link.close()
        self._link = None
