"""What became of a command or a read, as a value."""

from typing import Any, Literal

import msgspec

Code = Literal[
    "ok", "not-found", "mismatch", "wrong-type",
    "session-expired", "seq-reused", "seq-forgotten",
]  # fmt: skip


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """`code` is "ok", or says why nothing was changed.

    `revision` is that of the whole store after the command; for a read of one key, the one at which
    the key last changed. `value` is what was read or added up to, what stood in the way, the id of
    a new session, or the list of what a batch or a transaction led to. It never changes later.
    """

    code: Code
    revision: int
    value: Any = None
