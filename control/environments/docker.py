"""Nodes as containers, through the Docker SDK.

A container is a machine: it stays up with an init that reaps, and the database process inside is
what dies. Each run has a network of its own, which is internal (the host reaches the nodes, the
nodes reach nothing else), and pinned addresses in the order of the nodes. Containers get NET_ADMIN
for their own iptables and nothing more, unless a fault asks for it: `fuse` takes SYS_ADMIN.

Scripts run through one long-lived process per node, which reads them from the socket of a single
exec (see `shell`). An exec for each script would cost 56 ms, and five at once 190 ms.

What `provision` made is found again by its labels, not by what this object remembers. So `destroy`
also finds what a failed or interrupted `provision` left half made.
"""

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

import docker
import requests
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container
from docker.models.networks import Network
from docker.types import IPAMConfig, IPAMPool

from labrys.control.environments import engine
from labrys.control.environments.archives import pack, unpack_logs
from labrys.control.environments.base import Output, check, on_nodes, output
from labrys.control.environments.gate import Gate
from labrys.control.environments.image import ensure_image
from labrys.control.environments.shell import BOOT, Shell, program
from labrys.control.errors import ClusterError, InternalError, MachineError, UsageError

_HOME: Final = "/var/lib/labrys"
_LOGS: Final = "/var/log/labrys"
_SUBNETS: Final = tuple(f"10.214.{number}" for number in range(256))
_GATEWAY: Final = 254
_SEND_TIMEOUT_S: Final = 30.0
_TCP_SYSCTLS: Final = {"net.ipv4.tcp_rto_max_ms": "1000", "net.ipv4.tcp_retries2": "60"}
"""As in netns.NODE_SYSCTLS; together or not at all."""

_CGROUP: Final = "/sys/fs/cgroup"
_FROZEN_WITHIN_S: Final = 5.0
_PERIOD_US: Final = 20_000
"""A short one: who wants little on average wants more than its share now and then, and waits."""
_QUOTA_MIN_US: Final = 1_000
"""The kernel takes no less."""
_MEMORY_ALL: Final = 1 << 50
"""The engine does not take -1 back, once there was a limit."""


def probe() -> str | None:
    """Return None if a Docker engine answers, else why not and the mend."""
    try:
        engine.connect().close()
    except MachineError as error:
        return str(error)
    return None


