"""The hosts that a run may hold, as its directory keeps them from before the first is taken.

Whoever finishes a dead run learns here where to look.
"""

from pathlib import Path
from typing import Final

import msgspec

from labrys.control.errors import UsageError

HELD: Final = "hosts.json"
"""In a run directory; gone when the run holds no host any more."""


class Held(msgspec.Struct, frozen=True):
    """Hosts that are held for a run, or were about to be."""

    token: str
    """Names this use of the hosts; a run that is repeated gets another."""
    hosts: dict[str, str]
    """By node."""


def write_held(run_dir: Path, held: Held) -> None:
    """Note that a run may hold hosts from now on."""
    (run_dir / HELD).write_bytes(msgspec.json.encode(held))


def read_held(run_dir: Path) -> Held | None:
    """Return the hosts that may still be held for a run; None if there are none."""
    file = run_dir / HELD
    try:
        return msgspec.json.decode(file.read_bytes(), type=Held)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{file}: cannot be read: {error}") from error


def forget_held(run_dir: Path) -> None:
    """Note that a run holds no host any more."""
    (run_dir / HELD).unlink(missing_ok=True)
