"""What can go wrong, sorted by who must act.

LabrysError
 ├─ UsageError     exit 2: the command line, the spec or a file is wrong; the user mends it
 ├─ MachineError   exit 4: this machine cannot do it (no engine, no permission, disk full)
 ├─ ClusterError   exit 4: the nodes did not behave (never healthy, an undo that failed)
 └─ InternalError  exit 4: labrys itself has a bug
"""

from typing import ClassVar


class LabrysError(Exception):
    """Base of all errors that labrys reports in one clear message; never raised itself."""

    exit_code: ClassVar[int] = 4


class UsageError(LabrysError):
    """The user asked for something that cannot be: says what, where, and what to write instead."""

    exit_code = 2


class MachineError(LabrysError):
    """This machine cannot do what is needed: says what was tried, what came back and the mend."""


class ClusterError(LabrysError):
    """The nodes did not do what they should: says which node, what was tried, what came back."""


class InternalError(LabrysError):
    """labrys has a bug."""
