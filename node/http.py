"""HTTP/1.1 with keep-alive: bytes in, calls to the `Api`, answers out in order.

httptools parses; this module bounds what it is given. A connection serves one request at a time:
pipelined ones wait in order, and reading stops while too many wait, so no client can make the node
hold more than a few requests for it. Nor can one hold a place by doing nothing: who begins a
request and does not finish it, or does not read its answer, is cut off after `STALLED_S`, and when
all places are taken the one that was idle the longest has to go.
"""

import asyncio
import socket
from collections import Counter, deque
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import httptools

from labrys.node.answers import JSON, Answer, fault
from labrys.node.api import Api, Call
from labrys.node.errors import MachineError
from labrys.node.metrics import Histogram

BODY_BYTES_MAX = 1 << 20
HEAD_BYTES_MAX = 32 << 10
PIPELINE_MAX = 16
CONNECTIONS_MAX = 900
"""Below the usual limit of 1,024 open files, of which the node needs some for itself."""
STALLED_S = 10.0
LATENCY_BOUNDS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_KEEPALIVE_S = 30
"""A client whose machine is gone is noticed after about three times this."""


class _Refused(Exception):
    """Raised by the parser's callbacks; ends the connection after the answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.body)
        self.answer = answer


class Clients:
    """All connections of clients to this node."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._connections: dict[Connection, None] = {}
        """The one that was idle the longest comes first."""
        self.answered: Counter[int] = Counter()
        """Answers by status."""
        self.latency_s = Histogram(LATENCY_BOUNDS_S)

    def __len__(self) -> int:
        return len(self._connections)

    async def listen(self, address: tuple[str, int]) -> asyncio.Server:
        """Serve clients; raises MachineError if the port cannot be had."""
        host, port = address
        loop = asyncio.get_running_loop()
        try:
            return await loop.create_server(
                lambda: Connection(self._api, self), host or None, port, backlog=CONNECTIONS_MAX
            )
        except OSError as error:
            raise MachineError(
                f"cannot listen for clients on {host}:{port}: {error.strerror or error}. Is "
                "another program using the port? Choose another --http"
            ) from error

    def enter(self, connection: "Connection") -> bool:
        """Whether there is room for one more, if need be in the place of an idle one."""
        if len(self._connections) >= CONNECTIONS_MAX:
            idle = next((each for each in self._connections if each.is_idle), None)
            if idle is None:
                return False
            idle.close()
            self.leave(idle)
        self._connections[connection] = None
        return True

    def stir(self, connection: "Connection") -> None:
        """It is the one heard last."""
        if connection in self._connections:
            del self._connections[connection]
            self._connections[connection] = None

    def leave(self, connection: "Connection") -> None:
        """It is gone."""
        self._connections.pop(connection, None)

    def cut_stalled(self, now_s: float) -> None:
        """Cut off who holds up a request or an answer too long; `now_s` is the loop's time."""
        for connection in list(self._connections):
            connection.cut_if_stalled(now_s)

    def abort(self) -> None:
        """Cut off everybody."""
        for connection in list(self._connections):
            connection.close()


