"""A connection to a host by ssh, with its host key checked, and what runs over it.

The socket is our own, with TCP_NODELAY: paramiko leaves Nagle's algorithm on, which waits for the
acknowledgement that the other side delays, and a command costs 48 ms instead of 4. Where the user's
configuration goes through other hosts, the way there is theirs.

Connecting is tried again where the network or the far sshd failed, never where it said no.
"""

import base64
import hashlib
import logging
import os
import random
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import paramiko

from labrys.control.environments.ssh_config import Destination, destination
from labrys.control.errors import MachineError

_ATTEMPTS: Final = 4
_ATTEMPTS_FOR_S: Final = 15.0
"""After so many seconds there is no further attempt."""
_PAUSE_S: Final = 0.2
"""Before the second attempt; twice as long before each further one."""
_SILENCE_MAX_S: Final = 20.0
"""How long a host may leave packets unacknowledged until its connection counts as lost."""
_KEEPALIVE_S: Final = 5
_BANNER_TIMEOUT_S: Final = 15.0
_SEND_TIMEOUT_S: Final = 30.0
_JUMPS_MAX: Final = 8
_CHUNK: Final = 1 << 16

# paramiko tells on standard error what it raises as well.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False


class Ended(msgspec.Struct, frozen=True):
    """What a command left."""

    code: int
    out: bytes
    err: str


class Connection:
    """An open connection to a host."""

    def __init__(
        self, place: str, client: paramiko.SSHClient, way: "tuple[Connection | _Command, ...]" = ()
    ) -> None:
        """`place` names the host in messages; `way` is what this one runs in."""
        self.place = place
        self._client = client
        self._way = way

    def is_alive(self) -> bool:
        """Whether nothing is known that has ended it."""
        transport = self._client.get_transport()
        return transport is not None and transport.is_active()

    def start(self, command: str) -> "ChannelLink":
        """Start a command. Raises OSError or EOFError when the connection is lost."""
        return ChannelLink(self._channel(command))

    def execute(self, command: str, given: bytes = b"", *, timeout_s: float = 60.0) -> Ended:
        """Run a command to its end, with `given` as its input.

        Raises OSError or EOFError when the connection is lost or `timeout_s` is over.
        """
        channel = self._channel(command)
        deadline = time.monotonic() + timeout_s
        out, err = bytearray(), bytearray()

        def feed() -> None:
            with suppress(OSError):  # one that reads no further says by its code why
                channel.sendall(given)
                channel.shutdown_write()

        feeder = threading.Thread(target=feed, daemon=True)
        try:
            channel.settimeout(timeout_s)
            feeder.start()
            while chunk := channel.recv(_CHUNK):
                out += chunk
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not done after {timeout_s:g} s")
            while chunk := channel.recv_stderr(_CHUNK):
                err += chunk
            if not channel.status_event.wait(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"not done after {timeout_s:g} s")
            code = channel.recv_exit_status()
        finally:
            channel.close()
            feeder.join(timeout=1)
        if code == -1:
            raise EOFError("the connection was lost")
        return Ended(code, bytes(out), err.decode(errors="replace"))

    def close(self) -> None:
        """Close it, and what it ran in."""
        self._client.close()
        for hop in reversed(self._way):
            hop.close()

    def tunnel(self, hostname: str, port: int, timeout_s: float) -> paramiko.Channel:
        """Return a stream to another host, through this one."""
        return self._open().open_channel(
            "direct-tcpip", (hostname, port), ("127.0.0.1", 0), timeout=timeout_s
        )

    def _channel(self, command: str) -> paramiko.Channel:
        try:
            channel = self._open().open_session(timeout=_SEND_TIMEOUT_S)
            channel.exec_command(command)
        except paramiko.SSHException as error:
            raise OSError(f"no command can be started there: {error}") from error
        return channel

    def _open(self) -> paramiko.Transport:
        transport = self._client.get_transport()
        if transport is None:
            raise EOFError("the connection is closed")
        return transport


