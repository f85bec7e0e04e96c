"""The systems that a spec can name."""

from typing import Final

from labrys.control.systems.raftkv import RaftKv

SYSTEMS: Final[dict[str, type[RaftKv]]] = {"raftkv": RaftKv}
