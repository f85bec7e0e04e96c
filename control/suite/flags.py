"""What the command line says of how a suite is run, checked."""

import re

import msgspec

from labrys.control.errors import UsageError
from labrys.control.suite.night import Policy
from labrys.control.suite.plan import Shard

_UNITS_S = {"h": 3600, "m": 60, "s": 1}


class Flags(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says of how a suite is run."""

    seed: int | None = None
    count: int | None = None
    """Passes; None: one, or until a run fails."""
    shard: Shard = Shard(1, 1)
    policy: Policy = Policy()
    keep_all: bool = True


def parse_duration(text: str, flag: str) -> float:
    """Return the seconds that `45m`, `1h30m`, `90s` or `90` stand for. Raises UsageError."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        seconds = float(text)
    else:
        match = re.fullmatch(r"(\d+h)?(\d+m)?(\d+s)?", text)
        parts = [part for part in match.groups() if part] if match else []
        seconds = float(sum(int(part[:-1]) * _UNITS_S[part[-1]] for part in parts))
    if seconds <= 0:
        raise UsageError(f"{flag} {text}: write a time above 0 such as 45m, 1h30m, 90s or 90")
    return seconds


def parse_shard(text: str) -> Shard:
    """Return the shard that `2/4` stands for. Raises UsageError."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    number, of = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= of:
        raise UsageError(f"--shard {text}: write I/N with I from 1 to N, e.g. 2/4")
    return Shard(number, of)
