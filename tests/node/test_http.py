"""The HTTP API on real nodes: one alone for requests good and bad, three for forwarding."""

import asyncio
import contextlib
import http.client
import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from tests.node.servers import Server, cluster, leader_of, wait_for

from labrys.node.answers import Answer, Respond
from labrys.node.api import Api, Call
from labrys.node.http import (
    BODY_BYTES_MAX,
    CONNECTIONS_MAX,
    STALLED_S,
    Clients,
    Connection,
)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with cluster(tmp_path_factory.mktemp("alone"), 1) as servers:
        yield servers[0]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    with cluster(tmp_path_factory.mktemp("three"), 3) as servers:
        yield servers


def error_of(answer: tuple[int, Any]) -> tuple[int, str, bool]:
    status, body = answer
    assert isinstance(body["message"], str)
    return status, body["error"], body["definite"]


def raw(server: Server, data: bytes) -> bytes:
    """Send bytes and read until the node closes the connection.

    It may do so before it has read everything; what it said until then arrives all the same.
    """
    received = b""
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as link:
        with contextlib.suppress(OSError):
            link.sendall(data)
            link.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while chunk := link.recv(65536):
                received += chunk
    return received


def test_put_get_delete(alone: Server) -> None:
    value = {"a": [1, 2.5, None, True, "ü"]}
    status, body = alone.call("PUT", "/v1/kv/pgd", {"value": value})
    assert (status, list(body)) == (200, ["revision"])
    assert alone.call("GET", "/v1/kv/pgd") == (200, {"value": value, **body})
    assert alone.call("GET", "/v1/kv/pgd?consistency=stale")[1]["value"] == value
    assert alone.call("DELETE", "/v1/kv/pgd")[0] == 200
    assert error_of(alone.call("GET", "/v1/kv/pgd")) == (404, "not-found", True)
    assert error_of(alone.call("DELETE", "/v1/kv/pgd")) == (404, "not-found", True)


def test_cas_tells_the_actual_value(alone: Server) -> None:
    alone.call("PUT", "/v1/kv/cas", {"value": 1})
    assert alone.call("POST", "/v1/kv/cas/cas", {"expect": 1, "value": 2})[0] == 200
    answer = alone.call("POST", "/v1/kv/cas/cas", {"expect": 1, "value": 3})
    assert error_of(answer) == (409, "mismatch", True)
    assert answer[1]["actual"] == 2
    answer = alone.call("POST", "/v1/kv/none/cas", {"expect": None, "value": 3})
    assert error_of(answer) == (404, "not-found", True)


def test_append(alone: Server) -> None:
    alone.call("POST", "/v1/kv/app/append", {"value": 1})
    alone.call("POST", "/v1/kv/app/append", {"value": "x"})
    assert alone.call("GET", "/v1/kv/app")[1]["value"] == [1, "x"]
    alone.call("PUT", "/v1/kv/num", {"value": 1})
    answer = alone.call("POST", "/v1/kv/num/append", {"value": 1})
    assert error_of(answer) == (409, "wrong-type", True)


def test_keys_are_percent_decoded(alone: Server) -> None:
    assert alone.call("PUT", "/v1/kv/a%2Fcas%20%C3%BC", {"value": 5})[0] == 200
    assert alone.call("GET", "/v1/kv/a%2Fcas%20%C3%BC")[1]["value"] == 5
    assert error_of(alone.call("GET", "/v1/kv/a"))[1] == "not-found"


def test_status_and_health(alone: Server) -> None:
    status = alone.status()
    assert (status["id"], status["role"], status["leader"]) == ("n1", "leader", "n1")
    assert status["commit"] == status["applied"] == status["last_index"]
    assert list(status["members"]) == ["n1"]
    assert status["started_at"].endswith("Z")
    assert alone.call("GET", "/healthz")[1]["ready"] is True


