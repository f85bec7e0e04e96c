"""`labrys heal` and the ledgers: a fault is told as ended only if its nodes are gone."""

from pathlib import Path

import pytest

from labrys.checkers.fault import FaultStage
from labrys.control.heal import Healed
from labrys.control.healing import close_ledgers
from labrys.control.ledger import Ledger, in_force, read_ledger
from labrys.control.spec import resolve
from labrys.control.store import RunDirectory, create_run


def dead_run(runs_dir: Path, env: str) -> RunDirectory:
    """A run that was killed in the middle of a fault."""
    run = create_run(runs_dir, resolve({"env": env, "faults": ["kill"], "seed": 1}))
    with Ledger(run.ledger, lambda: 5) as ledger:
        ledger.record(1, FaultStage.PLANNED, "kill")
    return run


def closed_after(run: RunDirectory, runs_dir: Path, healed: Healed) -> bool:
    closed, failures = close_ledgers(runs_dir, healed.may_stand, print)
    assert failures == []
    assert closed == [str(run.ledger)] or closed == []
    assert (in_force(read_ledger(run.ledger)) == ()) is bool(closed)
    return bool(closed)


@pytest.mark.parametrize("env", ["docker", "netns"])
def test_faults_end_with_the_nodes_of_a_dead_run(tmp_path: Path, env: str) -> None:
    assert closed_after(dead_run(tmp_path, env), tmp_path, Healed())


def test_faults_of_nodes_that_were_not_removed_have_not_ended(tmp_path: Path) -> None:
    run = dead_run(tmp_path, "docker")
    assert not closed_after(run, tmp_path, Healed(standing=(str(run.path),)))
    assert closed_after(run, tmp_path, Healed(standing=("/another/run",)))


def test_where_nobody_could_look_only_namespaces_are_known_to_be_gone(tmp_path: Path) -> None:
    run = dead_run(tmp_path / "docker", "docker")
    assert not closed_after(run, tmp_path / "docker", Healed(standing=None))
    run = dead_run(tmp_path / "netns", "netns")
    assert closed_after(run, tmp_path / "netns", Healed(standing=None))


def test_a_test_by_hand_is_finished_like_a_run(tmp_path: Path) -> None:
    run = dead_run(tmp_path, "docker")
    (run.path / "test.yaml").unlink()  # it has no spec, only a ledger
    assert not closed_after(run, tmp_path, Healed(standing=None))
    assert closed_after(run, tmp_path, Healed())
