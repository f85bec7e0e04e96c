"""The HTTP API: JSON over HTTP/1.1 with keep-alive, and the two URLs of goraft's kvapi.

httptools parses; this module bounds what it is given, finds the route and writes the answer. A
connection serves one request at a time: pipelined ones wait in order, and reading stops while too
many wait, so no client can make the node hold more than a few requests for it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar, cast
from urllib.parse import parse_qs, unquote

import httptools
import msgspec

from labrys.node.errors import MachineError
from labrys.node.machine import Append, Cas, Delete, Get, Put, Request
from labrys.node.service import Answer, Respond, Service, fault

BODY_BYTES_MAX = 1 << 20
HEAD_BYTES_MAX = 32 << 10
PIPELINE_MAX = 16
DEPTH_MAX = 64
_KV = "/v1/kv/"


class _PutBody(msgspec.Struct, forbid_unknown_fields=True):
    value: Any


class _CasBody(msgspec.Struct, forbid_unknown_fields=True):
    expect: Any
    value: Any


_Body = TypeVar("_Body", _PutBody, _CasBody)


class _Refused(Exception):
    """Raised by the parser's callbacks; ends the connection after the answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.body)
        self.answer = answer


class Api:
    """Finds out what a request wants and has it done."""

    def __init__(
        self,
        service: Service,
        status: Callable[[], dict[str, object]],
        health: Callable[[], dict[str, object]],
        wake: Callable[[], None],
    ) -> None:
        """`wake` is called after a request reached the service, so that effects are taken."""
        self._service = service
        self._status = status
        self._health = health
        self._wake = wake

    async def listen(self, address: tuple[str, int]) -> asyncio.Server:
        """Serve clients; raises MachineError if the port cannot be had."""
        host, port = address
        loop = asyncio.get_running_loop()
        try:
            return await loop.create_server(lambda: Connection(self), host or None, port)
        except OSError as error:
            raise MachineError(
                f"cannot listen for clients on {host}:{port}: {error.strerror or error}. Is "
                "another program using the port? Choose another --http"
            ) from error

    def handle(self, method: str, url: bytes, body: bytes, respond: Respond) -> None:
        """Answer one request, now or later, through `respond`."""
        try:
            parts = httptools.parse_url(url)
            path = (parts.path or b"").decode("ascii")
            query = parse_qs(
                (parts.query or b"").decode("ascii"), keep_blank_values=True, errors="strict"
            )
            options = {name: values[-1] for name, values in query.items()}
            self._route(method, path, options, body, respond)
        except httptools.HttpParserInvalidURLError as error:
            respond(fault(400, "bad-request", True, f"the URL cannot be read: {error}"))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            respond(fault(400, "bad-request", True, f"the key or body cannot be read: {error}"))

    def _route(
        self, method: str, path: str, options: dict[str, str], body: bytes, respond: Respond
    ) -> None:
        if path.startswith(_KV):
            self._route_key(method, path.removeprefix(_KV), options, body, respond)
            return
        match method, path:
            case "GET", "/v1/status":
                respond(Answer(200, msgspec.json.encode(self._status())))
            case "GET", "/healthz":
                health = self._health()
                respond(Answer(200 if health["ready"] else 503, msgspec.json.encode(health)))
            case "GET", "/set":
                self._goraft_set(options, respond)
            case "GET", "/get":
                self._goraft_get(options, respond)
            case _, "/v1/status" | "/healthz" | "/set" | "/get":
                respond(_wrong_method(method, path))
            case _:
                respond(fault(404, "no-such-path", True, f"there is nothing at {path}"))

    def _route_key(
        self, method: str, rest: str, options: dict[str, str], body: bytes, respond: Respond
    ) -> None:
        quoted, _, action = rest.partition("/")
        key = unquote(quoted, errors="strict")
        if not key:
            respond(fault(400, "bad-request", True, "the key is empty"))
            return
        match method, action:
            case "GET", "":
                self._get(key, options.get("consistency", "linearizable"), respond)
            case "PUT", "":
                self._execute(Put(key, _decode(body, _PutBody).value), respond)
            case "DELETE", "":
                self._execute(Delete(key), respond)
            case "POST", "cas":
                swap = _decode(body, _CasBody)
                self._execute(Cas(key, swap.expect, swap.value), respond)
            case "POST", "append":
                self._execute(Append(key, _decode(body, _PutBody).value), respond)
            case _, "" | "cas" | "append":
                respond(_wrong_method(method, f"{_KV}{rest}"))
            case _:
                respond(fault(404, "no-such-path", True, f"there is nothing at {_KV}{rest}"))

    def _get(self, key: str, consistency: str, respond: Respond) -> None:
        match consistency:
            case "linearizable":
                self._execute(Get(key), respond)
            case "stale":
                respond(self._service.read_stale(key))
            case _:
                message = f"no consistency {consistency!r}; choose linearizable or stale"
                respond(fault(400, "bad-request", True, message))

    def _execute(self, request: Request, respond: Respond) -> None:
        self._service.execute(request, respond)
        self._wake()

    def _goraft_set(self, options: dict[str, str], respond: Respond) -> None:
        if not options.get("key") or "value" not in options:
            respond(fault(400, "bad-request", True, "use /set?key=K&value=V"))
            return
        self._execute(Put(options["key"], options["value"]), respond)

    def _goraft_get(self, options: dict[str, str], respond: Respond) -> None:
        if not options.get("key"):
            respond(fault(400, "bad-request", True, "use /get?key=K or /get?key=K&relaxed=true"))
            return

        def bare(answer: Answer) -> None:
            # goraft answers with the value alone, a string as it is.
            if answer.status == 200:
                value = msgspec.json.decode(answer.body)["value"]
                raw = value.encode() if isinstance(value, str) else msgspec.json.encode(value)
                answer = Answer(200, raw)
            respond(answer)

        relaxed = options.get("relaxed") == "true"
        self._get(options["key"], "stale" if relaxed else "linearizable", bare)


