"""What the seeded bugs do that the correct node does not."""

import pytest
from tests.node.cluster import Cluster

from labrys.node.bugs.leases import WallClockLease
from labrys.node.raft import Raft


class WallClock:
    """A wall clock that can be set."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.ahead_ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.cluster.now_ms + self.ahead_ms


@pytest.mark.parametrize(("core", "is_stale"), [(Raft, False), (WallClockLease, True)])
def test_lease_by_the_wall_clock_outlasts_the_office_when_that_clock_is_set_back(
    monkeypatch: pytest.MonkeyPatch, core: type[Raft], is_stale: bool
) -> None:
    cluster = Cluster(3, 1, core)
    wall = WallClock(cluster)
    monkeypatch.setattr(WallClockLease, "wall_ms", wall, raising=False)
    leader = cluster.up(cluster.elect())
    assert leader.has_lease(cluster.now_ms)
    cluster.now_ms += leader.config.lease_ms + 1
    assert not leader.has_lease(cluster.now_ms), "both agree while the clock is right"
    wall.ahead_ms -= 1000
    assert leader.has_lease(cluster.now_ms) is is_stale
