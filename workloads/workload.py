"""The workload: what clients do to a system, and what they may expect of it.

A workload is a record of plain functions and words, so that everything about it is known without
running it: the command line lists its options, `labrys check` takes its model. `registry` has all
of them by name.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from labrys.checkers.op import Op
from labrys.workloads.client import Client
from labrys.workloads.generator import Source
from labrys.workloads.keyvalue import Consistency, KeyValue

OptionsT = TypeVar("OptionsT", bound=msgspec.Struct)


class Workload(msgspec.Struct, Generic[OptionsT], frozen=True):
    """Operations, the client that performs them and the model that judges them.

    `OptionsT` is a frozen Struct with `forbid_unknown_fields`: its fields with their types and
    defaults are the options. `concurrency` is the number of client threads.
    """

    name: str
    description: str
    """One line for people."""
    model: str
    """Against which model histories are checked for linearizability, as `labrys check --model`."""
    reads: frozenset[str]
    """The `f` of ops without an effect: one without an answer simply failed."""
    writes: frozenset[str]
    """The `f` of ops with an effect."""
    options: type[OptionsT]
    validate: Callable[[OptionsT, int], None]
    """`(options, concurrency)`: raises ValueError, with advice, when they do not go together."""
    generator: Callable[[OptionsT, int], Source]
    """`(options, concurrency)`: the ops of the main phase, for client threads, without end and
    without a pace; rate and time limit are the caller's."""
    final_generator: Callable[[OptionsT, int, Iterable[Op]], Source]
    """`(options, concurrency, ops recorded so far)`: the reads after recovery, at a pace of their
    own. Ends when every thread has read what it should; the time limit is the caller's."""
    client: Callable[[KeyValue], Client]
    """Makes the client for one worker from its connection to the store."""
    consistency: Callable[[OptionsT], Consistency] = lambda options: Consistency.LINEARIZABLE
    """`(options)`: what reads ask the store for."""
    sessions: Callable[[OptionsT], bool] = lambda options: False
    """`(options)`: whether writes belong to a session, and are sent again."""


def parse_options(
    workload: Workload[OptionsT], options: Mapping[str, Any], *, concurrency: int
) -> OptionsT:
    """Return the checked options. Raises ValueError: which one is wrong, and the mend."""
    known = workload.options.__struct_fields__
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            meant = f" (did you mean {close[0]}?)" if close else ""
            raise ValueError(
                f"workload {workload.name} has no option {name!r}{meant}: it has {', '.join(known)}"
            )
    try:
        parsed = msgspec.convert(dict(options), workload.options)
    except msgspec.ValidationError as error:
        raise ValueError(f"options of workload {workload.name}: {error}") from error
    workload.validate(parsed, concurrency)
    return parsed
