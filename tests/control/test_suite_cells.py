"""What a suite file stands for, and the words with which a wrong one is refused."""

import re
from pathlib import Path

import pytest

from labrys.control.errors import UsageError
from labrys.control.suite.cells import CELLS_MAX, Suite, read_suite

ROOT = Path(__file__).parents[2]


def read(tmp_path: Path, text: str) -> Suite:
    (tmp_path / "some.yaml").write_text(text)
    return read_suite(tmp_path / "some.yaml")


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "some.yaml"))
    return message.removeprefix(str(tmp_path / "some.yaml")).removeprefix(":")


def test_matrix_is_every_combination_with_what_all_have_in_common(tmp_path: Path) -> None:
    suite = read(
        tmp_path,
        """
test: {env: sim, time_limit: 7}
matrix:
  faults: [none, kill, "partition,kill:leader"]
  nodes: [3, 5]
""",
    )
    assert suite.name == "some"
    assert [cell.name for cell in suite.cells] == [
        "register-sim-3",
        "register-sim-5",
        "register-kill-sim-3",
        "register-kill-sim-5",
        "register-partition-kill.leader-sim-3",
        "register-partition-kill.leader-sim-5",
    ]
    assert {cell.spec.time_limit for cell in suite.cells} == {7.0}
    assert {cell.spec.seed for cell in suite.cells} == {None}
    assert [cell.faults for cell in suite.cells[::2]] == ["none", "kill", "partition,kill:leader"]
    assert suite.cells[4].spec.faults == {"partition": {}, "kill": {"targets": ["leader"]}}
    assert [cell.spec.name for cell in suite.cells] == [cell.name for cell in suite.cells]


def test_excluded_are_gone_and_included_are_there_whatever_is_excluded(tmp_path: Path) -> None:
    suite = read(
        tmp_path,
        """
test: {env: sim}
matrix: {faults: [none, kill], nodes: [3, 5]}
exclude: [{faults: none, nodes: 3}, {faults: [kill], nodes: 5}]
include: [{faults: kill, nodes: 5, rate: 50}, {name: mine, bug: early-ack}]
""",
    )
    assert [cell.name for cell in suite.cells] == [
        "register-sim-5",
        "register-kill-sim-3",
        "register-kill-sim-5-rate.50",
        "mine",
    ]
    assert suite.cells[3].spec.bug == "early-ack"


def test_what_a_test_leaves_out_is_matched_by_its_default(tmp_path: Path) -> None:
    suite = read(
        tmp_path,
        "matrix: {env: [sim], workload_options: [{}, {values: small}]}\n"
        "exclude: [{workload: register, workload_options: {}}]",
    )
    assert [cell.spec.workload_options for cell in suite.cells] == [{"values": "small"}]


def test_weights_are_those_of_the_last_match_unless_a_test_has_its_own(tmp_path: Path) -> None:
    suite = read(
        tmp_path,
        """
test: {env: sim}
matrix: {faults: [none, kill], nodes: [3]}
include: [{faults: pause, nodes: 3, weight: 2}]
weights: [{nodes: 3, weight: 4}, {faults: kill, weight: 5}]
""",
    )
    assert [cell.weight for cell in suite.cells] == [4, 5, 2]


def test_cells_that_differ_only_in_options_have_names_of_their_own(tmp_path: Path) -> None:
    suite = read(
        tmp_path,
        "matrix: {env: [sim], faults: [{kill: {interval_s: 1}}, {kill: {interval_s: 2}}]}",
    )
    assert [cell.name for cell in suite.cells] == ["register-kill-sim-5", "register-kill-sim-5-2"]


