"""The log lines about terms: what a crash could take back is not told."""

from types import SimpleNamespace
from typing import Any, cast

from labrys.node.configuration import Configuration
from labrys.node.raft import Raft, Role
from labrys.node.telling import Teller


def test_term_is_told_only_when_it_is_on_disk() -> None:
    said: list[dict[str, Any]] = []
    teller = Teller(lambda **facts: said.append(facts))
    raft = SimpleNamespace(
        role=Role.FOLLOWER, term=3, leader="n2", commit=7, applied=7,
        configuration=Configuration(("n1", "n2", "n3")), log=SimpleNamespace(last_index=9),
    )  # fmt: skip

    def tell(now_ms: int, durable_term: int) -> tuple[bool, list[dict[str, Any]]]:
        said.clear()
        return teller.tell(cast(Raft, raft), now_ms, durable_term), said.copy()

    assert tell(5000, 2) == (True, []), "the timers follow at once"
    assert tell(5001, 2) == (False, [])
    has_changed, lines = tell(5002, 3)
    assert not has_changed
    assert all(line["term"] == 3 for line in lines)
    assert [line.get("role") or line["event"] for line in lines] == [
        "members",
        "commit",
        "follower",
    ]
    raft.term, raft.role = 4, Role.CANDIDATE
    assert tell(9000, 3) == (True, [])
    raft.role, raft.leader = Role.FOLLOWER, "n3"
    assert tell(9001, 3) == (True, [])
    assert [line.get("role") for line in tell(9002, 4)[1]] == ["follower"], "the rest is over"