class ChannelLink:
    """The link to a process that was started over ssh; see `shell.Link`."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        self._received = bytearray()

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self._channel.settimeout(_SEND_TIMEOUT_S)
        self._channel.sendall(data)

    def line(self, deadline: float) -> bytes:
        """Read one line of standard output; standard error ends up in the exception."""
        while (end := self._received.find(b"\n") + 1) == 0:
            self._channel.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                chunk = self._channel.recv(_CHUNK)
            except TimeoutError as error:
                raise TimeoutError(f"no answer in time{self._complaint()}") from error
            if not chunk:
                # What went wrong is told on the other stream, or by losing the connection.
                self._channel.status_event.wait(1.0)
                raise EOFError(f"the connection was lost or the shell ended{self._complaint()}")
            self._received += chunk
        line = bytes(self._received[:end])
        del self._received[:end]
        return line

    def is_alive(self) -> bool:
        """Whether nothing is known that has ended the stream."""
        transport = self._channel.get_transport()
        ended = self._channel.closed or self._channel.eof_received
        return not ended and transport is not None and transport.is_active()

    def close(self) -> None:
        """Close it; the process at the far end reads the end of its input."""
        self._channel.close()

    def _complaint(self) -> str:
        said = bytearray()
        with suppress(OSError):
            while self._channel.recv_stderr_ready():
                said += self._channel.recv_stderr(_CHUNK)
        text = said.decode(errors="replace").strip()[-500:]
        return f": {text}" if text else ""


def agent_keys() -> list[str]:
    """Return the fingerprints of the keys that the user's agent holds; no agent has none."""
    try:
        agent = paramiko.Agent()
        try:
            return [_fingerprint(key) for key in agent.get_keys()]
        finally:
            agent.close()
    except (paramiko.SSHException, OSError):
        return []


def connect(to: Destination, config: paramiko.SSHConfig, *, hops: int = 0) -> Connection:
    """Return a connection to a host whose key is known. Raises MachineError with the mend.

    `config` tells how to reach the hosts on the way; `hops` of them lie behind us.
    """
    if hops > _JUMPS_MAX:
        raise MachineError(f"{to.place}: more than {_JUMPS_MAX} hosts on the way; see ProxyJump")
    began = time.monotonic()
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _connect_once(to, config, hops)
        except socket.gaierror as error:
            raise MachineError(
                f"{to.place}: no such host: {error.strerror}. Write HostName into ~/.ssh/config, "
                "or name the hosts with --hosts"
            ) from error
        except (paramiko.AuthenticationException, paramiko.PasswordRequiredException) as error:
            raise MachineError(_refused(to, error)) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            # "No authentication methods available" comes as a bare SSHException.
            if "authentication" in str(error).lower():
                raise MachineError(_refused(to, error)) from error
            waited = time.monotonic() - began
            if attempt == _ATTEMPTS or waited > _ATTEMPTS_FOR_S:
                raise MachineError(
                    f"{to.place}: cannot be reached by ssh ({attempt} attempts in {waited:.0f} s): "
                    f"{error or type(error).__name__}. Does `ssh {to.host}` work?"
                ) from error
            time.sleep(_PAUSE_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
    raise AssertionError("the last attempt returns or raises")


def _connect_once(to: Destination, config: paramiko.SSHConfig, hops: int) -> Connection:
    way: list[Connection | _Command] = []
    keys: Any = list(to.keys) or None  # the type stubs know of one only
    client = paramiko.SSHClient()
    _load_known_hosts(to, client.get_host_keys())
    client.set_missing_host_key_policy(_Refuse(to))
    try:
        client.connect(
            # Under this name, and without a port, paramiko looks the key up.
            hostname=to.known_as,
            username=to.user,
            key_filename=keys,
            allow_agent=not to.is_only_keys,
            look_for_keys=not to.keys and not to.is_only_keys,
            sock=_stream(to, config, hops, way),
            timeout=to.connect_timeout_s,
            banner_timeout=_BANNER_TIMEOUT_S,
            auth_timeout=_BANNER_TIMEOUT_S,
        )
        transport = client.get_transport()
        assert transport is not None, "just connected"
        transport.set_keepalive(_KEEPALIVE_S)
    except BaseException as error:
        Connection(to.place, client, tuple(way)).close()
        if isinstance(error, paramiko.BadHostKeyException):
            raise MachineError(_changed(to, error)) from error
        raise
    return Connection(to.place, client, tuple(way))


class _Command:
    """A command that is the way to a host, at one end of a pair of sockets.

    Not paramiko's own: that one leaves the process and its pipes behind.
    """

    def __init__(self, command: str) -> None:
        self.stream, far = socket.socketpair()
        with far:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                stdin=far.fileno(),
                stdout=far.fileno(),
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C is for us, and we still need the way
            )

    def close(self) -> None:
        """End it."""
        self.stream.close()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _stream(
    to: Destination,
    config: paramiko.SSHConfig,
    hops: int,
    way: "list[Connection | _Command]",
) -> Any:
    """Return the stream that ssh is to be spoken on; what it runs in is added to `way`."""
    if to.command is not None:
        command = _Command(to.command)
        way.append(command)
        return command.stream
    if not to.jumps:
        stream = socket.create_connection((to.hostname, to.port), to.connect_timeout_s)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        silence_ms = round(_SILENCE_MAX_S * 1000)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, silence_ms)
        return stream
    last = destination(to.jumps[-1], config)
    if to.jumps[:-1]:
        last = msgspec.structs.replace(last, jumps=to.jumps[:-1], command=None)
    gate = connect(last, config, hops=hops + 1)
    way.append(gate)
    return gate.tunnel(to.hostname, to.port, to.connect_timeout_s)


