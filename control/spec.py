"""The test spec: everything that makes one test, resolved and checked before anything is touched.

A spec comes from a YAML file, from flags, or from both: flags override the file. What is left
out has a default, and `resolve` draws a seed if none is given, so a resolved spec written to
`test.yaml` is the whole test: running that file again runs the same test.
"""

import random
import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from labrys.control.errors import UsageError
from labrys.control.faults_notation import faults_notation, in_one_line
from labrys.control.names import known
from labrys.control.nemesis.fault_plan import PlannedFault, check_plan
from labrys.control.nemesis.nemesis import PACKAGES, Faults, parse_faults
from labrys.control.nemesis.schedule import Timetable
from labrys.control.systems.registry import SYSTEMS
from labrys.control.yaml_file import YamlFile
from labrys.workloads.operation_plan import PlannedOperation, check_operations
from labrys.workloads.registry import WORKLOADS
from labrys.workloads.workload import parse_options

ENVIRONMENTS = ("auto", "docker", "netns", "ssh", "sim")

OPERATIONS_TOLD_MAX = 30
"""A list of more operations does not go into a command line."""

_COUNTS = {"nodes": (1, 253), "concurrency": (1, 10_000), "check_memory": (64, 2**30)}
"""The least and the most. As many nodes as have an address in the network of one run."""