def test_long_names_stay_folders_and_stay_apart(tmp_path: Path) -> None:
    kinds = "partition,flap,reset,loss,delay,kill,pause,slow-cpu,clock"
    suite = read(tmp_path, f"matrix: {{faults: ['{kinds}'], rate: [50, 60], env: [netns]}}")
    first, second = (cell.name for cell in suite.cells)
    assert first != second
    assert max(len(first), len(second)) <= 80


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("matrx: {}", "1: matrx: unknown key 'matrx'; did you mean 'matrix'? known: exclude, inc"),
        (
            "name: x\nmatrix:\n  fualts: [kill]",
            "3: matrix.fualts: unknown key 'fualts'; did you mean 'faults'? known: bug, check_",
        ),
        ("matrix:\n  faults:\n  - none\n  - kil", "4: matrix.faults[1]: unknown fault 'kil'; did"),
        ("matrix:\n  env:\n  - dokcer", "3: matrix.env[0]: unknown environment 'dokcer'; did you"),
        ("matrix: {workload: [regster]}", "1: matrix.workload[0]: unknown workload 'regster'; did"),
        ("test: {time_limit: long}", "1: test.time_limit: Expected `float`, got `str`"),
        ("test: {bug: stale-raed}\ninclude: [{nodes: 3}]", "1: test.bug: unknown bug 'stale-raed'"),
        ("matrix: {nodes: [3, 4]}", "1: matrix.nodes[1]: --nodes 4: a raftkv cluster needs an odd"),
        (
            "matrix: {nodes: [1], faults: [none, partition]}",
            "1: matrix.nodes[0]: --nodes 1: partition needs at least 3 nodes",
        ),
        ("matrix: {faults: ['kill:lader']}", "1: matrix.faults[0]: kill: unknown target 'lader'"),
        (
            "matrix: {workload_options: [{values: huge}]}",
            "1: matrix.workload_options[0]: options of workload register",
        ),
        ("include:\n- {nods: 3}", "2: include[0].nods: unknown key 'nods'; did you mean 'nodes'?"),
        ("include: [{}]", "1: include[0]: is empty"),
        ("include: {nodes: 3}", "1: include: write a list such as"),
        ("include: [kill]", "1: include[0]: write a mapping of keys to values, not 'kill'"),
        ("matrix: {env: sim}", "1: matrix.env: write a list of values such as [sim]"),
        ("matrix: {env: []}", "1: matrix.env: an empty list leaves no test"),
        ("matrix: {}", " there is no test in it"),
        ("name: empty", " there is no test in it"),
        ("", " write a mapping of keys to values, not None"),
        ("- 1", " write a mapping of keys to values, not [1]"),
        ("matrix: {nodes: [3]}\nexclude: [{nodes: 5}]", "2: exclude[0]: matches none of the tests"),
        ("matrix: {nodes: [3]}\nexclude: [{nodes: 3}]", "2: exclude: nothing is left of 1 tests"),
        ("matrix: {nodes: [3]}\nweights: [{nodes: 3}]", "2: weights[0]: has no weight"),
        (
            "matrix: {nodes: [3]}\nweights: [{nodes: 3, weight: 0}]",
            "2: weights[0].weight: 0: must be a whole number from 1 to 1000",
        ),
        ("matrix: {nodes: [3]}\nweights: [{nodes: 5, weight: 2}]", "2: weights[0]: matches none"),
        ("matrix: {nodes: [3]}\nseed: -1", "2: seed: -1: must be a whole number"),
        ("matrix: {nodes: [3]}\nname: ../up", "2: name: '../up' cannot name a folder"),
        ("matrix: {nodes: [3], nodes: [5]}", "1:22: not YAML: 'nodes' is there twice"),
    ],
)
def test_wrong_file_is_refused_with_line_path_and_what_may_stand_there(
    tmp_path: Path, text: str, told: str
) -> None:
    assert refused(tmp_path, text).startswith(told)


@pytest.mark.parametrize(
    ("text", "told"), [("matrix: {nodes: [3]", "not YAML: "), ("[" * 2000, "nest")]
)
def test_file_that_is_no_yaml_is_refused(tmp_path: Path, text: str, told: str) -> None:
    # Where and in which words depends on the parser that is there.
    assert told in refused(tmp_path, text)


def test_matrix_without_an_end_is_refused(tmp_path: Path) -> None:
    numbers = list(range(1, 12))
    text = f"matrix: {{{', '.join(f'{f}: {numbers}' for f in ('rate', 'seed', 'concurrency'))}, "
    text += f"op_timeout: {numbers}}}"
    assert f"14641 tests; at most {CELLS_MAX}" in refused(tmp_path, text)


@pytest.mark.parametrize("name", ["pull-request", "nightly"])
def test_suites_that_ci_runs_can_be_read(name: str) -> None:
    suite = read_suite(ROOT / "suites" / f"{name}.yaml")
    assert suite.name == name
    assert len({cell.name for cell in suite.cells}) == len(suite.cells) > 10


def test_file_in_the_documentation_can_be_read(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "suites.md").read_text()
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    suite = read(tmp_path, text)
    assert {cell.spec.env for cell in suite.cells} == {"sim", "docker"}
    assert [cell.weight for cell in suite.cells if cell.name == "lease-reads"] == [2]
