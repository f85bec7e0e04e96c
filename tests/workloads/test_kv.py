"""The HTTP connection against a server that does everything wrong."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from labrys.workloads.client import DefiniteError, IndefiniteError
from labrys.workloads.kv import ANSWER_BYTES_MAX, KvClient

Behaviour = Callable[["Handler"], None]
GATE_S = 30.0


class Server(ThreadingHTTPServer):
    """Plays one behaviour per request, the last one again and again; remembers the requests."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviours: list[Behaviour] = [answer(200, {})]
        self.requests: list[tuple[str, str, Any]] = []
        self.connections = 0
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        sent = json.loads(body) if body else None
        self.server.requests.append((self.command, self.path, sent))
        place = min(len(self.server.requests), len(self.server.behaviours)) - 1
        self.server.behaviours[place](self)

    do_GET = do_PUT = do_POST = do_DELETE = _serve

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def answer(status: int, body: Any) -> Behaviour:
    return raw_answer(status, json.dumps(body).encode())


def raw_answer(status: int, content: bytes, *, announce: int | None = None) -> Behaviour:
    def behave(handler: Handler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(announce or len(content)))
        if status == 302:
            handler.send_header("Location", "/v1/kv/elsewhere")
        handler.end_headers()
        handler.wfile.write(content)
        handler.close_connection = announce is not None

    return behave


def reset(handler: Handler) -> None:
    """End the connection with RST."""
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.close_connection = True
    # The handler's files share the socket: it is closed only when they are gone too.
    handler.connection.shutdown(socket.SHUT_RD)


def hang_up(handler: Handler) -> None:
    handler.close_connection = True


def stall(handler: Handler) -> None:
    handler.server.release.wait(GATE_S)
    handler.close_connection = True


def garbage(handler: Handler) -> None:
    handler.wfile.write(b"\x00\x01 what is this\r\n\r\n")
    handler.close_connection = True


def trickle(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while not handler.server.release.wait(0.02):
        handler.wfile.write(b" ")
        handler.wfile.flush()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def kv(server: Server) -> Iterator[KvClient]:
    client = KvClient(server.url, timeout_s=GATE_S)
    client.open()
    yield client
    client.close()


@pytest.fixture
def hasty(server: Server) -> Iterator[KvClient]:
    client = KvClient(server.url, timeout_s=0.2)
    client.open()
    yield client
    client.close()


def outcome(action: Callable[[], object]) -> tuple[str, str]:
    """Return how `action` failed: ("fail" or "info", code)."""
    try:
        done = action()
    except DefiniteError as error:
        return "fail", error.code
    except IndefiniteError as error:
        return "info", error.code
    raise AssertionError(f"no error but {done!r}")


# --- what is asked and what a good answer means ---------------------------------------------------


def test_a_read_returns_the_value(server: Server, kv: KvClient) -> None:
    server.behaviours = [answer(200, {"value": [1, "é"], "revision": 3})]
    assert kv.get("k/ 1") == [1, "é"]
    assert server.requests == [("GET", "/v1/kv/k%2F%201?consistency=linearizable", None)]


def test_a_read_of_null_is_none(server: Server, kv: KvClient) -> None:
    server.behaviours = [answer(200, {"value": None})]
    assert kv.get("k") is None


def test_a_read_of_an_absent_key_is_none(server: Server, kv: KvClient) -> None:
    server.behaviours = [answer(404, {"error": "not-found", "definite": True, "message": "no"})]
    assert kv.get("k") is None


def test_the_consistency_of_reads_can_be_chosen(server: Server) -> None:
    server.behaviours = [answer(200, {"value": 1})]
    client = KvClient(server.url, consistency="stale")
    client.open()
    assert client.get("k") == 1
    client.close()
    assert server.requests[0][1].endswith("?consistency=stale")


def test_writes_send_what_the_api_asks_for(server: Server, kv: KvClient) -> None:
    kv.put("k", {"a": 1})
    kv.cas("k", None, 2)
    kv.append("k", 3)
    kv.delete("k")
    assert server.requests == [
        ("PUT", "/v1/kv/k", {"value": {"a": 1}}),
        ("POST", "/v1/kv/k/cas", {"expect": None, "value": 2}),
        ("POST", "/v1/kv/k/append", {"value": 3}),
        ("DELETE", "/v1/kv/k", None),
    ]


def test_one_connection_serves_all_requests(server: Server, kv: KvClient) -> None:
    mismatch = {"error": "mismatch", "definite": True, "message": "", "actual": 7}
    server.behaviours = [answer(200, {}), answer(409, mismatch), answer(200, {})]
    kv.put("k", 1)
    assert outcome(lambda: kv.cas("k", 1, 2)) == ("fail", "mismatch")
    kv.put("k", 1)
    assert server.connections == 1


# --- refusals -------------------------------------------------------------------------------------


def test_a_cas_that_does_not_match_fails_and_tells_the_actual_value(
    server: Server, kv: KvClient
) -> None:
    mismatch = {"error": "mismatch", "definite": True, "message": "no", "actual": [7]}
    server.behaviours = [answer(409, mismatch)]
    with pytest.raises(DefiniteError, match=r"mismatch: the value is \[7\]"):
        kv.cas("k", 1, 2)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (503, {"error": "no-leader", "definite": True, "message": "m"}, ("fail", "no-leader")),
        (503, {"error": "lost-office", "definite": False, "message": "m"}, ("info", "lost-office")),
        (400, {"error": "bad-request", "definite": True}, ("fail", "bad-request")),
        (404, {"error": "not-found", "definite": True}, ("fail", "not-found")),
        (500, {"error": "oops"}, ("info", "bad-answer")),
        (500, {"error": "oops", "definite": "true"}, ("info", "bad-answer")),
        (503, {"definite": True}, ("info", "bad-answer")),
        (404, [], ("info", "bad-answer")),
        (201, {"value": 1}, ("info", "bad-answer")),
        (302, {"value": 1}, ("info", "bad-answer")),
    ],
)
def test_only_the_word_of_the_node_makes_a_refused_write_definite(
    server: Server, kv: KvClient, status: int, body: Any, expected: tuple[str, str]
) -> None:
    server.behaviours = [answer(status, body)]
    assert outcome(lambda: kv.put("k", 1)) == expected
    assert len(server.requests) == 1


