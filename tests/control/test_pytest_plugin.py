"""The pytest plugin, as a session of pytest with tests of its own sees it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.whole_runs import eventually

from labrys.control import lifecycle
from labrys.control.environments import netns
from labrys.control.sim import stage
from labrys.control.testing import marked

# Sessions within this one would import all of it again, each for itself.
SHARED = (lifecycle, marked, stage)

pytest_plugins = ["pytester"]

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
SHORT = "env='sim', nodes=3, time_limit=3, rate=50, fault_interval=1, seed=1"

QUIET = ("-p", "no:randomly", "-p", "no:hypothesispytest")
"""Without plugins that have no part in this, one of which takes a second to be loaded."""

Session = Callable[..., pytest.RunResult]
needs_netns = pytest.mark.skipif(
    netns.probe() is not None, reason=f"no namespaces: {netns.probe()}"
)


@pytest.fixture
def session(pytester: pytest.Pytester) -> Session:
    """Runs a file of tests with the plugin."""

    def run(code: str, *words: str) -> pytest.RunResult:
        pytester.makepyfile(code)
        return pytester.runpytest_inprocess(*QUIET, *words)

    return run


def results(folder: Path) -> list[dict[str, Any]]:
    """What stands in the results of all runs, the oldest first."""
    found = sorted(folder.glob("*/*/results.json"), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(path.read_text()) for path in found if not path.parent.is_symlink()]


# ---- a mark is a run ----------------------------------------------------------------------------


def test_a_valid_run_is_a_test_that_passes(session: Session, pytester: pytest.Pytester) -> None:
    outcome = session(f"""
import pytest

@pytest.mark.labrys({SHORT}, faults="partition,kill")
def test_run(labrys_run):
    assert labrys_run.verdict == "valid"
    assert labrys_run.results["seed"] == 1
    assert labrys_run.history.operations
    assert labrys_run.directory.report.exists()
""")
    outcome.assert_outcomes(passed=1)
    assert (pytester.path / "runs" / "latest" / "results.json").exists()


def test_an_invalid_run_fails_with_the_report(session: Session) -> None:
    outcome = session(f"""
import pytest

@pytest.mark.labrys({SHORT}, bug="early-ack", faults=["kill"])
def test_run():
    raise AssertionError("not reached: the run comes first")
""")
    outcome.assert_outcomes(failed=1)
    text = outcome.stdout.str()
    assert "not reached" not in text
    outcome.stdout.fnmatch_lines(["INVALID: *", "verdict INVALID*", "re-run     labrys test *"])
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("words", "outcomes"),
    [
        ((), {"failed": 1}),
        (("--labrys-unknown", "xfail"), {"xfailed": 1}),
        (("--labrys-unknown", "skip"), {"skipped": 1}),
    ],
)
def test_an_unknown_verdict_is_never_passed(
    session: Session, words: tuple[str, ...], outcomes: dict[str, int]
) -> None:
    outcome = session(
        """
import pytest

@pytest.mark.labrys(env="sim", nodes=3, time_limit=1, rate=1, seed=1)
def test_run():
    pass
""",
        "-rA",
        *words,
    )
    outcome.assert_outcomes(**outcomes)
    outcome.stdout.fnmatch_lines(["*vacuous*"])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("nodes=4, env='sim'", "--nodes 4: a raftkv cluster needs an odd number of nodes"),
        ("fautls='kill'", "unknown option 'fautls'; did you mean 'faults'?"),
        ("'kill'", "write field=value, not 'kill'"),
        ("faults='kil', env='sim'", "unknown fault 'kil'; did you mean 'kill'?"),
        (
            "nodes=3, env='sim', system_options={'election-timeout-ms': 90_000}",
            "the cluster is not healthy after 30 s",
        ),
    ],
)
def test_what_cannot_be_run_is_an_error_and_not_a_failure(
    session: Session, fields: str, said: str
) -> None:
    outcome = session(f"""
