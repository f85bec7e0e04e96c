"""The clock shim itself: a preloaded process, its page, and the kernel's clocks beside it.

What a clock says lies between what it should say at two readings of the kernel's clock around it:
that holds to the nanosecond however busy the machine is.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labrys.control.nemesis import clock_page, shim

pytestmark = pytest.mark.skipif(shim.compiler() is None, reason="no C compiler")

TIMEOUT_S = 75.0

_PRELUDE = f"""
import asyncio, ctypes, json, os, queue, select, sys, threading, time
sys.path.insert(0, {str(Path(clock_page.__file__).parent)!r})
from clock_page import change

PAGE = os.environ["LABRYS_CLOCK_PAGE"]
true_ns = ctypes.CDLL(None).labrys_true_ns
true_ns.restype = ctypes.c_int64
WALL, MONO = time.CLOCK_REALTIME, time.CLOCK_MONOTONIC

def set_clocks(**wanted):
    now_ns = true_ns(MONO)
    change(PAGE, wanted, now_ns)
    return now_ns

def say(*words):
    print(json.dumps(words), flush=True)
"""


def preloaded(page: Path, library: Path) -> dict[str, str]:
    return {**os.environ, "LD_PRELOAD": str(library), "LABRYS_CLOCK_PAGE": str(page)}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("shim") / "clock_shim.so"
    target.write_bytes(shim.build())
    return target


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "clock.page"
    clock_page.make(str(path))
    return path


def run(page: Path, library: Path, code: str) -> list[Any]:
    done = subprocess.run(
        [sys.executable, "-ISc", _PRELUDE + code],
        env=preloaded(page, library),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_page_that_says_nothing_changes_nothing(page: Path, library: Path) -> None:
    code = """
for clock in (WALL, MONO, time.CLOCK_BOOTTIME, time.CLOCK_MONOTONIC_RAW):
    before = true_ns(clock)
    told = time.clock_gettime_ns(clock)
    say(before <= told <= true_ns(clock))
"""
    assert run(page, library, code) == [[True]] * 4


def test_without_a_page_all_is_as_ever(tmp_path: Path, library: Path) -> None:
    (tmp_path / "garbage").write_bytes(bytes(4096))
    code = "before = true_ns(WALL); told = time.time_ns(); say(before <= told <= true_ns(WALL))"
    for name in ("absent", "garbage"):
        assert run(tmp_path / name, library, code) == [[True]]


@pytest.mark.parametrize("offset_ns", [-60_000_000_000, -1, 1, 30_000_000_000])
def test_wall_clock_is_off_by_exactly_what_was_asked(
    page: Path, library: Path, offset_ns: int
) -> None:
    code = f"""
set_clocks(wall_ns={offset_ns})
for read in (time.time_ns, lambda: time.clock_gettime_ns(WALL)):
    before = true_ns(WALL)
    told = read()
    say(before <= told - {offset_ns} <= true_ns(WALL))
libc = ctypes.CDLL(None)
libc.time.restype = ctypes.c_long
of_day = (ctypes.c_long * 2)()
before = true_ns(WALL) // 10**9
whole_s = libc.time(None)
libc.gettimeofday(of_day, None)
after = true_ns(WALL) // 10**9 + 1
for told_s in (whole_s, of_day[0]):
    say(before - 1 <= told_s - {offset_ns} / 1e9 <= after)
before = true_ns(MONO)
say(before <= time.monotonic_ns() <= true_ns(MONO))
"""
    assert run(page, library, code) == [[True]] * 5


@pytest.mark.parametrize("rate", [0.01, 0.5, 0.9, 1.1, 2, 100])
def test_clocks_run_at_exactly_the_rate_that_was_asked(
    page: Path, library: Path, rate: float
) -> None:
    code = f"""
