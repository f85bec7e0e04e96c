"""Keeps the node's code from the real world while it is simulated.

A run is a function of its seed only if no clock and no randomness but the simulation's gets into
it. Code of the node that asks for another while a simulation goes on is a bug, and is told so.
"""

import os
import random
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest import mock

from labrys.control.errors import InternalError

FORBIDDEN: Final[tuple[tuple[Any, tuple[str, ...]], ...]] = (
    (time, ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns",
            "sleep")),
    (random, ("random", "randrange", "randint", "choice", "choices", "shuffle", "sample",
              "uniform", "getrandbits", "seed")),
    (secrets, ("randbits", "randbelow", "token_bytes", "token_hex", "choice")),
    (os, ("urandom", "getpid")),
    (threading.Thread, ("start",)),
)  # fmt: skip
"""By module (or class), what the node must not call."""
_GUARDED: Final = "labrys.node."


@contextmanager
def guarded() -> Iterator[None]:
    """Raise InternalError when the node's code asks for a real clock, randomness or a thread."""
    with ExitStack() as patches:
        for owner, names in FORBIDDEN:
            for name in names:
                patches.enter_context(mock.patch.object(owner, name, _refusing(owner, name)))
        yield


def _refusing(owner: Any, name: str) -> Callable[..., Any]:
    real = getattr(owner, name)
    where = getattr(owner, "__name__", str(owner))

    def call(*args: Any, **more: Any) -> Any:
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.startswith(_GUARDED):
            raise InternalError(
                f"{caller} calls {where}.{name} in a simulation: what it needs of the world must "
                "come from its surroundings (labrys.node.surroundings)"
            )
        return real(*args, **more)

    return call
