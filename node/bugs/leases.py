"""Faults in how long a leader trusts that there is no other one."""

from collections.abc import Callable
from typing import Any

from labrys.node.bugs.careless import Careless
from labrys.node.bugs.variant import variant
from labrys.node.messages import NodeId
from labrys.node.service import Service


class WallClockLease(Careless):
    """Measures its lease by the wall clock: set back, the clock makes the lease longer.

    Seen in: every Go program before there was Go 1.9, which had no other clock.
    Seen by: raft (leases), linearizable, with lease reads
    """

    wall_ms: Callable[[], int]
    """Set by whoever knows the time of day."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lease_until_wall_ms = 0

    def _become_leader(self) -> None:
        self._lease_until_wall_ms = 0
        super()._become_leader()

    def _confirm_rounds(self) -> None:
        before_ms = self._lease_until_ms
        super()._confirm_rounds()
        if self._lease_until_ms != before_ms:
            self._lease_until_wall_ms = self.wall_ms() + self._lease_until_ms - self._now_ms

    def has_lease(self, now_ms: int) -> bool:
        left_ms = self._lease_until_wall_ms - self.wall_ms()
        return super().has_lease(self._lease_until_ms - left_ms)


class _TellsTheTimeOfDay(Service):
    """Lets the core know the time of day, which a correct one never asks for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert isinstance(self._raft, WallClockLease), f"{self._raft} asks for no time of day"
        self._raft.wall_ms = self._wall_ms


class LeaseFromAnswer(Careless):
    """Lets the lease begin when a majority has answered, and last as long as they are loyal.

    They are loyal from when they were asked, so with slow answers the lease outlasts that. It
    leaves nothing for clocks that run at different rates, either.

    Seen in: Consul of 2014, whose lease lasted as long as its followers waited.
    Seen by: raft (leases), linearizable, with lease reads
    """

    def _confirm_rounds(self) -> None:
        before_ms = self._lease_until_ms
        super()._confirm_rounds()
        if self._lease_until_ms != before_ms:
            self._lease_until_ms = self._now_ms + self.config.election_timeout_ms


class LeaseAcrossPause(Careless):
    """Looks whether the lease holds by the time of its last turn, and answers after a pause.

    Seen in: etcd #20418, where a process that stood still went on with a lease that was over.
    Seen by: raft (leases), linearizable, with lease reads
    """

    def has_lease(self, now_ms: int) -> bool:
        return super().has_lease(self._now_ms)


class LeaseAfterHandingOver(Careless):
    """Keeps its lease when it has told another node to campaign at once.

    Seen in: a class of bugs, against sections 3.10 and 6.4.1 of the Raft dissertation.
    Seen by: raft (leases), linearizable, with lease reads
    """

    def _call_to_campaign(self, node: NodeId) -> None:
        was_void = self._is_lease_void
        super()._call_to_campaign(node)
        self._is_lease_void = was_void


BUGS = {
    "lease-wall-clock": variant(
        "the lease of lease reads is measured by the wall clock", WallClockLease, _TellsTheTimeOfDay
    ),
    "lease-from-answer": variant("the lease begins when it is confirmed", LeaseFromAnswer),
    "lease-across-pause": variant(
        "a lease that was looked at before a pause counts after it", LeaseAcrossPause
    ),
    "lease-after-handing-over": variant(
        "a leader that hands over trusts its lease", LeaseAfterHandingOver
    ),
}