import pytest

@pytest.mark.labrys({fields})
def test_run():
    pass
""")
    outcome.assert_outcomes(errors=1)
    assert said in outcome.stdout.str()
    assert "Traceback" not in outcome.stdout.str()


def test_options_override_marks_and_nearer_marks_farther_ones(
    session: Session, pytester: pytest.Pytester
) -> None:
    outcome = session(
        """
import pytest

@pytest.mark.labrys(env="docker", nodes=3, seed=1, time_limit=3, rate=50)
class TestRuns:
    @pytest.mark.labrys(name="near", time_limit=2)
    def test_run(self, labrys_run):
        assert labrys_run.results["seed"] == 8
""",
        *("--labrys-env", "sim", "--labrys-seed", "8", "--labrys-runs-dir", "kept"),
    )
    outcome.assert_outcomes(passed=1)
    (found,) = results(pytester.path / "kept")
    assert found["name"] == "near"
    assert found["environment"] == "sim"
    assert found["rerun"].endswith("--time-limit 2 --rate 50 --seed 8")


# ---- a cluster to hurt by hand ------------------------------------------------------------------

BY_HAND = """
import pytest
import requests
from labrys.control.testing.recorded import OpError


def test_by_hand(cluster):
    leader = cluster.leader()
    client = cluster.client(leader)
    client.put("x", 1)
    cluster.kill(leader)
    with pytest.raises(OpError) as failure:
        client.get("x")
    assert failure.value.op.type == "fail"
    others = [node for node in cluster.nodes if node != leader]
    new = cluster.leader(among=others)
    second = cluster.client(new)
    second.put("x", 2)
    cluster.heal()
    assert client.get("x") == 2
    with pytest.raises(OpError, match="mismatch"):
        client.cas("x", 1, 3)
    cluster.partition([new])
    third = cluster.leader(among=[node for node in cluster.nodes if node != new])
    cluster.client(third).put("x", 4)
    cluster.pause(third)
    assert cluster.client(third).invoke("read", key="x").type == "fail"
    cluster.resume(third)
    cluster.heal()
    cluster.at_once(
        lambda: client.invoke("write", 5, key="x"),
        lambda: second.invoke("cas", [4, 6], key="x"),
    )
    cluster.restart(third)
    cluster.heal()
    assert client.get("x") in (5, 6)
    assert all(status["applied"] for status in cluster.statuses().values())
    if cluster.spec.env != "sim":
        assert requests.get(f"{cluster.url(third)}/v1/kv/x", timeout=5).json()["value"] in (5, 6)
"""


@pytest.mark.parametrize(
    "env", ["sim", pytest.param("netns", marks=[pytest.mark.netns, needs_netns])]
)
def test_a_cluster_is_hurt_by_hand_and_what_it_did_is_judged(
    session: Session, pytester: pytest.Pytester, env: str
) -> None:
    outcome = session(BY_HAND, "--labrys-env", env)
    outcome.assert_outcomes(passed=1)
    (found,) = results(pytester.path / "runs")
    assert found["verdict"] == "valid"
    assert found["environment"] == env
    assert found["faults"] == ["kill", "partition", "pause"]
    assert set(found["checkers"]) == {"linearizable", "raft", "logs"}
    (ledger,) = pytester.path.glob("runs/*/*/faults.jsonl")
    events = [json.loads(line) for line in ledger.read_text().splitlines()]
    planned = [event["id"] for event in events if event["stage"] == "planned"]
    undone = [event["id"] for event in events if event["stage"] == "undone"]
    assert planned == [1, 2, 3, 4]
    assert sorted(undone) == planned
    assert [e["bit"] for e in events if e["stage"] == "evidence"] == [True]


LYING = """
import msgspec
import pytest
from labrys.checkers.op import OpType


