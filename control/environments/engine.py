"""The Docker engine: reaching it, and telling whose containers are whose.

Everything that labrys makes there carries labels: `labrys` on all of it, the run directory, and
the marks of its owner, the controller (see `owner`).
"""

import contextlib
import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path

import docker
import requests
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container
from docker.models.networks import Network

from labrys.control.environments import owner
from labrys.control.environments.base import on_nodes
from labrys.control.errors import MachineError

LABEL = "labrys"
RUN = "labrys.run"
NODE = "labrys.node"

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
    found = {LABEL: "1", RUN: str(run_dir), **owner.marks()}
    return found | ({NODE: node} if node else {})


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
            # 409: somebody else, perhaps `labrys heal`, is removing it at this moment. 500: both
            # got as far as its files, and the engine stumbles over what the other one deletes.
            if error.status_code not in (409, 500) or time.monotonic() > deadline:
                raise MachineError(f"{container.name}: cannot be removed: {error}") from error
            time.sleep(0.1)


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
