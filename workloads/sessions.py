"""A client that sends a write again until it knows what became of it.

That is safe in a session alone: the store executes a command that carries the session's id and a
number at most once, and answers it alike however often it is sent (Raft dissertation 6.3). So most
of what would be unknown becomes known, and what a store does with duplicates can be seen.
"""

import time
from collections.abc import Callable
from typing import Any, Final

from labrys.workloads.client import DefiniteError, IndefiniteError
from labrys.workloads.kv import KvClient

ATTEMPTS: Final = 4
"""Into so many parts the time for an op is divided, one for each attempt that hangs."""
PAUSE_S: Final = 0.05
"""Before a write is sent again."""
TTL_MS: Final = 60_000
"""How long a session lives without a word."""
_OUTCOMES: Final = frozenset({"mismatch", "not-found", "wrong-type"})
"""What the store says of a command itself, and so again of a duplicate; all else is said of one
attempt, and leaves open what became of those before."""


class SessionClient(KvClient):
    """`KvClient` whose writes belong to a session, which its first write opens."""

    def __init__(
        self, url: str, *, sleep: Callable[[float], object] = time.sleep, **how: Any
    ) -> None:
        """See `KvClient`; `sleep` waits so many seconds."""
        super().__init__(url, **how)
        self._sleep = sleep
        self._id: int | None = None
        self._seq = 0

    def close(self) -> None:
        """Close the connection and forget the session."""
        super().close()
        self._id, self._seq = None, 0

    def _request(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        if method == "GET":
            return super()._request(method, path, body)
        self._seq += 1
        attempt_s = self._timeout_s / ATTEMPTS
        headers = {"Labrys-Session": str(self._opened(attempt_s)), "Labrys-Seq": str(self._seq)}
        last_s = self._clock() + self._timeout_s - attempt_s
        unknown: IndefiniteError | None = None
        while True:
            try:
                return self._send(method, path, body, headers, attempt_s)
            except DefiniteError as error:
                if error.code == "session-expired":
                    self._id = None
                if unknown is None or error.code in _OUTCOMES:
                    raise
            except IndefiniteError as error:
                unknown = error
            if self._id is None or self._clock() + PAUSE_S > last_s:
                raise unknown
            self._sleep(PAUSE_S)

    def _opened(self, timeout_s: float) -> int:
        """The session's id; raises DefiniteError: without one nothing was sent."""
        if self._id is None:
            try:
                answer = self._send("POST", "/v1/sessions", {"ttl_ms": TTL_MS}, {}, timeout_s)
            except IndefiniteError as error:
                raise DefiniteError("no-session", str(error)) from error
            session = answer.get("session")
            if not isinstance(session, int):
                raise DefiniteError("no-session", f"opened with {answer!r:.200}")
            self._id = session
        return self._id
