"""Connecting by ssh, to an sshd of our own on loopback: keys, ways, losses."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest
from tests.whole_runs import eventually

from labrys.control.environments import ssh_connection
from labrys.control.environments.ssh_config import destination, read_config
from labrys.control.environments.ssh_connection import Connection, connect
from labrys.control.errors import MachineError

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
pytestmark = pytest.mark.skipif(SSHD is None, reason="no sshd (apt-get install openssh-server)")


class Sshd:
    """A server that lets one key in."""

    def __init__(self, folder: Path) -> None:
        self.key = paramiko.ECDSAKey.generate()
        self.host_key = paramiko.ECDSAKey.generate()
        self.host_key.write_private_key_file(str(folder / "host"))
        (folder / "authorized_keys").write_text(f"{self.key.get_name()} {self.key.get_base64()}\n")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # it insists
        (folder / "config").write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {folder}/host\nUsePAM no\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nPidFile none\n"
            "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        )
        assert SSHD is not None
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", str(folder / "config")], stderr=log
            )
        eventually(self._listens, "sshd listens", timeout_s=20)

    def _listens(self) -> bool:
        assert self.process.poll() is None, "sshd ended"
        with socket.socket() as knock:
            return knock.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A running server."""
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.process.terminate()
    server.process.wait(10)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose ~/.ssh knows the server as n1 and may log in."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    ssh = tmp_path / ".ssh"
    ssh.mkdir()
    sshd.key.write_private_key_file(str(ssh / "id_ecdsa"))
    know(ssh, sshd, sshd.host_key)
    configure(tmp_path, sshd, "")
    return tmp_path


def know(ssh: Path, sshd: Sshd, key: paramiko.PKey) -> None:
    line = f"[127.0.0.1]:{sshd.port} {key.get_name()} {key.get_base64()}\n"
    (ssh / "known_hosts").write_text(line)


def configure(home: Path, sshd: Sshd, more: str) -> None:
    text = f"Host n1 gate inner\n  HostName 127.0.0.1\n  Port {sshd.port}\n"
    (home / ".ssh" / "config").write_text(more + text + f"  User {getpass.getuser()}\n")


def connected(host: str = "n1") -> Connection:
    config = read_config()
    return connect(destination(host, config), config)


def test_commands_have_input_output_and_a_code() -> None:
    connection = connected()
    try:
        big = os.urandom(3_000_000)
        done = connection.execute("cat; echo so >&2; exit 3", big)
        assert (done.code, done.out, done.err) == (3, big, "so\n")
        with pytest.raises(TimeoutError):
            connection.execute("sleep 1000", timeout_s=0.2)
        assert connection.execute("echo on").out == b"on\n"
    finally:
        connection.close()
    assert not connection.is_alive()


def test_the_socket_does_not_wait_for_acknowledgements() -> None:
    connection = connected()
    transport = connection._client.get_transport()
    assert transport is not None
    assert isinstance(transport.sock, socket.socket)
    assert transport.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    connection.close()


def test_lines_come_one_by_one_and_the_end_with_what_was_said() -> None:
    connection = connected()
    link = connection.start("read a; echo $a; echo two; read b; echo bad >&2; exit 1")
    link.send(b"one\n")
    deadline = time.monotonic() + 30
    assert [link.line(deadline), link.line(deadline)] == [b"one\n", b"two\n"]
    assert link.is_alive()
    with pytest.raises(TimeoutError, match="no answer in time"):
        link.line(time.monotonic() + 0.05)
    link.send(b"\n")
    with pytest.raises(EOFError, match="the shell ended: bad"):
        link.line(deadline)
    assert not link.is_alive()
    connection.close()


def test_an_unknown_host_is_refused_and_not_made_known(home: Path, sshd: Sshd) -> None:
    (home / ".ssh" / "known_hosts").unlink()
    with pytest.raises(MachineError) as caught:
        connected()
    assert ssh_connection._fingerprint(sshd.host_key) in str(caught.value)
    assert f"no '[127.0.0.1]:{sshd.port}' in {home}/.ssh/known_hosts" in str(caught.value)
    assert not (home / ".ssh" / "known_hosts").exists()


