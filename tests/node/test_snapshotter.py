"""What a node does with a leader's snapshot when its own have got further meanwhile."""

import random
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from labrys.node.configuration import Configuration
from labrys.node.effects import Restored, SnapshotMeta
from labrys.node.errors import CorruptLog
from labrys.node.machine import Machine
from labrys.node.messages import HardState
from labrys.node.raft import Config, Raft
from labrys.node.snapshotter import Snapshotter, Thresholds
from labrys.node.storage import Received

MEMBERS = Configuration(("n1", "n2", "n3"))


class Around:
    """Surroundings in which work is done when the test says so."""

    def __init__(self) -> None:
        self.scheduler = self
        self.done: Callable[[Future[Any]], None] = lambda future: None

    def time(self) -> float:
        return 0.0

    def say(self, **facts: object) -> None: ...

    def work_aside(self, work: object, done: Callable[[Future[Any]], None]) -> None:
        self.done = done


@pytest.mark.parametrize(("received", "is_fatal"), [(9, False), (10, False), (11, True)])
def test_a_snapshot_that_was_tidied_up_before_it_was_read_stops_nobody(
    received: int, is_fatal: bool
) -> None:
    """Found by the simulation: a leader's snapshot was older than one that this node had made."""
    restored = Restored(HardState(3), SnapshotMeta(10, 3, MEMBERS), [])
    raft = Raft(Config(id="n1"), restored, random.Random(1), 0)
    around = Around()
    failures: list[BaseException] = []
    snapshotter = Snapshotter(
        raft, None, Machine, None, Thresholds(), lambda machine: None, failures.append, around  # type: ignore[arg-type]
    )  # fmt: skip
    snapshotter.receive(Received(received, SnapshotMeta(received, 3, MEMBERS)))
    future: Future[Any] = Future()
    future.set_exception(CorruptLog("No such file"))
    around.done(future)
    assert bool(failures) is is_fatal
    assert raft.snapshot.index == 10
