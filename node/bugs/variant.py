"""A faulty variant of the node, and what there is to know about it."""

import inspect

import msgspec

from labrys.node.bugs.careless import Careless, Unwatched
from labrys.node.parts import Parts

_IN, _BY = "Seen in: ", "Seen by: "


class Bug(msgspec.Struct, frozen=True):
    """One fault."""

    description: str
    """In one line."""
    parts: Parts
    mechanism: str
    """What goes wrong, and how."""
    seen_in: str
    """Where it was shipped."""
    seen_by: str
    """Which check should see it."""


def variant(description: str, *classes: type) -> Bug:
    """The node with these classes in the places of those that they derive from.

    The docstring of the first tells of the fault. It ends with a paragraph of "Seen in: ..." and
    "Seen by: ...".
    """
    correct = msgspec.structs.asdict(Parts())
    places = {
        next(name for name, part in correct.items() if issubclass(each, part)): each
        for each in classes
    }
    mechanism, _, seen = inspect.cleandoc(classes[0].__doc__ or "").rpartition(f"\n\n{_IN}")
    seen_in, _, seen_by = seen.partition(f"\n{_BY}")
    assert mechanism, f"{classes[0].__name__} does not say where it was seen"
    assert seen_by, f"{classes[0].__name__} does not say who should see it"
    return Bug(
        description,
        Parts(**{"raft": Careless, "audit": Unwatched} | places),
        *(" ".join(text.split()) for text in (mechanism, seen_in, seen_by)),
    )
