"""`labrys hunt --cluster`: the same hunt on the workers of a Dask cluster, some of which die."""

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.control.dask_cluster import DaskCluster, dask_cluster
from tests.whole_runs import LABRYS, eventually, labrys

from labrys.checkers.verdict import Verdict
from labrys.control import dask_pool
from labrys.control.errors import MachineError
from labrys.control.fingerprint import fingerprint
from labrys.control.spec import resolve
from labrys.control.trial import Trial

SHORT = (
    *("--bug", "lose-tail", "--faults", "kill", "--fault-interval", "0.5", "--nodes", "3"),
    *("--rate", "50", "--time-limit", "3", "--seed", "1", "--no-swarm"),
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    with dask_cluster(tmp_path_factory.mktemp("dask")) as made:
        yield made


def begin(runs_dir: Path, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [str(LABRYS), "hunt", "--runs-dir", str(runs_dir), *SHORT, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def by_seed(lines: list[str]) -> dict[int, dict[str, Any]]:
    """What was told of each seed, without where it is kept."""
    told = [json.loads(line) for line in lines]
    return {each["seed"]: {**each, "path": None} for each in told}


def test_a_worker_that_is_killed_loses_no_seed(cluster: DaskCluster, tmp_path: Path) -> None:
    words = ("--seeds", "12", "--findings", "0", "--json")
    alone = labrys("hunt", "--runs-dir", str(tmp_path / "alone"), *SHORT, *words, "--jobs", "1")
    *lines, facts = alone.stdout.splitlines()
    doomed, other = cluster.add_worker(), cluster.add_worker()
    hunt = begin(tmp_path / "runs", *words, "--cluster", cluster.address)
    assert hunt.stdout is not None
    first = hunt.stdout.readline()
    doomed.send_signal(signal.SIGKILL)
    out, err = hunt.communicate(timeout=100)
    *rest, told = out.splitlines()
    assert (hunt.returncode, alone.returncode) == (1, 1), err + alone.stderr
    assert by_seed([first, *rest]) == by_seed(lines)
    assert json.loads(told) == json.loads(facts)
    assert (doomed.wait(), other.poll()) == (-signal.SIGKILL, None)

    found = [json.loads(line) for line in (first, *rest) if '"invalid"' in line]
    assert found
    for finding in found:
        path = Path(finding["path"])
        assert path.parent == tmp_path / "runs/register-lose-tail-kill"
        results = json.loads((path / "results.json").read_text())
        assert results["recheck"] == f"labrys check {path}"
        assert str(path) in (path / "report.html").read_text()
    assert labrys("check", found[0]["path"]).returncode == 1
    kept = {each["path"] for each in found}
    assert {str(path) for path in (tmp_path / "runs").glob("*/*Z-*")} == kept


def test_ctrl_c_calls_off_what_was_handed_out(cluster: DaskCluster, tmp_path: Path) -> None:
    worker = cluster.add_worker()
    hunt = begin(
        tmp_path, "--seeds", "500", "--findings", "0", "--json", "--cluster", cluster.address
    )
    assert hunt.stdout is not None
    hunt.stdout.readline()
    hunt.send_signal(signal.SIGINT)
    out, err = hunt.communicate(timeout=60)
    assert hunt.returncode == 130, err
    last = json.loads(out.splitlines()[-1])
    assert (last["exit"], last["seeds"]) == (130, 500)
    assert last["done"] < 100
    ask = f"""
import json
from distributed import Client
with Client({cluster.address!r}) as client:
    print(json.dumps(client.processing()))
"""

    def is_idle() -> bool:
        done = subprocess.run([sys.executable, "-c", ask], capture_output=True, check=True)
        return not any(json.loads(done.stdout).values())

    eventually(is_idle, "no seed is left on the cluster")
    worker.terminate()
    worker.wait(20)


def test_a_worker_without_labrys_is_refused(tmp_path: Path) -> None:
    preload = tmp_path / "preload.py"
    preload.write_text("""\
import importlib.metadata
real = importlib.metadata.version
def version(name):
    if name == "labrys":
        raise importlib.metadata.PackageNotFoundError(name)
    return real(name)
importlib.metadata.version = version
""")
    with dask_cluster(tmp_path / "dask") as cluster:
        cluster.add_worker("--preload", str(preload))
        done = labrys("hunt", "--cluster", cluster.address, "--runs-dir", str(tmp_path))
    assert done.returncode == 4, done.stderr
    assert "labrys: error: --cluster tcp://127.0.0.1:" in done.stderr
    assert "is none, here it is 0." in done.stderr


class Workers:
    """A client of a cluster with two workers, one of which gives other answers."""

    def __init__(self, **other: Any) -> None:
        self._other = other

    def wait_for_workers(self, count: int, timeout: float) -> None:
        assert count == 1

    def run(self, ask: Callable[..., Any], *args: str, on_error: str) -> dict[str, Any]:
        assert on_error == "return"
        mine = ask(*args)
        return {"tcp://a": mine, "tcp://b": self._other.get(ask.__name__, mine)}


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"python_version": "3.8.1"}, f"b is 3.8.1, here it is {platform.python_version()}"),
        ({"version": "9.9"}, "labrys of the worker tcp://b is 9.9"),
        ({"fingerprint": "abc"}, f"is abc, here it is {fingerprint()}"),
        ({"fingerprint": AttributeError("no such function")}, "is none"),
    ],
)
def test_workers_of_another_kind_are_refused(other: dict[str, Any], told: str) -> None:
    with pytest.raises(MachineError, match=r"^--cluster tcp://x: the ") as caught:
        dask_pool._assert_alike(Workers(**other), "tcp://x")  # type: ignore[arg-type]
    assert told in str(caught.value)
    dask_pool._assert_alike(Workers(), "tcp://x")  # type: ignore[arg-type]