def test_not_even_a_careless_configuration_makes_an_unknown_host_known(
    home: Path, sshd: Sshd
) -> None:
    (home / ".ssh" / "known_hosts").unlink()
    configure(home, sshd, "StrictHostKeyChecking no\n")
    with pytest.raises(MachineError, match="its host key is not known"):
        connected()


def test_another_key_than_the_known_one_is_refused(home: Path, sshd: Sshd) -> None:
    know(home / ".ssh", sshd, sshd.key)
    with pytest.raises(MachineError) as caught:
        connected()
    said = str(caught.value)
    assert "its host key is not the one that is known" in said
    assert ssh_connection._fingerprint(sshd.key) in said
    assert ssh_connection._fingerprint(sshd.host_key) in said
    assert f"ssh-keygen -R '[127.0.0.1]:{sshd.port}'" in said


def test_damaged_known_hosts_are_told(home: Path) -> None:
    (home / ".ssh" / "known_hosts").write_bytes(b"\xff\xfe")
    with pytest.raises(MachineError, match="known_hosts: cannot read the known hosts"):
        connected()


@pytest.mark.parametrize("kind", ["another", "locked", "none"])
def test_a_refused_login_is_told_with_what_was_tried(home: Path, sshd: Sshd, kind: str) -> None:
    file = home / ".ssh" / "id_ecdsa"
    file.unlink()
    if kind == "another":
        paramiko.ECDSAKey.generate().write_private_key_file(str(file))
    elif kind == "locked":
        sshd.key.write_private_key_file(str(file), password="secret")
    with pytest.raises(MachineError) as caught:
        connected()
    said = str(caught.value)
    assert said.startswith(f"n1 ({getpass.getuser()}@127.0.0.1 port {sshd.port}): the login was re")
    assert "ssh-copy-id n1" in said


def test_a_server_that_comes_late_is_waited_for(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = socket.create_connection
    refusals = [ConnectionRefusedError(111, "Connection refused"), ConnectionResetError()]

    def late(address: tuple[str, int], timeout: float) -> socket.socket:
        if refusals:
            raise refusals.pop()
        return really(address, timeout)

    monkeypatch.setattr(ssh_connection, "_PAUSE_S", 0.01)
    monkeypatch.setattr(socket, "create_connection", late)
    connected().close()
    assert refusals == []


def test_a_server_that_never_comes_is_told(
    home: Path, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_connection, "_PAUSE_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    configure(home, sshd, f"Host n1\n  Port {port}\n")
    with pytest.raises(
        MachineError, match=r"cannot be reached by ssh \(4 attempts in 0 s\): .*111"
    ):
        connected()
    configure(home, sshd, "Host n1\n  HostName no-such-host.invalid\n")
    with pytest.raises(MachineError, match="no such host"):
        connected()


def test_hosts_on_the_way_are_gone_through_and_checked(home: Path, sshd: Sshd) -> None:
    configure(home, sshd, "Host n1\n  ProxyJump gate,inner\n")
    connection = connected()
    assert connection.execute("echo there").out == b"there\n"
    (inner,) = connection._way
    assert isinstance(inner, Connection)
    (gate,) = inner._way
    assert isinstance(gate, Connection)
    connection.close()
    assert not any(hop.is_alive() for hop in (connection, inner, gate))
    configure(home, sshd, "Host n1\n  ProxyJump gate\nHost gate\n  HostKeyAlias stranger\n")
    with pytest.raises(MachineError, match=r"^gate .*its host key is not known"):
        connected()
    configure(home, sshd, "Host n1 gate\n  ProxyJump gate\n")
    with pytest.raises(MachineError, match="more than 8 hosts on the way"):
        connected()


def test_a_command_can_be_the_way(home: Path, sshd: Sshd) -> None:
    relay = home / "relay.py"
    relay.write_text(
        "import os, socket, sys, threading\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n"
        "    while data := os.read(0, 65536): s.sendall(data)\n"
        "    s.shutdown(socket.SHUT_WR)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while data := s.recv(65536): os.write(1, data)\n"
    )
    configure(home, sshd, f"Host n1\n  ProxyCommand {sys.executable} {relay} %h %p\n")
    connection = connected()
    assert connection.execute("echo there").out == b"there\n"
    connection.close()
