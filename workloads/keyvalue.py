"""What workloads ask of a key-value store, whichever one it is.

Apart from its implementation over HTTP in `kv`, so that to know a workload costs no HTTP library.
"""

from enum import StrEnum
from typing import Any, Protocol


class Consistency(StrEnum):
    """What a read asks for."""

    LINEARIZABLE = "linearizable"
    LEASE = "lease"
    """Linearizable too, as long as clocks run at about the same rate."""
    STALE = "stale"
    """Whatever the node that is asked happens to know."""


class KeyValue(Protocol):
    """One worker's connection to a store of JSON values by key.

    All operations raise DefiniteError when they certainly had no effect, IndefiniteError when
    nobody knows.
    """

    def open(self) -> None:
        """Make ready, without touching the data."""

    def get(self, key: str) -> Any:
        """Return the value, None when there is none."""

    def put(self, key: str, value: Any) -> None:
        """Set the value."""

    def delete(self, key: str) -> None:
        """Remove the key. DefiniteError `not-found` when there is none."""

    def cas(self, key: str, expect: Any, value: Any) -> None:
        """Set the value if it is `expect`; else DefiniteError `mismatch` or `not-found`."""

    def append(self, key: str, value: Any) -> None:
        """Append to the list under the key, which is made if there is none."""

    def close(self) -> None:
        """Disconnect. Never raises."""
