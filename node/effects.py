"""What the core hands out: what to write, what to send, what to apply, in the order of the fields.

These values are the whole contract between the core and whoever drives it. A driver that carries
them out as their docstrings say is correct, however slow its disk and however bad its network.
"""

from collections.abc import Sequence

import msgspec

from labrys.node.configuration import Configuration
from labrys.node.messages import Entry, HardState, InstallRequest, NodeId, RaftMessage


class SnapshotMeta(msgspec.Struct, frozen=True):
    """Where a snapshot stands in the log, and the configuration in force there (section 7)."""

    index: int
    term: int
    configuration: Configuration


class Restored(msgspec.Struct, frozen=True):
    """What a node finds on its disk when it starts; `entries` begin behind the snapshot."""

    hard_state: HardState
    snapshot: SnapshotMeta
    """At index 0 with the initial configuration when there is none."""
    entries: Sequence[Entry]


class Persist(msgspec.Struct, frozen=True, gc=False):
    """One batch for the disk, to be written and flushed as a whole."""

    term: int
    last_index: int
    """Where the log ends after this batch: what to tell `Raft.persisted`, with the term."""
    hard_state: HardState | None
    """The new term and vote, None when they did not change."""
    first_index: int
    entries: tuple[Entry, ...]
    """Replace everything from `first_index` on; nothing to replace when empty."""
    base: SnapshotMeta | None = None
    """The log begins anew behind this snapshot, which is on disk; `entries` are what it holds."""
    chunks: tuple[InstallRequest, ...] = ()
    """Pieces of a snapshot from the leader, in order. When the last is there and the whole proves
    sound, tell `Raft.installed`, else `Raft.refuse_install`."""


class Effects(msgspec.Struct, frozen=True, gc=False):
    """What follows from the inputs since the last call, in the order in which it may happen.

    `eager` may leave at once: a leader's requests promise nothing about its own disk, and its term
    was on disk before it could be elected (dissertation 10.2.1). Then `persist` goes to disk, and
    only when it and all batches before it are there may `messages` leave. `committed` is held by a
    quorum of disks and waits for nobody; `reads` are answered after it is applied.
    """

    eager: tuple[tuple[NodeId, RaftMessage], ...]
    persist: Persist | None
    messages: tuple[tuple[NodeId, RaftMessage], ...]
    first_committed: int
    """Index of `committed[0]`."""
    committed: tuple[Entry, ...]
    reads: tuple[int, ...]
