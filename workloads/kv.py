"""The connection of one worker to a key-value store over HTTP, and what its answers mean.

Everything here turns on one question: may the op have had an effect? Refused before a byte of the
request was sent: certainly not. Refused with `"definite": true`: the node promises that it did not.
Anything else that is not a success (a timeout, a reset, half an answer, an answer that makes no
sense) leaves it open. Hence nothing is ever sent twice: no retries, no redirects; and nothing goes
through a proxy that the environment names.
"""

import json
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, NoReturn
from urllib.parse import quote

import msgspec
import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import (
    HTTPError,
    MaxRetryError,
    NewConnectionError,
    ReadTimeoutError,
)

from labrys.workloads.client import DefiniteError, IndefiniteError, UnavailableError

ANSWER_BYTES_MAX: Final = 1 << 20
"""No value of ours is nearly as long; an answer that is longer is not one."""

_CHUNK_BYTES: Final = 1 << 16


class KvClient:
    """`KeyValue` over the node's HTTP API: JSON, keep-alive, one connection."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 5.0,
        connect_timeout_s: float = 1.0,
        consistency: str = "linearizable",
        session: Callable[[], requests.Session] = requests.Session,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Talk to the node at `url` (http://HOST:PORT).

        A connection may take `connect_timeout_s` to come about, and after it the node may be
        silent for `timeout_s`; so an op usually ends within the sum. The deadline that nothing
        escapes is the interpreter's.
        `consistency` is that of reads: linearizable, lease or stale. `session` and `clock`
        (seconds) can be replaced where there is no network and no time.
        """
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._connect_timeout_s = min(connect_timeout_s, timeout_s)
        self._consistency = consistency
        self._make_session = session
        self._clock = clock
        self._session: requests.Session | None = None

    def open(self) -> None:
        """Make a session. The connection itself is made by the first request."""
        session = self._make_session()
        session.trust_env = False  # no proxies, no .netrc
        adapter = session.get_adapter(self._url)
        if isinstance(adapter, HTTPAdapter):
            retries = adapter.max_retries
            assert retries.total == 0, f"requests would send writes again: {retries}"
        self._session = session

    def close(self) -> None:
        """Close the connection."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def get(self, key: str) -> Any:
        path = f"/v1/kv/{quote(key, safe='')}?consistency={self._consistency}"
        try:
            body = self._request("GET", path)
        except DefiniteError as error:
            if error.code == "not-found":
                return None
            raise
        if "value" not in body:
            raise IndefiniteError("bad-answer", f"no value in {body!r:.200}")
        return body["value"]

    def put(self, key: str, value: Any) -> None:
        self._request("PUT", f"/v1/kv/{quote(key, safe='')}", {"value": value})

    def delete(self, key: str) -> None:
        self._request("DELETE", f"/v1/kv/{quote(key, safe='')}")

    def cas(self, key: str, expect: Any, value: Any) -> None:
        body = {"expect": expect, "value": value}
        self._request("POST", f"/v1/kv/{quote(key, safe='')}/cas", body)

    def append(self, key: str, value: Any) -> None:
        self._request("POST", f"/v1/kv/{quote(key, safe='')}/append", {"value": value})

    def _request(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Return the JSON object of a 200 answer; raise what any other outcome means."""
        return self._send(method, path, body, {}, self._timeout_s)

    def _send(
        self, method: str, path: str, body: Any, headers: Mapping[str, str], timeout_s: float
    ) -> dict[str, Any]:
        assert self._session is not None, "open() comes first"
        deadline = self._clock() + timeout_s
        if body is not None:
            headers = {"Content-Type": "application/json", **headers}
        try:
            with self._session.request(
                method,
                self._url + path,
                data=None if body is None else msgspec.json.encode(body),
                headers=headers or None,
                timeout=(min(self._connect_timeout_s, timeout_s), timeout_s),
                allow_redirects=False,
                stream=True,  # so that an answer that trickles in cannot outlive the deadline
            ) as response:
                status = response.status_code
                content = self._content(response, deadline, timeout_s)
        except (requests.RequestException, HTTPError, OSError) as error:
            _raise_failure(error)
        answer = _json_object(content)
        if status == HTTPStatus.OK:
            return answer
        _raise_refusal(status, answer)

    def _content(self, response: requests.Response, deadline: float, timeout_s: float) -> bytes:
        content = bytearray()
        # read1 returns with what is there. `iter_content` waits for full chunks, and so for as
        # long as a trickle lasts.
        while chunk := response.raw.read1(_CHUNK_BYTES):
            content += chunk
            if len(content) > ANSWER_BYTES_MAX:
                raise IndefiniteError("bad-answer", f"longer than {ANSWER_BYTES_MAX} bytes")
            if self._clock() > deadline:
                raise IndefiniteError("timeout", f"the answer took over {timeout_s:g} s")
        return bytes(content)


def _raise_failure(error: Exception) -> NoReturn:
    """Raise what it means that no whole answer came."""
    cause = error.args[0] if error.args else None
    if isinstance(cause, MaxRetryError):
        cause = cause.reason
    # Both mean that there was no connection, so nothing was sent. A read timeout is neither.
    if isinstance(error, requests.ConnectTimeout) or isinstance(cause, NewConnectionError):
        raise UnavailableError("no-connection", str(cause)) from error
    if isinstance(error, requests.Timeout | ReadTimeoutError):
        raise IndefiniteError("timeout", str(cause or error)) from error
    raise IndefiniteError("broken-connection", f"{type(error).__name__}: {error}") from error


def _raise_refusal(status: int, answer: dict[str, Any]) -> NoReturn:
    """Raise what an answer other than 200 means: the node says itself whether it is definite."""
    code, definite = answer.get("error"), answer.get("definite")
    if not isinstance(code, str) or not isinstance(definite, bool):
        raise IndefiniteError("bad-answer", f"status {status} with {answer!r:.200}")
    message = str(answer.get("message", ""))
    if "actual" in answer:
        message = f"the value is {json.dumps(answer['actual'])}"
    if definite and status == HTTPStatus.SERVICE_UNAVAILABLE:
        raise UnavailableError(code, message)
    if definite:
        raise DefiniteError(code, message)
    raise IndefiniteError(code, message)


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        answer = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise IndefiniteError("bad-answer", f"not JSON ({error}): {content[:200]!r}") from error
    if not isinstance(answer, dict):
        raise IndefiniteError("bad-answer", f"not a JSON object: {content[:200]!r}")
    return answer