class Lying:
    def __init__(self, store):
        self.open, self.close = store.open, store.close

    def invoke(self, op):
        return msgspec.structs.replace(op, type=OpType.OK, value=op.value or 0)


def test_lies(cluster):
    client = cluster.client(of=Lying, reads={"read"})
    client.call("write", 1, key="x")
    client.call("read", key="x")
    %s
"""


def test_a_history_that_is_wrong_fails_the_test(session: Session) -> None:
    outcome = session(LYING % "", "--labrys-env", "sim", "--labrys-seed", "3")
    outcome.assert_outcomes(failed=1)
    outcome.stdout.fnmatch_lines(
        [
            "INVALID: linearizable: *",
            "labrys: seed 3 *",
            "process 0 *",
            '*key "x" is not linearizable: *',
            "re-run     pytest *::test_lies --labrys-env sim --labrys-seed 3",
            "re-check   labrys check *history.jsonl --model cas-register",
        ]
    )
    assert "notice" not in outcome.stdout.str()
    outcome = session(LYING % "assert False, 'my own'", "--labrys-env", "sim")
    outcome.assert_outcomes(failed=1)
    outcome.stdout.fnmatch_lines(["INVALID: linearizable: *", "The test failed, too: *my own*"])


@pytest.mark.parametrize("line", ["assert client.get('x') == 2", "pytest.fail('1 == 2')"])
def test_a_failure_of_its_own_stays_the_failure(session: Session, line: str) -> None:
    outcome = session(
        f"""
import pytest

def test_fails(cluster):
    client = cluster.client()
    client.put("x", 1)
    assert client.get("x") == 1
    {line}
""",
        *("--labrys-env", "sim"),
    )
    outcome.assert_outcomes(failed=1)
    outcome.stdout.fnmatch_lines(["E *1 == 2*", "*Captured labrys call*", "verdict VALID"])


def test_a_cluster_that_cannot_be_removed_is_an_error(session: Session) -> None:
    outcome = session(
        """
from labrys.control.errors import ClusterError

def test_it(cluster, monkeypatch):
    end = cluster._nodes.end

    def fail():
        end()
        raise ClusterError("n1: stuck")

    monkeypatch.setattr(cluster._nodes, "end", fail)
""",
        *("--labrys-env", "sim"),
    )
    outcome.assert_outcomes(passed=1, errors=1)
    outcome.stdout.fnmatch_lines(["labrys: error: n1: stuck"])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("cluster.kill('n9')", "unknown node 'n9'"),
        ("cluster.kill()", "kill: name a node"),
        ("cluster.partition('n1')", "partition: write groups"),
        ("cluster.leader(among=[])", None),
        ("cluster.client('n4')", "unknown node 'n4'"),
    ],
)
def test_what_cannot_be_done_is_told(session: Session, line: str, said: str | None) -> None:
    outcome = session(f"def test_it(cluster):\n    {line}\n", "--labrys-env", "sim")
    outcome.assert_outcomes(**({"passed": 1} if said is None else {"failed": 1}))
    if said is not None:
        assert said in outcome.stdout.str()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("faults='kill'", "unknown option 'faults'"),
        ("model='regster'", "no model 'regster'"),
        ("env='netsn'", "unknown environment 'netsn'; did you mean 'netns'?"),
        ("env='sim', system_options={'election-timeout-ms': 90_000}", "runs/test_it/"),
    ],
)
def test_a_cluster_that_cannot_be_had_is_an_error(session: Session, fields: str, said: str) -> None:
    outcome = session(f"""
import pytest

@pytest.mark.labrys({fields})
def test_it(cluster):
    pass
""")
    outcome.assert_outcomes(errors=1)
    assert said in outcome.stdout.str()


def test_the_simulation_is_left_when_a_test_fails(session: Session) -> None:
    outcome = session(
        """
import time

REAL = time.sleep

