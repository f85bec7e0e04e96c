"""Damage to files in a node: bits flipped, ends cut off, done by a small program in the node.

What to do is drawn before anybody knows how long the files are, so places are parts of a length,
from 0 to 1. What was done comes back byte for byte.
"""

import json
import random
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from labrys.control.environments.base import Environment, check

FLIP: Final = "flip"
TRUNCATE: Final = "truncate"
MIDDLE: Final = 0.9
"""Where the middle of a growing file ends: what comes last may be half written in any crash."""
TOLD_MAX: Final = 8
"""Changed bytes that are told one by one."""


def draw_flips(count: int, rng: random.Random) -> dict[str, Any]:
    """Return the plan for that many flipped bits, in a file chosen by `which`."""
    return {
        "which": _part(rng),
        "at": [_part(rng) for _ in range(count)],
        "bits": [rng.randrange(8) for _ in range(count)],
    }


def draw_cut(percent: float, rng: random.Random) -> dict[str, Any]:
    """Return the plan for a file that loses so much of its end."""
    return {"which": _part(rng), "cut_percent": percent}


def _part(rng: random.Random) -> float:
    return round(rng.random(), 6)


def damage(
    env: Environment, node: str, patterns: Sequence[str], plan: Mapping[str, Any], *, within: float
) -> dict[str, Any] | None:
    """Damage one of the files that match, and return what was changed; None: there is none.

    Bits are flipped in the part `within` of the file, from its beginning.
    """
    order = {"patterns": list(patterns), "within": within, "told_max": TOLD_MAX}
    for name in ("which", "at", "bits", "cut_percent"):
        if name in plan:
            order[name] = plan[name]
    words = shlex.join([env.python(node), "-c", _PROGRAM, json.dumps(order)])
    said = check(node, "damaging a file", env.run(node, words))
    found: dict[str, Any] | None = json.loads(said)
    return found


_PROGRAM: Final = """
import glob, json, os, sys

order = json.loads(sys.argv[1])
paths = sorted(path for each in order["patterns"] for path in glob.glob(each))
paths = [path for path in paths if os.path.getsize(path)]
if not paths:
    print("null")
    sys.exit()
path = paths[int(order["which"] * len(paths))]
size = os.path.getsize(path)
told = {"file": path, "size_bytes": size}
with open(path, "r+b") as file:
    if "cut_percent" in order:
        cut = min(size, max(1, round(size * order["cut_percent"] / 100)))
        file.truncate(size - cut)
        told["cut_bytes"] = cut
    else:
        span = max(1, int(size * order["within"]))
        flips = sorted({(int(at * span), bit) for at, bit in zip(order["at"], order["bits"])})
        changes = []
        for offset, bit in flips:
            file.seek(offset)
            before = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([before ^ 1 << bit]))
            changes.append({"offset": offset, "before": before, "after": before ^ 1 << bit})
        told["bits"] = len(changes)
        told["changes"] = changes[: order["told_max"]]
    file.flush()
    os.fsync(file.fileno())
print(json.dumps(told))
"""
