"""The node beside etcd: throughput, latency, idle cost, memory, restart, failover.

    python -m benchmarks.node
    python -m benchmarks.node --only put-64,get-64 --runs 3
    python -m benchmarks.node --only failover --kills 100

Both sides run as three members on loopback on the same disk with their default durability, asked
at their leader, turn by turn. A row shows the median of all runs and their range; `ratio` is how
many times better ours is. Without etcd (`apt-get install etcd-server`) its column stays empty.
"""

import argparse
import contextlib
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import etcd
from benchmarks.http_load import Load, Request, measure

from labrys.control.insertion import entries, insert
from labrys.control.loopback import Loopback, Server, wait_for

KEYS = 1000
LOAD_S = 3.0
IDLE_S = 20.0
WARM_UP_S = 2.0
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_NO_SNAPSHOTS = ("--snapshot-entries", "100000000", "--snapshot-mib", "100000")


class Figure(NamedTuple):
    """One measured value and what else is to be told of it."""

    value: float
    more: str = ""


class Row(NamedTuple):
    """What is measured, on both sides where there are two."""

    name: str
    unit: str
    more_is_better: bool
    ours: Callable[[Path, argparse.Namespace], Iterator[Figure]]
    theirs: Callable[[Path], Iterator[Figure]] | None = None
    target: str = ""


