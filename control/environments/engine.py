"""The Docker engine: reaching it, and telling whose containers are whose.

Everything that labrys makes there carries labels: `labrys` on all of it, the run directory, and
the owner: the controller's process id with its start time, and the process table it is in. A
number alone would not do: after the controller's death another process may get it.
"""

import contextlib
import os
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import docker
import requests
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container
from docker.models.networks import Network

from labrys.control.environments.base import on_nodes
from labrys.control.errors import MachineError

LABEL = "labrys"
RUN = "labrys.run"
NODE = "labrys.node"
OWNER = "labrys.owner"
PROCESS_TABLE = "labrys.process-table"

_GONE_WITHIN_S = 20.0


def connect() -> docker.DockerClient:
    """Return a client of an engine that answered; raise MachineError with the mend if none does."""
    # First by hand: the SDK wraps what went wrong in so many layers that nobody can tell a missing
    # engine from a forbidden one, and it leaves its sockets open.
    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as knock:
            try:
                knock.connect(host.removeprefix("unix://"))
            except OSError as error:
                raise MachineError(f"no Docker engine at {host}: {_mend(error)}") from error
    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except (DockerException, requests.RequestException) as error:
        raise MachineError(
            f"no Docker engine at {host}: {error}. Is DOCKER_HOST right? Or choose --env netns"
        ) from error
    return client


def labels(run_dir: Path, node: str | None = None) -> dict[str, str]:
    """Return the labels for what this process makes for a run (and a node of it)."""
    found = {
        LABEL: "1",
        RUN: str(run_dir),
        OWNER: f"{os.getpid()}:{_start_ticks(os.getpid())}",
        PROCESS_TABLE: _process_table(),
    }
    return found | ({NODE: node} if node else {})


def owner_lives(found: Mapping[str, str]) -> bool | None:
    """Whether the controller named in labels is alive; None if it is not for us to see.

    It is not when it ran in another container, on another machine, or before a reboot, nor when
    /proc hides the process from us.
    """
    if found.get(PROCESS_TABLE) != _process_table():
        return None
    pid, _, started = found.get(OWNER, "").partition(":")
    if not pid.isdecimal() or not started:
        return False
    ticks = _start_ticks(int(pid))
    if ticks is None and _is_hidden(int(pid)):
        return None
    return ticks == started


def labelled(client: docker.DockerClient, label: str) -> tuple[list[Container], list[Network]]:
    """Return all containers and networks with a label (`name` or `name=value`)."""
    return (
        client.containers.list(all=True, filters={"label": label}, ignore_removed=True),
        client.networks.list(filters={"label": label}),
    )


def names(containers: Iterable[Container], networks: Iterable[Network]) -> list[str]:
    """Return the names of containers and networks, for people."""
    return [str(c.name) for c in containers] + [str(network.name) for network in networks]


def remove(containers: Iterable[Container], networks: Iterable[Network]) -> None:
    """Remove containers, in parallel, and then networks; what is gone already is fine."""
    by_id = {container.id or "": container for container in containers}
    on_nodes(by_id, lambda key: _remove_container(by_id[key]))
    for network in networks:
        with contextlib.suppress(NotFound):
            network.remove()


def _remove_container(container: Container) -> None:
    """Remove a container with its volumes and wait until the engine no longer knows it."""
    deadline = time.monotonic() + _GONE_WITHIN_S
    while True:
        try:
            container.remove(force=True, v=True)
        except NotFound:
            return
        except APIError as error:
            # 409: somebody else, perhaps `labrys heal`, is removing it at this moment.
            if error.status_code != 409 or time.monotonic() > deadline:
                raise MachineError(f"{container.name}: cannot be removed: {error}") from error
            time.sleep(0.1)


def _start_ticks(pid: int) -> str | None:
    """Return when a process began, in clock ticks since boot; None if it is none or a zombie.

    A killed controller stays a zombie until its parent takes note, which may be never.
    """
    try:
        # proc(5): field 2 is the name and may itself hold spaces and brackets; the state is
        # field 3, the start time field 22.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[19] if fields[0] not in ("Z", "X") else None


def _is_hidden(pid: int) -> bool:
    """Whether there is such a process, of another user's (proc(5), hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        pass
    return False


def _process_table() -> str:
    """Name the process table in which our process ids mean something: the boot and namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.readlink('/proc/self/ns/pid')}"


def _mend(error: OSError) -> str:
    """Say what stands between us and the engine's socket, and what to do."""
    if isinstance(error, PermissionError):
        return (
            "no permission. Join the group docker (sudo usermod -aG docker $USER, then log in "
            "again), or use sudo, or choose --env netns"
        )
    if isinstance(error, FileNotFoundError):
        return (
            "no such socket. Install and start Docker (apt-get install docker.io), or set "
            "DOCKER_HOST, or choose --env netns"
        )
    if isinstance(error, ConnectionRefusedError):
        return "it is not running. Start it (systemctl start docker), or choose --env netns"
    return f"{error.strerror or error}; or choose --env netns"
