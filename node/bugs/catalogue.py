"""All faults by name."""

import difflib
from collections.abc import Mapping

from labrys.node.bugs import (
    api,
    commits,
    disk,
    elections,
    leases,
    membership,
    reads,
    replication,
    sessions,
    snapshots,
    store,
)
from labrys.node.bugs.variant import Bug
from labrys.node.errors import UsageError

SUBJECTS: Mapping[str, Mapping[str, Bug]] = {
    "elections": elections.BUGS,
    "log": replication.BUGS,
    "commit": commits.BUGS,
    "reads": reads.BUGS,
    "leases": leases.BUGS,
    "snapshots": snapshots.BUGS,
    "sessions": sessions.BUGS,
    "store": store.BUGS,
    "membership": membership.BUGS,
    "disk": disk.BUGS,
    "API": api.BUGS,
}
BUGS: Mapping[str, Bug] = {name: bug for bugs in SUBJECTS.values() for name, bug in bugs.items()}


def find_bug(name: str) -> Bug:
    """The bug of that name; raises UsageError with the names there are."""
    if name in BUGS:
        return BUGS[name]
    close = difflib.get_close_matches(name, BUGS, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UsageError(f"there is no bug {name!r}: {hint}There are {', '.join(BUGS)}")