def main() -> None:
    """Measure the rows that were asked for and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="", help="rows, separated by commas")
    parser.add_argument("--kills", type=int, default=20, help="leaders to kill for failover")
    parser.add_argument("--json", action="store_true", help="one object a row")
    args = parser.parse_args()
    only = [name for name in args.only.split(",") if name]
    unknown = sorted({*only} - {row.name for row in ROWS})
    if unknown or args.runs < 1 or args.kills < 1:
        names = ", ".join(row.name for row in ROWS)
        parser.error(f"no such row: {', '.join(unknown)}; there are {names}" if unknown else
                     "--runs and --kills must be at least 1")  # fmt: skip
    has_etcd = etcd.is_installed()
    if not args.json:
        print(_machine())
        print(etcd.version() if has_etcd else f"etcd is not installed ({etcd.INSTALL}): skipped")
        print(f"{'':14}{'labrys':>34}{'etcd':>34}{'ratio':>8}")
    for row in ROWS:
        if not only or row.name in only:
            ours, theirs = _measure(row, args, has_etcd=has_etcd)
            print(_json(row, ours, theirs) if args.json else _line(row, ours, theirs), flush=True)


def _measure(
    row: Row, args: argparse.Namespace, *, has_etcd: bool
) -> tuple[list[Figure], list[Figure]]:
    """All runs, both sides turn by turn."""
    with contextlib.ExitStack() as stack:
        ours = _side(stack, lambda directory: row.ours(directory, args))
        theirs = None
        if row.theirs is not None and has_etcd:
            theirs = _side(stack, row.theirs)
        found: tuple[list[Figure], list[Figure]] = ([], [])
        for _ in range(args.runs):
            found[0].append(next(ours))
            if theirs is not None:
                found[1].append(next(theirs))
    return found


def _side(
    stack: contextlib.ExitStack, start: Callable[[Path], Iterator[Figure]]
) -> Iterator[Figure]:
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="labrys-bench-")))
    figures = start(directory)
    stack.callback(getattr(figures, "close", lambda: None))
    return figures


def _line(row: Row, ours: list[Figure], theirs: list[Figure]) -> str:
    ratio = _ratio(row, ours, theirs)
    shown = f"{ratio:7.2f}x" if ratio is not None else f"{'-':>8}"
    more = ours[len(ours) // 2].more + (f" | etcd {theirs[0].more}" if theirs else "")
    target = f"  target {row.target}" if row.target else ""
    return f"{row.name:14}{_cell(row, ours):>34}{_cell(row, theirs):>34}{shown}{target}  {more}"


def _cell(row: Row, figures: list[Figure]) -> str:
    if not figures:
        return "-"
    values = sorted(figure.value for figure in figures)
    middle, low, high = statistics.median(values), values[0], values[-1]
    return f"{middle:,.6g} ({low:,.5g}-{high:,.5g}) {row.unit}"


def _ratio(row: Row, ours: list[Figure], theirs: list[Figure]) -> float | None:
    if not theirs:
        return None
    mine, other = (statistics.median(f.value for f in side) for side in (ours, theirs))
    return mine / other if row.more_is_better else other / mine


def _json(row: Row, ours: list[Figure], theirs: list[Figure]) -> str:
    facts = {"row": row.name, "unit": row.unit, "target": row.target, "labrys": ours}
    return json.dumps({**facts, "etcd": theirs, "ratio": _ratio(row, ours, theirs)})


def _machine() -> str:
    with tempfile.NamedTemporaryFile() as file:
        times = []
        for _ in range(50):
            file.write(b"x" * 512)
            file.flush()
            begun_s = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begun_s)
    return (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, Linux {platform.release()}, "
        f"fdatasync {statistics.median(times) * 1e3:.2f} ms (longest of 50: {max(times) * 1e3:.2f})"
    )


# ---- load -------------------------------------------------------------------------------------


def _figure(load: Load) -> Figure:
    told = (f"{name} {value * 1e3:.2f} ms" for name, value in
            (("p50", load.p50_s), ("p99", load.p99_s), ("longest", load.longest_s)))  # fmt: skip
    return Figure(load.per_s, ", ".join(told))


def _value(number: int) -> str:
    return f"value-{number:010d}"


OUR_PUTS: list[Request] = [
    ("PUT", f"/v1/kv/key-{n:012d}", json.dumps({"value": _value(n)})) for n in range(KEYS)
]
OUR_GETS: list[Request] = [("GET", f"/v1/kv/key-{n:012d}", None) for n in range(KEYS)]
ETCD_PUTS: list[Request] = [etcd.put(f"key-{n:012d}", _value(n)) for n in range(KEYS)]
ETCD_GETS: list[Request] = [etcd.get(f"key-{n:012d}") for n in range(KEYS)]


def _our_load(
    directory: Path, _: argparse.Namespace, *, connections: int, requests: Sequence[Request]
) -> Iterator[Figure]:
    with Loopback(directory, 3) as nodes:
        nodes.start_all()
        port = nodes.leader().http_port
        measure(port, 16, WARM_UP_S, OUR_PUTS)
        while True:
            yield _figure(measure(port, connections, LOAD_S, requests))


def _etcd_load(
    directory: Path, *, connections: int, requests: Sequence[Request]
) -> Iterator[Figure]:
    with etcd.cluster(directory) as port:
        measure(port, 16, WARM_UP_S, ETCD_PUTS)
        while True:
            yield _figure(measure(port, connections, LOAD_S, requests))


def _load_row(kind: str, connections: int, target: str) -> Row:
    ours, theirs = (OUR_PUTS, ETCD_PUTS) if kind == "put" else (OUR_GETS, ETCD_GETS)
    return Row(
        f"{kind}-{connections}",
        "/s",
        more_is_better=True,
        ours=functools.partial(_our_load, connections=connections, requests=ours),
        theirs=functools.partial(_etcd_load, connections=connections, requests=theirs),
        target=target,
    )


def _stress(directory: Path, _: argparse.Namespace, *, batch: int) -> Iterator[Figure]:
    for run in range(sys.maxsize):
        here = directory / str(run)
        here.mkdir()
        with Loopback(here, 3, _NO_SNAPSHOTS) as nodes:
            nodes.start_all()
            done = insert(nodes.leader(), entries(50_000, 16, 16), batch, 4)
        yield Figure(done.count / done.elapsed_s)


# ---- cost -------------------------------------------------------------------------------------


def _processor_s(server: Server) -> float:
    assert server.process is not None
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def _memory_mib(server: Server) -> float:
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def _idle(directory: Path, _: argparse.Namespace) -> Iterator[Figure]:
    with Loopback(directory, 5) as nodes:
        nodes.start_all()
        nodes.leader()
        while True:
            before = [_processor_s(server) for server in nodes.servers]
            time.sleep(IDLE_S)
            used = sum(map(_processor_s, nodes.servers)) - sum(before)
            yield Figure(100 * used / IDLE_S)


def _start(directory: Path, _: argparse.Namespace) -> Iterator[Figure]:
    for run in range(sys.maxsize):
        here = directory / str(run)
        here.mkdir()
        with Loopback(here, 1) as nodes:
            (server,) = nodes.servers
            begun_s = time.perf_counter()
            nodes.start(server)
            while server.status() is None:
                time.sleep(0.002)
            yield Figure((time.perf_counter() - begun_s) * 1e3)


def _memory(directory: Path, _: argparse.Namespace) -> Iterator[Figure]:
    for run in range(sys.maxsize):
        here = directory / str(run)
        here.mkdir()
        with Loopback(here, 3) as nodes:
            nodes.start_all()
            time.sleep(1)
            yield Figure(max(map(_memory_mib, nodes.servers)))


def _million(directory: Path, _: argparse.Namespace) -> Iterator[Figure]:
    with Loopback(directory, 1) as nodes:
        nodes.start_all()
        (server,) = nodes.servers
        insert(server, entries(1_000_000, 16, 100), 4000, 2)
        while True:
            time.sleep(2)
            yield Figure(_memory_mib(server))


def _restart(directory: Path, _: argparse.Namespace) -> Iterator[Figure]:
    with Loopback(directory, 1, _NO_SNAPSHOTS) as nodes:
        nodes.start_all()
        (server,) = nodes.servers
        insert(server, entries(200_000, 16, 16), 4000, 2)
        while True:
            nodes.stop(server)
            begun_s = time.perf_counter()
            nodes.start(server)
            nodes.await_ready(server)
            yield Figure(time.perf_counter() - begun_s)


# ---- failover ---------------------------------------------------------------------------------


def _failover(directory: Path, args: argparse.Namespace) -> Iterator[Figure]:
    """Kill the leader; until a write through another node is acknowledged again."""
    with Loopback(directory, 5) as nodes:
        nodes.start_all()
        while True:
            waits = sorted(_kill_leader(nodes) for _ in range(args.kills))
            median, p99 = (
                statistics.median(waits),
                waits[min(len(waits) * 99 // 100, len(waits) - 1)],
            )
            yield Figure(median * 1e3, f"p99 {p99 * 1e3:.0f} ms, of {len(waits)} kills")


def _kill_leader(nodes: Loopback) -> float:
    leader = nodes.leader()
    others = [server for server in nodes.servers if server is not leader]
    acked = threading.Event()

    def write(server: Server) -> None:
        while not acked.is_set():
            with contextlib.suppress(OSError):
                if server.call("PUT", "/v1/kv/failover", {"value": 1})[0] == 200:
                    acked.set()
            time.sleep(0.005)

    nodes.kill(leader)
    begun_s = time.perf_counter()
    writers = [threading.Thread(target=write, args=(server,)) for server in others[:2]]
    for writer in writers:
        writer.start()
    acked.wait(30)
    waited_s = time.perf_counter() - begun_s
    for writer in writers:
        writer.join()
    nodes.start(leader)
    nodes.await_ready(leader)
    if wait_for(lambda: nodes.leader() is not None, 30) is None:
        raise subprocess.SubprocessError("the cluster did not recover")
    return waited_s


ROWS = (
    Row("stress-1000", "entries/s", True, functools.partial(_stress, batch=1000),
        target=">= 150,000"),
    Row("stress-8000", "entries/s", True, functools.partial(_stress, batch=8000),
        target=">= 150,000"),
    _load_row("put", 1, ">= 1x"),
    _load_row("put", 16, ""),
    _load_row("put", 64, ">= 3x"),
    _load_row("get", 1, ">= 3x"),
    _load_row("get", 64, ">= 3x"),
    Row("idle-5", "% of a core", False, _idle, target="< 3"),
    Row("start", "ms", False, _start, target="< 150"),
    Row("memory-idle", "MiB", False, _memory, target="< 40"),
    Row("memory-1M", "MiB", False, _million, target="< 600"),
    Row("restart-200k", "s", False, _restart, target="< 2"),
    Row("failover", "ms", False, _failover, target="< 500, p99 < 1000"),
)  # fmt: skip


if __name__ == "__main__":
    main()