class Connection(asyncio.Protocol):
    """One client. The parser calls the `on_*` methods, in the order in which bytes arrive."""

    def __init__(self, api: Api, clients: Clients) -> None:
        self._api = api
        self._clients = clients
        self._loop = asyncio.get_running_loop()
        self._parser: Any = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[Call, bool]] = deque()
        self._is_busy = False
        self._begun_s: float | None = None
        """Since when a request is incomplete."""
        self._choked_s = self._served_s = 0.0
        self._is_paused = False
        self._is_choked = False
        self._has_ended = False
        self._head_bytes = 0
        self._unseen_bytes = 0
        """What the parser took in since it last told anything."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        _watch(transport)
        if not self._clients.enter(self):
            message = f"{CONNECTIONS_MAX} clients are connected and busy; try again later"
            self._write(fault(503, "busy", True, message), keep_alive=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._clients.leave(self)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way on it in either direction."""
        return not (self._is_busy or self._waiting or self._is_choked or self._begun_s)

    def close(self) -> None:
        """End it, at once if its client does not read."""
        if self._is_choked:
            self._transport.abort()
        else:
            self._transport.close()

    def cut_if_stalled(self, now_s: float) -> None:
        """End it if its client has not finished a request, or not read an answer, for too long."""
        if self._is_choked and now_s - self._choked_s > STALLED_S:
            self._transport.abort()
        elif self._begun_s is not None and now_s - self._begun_s > STALLED_S:
            message = f"the request was not complete after {STALLED_S:g} s"
            self._refuse(fault(408, "timeout", True, message))

    def data_received(self, data: bytes) -> None:
        self._unseen_bytes += len(data)
        try:
            self._parser.feed_data(data)
            # The parser keeps the beginning of a header for itself until it has seen the end.
            self._count_head(0)
        except httptools.HttpParserUpgrade:
            pass  # The request is served as it is; what follows it is not HTTP and not read.
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, _Refused):
                self._refuse(cause.answer)
            else:
                self._refuse(fault(400, "bad-request", True, f"not HTTP/1.1: {error}"))
        except _Refused as refused:
            self._refuse(refused.answer)
        self._serve_next()

    def pause_writing(self) -> None:
        # The client sends and does not read: no more answers, so soon no more reading either.
        self._is_choked = True
        self._choked_s = self._loop.time()

    def resume_writing(self) -> None:
        self._is_choked = False
        self._serve_next()

    def eof_received(self) -> bool:
        # The client has said all it will say; what it asked for is still answered.
        self._has_ended = True
        return self._is_busy or bool(self._waiting)

    # ---- the parser's callbacks ---------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._begun_s = self._loop.time()
        self._clients.stir(self)
        self._url = b""
        self._session: bytes | None = None
        self._seq: bytes | None = None
        self._head_bytes = self._unseen_bytes = 0
        self._body = bytearray()

    def on_url(self, url: bytes) -> None:
        self._unseen_bytes = 0
        self._url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._unseen_bytes = 0
        self._count_head(len(name) + len(value))
        match name.lower():
            case b"expect":
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            case b"labrys-session":
                self._session = value
            case b"labrys-seq":
                self._seq = value

    def on_body(self, body: bytes) -> None:
        self._unseen_bytes = 0
        self._body += body
        if len(self._body) > BODY_BYTES_MAX:
            message = f"a body may have {BODY_BYTES_MAX} bytes"
            raise _Refused(fault(413, "too-large", True, message))

    def on_message_complete(self) -> None:
        self._unseen_bytes = 0
        method = self._parser.get_method().decode("ascii")
        # The answer to a HEAD would have to leave out its body; nothing here needs that.
        keep_alive = (
            self._parser.should_keep_alive()
            and not self._parser.should_upgrade()
            and method != "HEAD"
        )
        call = Call(method, self._url, bytes(self._body), self._session, self._seq)
        self._waiting.append((call, keep_alive))
        self._begun_s = None
        if len(self._waiting) >= PIPELINE_MAX and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def _count_head(self, count: int) -> None:
        self._head_bytes += count
        if max(self._head_bytes, self._unseen_bytes) > HEAD_BYTES_MAX:
            message = f"URL and headers may have {HEAD_BYTES_MAX} bytes"
            raise _Refused(fault(431, "too-large", True, message))

    # ---- answers, in order --------------------------------------------------------------------

    def _serve_next(self) -> None:
        # A loop and not recursion: answers that come at once would otherwise nest.
        while self._waiting and self._may_serve():
            call, keep_alive = self._waiting.popleft()
            self._is_busy = True
            self._served_s = self._loop.time()
            self._api.handle(call, partial(self._answer, keep_alive))
        if self._is_paused and len(self._waiting) < PIPELINE_MAX:
            self._is_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _may_serve(self) -> bool:
        return not (self._is_busy or self._is_choked or self._transport.is_closing())

    def _answer(self, keep_alive: bool, answer: Answer) -> None:
        self._is_busy = False
        self._clients.answered[answer.status] += 1
        self._clients.latency_s.observe(self._loop.time() - self._served_s)
        self._write(answer, keep_alive and (not self._has_ended or bool(self._waiting)))
        if self._waiting:
            self._loop.call_soon(self._serve_next)

    def _refuse(self, answer: Answer) -> None:
        if self._is_busy or self._waiting:
            # The client would take this for the answer to its earlier request.
            self._transport.abort()
        else:
            self._write(answer, keep_alive=False)

    def _write(self, answer: Answer, keep_alive: bool) -> None:
        if self._transport.is_closing():
            return
        start = (
            _JSON_200 if answer.status == 200 and answer.content_type == JSON else _start(answer)
        )
        close = b"" if keep_alive else b"Connection: close\r\n"
        length = len(answer.body)
        self._transport.write(b"%b%d\r\n%b\r\n%b" % (start, length, close, answer.body))
        if not keep_alive:
            self._transport.close()


def _start(answer: Answer) -> bytes:
    phrase = HTTPStatus(answer.status).phrase
    lines = f"HTTP/1.1 {answer.status} {phrase}\r\nContent-Type: {answer.content_type}"
    return f"{lines}\r\nContent-Length: ".encode("ascii")


_JSON_200 = _start(Answer(200, b""))


def _watch(transport: asyncio.BaseTransport) -> None:
    # So that a client whose machine vanished does not keep its place for ever.
    connection = transport.get_extra_info("socket")
    if isinstance(connection, socket.socket) or hasattr(connection, "setsockopt"):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
