"""Remove what dead runs left behind.

A netns run leaves nothing: its world ends with its last process. A docker run that was killed
leaves containers and a network, which carry labels (see `engine`), and one that was killed while it
built the image leaves a work folder. Whatever belongs to a living controller stays, however odd it
looks.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

import docker
import msgspec
import requests
from docker.errors import DockerException
from docker.models.containers import Container
from docker.models.networks import Network

from labrys.control.environments import engine, image, owner
from labrys.control.environments.docker import collect
from labrys.control.errors import LabrysError, MachineError
from labrys.control.store import RunDirectory


class Healed(msgspec.Struct, frozen=True):
    """What was done, in words fit to print."""

    removed: tuple[str, ...] = ()
    """Names of the removed containers, networks and folders."""
    kept: tuple[str, ...] = ()
    """What may be left over but is not for us to judge, with the command that removes it."""
    failures: tuple[str, ...] = ()
    """What should have been removed, or saved, but was not, and why."""
    standing: tuple[str, ...] | None = ()
    """The runs whose nodes may still stand, faults and all; None: any docker run's may."""

    def may_stand(self, run: RunDirectory) -> bool:
        """Whether nodes of a run may be there still. Those in netns end with their run."""
        if self.standing is None:
            return not run.has_spec or run.spec().env == "docker"
        return str(run.path.resolve()) in self.standing


class _Leftover(msgspec.Struct):
    """Everything one controller made for one run."""

    labels: dict[str, str]
    containers: list[Container] = []
    networks: list[Network] = []

    @property
    def is_dead(self) -> bool | None:
        """Whether the run is over; None if nobody here can know.

        A controller that we cannot see, in another container or before a reboot, is over when all
        of its containers have stopped: a run's containers never stop while it lives. What only
        shares our label, but names no owner, is not ours at all.
        """
        if owner.OWNER not in self.labels:
            return None
        lives = owner.lives(self.labels)
        if lives is not None:
            return not lives
        stopped = [container.status in ("exited", "dead") for container in self.containers]
        return True if stopped and all(stopped) else None

    @property
    def names(self) -> list[str]:
        return engine.names(self.containers, self.networks)


def heal(say: Callable[[str], None], *, spare_finished: bool = False) -> Healed:
    """Remove the containers and networks of dead runs, after saving their logs; tell each by `say`.

    `spare_finished` leaves alone what belongs to a run that came to its end: such a cluster was
    left standing on purpose (`--leave-cluster`).
    Logs go into the run directory, if that still exists. One failure does not stop the others;
    none raises. Where there is no engine there are no containers to heal; one that is there but
    does not answer may hold some, which is told.
    """
    removed: list[str] = []
    kept: list[str] = []
    failures: list[str] = []
    standing: list[str] = []
    try:
        removed += image.remove_stale_work()
    except OSError as error:
        failures.append(f"work folder of a dead image build: {error}")
    try:
        client = engine.connect()
    except MachineError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            kept.append(f"containers of dead runs, if there are any: {error}")
            return Healed(tuple(removed), tuple(kept), tuple(failures), None)
        return Healed(tuple(removed), tuple(kept), tuple(failures))
    with contextlib.closing(client):
        try:
            leftovers = _leftovers(client)
        except (DockerException, requests.RequestException) as error:
            failures.append(f"docker: leftovers cannot be listed: {error}")
            return Healed(tuple(removed), tuple(kept), tuple(failures), None)
        for leftover in leftovers:
            dead = leftover.is_dead
            run = leftover.labels.get(engine.RUN, "")
            if spare_finished and RunDirectory(Path(run)).results.is_file():
                continue
            if dead:
                failures += _save_logs(leftover, Path(run))
                try:
                    engine.remove(leftover.containers, leftover.networks)
                except (LabrysError, DockerException, requests.RequestException) as error:
                    failures.append(f"{', '.join(leftover.names)}: not removed: {error}")
                    standing.append(run)
                else:
                    removed += leftover.names
                    say(f"heal: removed {', '.join(leftover.names)} of the dead run {run}")
            elif dead is None:
                kept.append(_by_hand(leftover, run))
                standing.append(run)
    return Healed(tuple(removed), tuple(kept), tuple(failures), tuple(standing))


def _leftovers(client: docker.DockerClient) -> list[_Leftover]:
    """Return all that carries our label, by run and owner."""
    found: dict[tuple[str, ...], _Leftover] = {}

    def of(labels: dict[str, str]) -> _Leftover:
        key = tuple(labels.get(name, "") for name in (engine.RUN, owner.OWNER, owner.PROCESS_TABLE))
        return found.setdefault(key, _Leftover(labels))

    containers, networks = engine.labelled(client, engine.LABEL)
    for container in containers:
        of(container.labels).containers.append(container)
    for network in networks:
        of(network.attrs.get("Labels") or {}).networks.append(network)
    return list(found.values())


def _save_logs(leftover: _Leftover, run_dir: Path) -> list[str]:
    """Copy the nodes' logs into their run directory; return what went wrong."""
    if not run_dir.is_absolute() or not run_dir.is_dir():
        return []
    failures = []
    for container in leftover.containers:
        try:
            collect(container, run_dir / "nodes" / container.labels.get(engine.NODE, "unknown"))
        except (LabrysError, OSError) as error:
            failures.append(str(error))
    return failures


def _by_hand(leftover: _Leftover, run: str) -> str:
    containers = " ".join(engine.names(leftover.containers, []))
    networks = " ".join(engine.names([], leftover.networks))
    commands = [f"docker rm -fv {containers}"] * bool(containers)
    commands += [f"docker network rm {networks}"] * bool(networks)
    return (
        f"{', '.join(leftover.names)}: made by a controller that cannot be seen from here, for "
        f"{run or 'no run that is named'}; if that is over: {' && '.join(commands)}"
    )