def test_fails(cluster):
    assert time.sleep is not REAL  # the node's code is guarded from the real clock
    cluster.kill("n1")
    raise KeyError("mine")

def test_is_outside():
    assert time.sleep is REAL
""",
        *("--labrys-env", "sim"),
    )
    outcome.assert_outcomes(passed=1, failed=1)
    outcome.stdout.fnmatch_lines(["E *KeyError: 'mine'"])


HURT = """
import time

def test_it(cluster):
    cluster.kill("n1")
    cluster.partition(["n2"])
    open("hurt", "w").close()
    %s
"""


@needs_netns
@pytest.mark.netns
@pytest.mark.parametrize("line", ["time.sleep(100)", "cluster.leader(among=['n1'], timeout_s=80)"])
def test_nothing_is_left_of_a_cluster_whose_test_is_interrupted(tmp_path: Path, line: str) -> None:
    told = interrupted(tmp_path, HURT % line, lambda: (tmp_path / "hurt").exists())
    assert "labrys: error" not in told
    (ledger,) = tmp_path.glob("runs/*/*/faults.jsonl")
    stages = re.findall(r'"id":(\d).*?"stage":"(\w+)"', ledger.read_text())
    assert stages[-2:] == [("1", "undone"), ("2", "undone")]


@needs_netns
@pytest.mark.netns
def test_a_run_that_is_interrupted_is_undone_and_judged(tmp_path: Path) -> None:
    code = """
import pytest

@pytest.mark.labrys(nodes=3, faults="kill", fault_interval=1, time_limit=90)
def test_run():
    pass
"""

    def is_hurt() -> bool:
        ledgers = tmp_path.glob("runs/test_run/*Z-*/faults.jsonl")
        return any('"stage":"applied"' in ledger.read_text() for ledger in ledgers)

    interrupted(tmp_path, code, is_hurt)
    (found,) = results(tmp_path / "runs")
    assert found["interrupted"] is True
    assert found["errors"] == []


def interrupted(folder: Path, code: str, is_time: Callable[[], bool]) -> str:
    """Press Ctrl-C in a session when it is time; nothing may be left of it. What it said."""
    mark = uuid.uuid4().hex
    (folder / "test_it.py").write_text(code)
    running = subprocess.Popen(
        [sys.executable, "-m", "pytest", *QUIET, "--labrys-env", "netns"],
        cwd=folder,
        env={**os.environ, "LABRYS_TEST_MARK": mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        eventually(is_time, "the cluster is hurt", alive=running)
        assert len(_processes(mark)) > 3
        running.send_signal(signal.SIGINT)
        told, _ = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == pytest.ExitCode.INTERRUPTED, told
    eventually(lambda: _processes(mark) == [], "no process is left", timeout_s=10)
    return told


def _processes(mark: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environ = (folder / "environ").read_bytes()
        except OSError:
            continue  # gone meanwhile, or not ours
        if mark.encode() in environ:
            found.append(int(folder.name))
    return found


# ---- the page and its example -------------------------------------------------------------------


def test_what_the_page_begins_with_runs(session: Session) -> None:
    page = (EXAMPLES.parent / "pytest.md").read_text()
    run, by_hand, *_ = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    outcome = session(run + by_hand, "--labrys-env", "sim", "--labrys-seed", "1")
    outcome.assert_outcomes(passed=2)


def test_the_example_runs_and_stands_on_the_page(pytester: pytest.Pytester) -> None:
    for name in ("seats.py", "test_seats.py"):
        shutil.copy(EXAMPLES / name, pytester.path)
    outcome = pytester.runpytest_inprocess(
        *QUIET, "-W", "error", "--labrys-env", "sim", "--labrys-seed", "1"
    )
    outcome.assert_outcomes(passed=2, xfailed=1)
    page = (EXAMPLES.parent / "pytest.md").read_text()
    for name in ("seats.py", "test_seats.py"):
        assert (EXAMPLES / name).read_text() in page
