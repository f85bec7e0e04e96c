"""The roles that the nodes of a Raft cluster had, as their logs tell it."""

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from labrys.control.report.run_files import NodeLog

_ROLE: Final = re.compile(r" role=(\S+) term=(\d+)\b")
_BEGINS: Final = " event=boot "
_ENDS: Final = (" event=stop ", " event=fatal ")


class RoleSpan(msgspec.Struct, frozen=True):
    """A role that a node had for a while; nanoseconds on the clock of the history."""

    role: str
    term: int
    start: int
    end: int


def role_spans(log: NodeLog, end_ns: int) -> Iterator[RoleSpan]:
    """Yield the roles in a log one after the other; the last one lasts until `end_ns`.

    One who was killed could not say so: until its last line it had its role for certain.
    """
    role, term, start, last = "", 0, 0, 0
    for at, text in log.lines:
        if at is None:
            continue
        found = _ROLE.search(text)
        ends = last if _BEGINS in text else at
        if role and (found or _BEGINS in text or any(mark in text for mark in _ENDS)):
            yield RoleSpan(role, term, start, max(start, ends))
            role = ""
        if found:
            role, term, start = found[1], int(found[2]), at
        last = at
    if role:
        yield RoleSpan(role, term, start, max(start, end_ns))
