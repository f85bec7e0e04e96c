"""Random schedules against the core: a correct one keeps every promise, a wrong one is convicted.

To replay a failure: `python -c "from tests.node.cluster import play; play(SEED, SIZE)"`.
"""

import random

import pytest
from tests.node.cluster import play
from tests.node.cores import restored
from tests.node.mutants import MUTANTS

from labrys.control.sim.violation import Violation
from labrys.node.messages import Entry, HardState
from labrys.node.raft import Config, Raft
from labrys.node.sessions import Session

ONLY_DIRECTED = {
    # Pure chance needs more than some thousand schedules for these; test_raft.py and test_bugs.py
    # have scripts. The last one's states are not in this model.
    "commit-old-term", "CountsLateSuccess", "CountsAnyTermsDisk", "CountsOlderRounds",
    "LongerLogWins",
    "lease-from-answer", "lease-across-pause", "snapshot-off-by-one",
}  # fmt: skip


def _say_how_to_replay(seed: int, size: int, error: Violation) -> str:
    return f'{error}\nreplay: python -c "from tests.node.cluster import play; play({seed}, {size})"'


@pytest.mark.parametrize(
    ("size", "seeds"), [(1, 30), (2, 60), (3, 1200), (4, 200), (5, 900), (7, 150)]
)
def test_promises_hold_in_every_schedule(
    size: int, seeds: int, request: pytest.FixtureRequest
) -> None:
    seeds *= request.config.getoption("--schedules")
    committed = leaders = answered = duplicates = 0
    for seed in range(seeds):
        try:
            cluster = play(seed, size)
        except Violation as error:
            pytest.fail(_say_how_to_replay(seed, size, error))
        committed += len(cluster.committed)
        leaders += len(cluster.promises.leaders)
        answered += len(cluster.answered)
        duplicates += cluster.client.duplicates
    # A schedule in which nothing happens proves nothing.
    assert committed >= 5 * seeds, f"{committed} entries in {seeds} schedules"
    assert leaders >= seeds, f"{leaders} leaders in {seeds} schedules"
    assert answered >= seeds, f"{answered} reads in {seeds} schedules"
    assert duplicates >= seeds // 20, f"{duplicates} retries committed in {seeds} schedules"


@pytest.mark.parametrize("name", sorted(MUTANTS.keys() - ONLY_DIRECTED))
def test_a_wrong_core_is_convicted(name: str) -> None:
    for seed in range(2500):
        try:
            play(seed, size=3 + 2 * (seed % 2), must_recover=False, **MUTANTS[name])
        except Violation:
            return
    pytest.fail(f"{name} survived 2500 schedules")


def test_a_session_that_forgets_its_answers_is_convicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "keep", lambda session, seq, kept: None)

    def play_some() -> None:
        for seed in range(100):
            play(seed)

    with pytest.raises(Violation, match="sessions: number"):
        play_some()


def test_the_same_seed_is_the_same_schedule() -> None:
    first, second = play(7, 5), play(7, 5)
    assert first.committed == second.committed
    assert first.roles() == second.roles()
    assert first.now_ms == second.now_ms


def test_the_core_does_not_share_its_log_with_the_disk() -> None:
    entries = [Entry(1, b"a")]
    raft = Raft(Config("n1"), restored(("n1",), HardState(1), entries), random.Random(0), 0)
    raft.tick(1000)
    raft.effects()
    raft.persisted(2, 1)
    assert raft.log.last_index == 2
    assert entries == [Entry(1, b"a")]
