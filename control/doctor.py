"""`labrys doctor`: what this machine can do, found out by trying, and the mend where it cannot."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from labrys.control.environments import registry as environments
from labrys.control.errors import MachineError, UsageError
from labrys.control.names import known
from labrys.control.nemesis import shim

_REAL_ENVIRONMENTS = ("netns", "docker")
"""Those that need nothing but this machine."""
_SSH = "ssh"
_SIMULATION = "sim"
"""Looked at only when it is asked for: it works wherever labrys does."""
_LEAST_FREE_MIB = 500


class Fact(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    name: str
    ok: bool
    found: str
    """What is the case; where `ok` is false, with the mend."""


def examine(what: str | None, runs_dir: Path, *, quiet: bool, as_json: bool) -> int:
    """Print the facts and return 0 if a test can run here (in environment `what`), else 4."""
    places = [_ssh()] if what == _SSH else [_environment(name) for name in asked_for(what)]
    facts = places if what else [_python(), *places, _runs_dir(runs_dir), _cores()]
    # These are told, but decide nothing: a test without clock faults needs no compiler, and whether
    # the hosts of ssh answer is not for this machine to say.
    more = [] if quiet or what else [_clocks(), _ssh()]
    if not quiet:
        for fact in (*facts, *more):
            if as_json:
                click.echo(msgspec.json.encode(fact))
            else:
                click.echo(f"{'ok ' if fact.ok else 'NO '} {fact.name:<10} {fact.found}")
    others = (fact for fact in facts if fact not in places)
    usable = any(place.ok for place in places) and all(fact.ok for fact in others)
    if not quiet and not as_json and what is None:
        best = next((place.name for place in places if place.ok and usable), None)
        click.echo(
            f"a test can run here: labrys test --env {best}"
            if best
            else "no test can run here"
            + (", but on other hosts with --env ssh" if more[-1].ok else "")
        )
    return 0 if usable else 4


def asked_for(what: str | None, hosts: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the environments to look at: `what`, or all; ssh is among them if there are `hosts`.

    Raises UsageError for one that there is not.
    """
    if what is None:
        return (*_REAL_ENVIRONMENTS, *([_SSH] if hosts else []))
    known("environment", what, (*_REAL_ENVIRONMENTS, _SSH, _SIMULATION))
    if what == _SSH and not hosts:
        raise UsageError("--faults: ssh needs hosts to try them on: add --hosts A,B,C")
    return (what,)


def _environment(name: str) -> Fact:
    reason = environments.obstacle(name)
    detail = {
        "netns": "network namespaces with real iptables"
        + (" (as root)" if os.geteuid() == 0 else " (rootless)"),
        "docker": "the engine answers",
        _SIMULATION: "one process, virtual time",
    }[name]
    return Fact(name=name, ok=reason is None, found=reason or detail)


def _ssh() -> Fact:
    from labrys.control.environments import ssh

    ok, found = ssh.describe()
    return Fact(name=_SSH, ok=ok, found=found)


def _python() -> Fact:
    return Fact(name="python", ok=True, found=f"{platform.python_version()} at {sys.executable}")


def _clocks() -> Fact:
    try:
        shim.build()
    except MachineError as error:
        return Fact(name="clocks", ok=False, found=f"no clock faults: {error}")
    return Fact(name="clocks", ok=True, found=f"{shim.compiler()} compiles what clock faults need")


def _cores() -> Fact:
    cores = len(os.sched_getaffinity(0))
    return Fact(name="cores", ok=True, found=f"{cores}, load {os.getloadavg()[0]:.1f}")


def _runs_dir(runs_dir: Path) -> Fact:
    place = runs_dir.absolute()
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        return Fact(
            name="runs",
            ok=False,
            found=f"{runs_dir}: cannot write here: {error.strerror}; name another --runs-dir",
        )
    free_mib = shutil.disk_usage(place).free // 2**20
    if free_mib < _LEAST_FREE_MIB:
        return Fact(name="runs", ok=False, found=f"{runs_dir}: only {free_mib} MiB free; make room")
    return Fact(name="runs", ok=True, found=f"{runs_dir}: {free_mib} MiB free")
