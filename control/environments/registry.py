"""The environments that a spec can name, and which one `auto` takes here."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from labrys.control.environments.base import Environment
from labrys.control.errors import InternalError, MachineError

if TYPE_CHECKING:
    from labrys.control.environments.docker import DockerEnvironment
    from labrys.control.environments.netns import NetnsEnvironment


def make(
    name: str,
    nodes: tuple[str, ...],
    run_dir: Path,
    say: Callable[[str], None],
    hosts: Sequence[str] = (),
) -> Environment:
    """Return the environment `name`; nothing is provisioned yet. `hosts` are for ssh."""
    if name == "ssh":
        from labrys.control.environments.ssh import SshEnvironment

        return SshEnvironment(nodes, run_dir, say, hosts)
    return _local_class(name)(nodes, run_dir, say)


def offers(name: str, capability: type) -> bool:
    """Whether the environment `name` has a capability: `Freezable`, `CpuLimited`, ..."""
    if name == "ssh":
        from labrys.control.environments.ssh import SshEnvironment

        return issubclass(SshEnvironment, capability)
    return issubclass(_local_class(name), capability)


def obstacle(name: str) -> str | None:
    """Return why this machine cannot offer the environment `name` and the mend; None if it can."""
    if name == "sim":
        return None
    if name == "docker":
        from labrys.control.environments import docker

        return docker.probe()
    if name == "netns":
        from labrys.control.environments import netns

        return netns.probe()
    if name == "ssh":
        from labrys.control.environments import ssh

        return ssh.probe()
    raise InternalError(f"no environment {name!r}")


def choose(wanted: str, say: Callable[[str], None]) -> str:
    """Return the environment to use for `wanted`, with `auto` resolved on this machine.

    `auto` takes docker where an engine answers and the image exists or can be made, else netns.
    Raises MachineError with the reason and the mend when it cannot be had.
    """
    if wanted != "auto":
        reason = obstacle(wanted)
        if reason is not None:
            raise MachineError(f"--env {wanted}: {reason}")
        return wanted
    no_docker = obstacle("docker")
    if no_docker is None:
        from labrys.control.environments.image import ensure_image

        try:
            ensure_image(say)
        except MachineError as error:
            no_docker = str(error)
        else:
            return "docker"
    no_netns = obstacle("netns")
    if no_netns is None:
        say(f"environment: netns ({no_docker})")
        return "netns"
    raise MachineError(f"no environment works here: docker: {no_docker}; netns: {no_netns}")


def heal_leftovers(name: str, say: Callable[[str], None]) -> None:
    """Remove what dead runs left behind in the environment `name`; tells what it cannot remove.

    Clusters that were left standing on purpose stay. ssh cleans the hosts when it takes them.
    """
    if name == "docker":
        from labrys.control.heal import heal

        for failure in heal(say, spare_finished=True).failures:
            say(f"heal: {failure}")


def _local_class(name: str) -> "type[DockerEnvironment] | type[NetnsEnvironment]":
    if name == "docker":
        from labrys.control.environments.docker import DockerEnvironment

        return DockerEnvironment
    if name == "netns":
        from labrys.control.environments.netns import NetnsEnvironment

        return NetnsEnvironment
    raise InternalError(f"no environment {name!r}")
