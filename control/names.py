"""Names that a user can get wrong: one way to refuse them, with the nearest right one."""

import difflib
from collections.abc import Iterable

from labrys.control.errors import UsageError


def known(
    noun: str, word: str, names: Iterable[str], *, where: str = "", list_all: bool = False
) -> None:
    """Raise UsageError if `word` is not among `names`, with the nearest one or all of them.

    `where` says where it was written: a flag, or a file and a line. With `list_all` the nearest
    one does not keep the others from being told.
    """
    choices = sorted(names)
    if word not in choices:
        close = difflib.get_close_matches(word, choices, n=1)
        hints = [f"did you mean {close[0]!r}?"] if close else []
        if list_all or not close:
            hints.append(f"known: {', '.join(choices)}")
        raise UsageError(
            f"{where}{': ' if where else ''}unknown {noun} {word!r}; {' '.join(hints)}"
        )