class DockerEnvironment:
    """Nodes in containers on one internal network."""

    def __init__(self, nodes: tuple[str, ...], run_dir: Path, say: Callable[[str], None]) -> None:
        """`run_dir` is the run directory, which labels name; `say` gets progress lines."""
        if len(nodes) >= _GATEWAY:
            raise UsageError(f"docker: {len(nodes)} nodes asked for; {_GATEWAY - 1} fit")
        self._nodes = nodes
        self._run_dir = run_dir.resolve()
        self._say = say
        self._needs: frozenset[str] = frozenset()
        self._client: docker.DockerClient | None = None
        self._subnet: str | None = None
        self._containers: dict[str, Container] = {}
        self._shells: dict[str, Shell] = {}
        self._gate = Gate()

    @property
    def name(self) -> str:
        """The name of this environment."""
        return "docker"

    @property
    def nodes(self) -> tuple[str, ...]:
        """The node names."""
        return self._nodes

    def require(self, needs: frozenset[str]) -> None:
        """Give containers, as soon as there are any, what faults take beyond NET_ADMIN."""
        self._needs = needs

    def provision(self) -> None:
        """Make network and containers, and the image first if there is none.

        Raises MachineError if the engine cannot be reached or refuses.
        """
        image = ensure_image(self._say)
        started = time.monotonic()
        client = self._engine()
        prefix = f"labrys-{token_hex(4)}"
        try:
            # In a thread, which no Ctrl-C reaches: a request that is broken off is served all the
            # same, and the network would appear when `destroy` has already looked.
            network, self._subnet = on_nodes(
                (prefix,), lambda name: _make_network(client, name, engine.labels(self._run_dir))
            )[prefix]
            on_nodes(self._nodes, lambda node: self._start(node, image, prefix, network))
        except (DockerException, requests.RequestException) as error:
            raise MachineError(f"docker: the engine refused: {error}") from error
        on_nodes(self._nodes, self._prepare)
        self._say(f"docker: {len(self._nodes)} nodes up in {time.monotonic() - started:.1f} s")

    def address(self, node: str) -> str:
        """The IP address of `node`; known once the network is made."""
        if self._subnet is None:
            raise InternalError("docker: address asked for before provision")
        return f"{self._subnet}.{self._nodes.index(node) + 1}"

    def home(self, node: str) -> str:
        """The folder of `node`, on a volume: overlay file systems make fsync something else."""
        return _HOME

    def log_dir(self, node: str) -> str:
        """The log folder in the container."""
        return _LOGS

    def python(self, node: str) -> str:
        """The image's only Python."""
        return "python3"

    def run(self, node: str, script: str, *, timeout_s: float = 10.0) -> Output:
        """Run `script` with /bin/sh in the container of `node`. About 2 ms.

        A node's scripts run one after the other, whatever threads they come from.
        """
        shell = self._shells.get(node)
        if shell is None:
            raise ClusterError(f"{node}: no container; was it provisioned?")
        with self._gate.passed(node):
            return output(node, script, timeout_s, shell.run(script, timeout_s))

    def upload(self, node: str, files: Mapping[str, bytes]) -> None:
        """Put files, by path below `home(node)`, into the container."""
        try:
            with self._gate.passed(node):
                self._containers[node].put_archive(_HOME, pack(files))
        except (DockerException, requests.RequestException) as error:
            raise ClusterError(f"{node}: upload failed: {error}") from error

    def freeze(self, node: str) -> int:
        """Pause the container; return how many processes are in it then."""
        self._gate.close(node)
        try:
            with self._asked(node, "freezing it") as container:
                if not _is_paused(container):
                    _pause(container)
                if not _is_paused(container):
                    raise ClusterError(f"{node}: the engine says that its container goes on")
                return len(container.top()["Processes"])
        except ClusterError:
            self._gate.open(node)  # it goes on
            raise

    def thaw(self, node: str) -> bool:
        """Let the container go on; whether it was paused."""
        if node not in self._containers:
            return False
        with self._asked(node, "thawing it") as container:
            was_paused = _is_paused(container)
            if was_paused:
                container.unpause()
        self._gate.open(node)
        return was_paused

    def limit_cpu(self, node: str, share: float | None) -> int:
        """Give the container this share of one core; return in how many periods it had to wait."""
        period_us, quota_us = _quota(share)
        with self._asked(node, "limiting its CPU") as container:
            # Counted while it has all it wants: with little CPU the script would take its time.
            if share is None:
                container.update(cpu_period=period_us, cpu_quota=quota_us)
            waited = self._counter(node, "nr_throttled", "cpu/cpu.stat", "cpu.stat")
            if share is not None:
                container.update(cpu_period=period_us, cpu_quota=quota_us)
        return waited

    def limit_memory(self, node: str, room_bytes: int | None) -> int:
        """Limit the memory of the container; return how many of its processes were killed so far.

        Its swap as well: memory that is swapped out instead would kill nobody.
        """
        with self._asked(node, "limiting its memory") as container:
            if room_bytes is None:
                container.update(mem_limit=_MEMORY_ALL, memswap_limit=_MEMORY_ALL)
            killed = self._counter(node, "oom_kill", "memory/memory.oom_control", "memory.events")
            if room_bytes is not None:
                script = f"cd {_CGROUP}; cat memory/memory.usage_in_bytes || cat memory.current"
                used = self.run(node, f"({script}) 2>/dev/null")
                limit = int(check(node, "reading its memory", used)) + room_bytes
                container.update(mem_limit=limit, memswap_limit=limit)
        return killed

    def _counter(self, node: str, name: str, *files: str) -> int:
        """A line of the first of these files below the container's cgroup: version 1, version 2."""
        script = f"cd {_CGROUP} && sed -n 's/^{name} //p' {' '.join(files)} 2>/dev/null | tail -n 1"
        said = self.run(node, script).out.strip()
        return int(said) if said.isdecimal() else 0

    @contextmanager
    def _asked(self, node: str, what: str) -> Iterator[Container]:
        """The container of `node`; what the engine refuses meanwhile becomes a ClusterError."""
        container = self._containers.get(node)
        if container is None:
            raise ClusterError(f"{node}: no container; was it provisioned?")
        try:
            yield container
        except (DockerException, requests.RequestException) as error:
            raise ClusterError(f"{node}: {what} failed: {error}") from error

    def collect_logs(self, node: str, into: Path) -> None:
        """Copy the files of `log_dir(node)` to `into`; a container that is gone has none."""
        container = self._containers.get(node)
        if container is not None:
            collect(container, into)

    def destroy(self) -> None:
        """Remove containers, their volumes and the network of this run. Idempotent."""
        for shell in self._shells.values():
            shell.close()
        self._shells.clear()
        self._containers.clear()
        try:
            with closing(self._engine()) as client:
                engine.remove(*engine.labelled(client, f"{engine.RUN}={self._run_dir}"))
        except (MachineError, DockerException, requests.RequestException) as error:
            raise MachineError(f"docker: clean-up failed, try labrys heal: {error}") from error
        finally:
            self._client = None

    def _apparmor(self) -> bool:
        options = self._engine().info().get("SecurityOptions") or ()
        return any("apparmor" in option for option in options)

    def _engine(self) -> docker.DockerClient:
        if self._client is None:
            self._client = engine.connect()
        return self._client

    def _start(self, node: str, image: str, prefix: str, network: Network) -> None:
        api = self._engine().api
        may_mount = "fuse" in self._needs
        tunable = Path("/proc/sys/net/ipv4/tcp_rto_max_ms").exists()
        # Typed as one endpoint by mistake; the SDK wants them by network name.
        endpoints: Any = {
            network.name: api.create_endpoint_config(
                ipv4_address=self.address(node), aliases=[node]
            )
        }
        made = api.create_container(
            image,
            command=["sleep", "infinity"],
            name=f"{prefix}-{node}",
            hostname=node,
            labels=engine.labels(self._run_dir, node),
            volumes=[_HOME],
            host_config=api.create_host_config(
                init=True,
                cap_add=["NET_ADMIN", *(["SYS_ADMIN"] if may_mount else [])],
                devices=["/dev/fuse:/dev/fuse:rwm"] if may_mount else [],
                # Its profile for containers forbids to mount, whatever the capabilities.
                security_opt=["apparmor=unconfined"] if may_mount and self._apparmor() else [],
                tmpfs={"/run": "exec,mode=755"},
                network_mode=network.name,
                sysctls=_TCP_SYSCTLS if tunable else None,
            ),
            networking_config=api.create_networking_config(endpoints),
        )
        api.start(made["Id"])
        self._containers[node] = self._engine().containers.get(made["Id"])

    def _prepare(self, node: str) -> None:
        container = self._containers[node]
        self._shells[node] = Shell(node, lambda: _Exec(node, container))
        check(node, "making its folders", self.run(node, f"mkdir -p {_HOME} {_LOGS}"))


