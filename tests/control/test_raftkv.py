"""What the rig concludes from what the nodes of our own store say of themselves."""

from pathlib import Path
from typing import Any

import pytest
from tests.control.loopback import LoopbackEnvironment
from tests.control.nemesis_fakes import FIVE

from labrys.control.errors import ClusterError
from labrys.control.systems.raftkv import RaftKv


class Saying(RaftKv):
    """Nodes that say what they are told to, and do nothing."""

    said: dict[str, dict[str, Any] | None]

    def statuses(self) -> dict[str, dict[str, Any] | None]:
        return self.said

    def _ask(self, node: str, what: str, body: Any) -> str:
        return f"{node}: HTTP 503"


def says(*voters: str, observer: bool = False, leads: bool = False) -> dict[str, Any]:
    return {
        "voters": list(voters),
        "is_observer": observer,
        "is_changing": False,
        "role": "leader" if leads else "follower",
        "term": 1,
    }


@pytest.fixture
def system(tmp_path: Path) -> Saying:
    return Saying(LoopbackEnvironment(FIVE, tmp_path, print), seed=1)


@pytest.mark.parametrize(
    ("said", "count"),
    [
        ({"n1": None}, 0),
        ({"n1": says(*FIVE), "n2": None}, 2),
        # Who is behind names more than there are.
        ({"n1": says(*FIVE), "n2": says("n1", "n2", "n3")}, 1),
        ({"n1": says("n1", "n2")}, 0),
        # A new node knows nobody yet, and one without its data only whom it began with.
        ({"n1": says(), "n2": says(*FIVE)}, 2),
        ({"n1": says(*FIVE, observer=True)}, 0),
    ],
)
def test_so_many_may_lose_their_data(
    system: Saying, said: dict[str, dict[str, Any] | None], count: int
) -> None:
    system.said = said
    assert system.tolerated_losses() == count


def test_a_removal_that_may_still_come_counts_until_the_members_are_known(system: Saying) -> None:
    system.said = {"n1": says(*FIVE, leads=True)}
    with pytest.raises(ClusterError, match=r"the members are \('n1', 'n2', .*HTTP 503"):
        system.change_members(0.05, remove=["n4", "n5"])
    assert system.tolerated_losses() == 1
    assert system.change_members(1, add=["n4", "n5"]) == FIVE
    assert system.tolerated_losses() == 2


def test_all_data_is_lost_and_counted(system: Saying, tmp_path: Path) -> None:
    home = tmp_path / "homes" / "n1"
    (home / "data").mkdir(parents=True)
    (home / "data" / "log-0000000001").write_bytes(b"x" * 100)
    assert system.lose_data("n1") == 100
    assert system.lose_data("n1") == 0
    (home / "data" / "snapshots").mkdir()
    for _ in range(2):
        system.make_newcomer("n1")
    assert [*home.iterdir()] == [home / "data"], "which may be a mount"
    assert [*(home / "data").iterdir()] == []
    (home / "data").rmdir()
    assert system.lose_data("n1") == 0


@pytest.mark.parametrize(
    ("said", "knows"),
    [
        (says("n1", "n3"), True),
        (says("n1", "n2"), False),
        # It was removed before, and cannot lead.
        (says("n2", "n3"), True),
        (says("n1", "n3") | {"is_changing": True}, False),
        (says("n1", "n3", observer=True), False),
        (None, False),
    ],
)
def test_who_is_behind_or_silent_may_not_know_of_a_removal(
    system: Saying, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any] | None, knows: bool
) -> None:
    monkeypatch.setattr(system, "status", lambda node: said)
    assert system.knows_removal("n1", ["n2"]) is knows


def test_the_log_is_read_from_where_it_ended(system: Saying, tmp_path: Path) -> None:
    log = tmp_path / "nodes" / "n1" / "log"
    log.parent.mkdir(parents=True)
    assert system.log_end("n1") == 0
    log.write_text("old\n")
    end = system.log_end("n1")
    log.write_text("old\nnew\nnewer\n")
    assert system.log_since("n1", end) == ("new", "newer")
