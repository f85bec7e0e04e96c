"""Deliberate faults, each one that somebody shipped: `labrys-node --bug NAME`.

Each is a small override of one part of the node: the core, the log on disk, the store, the service
or the API. The production code knows nothing of them. They show that a test rig finds bugs. A
faulty node must not give itself away by stopping at its own assertions or the corruption check, so
the variants go on where a correct node would stop (`careless`).

One module for each subject; the docstring of a fault says what goes wrong, where it was seen and
who should see it, and `catalogue` holds that as data.
"""

from labrys.node.bugs.catalogue import BUGS, SUBJECTS, find_bug
from labrys.node.bugs.variant import Bug

__all__ = ["BUGS", "SUBJECTS", "Bug", "find_bug"]
