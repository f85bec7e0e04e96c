"""The spec: what is accepted, what is refused and with which words."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from labrys.control.errors import UsageError
from labrys.control.nemesis.nemesis import PACKAGES
from labrys.control.planning import read_operations
from labrys.control.spec import Spec, read_spec, rerun_command, resolve, stream, to_yaml


def refused(fields: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as caught:
        resolve(fields)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_defaults_make_a_whole_test() -> None:
    spec = resolve({})
    assert spec.workload == "register"
    assert spec.nodes == 5
    assert spec.name == "register"
    assert spec.seed is not None


def test_resolved_spec_survives_its_yaml_file(tmp_path: Path) -> None:
    spec = resolve({"faults": ["partition", "kill"], "time_limit": 30, "seed": 8817})
    path = tmp_path / "test.yaml"
    path.write_text(to_yaml(spec))
    assert resolve(read_spec(path)) == spec


def test_same_seed_and_component_give_the_same_stream_and_others_do_not() -> None:
    assert stream(7, "nemesis").random() == stream(7, "nemesis").random()
    assert stream(7, "nemesis").random() != stream(7, "interpreter").random()
    assert stream(7, "nemesis").random() != stream(8, "nemesis").random()


def test_rerun_command_names_what_differs_from_the_defaults() -> None:
    spec = resolve({"faults": ["kill"], "seed": 7, "bug": "lose-tail", "time_limit": 12.5})
    assert rerun_command(spec) == (
        "labrys test --bug lose-tail --faults kill --time-limit 12.5 --seed 7"
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"time_limit": 100.12345},
        {"rate": 1234567.5, "op_timeout": 0.1 + 0.2},
        {"rate": 1e7, "fault_interval": 1e-3},
    ],
)
def test_rerun_command_keeps_numbers_exactly(fields: dict[str, float]) -> None:
    words = shlex.split(rerun_command(resolve({**fields, "seed": 1})))
    for name, value in fields.items():
        assert float(words[words.index(f"--{name.replace('_', '-')}") + 1]) == value


def test_rerun_command_carries_options_through_the_shell() -> None:
    spec = resolve({"workload_options": {"values": "small"}, "seed": 1})
    assert "--option values=small" in rerun_command(spec)


@pytest.mark.parametrize(
    ("faults", "flag"),
    [
        ({"partition": {"shapes": ["halves", "bridge"]}}, "--faults partition:halves+bridge"),
        ({"kill": {"targets": ["all"]}, "pause": {}}, "--faults kill:all,pause"),
        ({"kill": {"targets": [["n1", "n2"]]}}, "--faults '{kill: {targets: [[n1, n2]]}}'"),
        ({"kill": {"hold_s": 1.5}}, "--faults '{kill: {hold_s: 1.5}}'"),
    ],
)
def test_rerun_command_tells_faults_as_short_as_can_be(faults: Any, flag: str) -> None:
    assert flag in rerun_command(resolve({"faults": faults, "seed": 1}))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"workload": "registr"}, ["--workload: unknown", "did you mean 'register'"]),
        ({"env": "dokcer"}, ["--env: unknown", "did you mean 'docker'"]),
        ({"faults": ["partion"]}, ["--faults: unknown", "did you mean 'partition'"]),
        ({"bug": "stale-raed"}, ["--bug: unknown", "did you mean 'stale-read'"]),
        ({"system": "raft"}, ["--system", "raftkv"]),
        ({"nodes": 4}, ["--nodes 4", "use 3 or 5"]),
        ({"nodes": 0}, ["--nodes 0", "at least 1"]),
        ({"nodes": 301}, ["--nodes 301", "at most 253"]),
        ({"faults": ["kill", "pause", "kill"]}, ["--faults", "'kill'", "twice"]),
        ({"nodes": 1, "faults": ["partition"]}, ["--nodes 1", "partition", "at least 3"]),
        ({"nodes": 1, "faults": ["kill", "flap"]}, ["--nodes 1: flap needs at least 3 nodes"]),
        ({"rate": 0}, ["--rate 0", "above 0"]),
        ({"rate": float("nan")}, ["--rate nan", "above 0"]),
        ({"time_limit": -1}, ["--time-limit -1", "above 0"]),
        ({"time_limit": float("inf")}, ["--time-limit inf"]),
        ({"concurrency": 0}, ["--concurrency 0", "at least 1"]),
        ({"concurrency": 10**9}, ["--concurrency 1000000000", "at most 10000"]),
        ({"time_limit": 1e300}, ["--time-limit 1e+300", "at most 1e+09"]),
        ({"rate": 1e-320}, ["--rate", "above 0"]),
        ({"seed": -3}, ["--seed -3"]),
        ({"name": "../escape"}, ["name '../escape'"]),
        ({"workload_options": {"valeus": "small"}}, ["valeus"]),
        ({"faults": {"partition": {"shape": ["halves"]}}}, ["shape"]),
        ({"operations": [{"at_s": 1, "worker": 10, "f": "read"}]}, ["operation 1", "worker 10"]),
    ],
)
def test_what_cannot_be_run_is_refused_with_the_mend(
    fields: dict[str, Any], words: list[str]
) -> None:
    message = refused(fields)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("workload: register\nnoeds: 5\n", [":2:", "unknown key 'noeds'", "did you mean 'nodes'"]),
        ("workload: register\nnodes: five\n", [":2:", "nodes", "int"]),
        ("faults: [partition\n", ["not YAML"]),
        ("nodes: 3\nrate: 9\nnodes: 5\n", [":3:", "'nodes'", "twice"]),
        ("faults:\n  kill: {targets: [one]}\n  kill: {}\n", [":3:", "'kill'", "twice"]),
        ("just words\n", ["mapping"]),
    ],
)
def test_broken_spec_file_is_refused_with_its_line(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        resolve(read_spec(path))
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_spec_file_may_use_anchors_and_merged_mappings(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(
        "faults:\n  kill: &calm {hold_s: 1, interval_s: 4}\n  pause: {<<: *calm, hold_s: 2}\n"
    )
    assert read_spec(path)["faults"]["pause"] == {"hold_s": 2, "interval_s": 4}


def test_missing_spec_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the spec"):
        read_spec(tmp_path / "absent.yaml")


def test_node_names_count_from_one() -> None:
    assert Spec(nodes=3).node_names == ("n1", "n2", "n3")


def test_system_options_are_part_of_the_rerun_command() -> None:
    spec = resolve({"system_options": {"snapshot-entries": 100}, "seed": 7})
    assert rerun_command(spec) == "labrys test --system-option snapshot-entries=100 --seed 7"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"snapshot-entrys": 100}, "did you mean 'snapshot-entries'"),
        ({"snapshot-entries": 0}, "whole number above 0"),
        ({"snapshot-entries": True}, "whole number above 0"),
        ({"heartbeat-ms": "x"}, "whole number above 0"),
    ],
)
def test_bad_system_options_are_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        resolve({"system_options": options})


def test_all_faults_have_a_short_name() -> None:
    spec = resolve({"faults": ["all"], "seed": 1})
    assert spec.fault_kinds == tuple(PACKAGES)
    assert spec.name == "register-all"
    assert rerun_command(spec) == "labrys test --faults all --seed 1"


OPERATIONS = [
    {"at_s": 0.00001, "worker": 1, "f": "write", "key": "k0", "value": 3},
    {"at_s": 1.5, "worker": 0, "f": "read", "key": "k0"},
]


@pytest.mark.parametrize("operations", [OPERATIONS, [], OPERATIONS * 20])
def test_a_list_of_operations_survives_its_yaml_file(
    operations: list[dict[str, Any]], tmp_path: Path
) -> None:
    spec = resolve({"operations": operations, "seed": 1})
    path = tmp_path / "test.yaml"
    path.write_text(to_yaml(spec))
    assert resolve(read_spec(path)) == spec
    assert spec != resolve({"seed": 1})  # nothing to do is not the same as nothing said


def test_a_list_of_operations_is_read_again_from_the_rerun_command(tmp_path: Path) -> None:
    spec = resolve({"operations": OPERATIONS, "seed": 1})
    words = shlex.split(rerun_command(spec))
    given = read_operations(words[words.index("--operations") + 1], tmp_path)
    assert resolve({"operations": given, "seed": 1}) == spec
    spec = resolve({"operations": OPERATIONS * 20, "seed": 1})
    assert rerun_command(spec, "runs/x/test.yaml") == "labrys test runs/x/test.yaml"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("[{at_s: 1, worker: 0}]", "--operations: operation 1: Object missing required field `f`"),
        ("[{at_s: 1", "--operations, line 1: not YAML"),
        ("nowhere", "--operations nowhere: neither a file nor a run"),
    ],
)
def test_a_list_of_operations_that_is_none_is_refused(
    given: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        read_operations(given, tmp_path)
    assert told in str(caught.value)