def _load_known_hosts(to: Destination, into: paramiko.HostKeys) -> None:
    for file in to.known_hosts:
        if Path(file).is_file():
            try:
                into.load(file)
            except (OSError, ValueError, paramiko.hostkeys.InvalidHostKey) as error:
                raise MachineError(f"{file}: cannot read the known hosts: {error}") from error


class _Refuse(paramiko.MissingHostKeyPolicy):
    """Refuses an unknown host, and says how to make it known."""

    def __init__(self, to: Destination) -> None:
        self._to = to

    def missing_host_key(
        self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey
    ) -> None:
        to = self._to
        file = to.known_hosts[0] if to.known_hosts else "~/.ssh/known_hosts"
        raise MachineError(
            f"{to.place}: its host key is not known: no {to.known_as!r} in {file}. It shows "
            f"{_fingerprint(key)}. If that is right (`ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub` "
            f"on the host tells): ssh {to.host} true, and answer yes"
        )


def _changed(to: Destination, error: paramiko.BadHostKeyException) -> str:
    return (
        f"{to.place}: its host key is not the one that is known: it shows "
        f"{_fingerprint(error.key)}, known is {_fingerprint(error.expected_key)}. If the host was "
        f"installed anew: ssh-keygen -R '{to.known_as}', then ssh {to.host} true; "
        "otherwise another machine answers in its place"
    )


def _fingerprint(key: paramiko.PKey) -> str:
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"{key.get_name()} SHA256:{digest}"


def _refused(to: Destination, error: Exception) -> str:
    tried = ", ".join(to.keys) or "the default files in ~/.ssh"
    agent = "" if to.is_only_keys else " and the agent's keys"
    return (
        f"{to.place}: the login was refused: {error}; tried {tried}{agent}. Passwords are never "
        f"asked for: ssh-copy-id {to.host}, or load the key with ssh-add, or name User and "
        "IdentityFile in ~/.ssh/config"
    )
