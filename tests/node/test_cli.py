"""The command line: both forms, and one clear line with the right exit code for what is wrong."""

import ast
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.node.servers import Server, cluster, free_ports, wait_for

import labrys.node.cli
from labrys.node.bugs import BUGS, find_bug
from labrys.node.cli import parse
from labrys.node.errors import UsageError
from labrys.node.messages import AppendRequest, Entry, Hello, encode_message
from labrys.node.raft import Config

NEW_FORM = ["--id", "n1", "--peers", "n1=h1:1,n2=h2:2", "--http", ":8080", "--data", "d"]


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "labrys.node.cli", *argv],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    """The last line of stderr; the only one that is not a log line of the node."""
    assert "Traceback" not in result.stderr, result.stderr
    complaints = [line for line in result.stderr.splitlines() if line.startswith("labrys-node:")]
    assert len(complaints) == 1, result.stderr
    return complaints[0]


def test_the_new_form() -> None:
    settings = parse([*NEW_FORM, "--listen", "0.0.0.0:9", "--bug", "stale-read"])
    assert settings.config.id == "n1"
    assert settings.peers == {"n1": ("h1", 1), "n2": ("h2", 2)}
    assert settings.listen == ("0.0.0.0", 9)
    assert settings.http == ("", 8080)
    assert settings.data == Path("d")
    assert settings.parts is BUGS["stale-read"].parts


def test_the_sizes_of_batches_pieces_and_files() -> None:
    assert parse(NEW_FORM).config == Config("n1")
    words = ("--append-entries", "1", "--inflight-appends", "2", "--chunk-kib", "3")
    settings = parse([*NEW_FORM, *words, "--segment-kib", "4"])
    sizes = Config("n1", batch_count_max=1, inflight_count_max=2, chunk_bytes=3 << 10)
    assert (settings.config, settings.segment_bytes) == (sizes, 4 << 10)


def test_gorafts_form() -> None:
    settings = parse(["--node", "1", "--http", ":2020", "--cluster", "1,:3030;2,:3031;3,:3032"])
    assert settings.config.id == "2"
    assert settings.peers == {"1": ("", 3030), "2": ("", 3031), "3": ("", 3032)}
    assert settings.listen == ("", 3031)
    assert settings.data == Path("labrys-node-2")