rate = {rate}
since = set_clocks(wall_drift=rate - 1, mono_drift=rate - 1)
for _ in range(20):
    time.sleep(0.001 * rate)
    begun = true_ns(MONO)
    told = time.monotonic_ns()
    ended = true_ns(MONO)
    say(since + (begun - since) * rate - 3 <= told <= since + (ended - since) * rate + 3)
    begun, begun_wall = true_ns(MONO), true_ns(WALL)
    told = time.time_ns()
    ended, ended_wall = true_ns(MONO), true_ns(WALL)
    drifted = sorted([(begun - since) * (rate - 1), (ended - since) * (rate - 1)])
    say(begun_wall + drifted[0] - 3 <= told <= ended_wall + drifted[1] + 3)
"""
    assert run(page, library, code) == [[True]] * 40


def test_strobe_steps_to_and_fro_and_nowhere_else(page: Path, library: Path) -> None:
    code = """
since = set_clocks(strobe_ns=10**12, strobe_half_ns=2 * 10**6)
seen = set()
deadline = true_ns(MONO) + 30 * 10**9
flips = 0
while flips < 20 and true_ns(MONO) < deadline:
    begun_half = (true_ns(MONO) - since) // (2 * 10**6)
    before = true_ns(WALL)
    told = time.time_ns()
    after = true_ns(WALL)
    ended_half = (true_ns(MONO) - since) // (2 * 10**6)
    forth = told - before >= 10**12 // 2
    assert before <= told - (10**12 if forth else 0) <= after, "neither here nor there"
    if begun_half == ended_half:
        assert forth == bool(begun_half & 1), "in the other half"
        flips += forth not in seen
        seen = {forth}
say(flips)
"""
    assert run(page, library, code) == [[20]]


_SERVER = """
sys.setswitchinterval(0.0002)
for line in sys.stdin:
    steps = json.loads(line)
    told = []
    halt = threading.Event()
    behind = []

    def read(clock):
        last = time.clock_gettime_ns(clock)
        while not halt.is_set():
            now = time.clock_gettime_ns(clock)
            if now < last:
                behind.append([clock, last, now])
            last = now

    clocks = (MONO, MONO, time.CLOCK_BOOTTIME)
    threads = [threading.Thread(target=read, args=(clock,)) for clock in clocks]
    for thread in threads:
        thread.start()
    jumped = []
    for wanted in steps:
        before, true_before = time.monotonic_ns(), true_ns(MONO)
        set_clocks(**wanted)
        after, true_after = time.monotonic_ns(), true_ns(MONO)
        # Never less than before, and no more than the fastest rate and the skip allow.
        most = 100 * (true_after - true_before) + 10**7 * 100 + wanted.get("skip_ns", 0)
        jumped.append(before <= after <= before + most)
        time.sleep(0)
    halt.set()
    for thread in threads:
        thread.join()
    say(behind, jumped)
    set_clocks()
"""

_WANTED = st.fixed_dictionaries(
    {},
    optional={
        "wall_ns": st.integers(-(10**15), 10**15),
        "wall_drift": st.floats(-0.99, 10),
        "mono_drift": st.floats(-0.99, 10),
        "skip_ns": st.integers(0, 10**12),
        "strobe_ns": st.integers(-(10**12), 10**12),
        "strobe_half_ns": st.integers(0, 10**9),
    },
)


class Server:
    """A preloaded process that changes its own clocks and watches them."""

    def __init__(self, page: Path, library: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-ISc", _PRELUDE + _SERVER],
            env=preloaded(page, library),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def play(self, steps: list[dict[str, float]]) -> tuple[list[Any], list[bool]]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(steps) + "\n")
        self.process.stdin.flush()
        behind, jumped = json.loads(self.process.stdout.readline())
        return behind, jumped


@pytest.fixture(scope="module")
def server(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("server") / "clock.page"
    clock_page.make(str(path))
    made = Server(path, library)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.communicate()


@settings(max_examples=30, deadline=None)
@given(steps=st.lists(_WANTED, min_size=1, max_size=8))
def test_monotonic_clock_never_steps_back_whatever_is_set(
    server: Server, steps: list[dict[str, float]]
) -> None:
    """For no thread, and not for one that reads after another."""
    behind, jumped = server.play(steps)
    assert behind == []
    assert all(jumped), jumped


_WAITS = {
    "sleep": "time.sleep(SECONDS)",
    "select": "select.select([], [], [], SECONDS)",
    "poll": "select.poll().poll(SECONDS * 1000)",
    "epoll": "select.epoll().poll(SECONDS)",
    "lock": "lock = threading.Lock(); lock.acquire(); lock.acquire(timeout=SECONDS)",
    "queue": "try: queue.SimpleQueue().get(timeout=SECONDS)\nexcept queue.Empty: pass",
    "asyncio": "asyncio.run(asyncio.sleep(SECONDS))",
}


@pytest.mark.parametrize(
    ("rate", "seconds", "least_s"),
    [(100, 2 * TIMEOUT_S, 2 * TIMEOUT_S / 100), (0.5, 0.1, 0.2)],
    ids=["fast", "slow"],
)
@pytest.mark.parametrize("wait", _WAITS)
def test_waits_last_as_long_as_the_process_thinks(
    page: Path, library: Path, wait: str, rate: float, seconds: float, least_s: float
) -> None:
    """A wait of many seconds is soon over at a hundredfold rate; in full it would be cut off."""
    code = f"""