def test_a_404_from_something_that_is_no_node_is_not_an_absent_key(
    server: Server, kv: KvClient
) -> None:
    server.behaviours = [raw_answer(404, b"<html>nothing here</html>")]
    assert outcome(lambda: kv.get("k")) == ("info", "bad-answer")


# --- no answer, or no sensible one ----------------------------------------------------------------


def test_a_refused_connection_is_definite() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    client = KvClient(f"http://127.0.0.1:{port}")
    client.open()
    assert outcome(lambda: client.put("k", 1)) == ("fail", "no-connection")
    client.close()


def test_a_connection_that_never_comes_about_is_definite() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        # The kernel completes handshakes until the backlog is full, then drops what knocks.
        knocking = [socket.socket() for _ in range(4)]
        for one in knocking:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        client = KvClient(url, timeout_s=GATE_S, connect_timeout_s=0.2)
        client.open()
        assert outcome(lambda: client.put("k", 1)) == ("fail", "no-connection")
        client.close()
        for one in knocking:
            one.close()


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (reset, "broken-connection"),
        (hang_up, "broken-connection"),
        (garbage, "broken-connection"),
        (raw_answer(200, b'{"value"', announce=100), "broken-connection"),
        (raw_answer(200, b"<html>"), "bad-answer"),
        (raw_answer(200, b"[" * 100_000), "bad-answer"),
        (answer(200, {"value": "x" * ANSWER_BYTES_MAX}), "bad-answer"),
        (answer(200, ["value", 1]), "bad-answer"),
        (raw_answer(503, b""), "bad-answer"),
    ],
    ids=["reset", "hang-up", "garbage", "torn", "html", "deep", "huge", "list", "empty"],
)
@pytest.mark.parametrize("f", ["put", "get"])
def test_an_answer_that_cannot_be_understood_leaves_the_outcome_open(
    server: Server, kv: KvClient, behaviour: Behaviour, code: str, f: str
) -> None:
    server.behaviours = [behaviour]
    act: Callable[[], object] = (lambda: kv.put("k", 1)) if f == "put" else (lambda: kv.get("k"))
    assert outcome(act) == ("info", code)
    assert len(server.requests) == 1, "a request was sent again"


def test_a_read_whose_answer_has_no_value_is_open(server: Server, kv: KvClient) -> None:
    server.behaviours = [answer(200, {"revision": 3})]
    assert outcome(lambda: kv.get("k")) == ("info", "bad-answer")


def test_a_stalled_answer_times_out_and_leaves_the_outcome_open(
    server: Server, hasty: KvClient
) -> None:
    server.behaviours = [stall]
    assert outcome(lambda: hasty.put("k", 1)) == ("info", "timeout")
    assert len(server.requests) == 1


def test_an_answer_that_trickles_in_does_not_outlive_the_deadline(
    server: Server, hasty: KvClient
) -> None:
    server.behaviours = [trickle]
    began = time.monotonic()
    assert outcome(lambda: hasty.get("k")) == ("info", "timeout")
    assert time.monotonic() - began < 5


def test_after_a_timeout_the_late_answer_is_not_taken_for_the_next_one(
    server: Server, hasty: KvClient
) -> None:
    def late(handler: Handler) -> None:
        handler.server.release.wait(GATE_S)
        answer(200, {"value": "late"})(handler)

    server.behaviours = [late, answer(200, {"value": "next"})]
    assert outcome(lambda: hasty.get("k")) == ("info", "timeout")
    server.release.set()
    assert hasty.get("k") == "next"


# --- kept connections -----------------------------------------------------------------------------


def test_a_kept_connection_that_breaks_under_a_write_is_open_and_nothing_is_sent_again(
    server: Server, kv: KvClient
) -> None:
    server.behaviours = [answer(200, {}), reset]
    kv.put("k", 1)
    assert outcome(lambda: kv.put("k", 2)) == ("info", "broken-connection")
    assert len(server.requests) == 2


def test_a_kept_connection_that_the_server_had_closed_is_replaced_without_loss(
    server: Server, kv: KvClient
) -> None:
    closed = threading.Event()

    def answer_and_close(handler: Handler) -> None:
        answer(200, {})(handler)
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)
        handler.close_connection = True
        closed.set()

    server.behaviours = [answer_and_close, answer(200, {})]
    kv.put("k", 1)
    assert closed.wait(GATE_S)
    kv.put("k", 2)
    assert [sent for _, _, sent in server.requests] == [{"value": 1}, {"value": 2}]


# --- surroundings ---------------------------------------------------------------------------------


def test_proxies_of_the_environment_are_ignored(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server.behaviours = [answer(200, {"value": 1})]
    client = KvClient(server.url)
    client.open()
    assert client.get("k") == 1
    client.close()


def test_a_client_can_be_closed_twice_and_opened_again(server: Server, kv: KvClient) -> None:
    kv.close()
    kv.close()
    kv.open()
    kv.put("k", 1)
    assert len(server.requests) == 1
