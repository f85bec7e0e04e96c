"""Clients of simulated nodes: `requests` sessions whose adapter ends in a node's API handlers.

There are no bytes of HTTP. What a client sees of a connection is kept: a node that is dead refuses
it, one that is paused takes the request and is silent, one that dies breaks it.

A `requests.Session` spends ten times as long on a request as the node: it merges settings, cookies
and hooks that nobody here has. `SimSession` goes to its adapter directly when a request is as
plain as ours are.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import MaxRetryError, NewConnectionError

from labrys.control.sim.exchange import Exchange
from labrys.control.sim.machine import Machine
from labrys.control.sim.world import SECOND_NS, World
from labrys.node.answers import JSON, Answer
from labrys.node.api import Call

_PLAIN: Final = frozenset({"data", "json", "headers", "timeout", "allow_redirects", "stream"})
_SCHEME_LENGTH: Final = len("http://")
_NO_HEADERS: Final[CaseInsensitiveDict[str]] = CaseInsensitiveDict()
_JSON_HEADERS: Final = CaseInsensitiveDict({"Content-Type": JSON})
"""Shared: nobody changes the headers of an answer."""
_NO_COOKIES: Final = requests.cookies.RequestsCookieJar()


class SimSession(requests.Session):
    """A session of a client in the simulation."""

    def __init__(self, world: World, machines: Mapping[str, Machine]) -> None:
        """`machines` by host."""
        super().__init__()
        self._adapter = SimAdapter(world, machines)
        self.mount("http://", self._adapter)

    def request(self, method: Any, url: Any, **how: Any) -> requests.Response:  # type: ignore[override]
        """See `requests.Session.request`."""
        if not how.keys() <= _PLAIN:
            return super().request(method, url, **how)
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url = method, url
        headers = how.get("headers")
        prepared.headers = CaseInsensitiveDict(headers) if headers else _NO_HEADERS
        prepared.body = how.get("data")
        if how.get("json") is not None:
            prepared.body = msgspec.json.encode(how["json"])
        return self._adapter.send(prepared, timeout=how.get("timeout"))


class SimAdapter(BaseAdapter):
    """Takes requests to the machine that their URL names."""

    def __init__(self, world: World, machines: Mapping[str, Machine]) -> None:
        super().__init__()
        self._world = world
        self._machines = machines

    def send(  # type: ignore[override]
        self, request: requests.PreparedRequest, timeout: Any = None, **_: Any
    ) -> requests.Response:
        """Wait for the answer; raises what requests' own adapter raises."""
        assert request.url is not None
        assert request.method is not None
        # http://HOST:PORT/...
        place, slash, path = request.url[_SCHEME_LENGTH:].partition("/")
        read_s = timeout[1] if isinstance(timeout, tuple) else timeout
        machine = self._machines.get(place.partition(":")[0])
        process = machine.process if machine is not None else None
        world = self._world
        if process is None or not process.is_listening:
            world.sleep(0.0002)
            reason = NewConnectionError(None, "[Errno 111] Connection refused")  # type: ignore[arg-type]
            raise requests.ConnectionError(
                MaxRetryError(None, request.url, reason),  # type: ignore[arg-type]
                request=request,
            )
        headers = request.headers
        body = request.body or b""
        call = Call(
            request.method,
            f"{slash}{path}".encode(),
            body if isinstance(body, bytes) else body.encode(),
            _header(headers, "Labrys-Session"),
            _header(headers, "Labrys-Seq"),
        )
        exchange = Exchange(process)
        process.exchanges[exchange] = None
        world.call_at(process.client_due_ns(), process.deliver, exchange.begin, call)
        timeout_ns = float("inf") if read_s is None else read_s * SECOND_NS
        if not world.wait(exchange.done, timeout_ns):
            raise requests.ReadTimeout(f"Read timed out. (read timeout={read_s})", request=request)
        if exchange.answer is None:
            raise requests.ConnectionError(
                "('Connection aborted.', RemoteDisconnected('Remote end closed connection without "
                "response'))",
                request=request,
            )
        return SimResponse(request, exchange.answer)

    def close(self) -> None:
        """Nothing to close."""


class SimResponse(requests.Response):
    """An answer, all of which is there."""

    def __init__(self, request: requests.PreparedRequest, answer: Answer) -> None:
        # Not the base class's: it makes a jar of cookies, which takes longer than all the rest.
        self._content = answer.body
        self._content_consumed = True
        self._next = None
        self.status_code = answer.status
        self.headers = (
            _JSON_HEADERS
            if answer.content_type == JSON
            else CaseInsensitiveDict({"Content-Type": answer.content_type})
        )
        self.raw = _Body(answer.body)
        self.url = request.url or ""
        self.encoding = "utf-8"
        self.history = []
        self.reason = ""
        self.cookies = _NO_COOKIES
        self.request = request

    def close(self) -> None:
        """Nothing to close."""


class _Body:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read1(self, size: int = -1) -> bytes:
        """All that is there."""
        data, self._data = self._data, b""
        return data


def _header(headers: Mapping[str, Any], name: str) -> bytes | None:
    if name not in headers:
        return None
    value = headers[name]
    return value if isinstance(value, bytes) else str(value).encode()