_NUMBER_MAX = 1e9
"""Of seconds and operations per second, and its inverse the least: what nanoseconds can hold."""

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._,+-]{0,79}")
"""Of a test, since it names a folder."""


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One test. Times are in seconds."""

    name: str | None = None
    """Names the folder of the runs; by default made of workload, bug and faults."""
    env: str = "auto"
    """Where the nodes live; `auto`: docker where an engine answers, else netns."""
    nodes: int = 5
    """How many; an odd number."""
    hosts: list[str] = []
    """Of `ssh`, in the order of the nodes; by default they are called n1, n2, ..."""
    system: str = "raftkv"
    """What is tested."""
    system_options: dict[str, Any] = {}
    """How the system is to run, e.g. `snapshot-entries: 100`."""
    bug: str | None = None
    """A deliberate fault of the system, to see that it is found."""
    workload: str = "register"
    """What the clients do."""
    workload_options: dict[str, Any] = {}
    """How they do it, e.g. `values: small`."""
    faults: list[str] | dict[str, dict[str, Any]] = []
    """Fault kinds, `all` alone, or a mapping from kind to its options."""
    fault_interval: float = 5.0
    """How long a fault holds, and how long the quiet after it, on average."""
    fault_quiet: float | None = None
    """How long the quiet is, if not as long as the fault; 0: one kind strikes as others heal."""
    faults_at_once: int | None = None
    """How many kinds strike in a round; None: all of up to four, and of more so many that each has
    its turn within the time limit."""
    fault_plan: list[PlannedFault] = []
    """Faults at fixed times, instead of `faults`."""
    operations: list[PlannedOperation] | None = None
    """What clients do and when, instead of what the workload draws at its rate; empty: nothing."""
    time_limit: float = 60.0
    """Length of the main phase; set-up and the final phase come on top."""
    rate: float = 200.0
    """Operations asked for per second, over all workers together."""
    concurrency: int = 10
    """Worker threads, spread over the nodes."""
    op_timeout: float = 2.0
    """Deadline of one operation."""
    seed: int | None = None
    """All random choices come from it; drawn if there is none."""
    check_timeout: float = 300.0
    """Seconds that the check of a history may take."""
    check_memory: int = 4096
    """MiB that a check may use."""

    @property
    def fault_kinds(self) -> tuple[str, ...]:
        """The fault kinds that this test plays."""
        return tuple(self.faults) or tuple(dict.fromkeys(fault.kind for fault in self.fault_plan))

    @property
    def fault_options(self) -> Faults:
        """The kinds with their options; those of a fixed plan have their own in it."""
        return self.faults or self.fault_kinds

    @property
    def timetable(self) -> Timetable:
        """The rhythm of the faults."""
        return Timetable(
            interval_s=self.fault_interval,
            quiet_s=self.fault_quiet,
            at_once=self.faults_at_once,
            time_limit_s=self.time_limit,
        )

    @property
    def node_names(self) -> tuple[str, ...]:
        """n1, n2, ..."""
        return node_names(self.nodes)


def node_names(count: int) -> tuple[str, ...]:
    """n1, n2, ..."""
    return tuple(f"n{number}" for number in range(1, count + 1))


def stream(seed: int, component: str) -> random.Random:
    """Return the random stream of one component, derived from the root seed by name.

    A component added tomorrow gets its own stream and changes nobody else's.
    """
    return random.Random(f"{seed}/{component}")


def read_spec(path: Path) -> dict[str, Any]:
    """Return the fields that a spec file sets. Raises UsageError naming file and line."""
    file = YamlFile(path, "spec")
    fields = file.content
    if not isinstance(fields, dict):
        raise UsageError(
            f"{path}: a spec is a mapping such as 'workload: register', not {fields!r}"
        )
    for key in fields:
        known("key", str(key), Spec.__struct_fields__, where=file.where(str(key)))
    for key, value in fields.items():
        try:
            msgspec.convert({key: value}, Spec)
        except msgspec.ValidationError as error:
            raise UsageError(f"{file.where(key)}: {key}: {error}") from error
    return fields


def resolve(fields: Mapping[str, Any]) -> Spec:
    """Return the checked spec with its defaults and a seed. Raises UsageError for what is wrong."""
    try:
        spec = msgspec.convert(dict(fields), Spec)
    except msgspec.ValidationError as error:
        raise UsageError(f"bad spec: {error}") from error
    known("environment", spec.env, ENVIRONMENTS, where="--env")
    spec = _with_hosts(spec, fields)
    known("system", spec.system, SYSTEMS, where="--system")
    known("workload", spec.workload, WORKLOADS, where="--workload")
    if spec.faults and spec.fault_plan:
        raise UsageError("--faults and --fault-plan: give one of them, a plan names its faults")
    if spec.faults == ["all"]:
        # In their own order, whatever the machine can do: which of them it cannot is told, and
        # left out, when the environment is known.
        spec = msgspec.structs.replace(spec, faults=list(PACKAGES))
    for place, kind in enumerate(spec.fault_kinds):
        known("fault", kind, PACKAGES, where="--fault-plan" if spec.fault_plan else "--faults")
        if kind in spec.fault_kinds[:place]:
            raise UsageError(f"--faults: {kind!r} is there twice; name each kind once")
    system = SYSTEMS[spec.system]
    system.parse_options(spec.system_options)
    if spec.bug is not None:
        known("bug", spec.bug, system.bugs(), where="--bug")
    _positive(spec)
    if spec.nodes % 2 == 0:
        raise UsageError(
            f"--nodes {spec.nodes}: a {spec.system} cluster needs an odd number of nodes: "
            f"{spec.nodes} survive no more failures than {spec.nodes - 1}; "
            f"use {spec.nodes - 1} or {spec.nodes + 1}"
        )
    for kind in spec.fault_kinds:
        least = PACKAGES[kind].nodes_min | 1  # there are none of an even number
        if spec.nodes < least:
            raise UsageError(
                f"--nodes {spec.nodes}: {kind} needs at least {least} nodes; "
                f"use --nodes {least} or leave out --faults {kind}"
            )
    # Options are checked here and now, before anything is spent on a run that cannot work.
    spec.timetable.check(parse_faults(spec.fault_options, spec.node_names))
    for fault in spec.fault_plan:
        parse_faults({fault.kind: fault.options}, spec.node_names)
    check_plan(spec.fault_plan, spec.time_limit)
    workload = WORKLOADS[spec.workload]
    try:
        parse_options(workload, spec.workload_options, concurrency=spec.concurrency)
    except ValueError as error:
        raise UsageError(f"--option: {error}") from error
    try:
        check_operations(
            spec.operations or (),
            workload,
            concurrency=spec.concurrency,
            time_limit_s=spec.time_limit,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    name = spec.name or default_name(spec)
    if not NAME.fullmatch(name):
        raise UsageError(
            f"name {name!r}: use up to 80 letters, digits and . _ , + -, "
            "since it names the folder of the runs"
        )
    seed = spec.seed if spec.seed is not None else secrets.randbelow(10**6)
    return msgspec.structs.replace(spec, name=name, seed=seed)


def _with_hosts(spec: Spec, fields: Mapping[str, Any]) -> Spec:
    """Return the spec with as many nodes as it names hosts. Raises UsageError."""
    if not spec.hosts:
        return spec
    if spec.env != "ssh":
        raise UsageError(f"--hosts: only with --env ssh; the nodes of {spec.env} need no hosts")
    check_hosts(spec.hosts)
    count = len(spec.hosts)
    if "nodes" in fields and spec.nodes != count:
        raise UsageError(
            f"--hosts: {count} hosts for {spec.nodes} nodes; name one for each node, or say "
            f"--nodes {count}"
        )
    return msgspec.structs.replace(spec, nodes=count)


def check_hosts(hosts: Sequence[str]) -> None:
    """Raise UsageError for what cannot be the name of a host, and for one that is there twice."""
    for place, host in enumerate(hosts):
        if not _HOST.fullmatch(host):
            raise UsageError(
                f"--hosts: {host!r} is no host name; write NAME,NAME,... (user, port and keys "
                "belong into ~/.ssh/config)"
            )
        if host in hosts[:place]:
            raise UsageError(f"--hosts: {host!r} is there twice; each node needs its own")


def default_name(spec: Spec) -> str:
    """Name a test by what it does: workload, bug, faults."""
    kinds = ["all"] if {*spec.fault_kinds} == {*PACKAGES} else spec.fault_kinds
    parts = [spec.workload, *([spec.bug] if spec.bug else []), *kinds]
    return "-".join(parts)


def to_yaml(spec: Spec) -> str:
    """Return the spec as the text of `test.yaml`."""
    fields = msgspec.to_builtins(spec)
    del fields["fault_plan"], fields["operations"]
    return yaml.safe_dump(fields, sort_keys=False) + lists_in_yaml(spec)


def lists_in_yaml(spec: Spec) -> str:
    """Return the lists of faults and operations as they stand in `test.yaml`, an entry a line."""
    text = ""
    for name, entries in (("fault_plan", spec.fault_plan or None), ("operations", spec.operations)):
        if entries is not None:
            lines = [f"- {in_one_line(_without_defaults(entry))}" for entry in entries]
            text += "\n".join([f"{name}:", *lines, ""]) if lines else f"{name}: []\n"
    return text


def rerun_command(spec: Spec, saved_as: str = "test.yaml") -> str:
    """Return the shell command that runs this very test again.

    A long list of operations is no word for a command line: then it is that of the spec's file.
    """
    if len(spec.operations or ()) > OPERATIONS_TOLD_MAX:
        return shlex.join(["labrys", "test", saved_as])
    default = Spec()
    words = ["labrys", "test"]
    for field, flag in FLAGS.items():
        value = getattr(spec, field)
        if value == getattr(default, field) or (field == "name" and value == default_name(spec)):
            continue
        if field == "faults":
            value = faults_notation(value)
        elif field in ("fault_plan", "operations"):
            value = in_one_line([_without_defaults(entry) for entry in value])
        elif field in ("workload_options", "system_options"):
            words += [
                word
                for key, option in value.items()
                for word in (flag, f"{key}={yaml.safe_dump(option).splitlines()[0]}")
            ]
            continue
        elif field == "hosts":
            value = ",".join(value)
        elif isinstance(value, float):
            value = int(value) if value.is_integer() else value  # `str` keeps every digit
        words += [flag, str(value)]
    return shlex.join(words)


def _without_defaults(entry: PlannedFault | PlannedOperation) -> dict[str, Any]:
    given: dict[str, Any] = msgspec.to_builtins(entry)
    return {name: value for name, value in given.items() if value not in ({}, None)}


FLAGS = {
    "name": "--name",
    "env": "--env",
    "nodes": "--nodes",
    "hosts": "--hosts",
    "system": "--system",
    "system_options": "--system-option",
    "bug": "--bug",
    "workload": "--workload",
    "workload_options": "--option",
    "faults": "--faults",
    "fault_interval": "--fault-interval",
    "fault_quiet": "--fault-quiet",
    "faults_at_once": "--faults-at-once",
    "fault_plan": "--fault-plan",
    "operations": "--operations",
    "time_limit": "--time-limit",
    "rate": "--rate",
    "concurrency": "--concurrency",
    "op_timeout": "--op-timeout",
    "seed": "--seed",
    "check_timeout": "--check-timeout",
    "check_memory": "--check-memory",
}
"""The flag of `labrys test` for each field."""


def _positive(spec: Spec) -> None:
    for field, (least, most) in _COUNTS.items():
        count = getattr(spec, field)
        if not least <= count <= most:
            bound = f"at least {least}" if count < least else f"at most {most}"
            raise UsageError(f"{FLAGS[field]} {count}: must be {bound}")
    for field in ("fault_interval", "time_limit", "rate", "op_timeout", "check_timeout"):
        value = getattr(spec, field)
        # Asked this way round, NaN is refused too.
        if not 1 / _NUMBER_MAX <= value <= _NUMBER_MAX:
            bound = f"a number above 0, at most {_NUMBER_MAX:g}"
            raise UsageError(f"{FLAGS[field]} {value:g}: must be {bound}")
    if spec.seed is not None and spec.seed < 0:
        raise UsageError(f"--seed {spec.seed}: must not be negative")
