"""What the mark `labrys` of a test asks for: a run of its own, or a cluster to hurt by hand."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from labrys.checkers.history import History
from labrys.checkers.verdict import Verdict
from labrys.control.environments import registry as environments
from labrys.control.faults_notation import parse_faults_notation
from labrys.control.names import known
from labrys.control.report import text
from labrys.control.running import without_impossible
from labrys.control.spec import Spec, resolve
from labrys.control.store import RunDirectory
from labrys.control.suite.attempt import Forked, wait_forked
from labrys.control.testing.cluster import Cluster

CLUSTER_FIELDS: Final = (
    "name", "env", "nodes", "hosts", "system", "system_options", "bug", "workload",
    "workload_options", "op_timeout", "seed", "check_timeout", "check_memory", "model",
)  # fmt: skip
"""What the mark of a test with a cluster may say: that test plays its faults itself."""
CLUSTER_NODES: Final = 3
_POLL_S: Final = 1.0


class Wishes(msgspec.Struct, frozen=True):
    """What the command line of the test runner says; it overrides the marks."""

    runs_dir: Path
    env: str | None = None
    seed: int | None = None


class Run(msgspec.Struct, frozen=True):
    """A run that has ended."""

    verdict: Verdict
    reason: str
    """In a line, unless it is valid."""
    told: str
    """The terminal report, or why there is none."""
    directory: RunDirectory | None
    seed: int | None

    @property
    def results(self) -> dict[str, Any]:
        """What stands in results.json."""
        assert self.directory is not None, self.told
        return self.directory.read_results() or {}

    @property
    def history(self) -> History:
        """All that clients and nemesis did."""
        assert self.directory is not None, self.told
        return self.directory.read_history()


def run_marked(test: str, given: Mapping[str, Any], wishes: Wishes) -> Run:
    """Run the test that a mark describes, in a process of its own, and return how it ended.

    Raises UsageError and MachineError for what cannot be run at all.
    """
    for field in given:
        known("option", field, Spec.__struct_fields__, where="labrys mark")
    fields = _fields(test, given, wishes)
    if isinstance(fields.get("faults"), str):
        fields["faults"] = parse_faults_notation(fields["faults"], "labrys mark: faults")
    spec = without_impossible(_in_an_environment(resolve(fields)), lambda line: None)
    attempt = Forked(spec, wishes.runs_dir, _keep_all)
    try:
        while not wait_forked([attempt], _POLL_S):
            pass
    except BaseException:
        attempt.interrupt()  # it undoes its faults and removes its nodes
        attempt.ended()
        raise
    ended = attempt.ended()
    if ended.path is None:
        return Run(ended.verdict, ended.why, ended.told, None, spec.seed)
    directory = RunDirectory(Path(ended.path))
    told = ended.told
    if directory.results.exists():
        directory.call_latest()
        told = text.run_page(directory.path).rstrip()
    return Run(ended.verdict, ended.why, told, directory, spec.seed)


def make_cluster(test: str, given: Mapping[str, Any], wishes: Wishes, command: str) -> Cluster:
    """Return the cluster that a mark describes; nothing is begun.

    `command` runs the test again, but for what was drawn. Raises UsageError and MachineError.
    """
    for field in given:
        known("option", field, CLUSTER_FIELDS, where="labrys mark of a test with a cluster")
    fields = {"nodes": CLUSTER_NODES, **_fields(test, given, wishes), "faults": ["partition"]}
    if "hosts" in given and "nodes" not in given:
        del fields["nodes"]
    model = fields.pop("model", None)
    spec = _in_an_environment(resolve(fields))
    again = f"{command} --labrys-env {spec.env} --labrys-seed {spec.seed}"
    return Cluster(spec, wishes.runs_dir, model=model, again=again)


def _fields(test: str, given: Mapping[str, Any], wishes: Wishes) -> dict[str, Any]:
    fields = {"name": test, "env": default_env(), **given}
    if wishes.env is not None:
        fields["env"] = wishes.env
    if wishes.seed is not None:
        fields["seed"] = wishes.seed
    return fields


@cache
def default_env() -> str:
    """Namespaces where they work: up in a moment, and gone with the test. Else the simulation."""
    return "netns" if environments.obstacle("netns") is None else "sim"


def _in_an_environment(spec: Spec) -> Spec:
    return msgspec.structs.replace(spec, env=environments.choose(spec.env, lambda line: None))


def _keep_all(verdict: Verdict) -> bool:
    return True