def test_a_cluster_in_gorafts_form_forms(tmp_path: Path) -> None:
    ports = free_ports(6)
    members = ";".join(f"{number},:{port}" for number, port in enumerate(ports[:3], 1))
    servers = [Server(str(i + 1), "", port, tmp_path) for i, port in enumerate(ports[3:])]
    try:
        for place, server in enumerate(servers):
            server.argv = [
                sys.executable, "-m", "labrys.node.cli", "--node", str(place), "--cluster", members,
                "--http", f":{server.http_port}", "--data", str(server.data),
            ]  # fmt: skip
            server.start()
        for server in servers:
            wait_for("the node is ready", server.is_ready)
        assert servers[0].ask("GET", "/set?key=k&value=5")[0] == 200
        assert servers[2].ask("GET", "/get?key=k") == (200, 5)
    finally:
        for server in servers:
            server.kill()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([*NEW_FORM, "--frob"], "--frob"),
        (["--id", "n9", *NEW_FORM[2:]], "--id n9 is not among --peers (n1, n2)"),
        (NEW_FORM[2:], "--id None is not among"),
        (NEW_FORM[:-2], "--data is missing"),
        ([*NEW_FORM, "--chunk-kib", "4097"], "--chunk-kib 4097 must be at most 4096"),
        ([*NEW_FORM[:2], *NEW_FORM[4:]], "give either --peers"),
        (["--node", "3", "--http", ":1", "--cluster", "1,:1;2,:2"], "--node must be an index"),
        (["--id", "n1", "--peers", "n1", "--http", ":1", "--data", "d"], "not of the form ID=HOST"),
        (["--id", "n1", "--peers", "n1=h:1,n1=h:2", "--http", ":1", "--data", "d"], "n1 twice"),
        (["--id", "n1", "--peers", "n1=h:x", "--http", ":1", "--data", "d"], "is not HOST:PORT"),
        ([*NEW_FORM, "--http", "nonsense"], "--http 'nonsense' is not HOST:PORT"),
        ([*NEW_FORM, "--heartbeat-ms", "200"], "must be at least twice"),
        ([*NEW_FORM, "--heartbeat-ms", "-3"], "-3 is not above 0"),
        ([*NEW_FORM, "--heartbeat-ms", "x"], "'x' is not a whole number"),
        ([*NEW_FORM, "--http", ":\u00b2"], "is not HOST:PORT"),
        ([*NEW_FORM, "--http", ":" + "1" * 5000], "is not HOST:PORT"),
        ([*NEW_FORM, "--listen", "a..b:1"], "'a..b' is not a host name"),
        (["--node", "0", *NEW_FORM], "--node belongs to --cluster"),
        (["--id", "1", "--node", "0", "--http", ":1", "--cluster", "1,:1;2,:2"], "--id belongs to"),
        ([*NEW_FORM, "--bug", "stale-raed"], "did you mean stale-read?"),
    ],
)
def test_what_is_wrong_is_named(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(argv)
    assert message in str(caught.value)


def test_every_bug_is_listed_when_none_is_near() -> None:
    with pytest.raises(UsageError) as caught:
        find_bug("zzz")
    assert all(name in str(caught.value) for name in BUGS)
    assert "did you mean" not in str(caught.value)


def test_usage_exits_2_with_one_line() -> None:
    result = run("--frob")
    assert result.returncode == 2
    assert one_line(result)


def test_help_shows_examples_and_bugs() -> None:
    result = run("--help")
    assert result.returncode == 0
    assert "examples:" in result.stdout
    assert all(name in result.stdout for name in BUGS)


@pytest.mark.parametrize("flag", ["--http", "--listen"])
def test_a_port_in_use_exits_4_and_names_it(tmp_path: Path, flag: str) -> None:
    (free,) = free_ports(1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = {"--http": free, "--listen": free, flag: port}
        result = run(
            "--id", "n1", "--peers", f"n1=127.0.0.1:{ports['--listen']}", "--data", str(tmp_path),
            "--http", f"127.0.0.1:{ports['--http']}",
        )  # fmt: skip
    assert result.returncode == 4
    assert f"127.0.0.1:{port}" in one_line(result)
    assert flag in one_line(result)


def test_a_data_directory_that_cannot_be_made_exits_4(tmp_path: Path) -> None:
    tmp_path.joinpath("file").write_text("")
    result = run("--id", "n1", "--peers", "n1=127.0.0.1:1", "--http", "127.0.0.1:0",
                 "--data", str(tmp_path / "file" / "d"))  # fmt: skip
    assert result.returncode == 4
    assert str(tmp_path / "file" / "d") in one_line(result)


def test_a_damaged_log_exits_4_with_file_and_offset(tmp_path: Path) -> None:
    with cluster(tmp_path, 1) as (server,):
        server.call("PUT", "/v1/kv/k", {"value": 1})
        server.kill()
        log = server.data / "log-0000000001"
        data = bytearray(log.read_bytes())
        data[40] ^= 1
        log.write_bytes(data)
        result = run(*server.argv[3:])
    assert result.returncode == 4
    assert str(log) in one_line(result)
    assert "is damaged at byte" in one_line(result)


def test_a_second_node_on_the_same_data_exits_4(tmp_path: Path) -> None:
    with cluster(tmp_path, 1) as (server,):
        result = run(*server.argv[3:])
    assert result.returncode == 4
    assert "in use by another node" in one_line(result)


def test_a_torn_tail_is_cut_and_told(tmp_path: Path) -> None:
    with cluster(tmp_path, 1) as (server,):
        server.call("PUT", "/v1/kv/k", {"value": 1})
        server.kill()
        with (server.data / "log-0000000001").open("ab") as log:
            log.write(b"\x30\x00\x00")
        server.start()
        wait_for("the node is back", server.is_ready)
        assert server.call("GET", "/v1/kv/k")[1]["value"] == 1
        assert "event=recovered cut_bytes=3" in server.log.read_text()


@pytest.mark.parametrize("bug", sorted(BUGS))
def test_a_faulty_variant_serves_and_comes_back_without_a_crash(tmp_path: Path, bug: str) -> None:
    with cluster(tmp_path, 3, "--bug", bug) as servers:
        for number in range(8):
            assert servers[0].ask("PUT", f"/v1/kv/k{number}", {"value": number})[0] == 200
        for server in servers:
            server.kill()
        for server in servers:
            server.start("--bug", bug)
        for server in servers:
            wait_for("the faulty node is back", server.is_ready)

        def written() -> bool:
            return servers[0].call("PUT", "/v1/kv/again", {"value": 1})[0] == 200

        wait_for("a write after the restart", written)
        if bug == "lose-tail":
            assert servers[0].ask("GET", "/v1/kv/k7")[0] == 404
        for server in servers:
            log = server.log.read_text()
            assert not any(w in log for w in ("Traceback", "AssertionError", "panic")), log


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    with cluster(tmp_path, 1) as (server,):
        server.kill()
        with Path("/dev/full").open("ab") as full:  # Every write fails: no space left on device.
            server.process = subprocess.Popen(server.argv, stdout=full, stderr=full)
            wait_for("the node without a log is ready", server.is_ready)
            assert server.call("PUT", "/v1/kv/k", {"value": 1})[0] == 200
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(10) == 0


def test_a_failed_write_stops_a_node_that_cannot_even_say_so(tmp_path: Path) -> None:
    with cluster(tmp_path, 1) as (server,):
        server.kill()
        argv = server.argv_with_file_limit(20_000)
        with Path("/dev/full").open("ab") as full:
            server.process = subprocess.Popen(argv, stdout=full, stderr=full)
            wait_for("the limited node is ready", server.is_ready)
            with contextlib.suppress(OSError, http.client.HTTPException):
                server.call("PUT", "/v1/kv/k", {"value": "x" * 30_000})
            assert server.process.wait(10) == 4


def test_the_request_timeout_holds_beside_a_long_election_timeout(tmp_path: Path) -> None:
    """A leader played by hand takes a forwarded request and never answers."""
    peer, mine, http_port = free_ports(3)
    server = Server("n1", f"n1=127.0.0.1:{mine},n2=127.0.0.1:{peer}", http_port, tmp_path)
    with socket.create_server(("127.0.0.1", peer)):
        server.begin_as_old_member()
        server.start("--request-timeout-ms", "300", "--election-timeout-ms", "8000")
        try:
            wait_for("the link to the leader", lambda: "state=up" in server.log.read_text())
            with socket.create_connection(("127.0.0.1", mine), timeout=5) as link:
                for message in (Hello("n2", "n1"), AppendRequest(1, 0, 0, (), 0, 1)):
                    data = encode_message(message)
                    link.sendall(len(data).to_bytes(4, "big") + data)
                wait_for("n2 is followed", lambda: server.status()["leader"] == "n2")
                asked_at = time.monotonic()
                status, body = server.call("PUT", "/v1/kv/k", {"value": 1})
                waited_s = time.monotonic() - asked_at
            assert (status, body["error"], body["definite"]) == (504, "timeout", False)
            assert 0.3 <= waited_s < 4, f"answered after {waited_s} s"
        finally:
            server.kill()


def test_a_faulty_variant_that_cut_what_it_applied_does_not_spin(tmp_path: Path) -> None:
    """It has applied more than its log holds, and must wait for new entries without a busy loop."""
    peer, mine, http_port = free_ports(3)
    server = Server("n1", f"n1=127.0.0.1:{mine},n2=127.0.0.1:{peer}", http_port, tmp_path)
    server.begin_as_old_member()
    server.start("--bug", "early-ack", "--election-timeout-ms", "30000")
    try:
        wait_for("the node listens", lambda: "event=start" in server.log.read_text())
        with socket.create_connection(("127.0.0.1", mine), timeout=5) as link:
            lost = tuple(Entry(1, b"") for _ in range(9000))
            for message in (
                Hello("n2", "n1"),
                AppendRequest(1, 0, 0, lost, 9000, 1),
                AppendRequest(2, 0, 0, (Entry(2, b""),), 1, 1),
            ):
                data = encode_message(message)
                link.sendall(len(data).to_bytes(4, "big") + data)
            wait_for("the cut", lambda: server.status()["last_index"] == 1)
            assert server.status()["commit"] == 9000
            before_s = _processor_s(server)
            time.sleep(1)
            assert _processor_s(server) - before_s < 0.5
    finally:
        server.kill()


def _processor_s(server: Server) -> float:
    assert server.process is not None
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_node_imports_only_what_its_machines_have() -> None:
    """The folder is uploaded as it is, with nothing around it but msgspec and httptools."""
    found: set[str] = set()
    for path in Path(labrys.node.cli.__file__).parent.glob("*.py"):
        for part in ast.walk(ast.parse(path.read_text())):
            if isinstance(part, ast.Import):
                found |= {alias.name for alias in part.names}
            elif isinstance(part, ast.ImportFrom):
                found.add(part.module or "")
    foreign = {name for name in found if name.split(".")[0] not in sys.stdlib_module_names}
    assert {name for name in foreign if not name.startswith("labrys.node.")} == {
        "msgspec",
        "httptools",
    }


def test_an_internal_error_stops_the_node_loudly(tmp_path: Path) -> None:
    """A correct cluster cannot show this one, so a second leader is played by hand."""
    peer, mine, http = free_ports(3)
    server = Server("n1", f"n1=127.0.0.1:{mine},n2=127.0.0.1:{peer}", http, tmp_path)
    server.begin_as_old_member()
    server.start()

    def send_impossible() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", mine), timeout=5) as link:
                # Entry 1 is committed, then a later term takes it away.
                for message in (
                    Hello("n2", "n1"),
                    AppendRequest(1, 0, 0, (Entry(1, b""),), 1, 1),
                    AppendRequest(2, 0, 0, (Entry(2, b""),), 1, 1),
                ):
                    data = encode_message(message)
                    link.sendall(len(data).to_bytes(4, "big") + data)
            return True
        except OSError:
            return False

    try:
        wait_for("the node listens", send_impossible)
        assert server.process is not None
        assert server.process.wait(10) == 70
    finally:
        server.kill()
    assert "Impossible: n1 would cut committed entry 1" in server.log.read_text()
