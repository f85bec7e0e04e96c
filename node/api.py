"""The HTTP API: what each method and path means, and the two URLs of goraft's kvapi.

Everything is JSON. A body is read into a type that says what it may hold; whatever does not fit is
answered with 400 and where it went wrong, and nothing of it is executed.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Protocol, TypeVar
from urllib.parse import parse_qs, unquote

import httptools
import msgspec

from labrys.node.answers import Answer, Respond, fault
from labrys.node.commands import (
    Add,
    Append,
    Batch,
    Cas,
    Change,
    Command,
    Delete,
    Get,
    Once,
    OpenSession,
    Ops,
    Put,
    Request,
    Transfer,
    Txn,
)
from labrys.node.metrics import CONTENT_TYPE
from labrys.node.service import Service

DEPTH_MAX = 64
BATCH_COUNT_MAX = 16384
_KV = "/v1/kv/"
_MEMBERS = "/v1/members/"
_METHODS = {
    "/healthz": "GET", "/metrics": "GET", "/get": "GET", "/set": "GET", "/v1/status": "GET",
    "/v1/batch": "POST", "/v1/txn": "POST", "/v1/sessions": "POST", "/v1/members": "POST",
    "/v1/leader": "POST", "/v1/snapshot": "POST",
}  # fmt: skip


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _PutBody(_Body):
    value: Any


class _CasBody(_Body):
    expect: Any
    value: Any


class _AddBody(_Body):
    delta: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _BatchBody(_Body):
    commands: Annotated[tuple[Command, ...], msgspec.Meta(min_length=1, max_length=BATCH_COUNT_MAX)]


class _TxnBody(_Body):
    ops: Ops


class _SessionBody(_Body):
    ttl_ms: Annotated[int, msgspec.Meta(ge=1000, le=86_400_000)] = 60_000


_Name = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9._-]{1,64}$")]
_Address = Annotated[str, msgspec.Meta(pattern=r"^[^\s:,=]+:[0-9]{1,5}$", max_length=256)]


class _MemberBody(_Body):
    id: _Name
    peer: _Address
    learner: bool = False


class _ChangeBody(_Body):
    add: dict[_Name, _Address] = {}
    learn: dict[_Name, _Address] = {}
    remove: tuple[_Name, ...] = ()


class _LeaderBody(_Body):
    transfer: _Name | None = None


_B = TypeVar("_B", bound=_Body)
# Made once: these bodies come thousands of times a second.
_put_decoder = msgspec.json.Decoder(_PutBody)
_cas_decoder = msgspec.json.Decoder(_CasBody)
_add_decoder = msgspec.json.Decoder(_AddBody)


class Call(msgspec.Struct, frozen=True, gc=False):
    """One request as it came over HTTP; the headers are None when they were not sent."""

    method: str
    url: bytes
    body: bytes
    session: bytes | None = None
    seq: bytes | None = None


class Operations(Protocol):
    """What of the API is not a request to the store, done by the node itself."""

    def status(self) -> dict[str, object]:
        """What the node says of itself."""
        ...

    def health(self) -> dict[str, object]:
        """Whether it is `ready` to serve, and as what."""
        ...

    def metrics(self) -> bytes:
        """Prometheus text."""
        ...

    def take_snapshot(self, respond: Respond) -> None:
        """Write a snapshot now and answer when it is on disk."""
        ...

    def wake(self) -> None:
        """A request reached the service: take what follows from it."""
        ...


class _BadRequest(Exception):
    pass


class Api:
    """Finds out what a request wants and has it done."""

    def __init__(self, service: Service, node: Operations) -> None:
        self._service = service
        self._node = node

    def handle(self, call: Call, respond: Respond) -> None:
        """Answer one request, now or later, through `respond`."""
        try:
            parts = httptools.parse_url(call.url)
            path = (parts.path or b"").decode("ascii")
            options = _options(parts.query) if parts.query else {}
            self._route(call, path, options, respond)
        except httptools.HttpParserInvalidURLError as error:
            respond(fault(400, "bad-request", True, f"the URL cannot be read: {error}"))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            respond(fault(400, "bad-request", True, f"the key or body cannot be read: {error}"))
        except _BadRequest as error:
            respond(fault(400, "bad-request", True, str(error)))

    def _route(self, call: Call, path: str, options: dict[str, str], respond: Respond) -> None:
        if path.startswith(_KV):
            self._route_key(call, path.removeprefix(_KV), options, respond)
            return
        if path.startswith(_MEMBERS):
            if call.method != "DELETE":
                respond(_wrong_method(call.method, path))
                return
            name = unquote(path.removeprefix(_MEMBERS), errors="strict")
            self._execute(Change(remove=(name,)), respond)
            return
        method = _METHODS.get(path)
        if method is None:
            respond(fault(404, "no-such-path", True, f"there is nothing at {path}"))
        elif method != call.method:
            respond(_wrong_method(call.method, path))
        else:
            self._route_fixed(call, path, options, respond)

    def _route_fixed(
        self, call: Call, path: str, options: dict[str, str], respond: Respond
    ) -> None:
        body = call.body or b"{}"
        match path:
            case "/v1/batch":
                batch = msgspec.json.decode(body, type=_BatchBody)
                _check_depth(field for c in batch.commands for field in msgspec.structs.astuple(c))
                self._write(call, Batch(batch.commands), respond)
            case "/v1/txn":
                ops = msgspec.json.decode(body, type=_TxnBody).ops
                _check_depth(value for _, _, value in ops)
                self._write(call, Txn(ops), respond)
            case "/v1/status":
                respond(Answer(200, msgspec.json.encode(self._node.status())))
            case "/healthz":
                health = self._node.health()
                respond(Answer(200 if health["ready"] else 503, msgspec.json.encode(health)))
            case "/metrics":
                respond(Answer(200, self._node.metrics(), CONTENT_TYPE))
            case "/v1/snapshot":
                self._node.take_snapshot(respond)
            case "/v1/sessions":
                ttl_ms = msgspec.json.decode(body, type=_SessionBody).ttl_ms
                self._execute(OpenSession(ttl_ms), respond)
            case "/v1/members":
                self._execute(_change(body), respond)
            case "/v1/leader":
                target = msgspec.json.decode(body, type=_LeaderBody).transfer
                self._execute(Transfer(target), respond)
            case "/set":
                self._goraft_set(options, respond)
            case "/get":
                self._goraft_get(options, respond)

    def _route_key(self, call: Call, rest: str, options: dict[str, str], respond: Respond) -> None:
        quoted, _, action = rest.partition("/")
        key = unquote(quoted, errors="strict")
        if not key:
            raise _BadRequest("the key is empty")
        match call.method, action:
            case "GET", "":
                self._get(key, options.get("consistency", "linearizable"), respond)
            case "PUT", "":
                self._write(call, Put(key, _decode(call.body, _put_decoder).value), respond)
            case "DELETE", "":
                self._write(call, Delete(key), respond)
            case "POST", "cas":
                swap = _decode(call.body, _cas_decoder)
                self._write(call, Cas(key, swap.expect, swap.value), respond)
            case "POST", "append":
                self._write(call, Append(key, _decode(call.body, _put_decoder).value), respond)
            case "POST", "add":
                self._write(call, Add(key, _decode(call.body, _add_decoder).delta), respond)
            case method, "" | "cas" | "append" | "add":
                respond(_wrong_method(method, f"{_KV}{rest}"))
            case _:
                respond(fault(404, "no-such-path", True, f"there is nothing at {_KV}{rest}"))

    def _get(self, key: str, consistency: str, respond: Respond) -> None:
        match consistency:
            case "linearizable":
                self._execute(Get(key), respond)
            case "lease":
                self._execute(Get(key, lease=True), respond)
            case "stale":
                respond(self._service.read_stale(key))
            case _:
                choices = "linearizable, lease or stale"
                raise _BadRequest(f"no consistency {consistency!r}; choose {choices}")

    def _write(self, call: Call, command: Command | Batch, respond: Respond) -> None:
        if call.session is None and call.seq is None:
            self._execute(command, respond)
            return
        if call.session is None or call.seq is None:
            raise _BadRequest("Labrys-Session and Labrys-Seq belong together")
        session = _number("Labrys-Session", call.session)
        self._execute(Once(session, _number("Labrys-Seq", call.seq), command), respond)

    def _execute(self, request: Request, respond: Respond) -> None:
        self._service.execute(request, respond)
        self._node.wake()

    def _goraft_set(self, options: dict[str, str], respond: Respond) -> None:
        if not options.get("key") or "value" not in options:
            raise _BadRequest("use /set?key=K&value=V")
        self._execute(Put(options["key"], options["value"]), respond)

    def _goraft_get(self, options: dict[str, str], respond: Respond) -> None:
        if not options.get("key"):
            raise _BadRequest("use /get?key=K or /get?key=K&relaxed=true")

        def bare(answer: Answer) -> None:
            # goraft answers with the value alone, a string as it is.
            if answer.status == 200:
                value = msgspec.json.decode(answer.body)["value"]
                raw = value.encode() if isinstance(value, str) else msgspec.json.encode(value)
                answer = Answer(200, raw)
            respond(answer)

        relaxed = options.get("relaxed") == "true"
        self._get(options["key"], "stale" if relaxed else "linearizable", bare)


def _options(query: bytes) -> dict[str, str]:
    found = parse_qs(query.decode("ascii"), keep_blank_values=True, errors="strict")
    return {name: values[-1] for name, values in found.items()}


def _change(body: bytes) -> Change:
    fields = msgspec.json.decode(body, type=dict[str, Any])
    if "id" not in fields:
        change = msgspec.json.decode(body, type=_ChangeBody)
        if not (change.add or change.learn or change.remove):
            raise _BadRequest('name who shall come or go: {"id":"n4","peer":"HOST:PORT"}')
        return Change(change.add, change.learn, change.remove)
    member = msgspec.json.decode(body, type=_MemberBody)
    named = {member.id: member.peer}
    return Change(learn=named) if member.learner else Change(add=named)


def _number(header: str, text: bytes) -> int:
    if not text.isdigit() or len(text) > 18:
        raise _BadRequest(f"{header} must be a whole number below 10^18, not {text!r}")
    return int(text)


def _decode(body: bytes, decoder: msgspec.json.Decoder[_B]) -> _B:
    decoded = decoder.decode(body)
    _check_depth(msgspec.structs.astuple(decoded))
    return decoded


def _check_depth(values: Iterable[Any]) -> None:
    # A value that can just be decoded here must not be too deep for another place or node, where
    # the stack is a little fuller: a command that cannot be applied would stop the whole cluster.
    level = [value for value in values if isinstance(value, (list, dict, tuple))]
    if not level:
        return
    for _ in range(DEPTH_MAX):
        level = [
            child
            for value in level
            for child in (value.values() if isinstance(value, dict) else value)
            if isinstance(child, (list, dict, tuple))
        ]
        if not level:
            return
    raise _BadRequest(f"a value may be nested {DEPTH_MAX} levels deep")


def _wrong_method(method: str, path: str) -> Answer:
    return fault(405, "method-not-allowed", True, f"{method} is not possible at {path}")