def test_a_worker_that_came_later_with_other_code_runs_no_seed() -> None:
    with pytest.raises(MachineError, match="has other code of labrys"):
        dask_pool.try_seed(Trial(resolve({"env": "sim", "seed": 1})), "other", 1)


def test_a_seed_that_kills_its_workers_is_an_error_that_names_it(tmp_path: Path) -> None:
    from distributed import KilledWorker

    class Task:
        def result(self) -> Any:
            last: Any = SimpleNamespace(address="tcp://last")
            raise KilledWorker("seed-7", last, 3)

    trial = Trial(resolve({"env": "sim", "seed": 1}))
    workers = dask_pool._Workers(None, "tcp://x", trial, tmp_path)  # type: ignore[arg-type]
    hunted = workers._taken_in(Task(), 7)  # type: ignore[arg-type]
    assert (hunted.seed, hunted.verdict, hunted.path) == (7, Verdict.ERROR, None)
    assert "4 of 4 attempts ended with the death of the worker" in hunted.why
    assert "tcp://last" in hunted.why
    assert hunted.rerun == "labrys test --env sim --seed 7"


def test_a_cluster_that_lost_all_its_workers_is_waited_for_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Client:
        def nthreads(self) -> dict[str, int]:
            return {}

    monkeypatch.setattr(dask_pool, "WORKERS_TIMEOUT_S", 0.0)
    trial = Trial(resolve({"env": "sim", "seed": 1}))
    workers = dask_pool._Workers(Client(), "tcp://x", trial, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(MachineError, match="no worker for 0 s; 5 seeds were not run"):
        workers._count(5)


def test_what_cannot_be_is_one_clear_error(tmp_path: Path, cluster: DaskCluster) -> None:
    runs = ("--runs-dir", str(tmp_path))
    nobody = labrys("hunt", "--cluster", "tcp://127.0.0.1:9", *runs)
    assert nobody.returncode == 4
    assert "--cluster tcp://127.0.0.1:9: no Dask scheduler answers there" in nobody.stderr
    for address in ("nonsense", "x://y:1"):
        wrong = labrys("hunt", "--cluster", address, *runs)
        assert (wrong.returncode, f"--cluster {address}: not an" in wrong.stderr) == (2, True)
    both = labrys("hunt", "--cluster", cluster.address, "--jobs", "2", *runs)
    assert (both.returncode, "leave one of them out" in both.stderr) == (2, True)


def test_a_cluster_without_workers_is_told(tmp_path: Path) -> None:
    with dask_cluster(tmp_path / "dask") as cluster:
        done = labrys("hunt", "--cluster", cluster.address, "--runs-dir", str(tmp_path))
    assert done.returncode == 4
    assert f"it has no workers; start some with `dask worker {cluster.address}" in done.stderr


def test_without_dask_it_is_told_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "distributed.py").write_text("raise ImportError('no distributed')")
    done = subprocess.run(
        [LABRYS, "hunt", "--cluster", "tcp://127.0.0.1:9", "--runs-dir", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "pip install 'labrys[cluster]'" in done.stderr) == (4, True)


def test_a_scheduler_that_dies_ends_the_hunt_with_one_error(tmp_path: Path) -> None:
    with dask_cluster(tmp_path / "dask") as cluster:
        cluster.add_worker()
        words = ("--seeds", "500", "--findings", "0", "--json")
        hunt = begin(tmp_path, *words, "--cluster", cluster.address)
        assert hunt.stdout is not None
        hunt.stdout.readline()
        cluster.kill_scheduler()
        _, err = hunt.communicate(timeout=100)
    assert hunt.returncode == 4, err
    assert f"labrys: error: --cluster {cluster.address}: the scheduler is gone" in err
    assert "Traceback" not in err
