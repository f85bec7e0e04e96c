"""What a core is made from, in one line for tests."""

from collections.abc import Sequence

from labrys.node.configuration import Configuration
from labrys.node.effects import Restored, SnapshotMeta
from labrys.node.messages import Entry, HardState

_NEW = HardState()


def restored(
    voters: Sequence[str], hard_state: HardState = _NEW, entries: Sequence[Entry] = ()
) -> Restored:
    """A disk without snapshot, of a cluster whose first members are these."""
    return Restored(hard_state, SnapshotMeta(0, 0, Configuration(tuple(voters))), entries)