def test_gorafts_urls(alone: Server) -> None:
    assert alone.call("GET", "/set?key=g&value=some%20text")[0] == 200
    link = http.client.HTTPConnection("127.0.0.1", alone.http_port, timeout=10)
    with closing(link):
        for path in ("/get?key=g", "/get?key=g&relaxed=true"):
            link.request("GET", path)
            assert link.getresponse().read() == b"some text"
    assert error_of(alone.call("GET", "/get?key=absent"))[1] == "not-found"
    assert error_of(alone.call("GET", "/set?key=g")) == (400, "bad-request", True)
    assert error_of(alone.call("GET", "/set?key=%FF&value=1")) == (400, "bad-request", True)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("PUT", "/v1/kv/k", {"valu": 1}, 400, "bad-request"),
        ("PUT", "/v1/kv/k", {"value": 1, "more": 2}, 400, "bad-request"),
        ("PUT", "/v1/kv/k", None, 400, "bad-request"),
        ("PUT", "/v1/kv/", {"value": 1}, 400, "bad-request"),
        ("PUT", "/v1/kv/%FF", {"value": 1}, 400, "bad-request"),
        ("POST", "/v1/kv/k/cas", {"value": 1}, 400, "bad-request"),
        ("GET", "/v1/kv/k?consistency=strict", None, 400, "bad-request"),
        ("GET", "/nowhere", None, 404, "no-such-path"),
        ("POST", "/v1/kv/k/frob", {"value": 1}, 404, "no-such-path"),
        ("PATCH", "/v1/kv/k", {"value": 1}, 405, "method-not-allowed"),
        ("POST", "/v1/status", None, 405, "method-not-allowed"),
    ],
)
def test_bad_requests_have_no_effect_and_say_so(
    alone: Server, method: str, path: str, body: Any, status: int, code: str
) -> None:
    before = alone.status()["last_index"]
    assert error_of(alone.call(method, path, body)) == (status, code, True)
    assert alone.status()["last_index"] == before


@pytest.mark.parametrize(
    "body",
    [
        b'{"value":' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"value":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
        b'{"value":NaN}',
        b'{"value":1e999}',
        b'{"value":"\xff"}',
        b'{"value":"\\ud800"}',
        b"\x00\x01",
        b"[]",
    ],
    ids=["deep", "very-deep", "nan", "huge-number", "not-utf8", "surrogate", "binary", "array"],
)
def test_poisonous_values_are_refused_before_the_log(alone: Server, body: bytes) -> None:
    before = alone.status()["last_index"]
    head = b"PUT /v1/kv/poison HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    assert raw(alone, head % len(body) + body).startswith(b"HTTP/1.1 400 ")
    assert alone.status()["last_index"] == before


def test_a_body_too_large_is_refused(alone: Server) -> None:
    head = b"PUT /v1/kv/k HTTP/1.1\r\nContent-Length: 3000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", alone.http_port), timeout=10) as link:
        # Not a byte more than it takes: what the node has not read when it closes resets the link.
        link.sendall(head + b"x" * (BODY_BYTES_MAX + 1))
        assert link.recv(100).startswith(b"HTTP/1.1 413 ")
    assert alone.is_ready()


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ],
    ids=["tls", "no-url", "negative-length"],
)
def test_what_is_not_http_ends_the_connection(alone: Server, data: bytes) -> None:
    assert raw(alone, data).startswith(b"HTTP/1.1 400 ")
    assert alone.is_ready()


def test_an_upgrade_is_not_taken_up(alone: Server) -> None:
    data = b"GET /healthz HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05"
    assert raw(alone, data).startswith(b"HTTP/1.1 200 ")
    assert alone.is_ready()


def test_an_endless_header_is_refused(alone: Server) -> None:
    data = b"GET /healthz HTTP/1.1\r\nA: " + b"x" * 100_000 + b"\r\n\r\n"
    assert b"HTTP/1.1 431 " in raw(alone, data)