class _Exec:
    """The link to a process that the engine started in a container: a socket with framed output."""

    def __init__(self, node: str, container: Container) -> None:
        """Raises ClusterError if the engine does not start it."""
        assert container.client is not None, "made by a client"
        api = container.client.api
        try:
            made = api.exec_create(container.id, ["python3", "-c", BOOT], stdin=True)
            stream: Any = api.exec_start(made["Id"], socket=True)
        except (DockerException, requests.RequestException) as error:
            raise ClusterError(
                f"{node}: the engine starts nothing in its container: {error}"
            ) from error
        self._stream = stream  # the SDK's wrapping of the socket; both want to be closed
        self._socket: socket.socket = getattr(stream, "_sock", stream)
        self._received = bytearray()
        try:
            self.send(program())
        except OSError:
            self.close()
            raise

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self._socket.settimeout(_SEND_TIMEOUT_S)
        self._socket.sendall(data)

    def line(self, deadline: float) -> bytes:
        """Read one line of standard output; standard error ends up in the exception.

        The engine frames both on one connection: a byte for the stream (1 out, 2 err), three
        zeros, and the length as four bytes, big-endian.
        """
        out, err = bytearray(), bytearray()
        while not out.endswith(b"\n"):
            while len(self._received) < 8 or len(self._received) < 8 + self._frame_bytes():
                self._socket.settimeout(max(0.001, deadline - time.monotonic()))
                chunk = self._socket.recv(65536)
                if not chunk:
                    raise EOFError(err.decode(errors="replace").strip()[-500:] or "it has ended")
                self._received += chunk
            end = 8 + self._frame_bytes()
            (out if self._received[0] == 1 else err).extend(self._received[8:end])
            del self._received[:end]
        return bytes(out)

    def is_alive(self) -> bool:
        """As far as is known; only reading tells."""
        return True

    def close(self) -> None:
        """Close the socket, which ends the process."""
        for open_thing in (self._socket, self._stream):
            with suppress(OSError):
                open_thing.close()

    def _frame_bytes(self) -> int:
        length: int = struct.unpack_from(">I", self._received, 4)[0]
        return length


