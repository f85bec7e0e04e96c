"""The page that says how far a node's clocks are off: made, changed and seen to be obeyed.

    python3 clock_page.py make PAGE               a page, unless there is one
    python3 clock_page.py set PAGE '{"wall_ns": -1000000000}'

The standard library only, and nothing of ours: the clock faults put it into each node and run it
there, `set` under the shim (see clock_shim.c) and so by the very clocks that the database has. It
prints what these clocks said beside the kernel's own, before and after:

    {"before": {...}, "after": {...}, "wall_rate": 1.0, "monotonic_rate": 1.0, "strobe_ns": 0,
     "processes": 1}

What is not said is undone: the wall clock is right again, and the monotonic clock, which may never
step back, goes on at the rate of the kernel's from where it is.
"""

import contextlib
import ctypes
import fcntl
import json
import mmap
import os
import struct
import sys
import time
from collections.abc import Callable, Iterator

MAGIC = b"labrys 1"
# Both as in clock_shim.c: the magic and the generation; and a slot, of which there are two.
_HEAD = struct.Struct("=8sQ")
_SLOT = struct.Struct("=qqdqqqdq")
_BYTES = _HEAD.size + 2 * _SLOT.size

_WATCH_NS = 50_000_000
"""How long rates are measured."""
_STROBES = 3
_STROBE_LEAST_NS = 500_000_000
"""How many periods, and how long at least, is waited for both ends of a strobe. A busy machine may
let us look only now and then."""
_NEAR_NS = 20_000
"""Two readings of the kernel's clock so close together pin down what was read between them."""


def make(path: str) -> None:
    """Write a page that leaves the clocks alone, unless there is one.

    A process that an earlier run left may live by that one: `change` reaches it there, and would
    not in a new file, and a file that is cut short kills whoever has mapped it.
    """
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        if len(page := file.read()) == _BYTES and page.startswith(MAGIC):
            return
    with open(f"{path}.new", "wb") as file:
        file.write(_HEAD.pack(MAGIC, 0) + bytes(2 * _SLOT.size))
    os.replace(f"{path}.new", path)


def change(path: str, wanted: dict[str, float], mono_ns: int) -> None:
    """Publish new settings; `mono_ns` is the kernel's monotonic clock now.

    `wall_ns`, `wall_drift`, `strobe_ns`, `strobe_half_ns` and `mono_drift` hold from now on;
    `skip_ns` is added to what the monotonic clock has gained already.
    """
    with open(path, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        page = mmap.mmap(file.fileno(), _BYTES)
        magic, generation = _HEAD.unpack_from(page)
        assert magic == MAGIC, f"{path} is no page of clocks"
        base_ns, _, _, _, _, gained_ns, drift, _ = _SLOT.unpack_from(page, _place(generation))
        gained_ns += int((mono_ns - base_ns) * drift) + int(wanted.get("skip_ns", 0))
        _SLOT.pack_into(
            page,
            _place(generation + 1),
            mono_ns,
            int(wanted.get("wall_ns", 0)),
            wanted.get("wall_drift", 0.0),
            int(wanted.get("strobe_ns", 0)),
            int(wanted.get("strobe_half_ns", 0)),
            gained_ns,
            wanted.get("mono_drift", 0.0),
            0,
        )
        # One aligned store, where pack_into writes byte by byte.
        ctypes.c_uint64.from_buffer(page, 8).value = generation + 1


def _place(generation: int) -> int:
    return _HEAD.size + (generation & 1) * _SLOT.size


def _change_and_watch(path: str, wanted: dict[str, float]) -> dict[str, object]:
    true_ns = ctypes.CDLL(None).labrys_true_ns
    true_ns.restype = ctypes.c_int64
    before = _offsets(true_ns)
    change(path, wanted, true_ns(time.CLOCK_MONOTONIC))
    after = _offsets(true_ns)
    least_ns = most_ns = after["wall_ns"]
    if wanted.get("strobe_ns"):
        limit_ns = max(_STROBE_LEAST_NS, int(2 * _STROBES * wanted["strobe_half_ns"]))
        for _ in _until(true_ns, limit_ns):
            wall_ns = _offsets(true_ns)["wall_ns"]
            least_ns, most_ns = min(least_ns, wall_ns), max(most_ns, wall_ns)
            if most_ns - least_ns >= 0.9 * abs(wanted["strobe_ns"]):
                break
    rates = {"wall_ns": 1.0, "monotonic_ns": 1.0}
    if wanted.get("wall_drift") or wanted.get("mono_drift"):
        for _ in _until(true_ns, _WATCH_NS):
            pass
        last = _offsets(true_ns)
        passed_ns = last["true_ns"] - after["true_ns"]
        rates = {name: 1 + (last[name] - after[name]) / passed_ns for name in rates}
    return {
        "before": before,
        "after": after,
        "wall_rate": round(rates["wall_ns"], 5),
        "monotonic_rate": round(rates["monotonic_ns"], 5),
        "strobe_ns": most_ns - least_ns,
        "processes": _count_users(path),
    }


def _offsets(true_ns: Callable[[int], int]) -> dict[str, int]:
    """How far the clocks are ahead of the kernel's own, and when that was."""
    return {
        "true_ns": true_ns(time.CLOCK_MONOTONIC),
        "wall_ns": _ahead(true_ns, time.CLOCK_REALTIME),
        "monotonic_ns": _ahead(true_ns, time.CLOCK_MONOTONIC),
    }


def _ahead(true_ns: Callable[[int], int], clock: int) -> int:
    """The best of several tries: a busy machine may put us to sleep between two readings."""
    best_ns, ahead_ns = 1 << 62, 0
    for _ in range(20):
        begun_ns = true_ns(clock)
        told_ns = time.clock_gettime_ns(clock)
        ended_ns = true_ns(clock)
        if ended_ns - begun_ns < best_ns:
            best_ns = ended_ns - begun_ns
            ahead_ns = told_ns - (begun_ns + ended_ns) // 2
        if best_ns < _NEAR_NS:
            break
    return ahead_ns


def _until(true_ns: Callable[[int], int], limit_ns: int) -> Iterator[None]:
    """Yield every millisecond by the kernel's clock; ours may run at any rate."""
    ends_ns = true_ns(time.CLOCK_MONOTONIC) + limit_ns
    while true_ns(time.CLOCK_MONOTONIC) < ends_ns:
        yield
        time.sleep(0.001)


def _count_users(path: str) -> int:
    """How many other processes go by this page."""
    path = os.path.realpath(path)
    count = 0
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and int(entry) != os.getpid():
            try:
                with open(f"/proc/{entry}/maps") as maps:
                    count += any(line.rstrip("\n").endswith(f" {path}") for line in maps)
            except OSError:  # it has ended, or is none of ours
                continue
    return count


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2])
    else:
        print(json.dumps(_change_and_watch(sys.argv[2], json.loads(sys.argv[3]))))