def _decode(body: bytes, kind: type[_Body]) -> _Body:
    decoded = msgspec.json.decode(body, type=kind)
    # A value that can just be decoded here must not be too deep for another place or node, where
    # the stack is a little fuller: a command that cannot be applied would stop the whole cluster.
    level: list[Any] = list(msgspec.structs.astuple(decoded))
    for _ in range(DEPTH_MAX):
        level = [
            child
            for value in level
            if isinstance(value, list | dict)
            for child in (value if isinstance(value, list) else value.values())
        ]
        if not level:
            return decoded
    raise msgspec.ValidationError(f"a value may be nested {DEPTH_MAX} levels deep")


def _wrong_method(method: str, path: str) -> Answer:
    return fault(405, "method-not-allowed", True, f"{method} is not possible at {path}")


class Connection(asyncio.Protocol):
    """One client. The parser calls the `on_*` methods, in the order in which bytes arrive."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._parser: Any = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[str, bytes, bytes, bool]] = deque()
        self._is_busy = False
        self._is_paused = False
        self._is_choked = False
        self._has_ended = False
        self._head_bytes = 0
        self._unseen_bytes = 0
        """What the parser took in since it last told anything."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

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

    def resume_writing(self) -> None:
        self._is_choked = False
        self._serve_next()

    def eof_received(self) -> bool:
        # The client has said all it will say; what it asked for is still answered.
        self._has_ended = True
        return self._is_busy or bool(self._waiting)

    # ---- the parser's callbacks ---------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._url = b""
        self._head_bytes = self._unseen_bytes = 0
        self._body = bytearray()

    def on_url(self, url: bytes) -> None:
        self._unseen_bytes = 0
        self._url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._unseen_bytes = 0
        self._count_head(len(name) + len(value))
        if name.lower() == b"expect":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

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
        self._waiting.append((method, self._url, bytes(self._body), keep_alive))
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
            method, url, body, keep_alive = self._waiting.popleft()
            self._is_busy = True
            self._api.handle(method, url, body, partial(self._answer, keep_alive))
        if self._is_paused and len(self._waiting) < PIPELINE_MAX:
            self._is_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _may_serve(self) -> bool:
        return not (self._is_busy or self._is_choked or self._transport.is_closing())

    def _answer(self, keep_alive: bool, answer: Answer) -> None:
        self._is_busy = False
        self._write(answer, keep_alive and (not self._has_ended or bool(self._waiting)))
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._serve_next)

    def _refuse(self, answer: Answer) -> None:
        if self._is_busy or self._waiting:
            # The client would take this for the answer to its earlier request.
            self._transport.abort()
        else:
            self._write(answer, keep_alive=False)

    def _write(self, answer: Answer, keep_alive: bool) -> None:
        if self._transport.is_closing():
            return
        head = (
            f"HTTP/1.1 {answer.status} {_PHRASES[answer.status]}\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(answer.body)}\r\n"
            f"{'' if keep_alive else 'Connection: close' + chr(13) + chr(10)}\r\n"
        )
        self._transport.write(head.encode("ascii") + answer.body)
        if not keep_alive:
            self._transport.close()


_PHRASES = {status.value: status.phrase for status in HTTPStatus}
