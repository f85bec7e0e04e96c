"""`labrys doctor --faults`: which faults each environment can do here, found out by preparing them.

Every fault is set up and torn down on three nodes, or on given hosts, that no database runs on.
Namespaces need a process of their own, which moves into them and leaves its findings in a file.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import click
import msgspec

from labrys.control.doctor import asked_for
from labrys.control.environments import namespaces
from labrys.control.environments import registry as environments
from labrys.control.environments.base import Environment
from labrys.control.errors import LabrysError
from labrys.control.nemesis.nemesis import PACKAGES, needs_of, obstacle, possible
from labrys.control.nemesis.package import FaultPackage
from labrys.control.spec import node_names
from labrys.control.systems.raftkv import RaftKv

NODES: Final = ("n1", "n2", "n3")
_TRY_TIMEOUT_S: Final = 60.0
_Obstacles = dict[str, str | None]
"""By fault: why it cannot be done; None: it can."""


class Row(msgspec.Struct, frozen=True):
    """What there is to know about one fault."""

    fault: str
    mechanism: str
    evidence: str
    undo: str
    environments: dict[str, str | None]
    """By environment: why it cannot be done there; None: it can."""


def table(names: Sequence[str], hosts: Sequence[str] = ()) -> list[Row]:
    """Try every fault in the environments `names`; takes a second or two for each.

    In ssh on the `hosts`, which are cleaned like those of a test.
    """
    found = {name: _try(name, hosts) for name in names}
    packages: Mapping[str, type[FaultPackage]] = PACKAGES
    if names == ("sim",):
        from labrys.control.sim.faults import SIM_PACKAGES

        packages = {**PACKAGES, **SIM_PACKAGES}
    return [
        Row(
            fault=kind,
            mechanism=package.mechanism,
            evidence=package.evidence,
            undo=package.cure_word,
            environments={name: found[name][kind] for name in names},
        )
        for kind, package in packages.items()
    ]


def print_table(what: str | None, hosts: Sequence[str] = (), *, as_json: bool) -> int:
    """Print a line for each fault, and below them why some cannot be done.

    Of the environment `what` alone, if it is named. Returns 4 if this machine lacks something; what
    an environment was not made for is no such lack. Raises UsageError if there is no such one.
    """
    names = asked_for(what, hosts)
    rows = table(names, hosts)
    if as_json:
        for row in rows:
            click.echo(msgspec.json.encode(row))
    else:
        cells = [("fault", *names, "mechanism", "seen to bite by", "undone by")]
        for row in rows:
            can = ("yes" if row.environments[name] is None else "NO" for name in names)
            cells.append((row.fault, *can, row.mechanism, row.evidence, row.undo))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for line in cells:
            padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
            click.echo("  ".join(padded).rstrip())
        for name in names:
            for reason in dict.fromkeys(row.environments[name] for row in rows):
                if reason is not None:
                    kinds = [row.fault for row in rows if row.environments[name] == reason]
                    click.echo(f"{name}: {', '.join(kinds)}: {reason}")
    lacks = any(
        reason is not None and (name == "sim" or PACKAGES[row.fault].is_offered(name))
        for row in rows
        for name, reason in row.environments.items()
    )
    return 4 if lacks else 0


def _try(name: str, hosts: Sequence[str]) -> _Obstacles:
    """Return what stands in the way of each fault in the environment `name`."""
    if name == "sim":  # nothing to try: it is labrys' own
        return {kind: obstacle(kind, name) for kind in PACKAGES}
    reason = environments.obstacle(name)
    if reason is not None:
        return dict.fromkeys(PACKAGES, reason)
    nodes = node_names(len(hosts)) if name == "ssh" else NODES
    with tempfile.TemporaryDirectory(prefix="labrys-doctor-") as folder:
        findings = Path(folder, "findings.json")

        def attempt() -> None:
            env = environments.make(name, nodes, Path(folder), lambda line: None, hosts)
            findings.write_bytes(msgspec.json.encode(_obstacles(env)))

        if name == "netns":
            reason = namespaces.attempt(attempt, timeout_s=_TRY_TIMEOUT_S)
        else:
            try:
                attempt()
            except LabrysError as error:
                reason = str(error)
        if reason is not None:
            return dict.fromkeys(PACKAGES, reason)
        return msgspec.json.decode(findings.read_bytes(), type=_Obstacles)


def _obstacles(env: Environment) -> Mapping[str, str | None]:
    """Provision `env`, prepare every fault in it, and remove it again."""
    can, reasons = possible(PACKAGES, env.name)
    found: _Obstacles = {kind: reasons.get(kind) for kind in PACKAGES}
    try:
        if env.name != "ssh":  # a host that lacks something would refuse all, not these kinds alone
            env.require(needs_of(can))
        env.provision()
        system = RaftKv(env, seed=0)
        for kind in can:
            package_type = PACKAGES[kind]
            package = package_type(env, system, package_type.options_type())
            try:
                package.set_up()
                package.tear_down()
            except LabrysError as error:
                found[kind] = str(error)
    finally:
        env.destroy()
    return found