def test_a_header_that_never_ends_is_refused_before_it_fills_the_memory(alone: Server) -> None:
    with socket.create_connection(("127.0.0.1", alone.http_port), timeout=10) as link:
        link.sendall(b"GET /healthz HTTP/1.1\r\nA: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                link.sendall(b"x" * 16384)
        with contextlib.suppress(ConnectionError):  # The refusal may be lost with the rest.
            assert link.recv(100)[:13] in (b"HTTP/1.1 431 ", b"")
    assert alone.is_ready()


def test_a_header_that_comes_byte_by_byte_is_served(alone: Server) -> None:
    with socket.create_connection(("127.0.0.1", alone.http_port), timeout=10) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"GET /healthz HTTP/1.1\r\nA: b\r\n\r\n":
            link.sendall(bytes([byte]))
        assert link.recv(100).startswith(b"HTTP/1.1 200 ")


class _Deaf(asyncio.Transport):
    """A connection whose client sends and never reads."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.written_bytes = 0
        self.is_reading_now = True
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data
        self.written_bytes += len(data)

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None:
        self.is_reading_now = False

    def resume_reading(self) -> None:
        self.is_reading_now = True


def test_a_client_that_does_not_read_its_answers_gets_no_more_of_them() -> None:
    class Big(Api):
        def __init__(self) -> None:
            self.handled = 0

        def handle(self, call: Call, respond: Respond) -> None:
            self.handled += 1
            respond(Answer(200, b"x" * 100_000))
            if transport.written_bytes >= 300_000:
                connections[0].pause_writing()

    async def script() -> None:
        connection = Connection(api, Clients(api))
        connections.append(connection)
        connection.connection_made(transport)
        for _ in range(3):
            connection.data_received(b"GET /v1/kv/k HTTP/1.1\r\n\r\n" * 50)
            await asyncio.sleep(0)
        assert (api.handled, transport.is_reading_now) == (3, False)
        transport.written_bytes = -(1 << 40)  # Now it reads for ever.
        connection.resume_writing()
        await asyncio.sleep(0)
        assert (api.handled, transport.is_reading_now) == (150, True)

    api, transport = Big(), _Deaf()
    connections: list[Connection] = []
    asyncio.run(script())


class _Silent(Api):
    """Never answers."""

    def __init__(self) -> None:
        pass

    def handle(self, call: Call, respond: Respond) -> None:
        pass


def connect(clients: Clients, data: bytes = b"") -> tuple[Connection, _Deaf]:
    """A client that has sent these bytes."""
    connection, transport = Connection(_Silent(), clients), _Deaf()
    connection.connection_made(transport)
    if data:
        connection.data_received(data)
    return connection, transport


def test_who_does_not_finish_a_request_is_cut_off_and_nobody_else() -> None:
    async def script() -> None:
        clients = Clients(_Silent())
        now_s = asyncio.get_running_loop().time()
        _, half = connect(clients, b"PUT /v1/kv/k HTTP/1.1\r\nContent-Length: 9\r\n\r\n{")
        _, idle = connect(clients)
        _, waiting = connect(clients, b"GET /v1/kv/k HTTP/1.1\r\n\r\n")
        clients.cut_stalled(now_s + STALLED_S - 1)
        assert not half.is_closed
        clients.cut_stalled(now_s + STALLED_S + 1)
        assert [each.is_closed for each in (half, idle, waiting)] == [True, False, False]
        assert half.written.startswith(b"HTTP/1.1 408 ")
        assert idle.written == waiting.written == b""

    asyncio.run(script())


def test_who_does_not_read_its_answers_is_cut_off() -> None:
    async def script() -> None:
        clients = Clients(_Silent())
        connection, transport = connect(clients)
        connection.pause_writing()
        now_s = asyncio.get_running_loop().time()
        clients.cut_stalled(now_s + STALLED_S - 1)
        assert not transport.is_closed
        clients.cut_stalled(now_s + STALLED_S + 1)
        assert transport.is_closed

    asyncio.run(script())


def test_when_all_places_are_taken_the_longest_idle_client_goes() -> None:
    request = b"GET /v1/kv/k HTTP/1.1\r\n\r\n"

    async def script() -> None:
        clients = Clients(_Silent())
        made = [connect(clients) for _ in range(CONNECTIONS_MAX)]
        made[0][0].data_received(request)
        _, newcomer = connect(clients)
        assert [n for n, (_, each) in enumerate(made) if each.is_closed] == [1]
        assert not newcomer.is_closed
        assert len(clients) == CONNECTIONS_MAX

    asyncio.run(script())


def test_when_all_are_busy_one_more_is_told_so() -> None:
    request = b"GET /v1/kv/k HTTP/1.1\r\n\r\n"

    async def script() -> None:
        clients = Clients(_Silent())
        made = [connect(clients, request) for _ in range(CONNECTIONS_MAX)]
        _, newcomer = connect(clients)
        assert newcomer.is_closed
        assert newcomer.written.startswith(b"HTTP/1.1 503 ")
        assert b'"definite":true' in newcomer.written
        made[0][0].connection_lost(None)
        assert not connect(clients)[1].is_closed

    asyncio.run(script())


def test_pipelined_requests_are_answered_in_order(alone: Server) -> None:
    bodies = [json.dumps({"value": n}).encode() for n in range(50)]
    data = b"".join(
        b"PUT /v1/kv/pipe HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s"
        b"GET /v1/kv/pipe HTTP/1.1\r\n\r\n" % (len(body), body)
        for body in bodies
    )
    data += b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n"
    received = raw(alone, data)
    values = [int(part.split(b",")[0]) for part in received.split(b'"value":')[1:]]
    assert values == list(range(50))


def test_a_connection_serves_many_requests(alone: Server) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", alone.http_port, timeout=10)) as link:
        for _ in range(20):
            link.request("GET", "/healthz")
            response = link.getresponse()
            assert response.status == 200
            response.read()
            assert link.sock is not None, "the node closed a connection that was to be kept"


def test_every_node_serves_reads_and_writes(three: list[Server]) -> None:
    for number, writer in enumerate(three):
        assert writer.ask("PUT", "/v1/kv/any", {"value": number})[0] == 200
        for reader in three:
            assert reader.ask("GET", "/v1/kv/any")[1]["value"] == number


def test_errors_pass_through_a_follower_unchanged(three: list[Server]) -> None:
    leader = leader_of(three)
    follower = next(server for server in three if server is not leader)
    leader.ask("PUT", "/v1/kv/err", {"value": 1})
    answer = follower.ask("POST", "/v1/kv/err/cas", {"expect": 7, "value": 2})
    assert answer == leader.ask("POST", "/v1/kv/err/cas", {"expect": 7, "value": 2})
    assert error_of(answer) == (409, "mismatch", True)


def test_nodes_agree_on_what_was_applied(three: list[Server]) -> None:
    three[0].ask("PUT", "/v1/kv/agree", {"value": 1})

    def equal() -> bool:
        return len({(s["applied"], s["revision"]) for s in map(Server.status, three)}) == 1

    wait_for("equal applied indexes", equal)
    assert sum(server.status()["role"] == "leader" for server in three) == 1


def test_a_killed_leader_is_replaced_and_nothing_is_lost(tmp_path: Path) -> None:
    with cluster(tmp_path, 3) as servers:
        leader = leader_of(servers)
        for number in range(20):
            assert leader.ask("PUT", f"/v1/kv/k{number}", {"value": number})[0] == 200
        leader.kill()
        new_leader = leader_of(servers)
        assert new_leader is not leader
        for number in range(20):
            assert new_leader.ask("GET", f"/v1/kv/k{number}")[1]["value"] == number
        leader.start()
        wait_for("the old leader is back", leader.is_ready)
        assert leader.ask("GET", "/v1/kv/k7")[1]["value"] == 7
        for server in servers:
            log = server.log.read_text()
            assert not any(w in log for w in ("Traceback", "AssertionError", "panic")), log


def test_a_leader_that_was_paused_answers_nothing_that_is_out_of_date(tmp_path: Path) -> None:
    """What it finds when it goes on: old replies of its followers, and clients that trust it."""
    with cluster(tmp_path, 3) as servers:
        leader = leader_of(servers)
        others = [server for server in servers if server is not leader]
        assert leader.ask("PUT", "/v1/kv/k", {"value": "old"})[0] == 200
        assert leader.process is not None
        with ExitStack() as stack:
            read, write = (
                stack.enter_context(
                    closing(http.client.HTTPConnection("127.0.0.1", leader.http_port, timeout=10))
                )
                for _ in range(2)
            )
            for link in (read, write):
                link.connect()
            leader.process.send_signal(signal.SIGSTOP)
            try:
                assert others[0].ask("PUT", "/v1/kv/k", {"value": "new"})[0] == 200
                read.request("GET", "/v1/kv/k")
                write.request("PUT", "/v1/kv/late", json.dumps({"value": 1}))
            finally:
                leader.process.send_signal(signal.SIGCONT)
            answer, outcome = read.getresponse(), write.getresponse()
            found, said = json.loads(answer.read()), json.loads(outcome.read())
        assert found["value"] == "new" if answer.status == 200 else found["definite"] is True
        late = others[0].ask("GET", "/v1/kv/late")[0]
        if outcome.status == 200:
            assert late == 200, "it acknowledged a write that nobody knows"
        elif said["definite"]:
            assert late == 404, f"it took back a write that happened: {said}"


def test_without_a_majority_requests_fail_definitely(tmp_path: Path) -> None:
    with cluster(tmp_path, 3) as servers:
        survivor, *others = servers
        for server in others:
            server.kill()
        wait_for("the survivor notices", lambda: survivor.status()["leader"] is None)
        for answer in (
            survivor.call("PUT", "/v1/kv/k", {"value": 1}),
            survivor.call("GET", "/v1/kv/k"),
        ):
            assert error_of(answer) == (503, "no-leader", True)
        assert survivor.call("GET", "/healthz")[0] == 503
        assert error_of(survivor.call("GET", "/v1/kv/k?consistency=stale"))[1] == "not-found"


def test_everything_survives_killing_all_nodes(tmp_path: Path) -> None:
    with cluster(tmp_path, 3) as servers:
        for number in range(10):
            assert servers[0].ask("PUT", f"/v1/kv/k{number}", {"value": number})[0] == 200
        for server in servers:
            server.kill()
        for server in servers:
            server.start()
        for server in servers:
            wait_for("back again", server.is_ready)
            assert server.ask("GET", "/v1/kv/k9")[1]["value"] == 9


def test_a_failed_write_stops_the_node_before_it_answers(tmp_path: Path) -> None:
    with cluster(tmp_path, 1) as (server,):
        server.kill()
        argv = server.argv_with_file_limit(20_000)
        process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
        try:
            wait_for("the limited node is ready", server.is_ready)
            acknowledged = _write_until_it_stops(server)
            _, said = process.communicate(timeout=10)
        finally:
            process.kill()
        assert process.returncode == 4
        assert "File too large; what is on disk is unknown now, so this node stops" in said
        assert "Traceback" not in said
        assert acknowledged >= 10
        server.start()
        wait_for("the node is back with room on its disk", server.is_ready)
        assert server.call("GET", f"/v1/kv/k{acknowledged - 1}")[0] == 200


def _write_until_it_stops(server: Server) -> int:
    """How many writes were acknowledged before the node went away."""
    for number in range(1000):
        try:
            status, body = server.call("PUT", f"/v1/kv/k{number}", {"value": "x" * 900})
        except (OSError, http.client.HTTPException):
            return number
        if status != 200:
            assert body["definite"] is False
            return number
    raise AssertionError("the node never noticed that its disk is full")


def test_sigterm_is_an_orderly_stop(tmp_path: Path) -> None:
    with cluster(tmp_path, 1) as (server,):
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
        assert "event=stop code=0" in server.log.read_text()