def _pause(container: Container) -> None:
    """Pause a container, with all the CPU it wants meanwhile.

    The kernel cannot freeze a process that waits for its share, and the engine soon gives up.
    """
    limits = container.attrs["HostConfig"]
    quota_us = limits.get("CpuQuota") or -1
    deadline = time.monotonic() + _FROZEN_WITHIN_S
    if quota_us > 0:
        container.update(cpu_quota=-1)
    try:
        while True:
            try:
                return container.pause()
            except APIError as error:
                if "freeze" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
    finally:
        if quota_us > 0:
            container.update(cpu_period=limits["CpuPeriod"], cpu_quota=quota_us)


def _quota(share: float | None) -> tuple[int, int]:
    """Return period and quota in microseconds for a share of a core; None: no limit."""
    if share is None:
        return _PERIOD_US, -1
    period_us = max(_PERIOD_US, round(_QUOTA_MIN_US / share))
    return period_us, round(share * period_us)


def _is_paused(container: Container) -> bool:
    container.reload()
    return bool(container.attrs["State"]["Paused"])


def collect(container: Container, into: Path) -> None:
    """Copy the log files of a container, running or not, to `into`; none is fine."""
    try:
        chunks, _ = container.get_archive(_LOGS)
        content = b"".join(chunks)
    except NotFound:
        return
    except (DockerException, requests.RequestException) as error:
        raise ClusterError(f"{container.name}: its logs cannot be copied: {error}") from error
    unpack_logs(str(container.name), content, into)


def _make_network(
    client: docker.DockerClient, name: str, labels: Mapping[str, str]
) -> tuple[Network, str]:
    """Make an internal network and return it with the first three numbers of its addresses.

    Two runs may look at the same moment, so nobody looks: the engine refuses what overlaps, and
    then the next one is tried.
    """
    first = os.getpid() % len(_SUBNETS)
    for subnet in (*_SUBNETS[first:], *_SUBNETS[:first]):
        pool = IPAMPool(subnet=f"{subnet}.0/24", gateway=f"{subnet}.{_GATEWAY}")
        try:
            network = client.networks.create(
                name,
                driver="bridge",
                internal=True,
                ipam=IPAMConfig(pool_configs=[pool]),
                labels=dict(labels),
            )
        except APIError as error:
            if "overlap" not in str(error):
                raise
        else:
            return network, subnet
    raise MachineError("docker: no subnet below 10.214.0.0/16 is free; try labrys heal")