set_clocks(mono_drift={rate} - 1)
begun, true_begun = time.monotonic(), true_ns(MONO)
{_WAITS[wait].replace("SECONDS", str(seconds))}
say(time.monotonic() - begun, (true_ns(MONO) - true_begun) / 1e9)
"""
    ((told_s, true_s),) = run(page, library, code)
    assert told_s >= seconds - 0.002, "asyncio takes what is due within its resolution"
    assert true_s >= least_s * 0.99


@pytest.mark.parametrize("wanted", ["skip_ns=10**15", "wall_ns=-10**15", "wall_ns=10**15"])
def test_threads_and_time_outs_go_on_when_clocks_are_far_off(
    page: Path, library: Path, wanted: str
) -> None:
    """The interpreter hands its lock over by a wait with a deadline on the monotonic clock."""
    code = f"""
set_clocks({wanted})
halt = []
spinner = threading.Thread(target=lambda: [None for _ in iter(lambda: bool(halt), True)])
spinner.start()
for _ in range(5):
    time.sleep(0.001)
lock = threading.Lock()
lock.acquire()
say(lock.acquire(timeout=0.05))
halt.append(True)
spinner.join()
"""
    assert run(page, library, code) == [[False]]


def test_change_reaches_other_processes_at_once_and_nobody_without_the_shim(
    page: Path, library: Path
) -> None:
    host = time.time() - time.monotonic()
    code = """
say("ready")
sys.stdin.readline()
before = true_ns(WALL)
say(before <= time.time_ns() + 10**12 <= true_ns(WALL))
"""
    with subprocess.Popen(
        [sys.executable, "-ISc", _PRELUDE + code],
        env=preloaded(page, library),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        clock_page.change(str(page), {"wall_ns": -(10**12)}, time.monotonic_ns())
        before = time.time()
        stranger = subprocess.run(
            [sys.executable, "-ISc", "import time; print(time.time())"],
            env={**os.environ, "LABRYS_CLOCK_PAGE": str(page)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert before <= float(stranger.stdout) <= time.time()
        out, _ = other.communicate("\n", timeout=60)
    assert json.loads(out) == [True]
    assert abs((time.time() - time.monotonic()) - host) < 0.5, "the host's clock is as it was"


def test_undo_sets_the_wall_clock_right_and_lets_the_monotonic_one_go_on(
    page: Path, library: Path
) -> None:
    code = """
set_clocks(wall_ns=10**12, mono_drift=1.0)
time.sleep(0.01)
gained = time.monotonic_ns() - true_ns(MONO)
set_clocks()
before = true_ns(WALL)
told = time.time_ns()
say(before <= told <= true_ns(WALL))
kept = [time.monotonic_ns() - true_ns(MONO) for _ in range(100)]
say(gained > 0, max(kept) >= gained)
"""
    assert run(page, library, code) == [[True], [True, True]]
