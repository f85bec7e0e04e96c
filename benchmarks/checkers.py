"""How fast the checkers are, case by case, beside what Porcupine, Knossos and Elle take.

    python -m benchmarks.checkers [CASE ...]      a part of a case's name is enough

One thread, plain Python. A case runs in a process of its own, so its peak of memory is its own;
times are from the history in memory to the verdict unless a case says otherwise. What the others
take was measured on a machine of the same kind: it stands here as text, in `OTHERS`.
"""

import gc
import heapq
import json
import multiprocessing
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.checkers.generate import as_history, simulated
from tests.checkers.oracle import Act

from labrys.checkers.budget import Budget
from labrys.checkers.catalogue import checker_for
from labrys.checkers.checker import Evidence, Limits
from labrys.checkers.decide import decide
from labrys.checkers.distinct.outcome import NotApplicable
from labrys.checkers.formats import read_any
from labrys.checkers.history import History, encode_op, read_history
from labrys.checkers.models import CasRegister, Model
from labrys.checkers.op import Op, OpType
from labrys.checkers.subject import subjects

CORPUS = Path(os.environ.get("LABRYS_SHARED", "../shared")) / "histories"
OTHERS = {
    "etcd": "Porcupine 0.57 s for 103 logs, worst 219 ms",
    "knossos": "Knossos competition 20 to 50 ms each, linear times out on 4",
    "1,000 ops, 30": "Porcupine: none in 30 s, 1.9 GB",
    "10,000 ops, 30": "Porcupine: none in 30 s, 5 GB",
    "100,000 ops, 30": "Porcupine: none",
    "10,000 ops, 10": "Porcupine: none in 30 s, 5.8 GB",
    "keys": "Porcupine 0.19 to 0.36 s on two cores",
    "distinct": "Porcupine: out of memory",
    "fifo": "Porcupine: none at 300 operations",
    "stack": "Porcupine: none at 300 operations of a queue",
    "stale": "minutes or nothing",
    "200 values": "no verdict; a prototype said unknown",
    "list-append": "Elle about 15 s as a command",
    "300 operations": "Knossos 1.6 s before it begins",
}


def judged(history: History, model: str, **how: Any) -> tuple[float, str]:
    """Return the seconds that a check took, and its verdict."""
    checker = checker_for(model, **how)
    gc.collect()
    gc.disable()
    started = time.perf_counter()
    result = checker.check(history, Evidence())
    took = time.perf_counter() - started
    gc.enable()
    core = max((len(f.data.get("core", ())) for f in result.findings), default=0)
    return took, result.verdict.value + (f", core of {core}" if core else "")


def corpus(folder: str, **how: Any) -> str:
    """Judge every file of a folder of the corpus: the verdict alone, and with its explanation."""
    alone, explained = [], []
    for path in sorted((CORPUS / folder).rglob("*.*")):
        history = read_any(path)
        explained.append(min(judged(history, "cas-register", **how)[0] for _ in range(3)))
        alone.append(min(decided(history, CasRegister(**how)) for _ in range(3)))
    return f"{len(alone)} files, {told(alone)}; with explanations {told(explained)}"


def decided(history: History, model: Model) -> float:
    """Return the seconds to a verdict, without explaining it."""
    started = time.perf_counter()
    for subject in subjects(model, history.operations_by_key()):
        if isinstance(subject.outcome, NotApplicable):
            budget = Budget(Limits())
            decide(subject.search(budget), budget)
    return time.perf_counter() - started


def told(times: list[float]) -> str:
    """Return times (s) in words."""
    ms = sorted(1e3 * one for one in times)
    return f"{sum(ms):.1f} ms, median {ms[len(ms) // 2]:.2f}, worst {ms[-1]:.1f}"


def register(count: int, clients: int, crashed: float, values: int = 5, smart: float = 0.0) -> str:
    """Judge a simulated register; failed cas are dropped and not counted."""
    acts = simulated(
        random.Random(7), int(count * 1.36), clients, values=values, crash_rate=crashed, smart=smart
    )
    history = as_history(acts)
    took, verdict = judged(history, "cas-register")
    return f"{took:.3f} s, {verdict}, {len(history.operations):,} operations"


def stale(clients: int, values: int) -> str:
    """Judge a long history with a planted stale read, and the same without."""
    acts = simulated(random.Random(7), 115_000, clients, values=values, smart=0.5)
    bad = planted(acts, clients)
    fine, _ = judged(as_history(acts), "cas-register")
    took, verdict = judged(as_history(bad), "cas-register")
    return f"{took:.2f} s, {verdict}; valid case {fine:.2f} s, ratio {took / fine:.2f}"


def planted(acts: list[Act], clients: int) -> list[Act]:
    """Give a read near 90 % an old value that nobody has mentioned for a while."""
    end = max(act.ret or 0 for act in acts)
    reads = [act for act in acts if act.f == "read" and act.ret is not None]
    for victim in sorted(reads, key=lambda act: abs((act.ret or 0) - 0.9 * end))[:200]:
        horizon = victim.call - 12 * clients
        recent: set[Any] = set()
        for act in acts:
            if act.call <= (victim.ret or 0) and (act.ret is None or act.ret >= horizon):
                recent.update(act.value if isinstance(act.value, list) else [act.value])
        written = [act.value for act in acts if act.f == "write" and (act.ret or end) < horizon]
        old = [value for value in written if value not in recent]
        if old:
            return [act._replace(value=old[-1]) if act is victim else act for act in acts]
    raise ValueError("no old value is left to plant: use more values")


def keyed(keys: int, clients: int) -> str:
    """Judge 100,000 operations on keys picked at random, on one core; failed cas are dropped."""
    rng = random.Random(7)
    state: dict[int, int | None] = {}
    planned: list[tuple[float, int, str]] = []
    ops: dict[int, tuple[str, int, Any]] = {}
    results: dict[int, Any] = {}
    free = [(rng.expovariate(5), client) for client in range(clients)]
    heapq.heapify(free)
    for number in range(115_000):
        now, client = heapq.heappop(free)
        f = rng.choice(["read", "write", "cas"])
        asked = {"write": rng.randrange(5), "cas": [rng.randrange(5), rng.randrange(5)]}.get(f)
        ops[number] = (f, rng.randrange(keys), asked)
        latency = rng.expovariate(1)
        planned += [
            (now, number, "call"),
            (now + rng.random() * latency, number, "effect"),
            (now + latency, number, "return"),
        ]
        heapq.heappush(free, (now + latency + rng.expovariate(10), client))
    planned.sort()
    for _, number, what in planned:
        f, key, asked = ops[number]
        if what == "effect":
            if f == "cas" and state.get(key) != asked[0]:
                continue
            results[number] = state.get(key) if f == "read" else asked
            if f != "read":
                state[key] = asked[1] if f == "cas" else asked
    events = []
    for _, number, what in planned:
        f, key, asked = ops[number]
        if what != "effect" and number in results:
            kind = OpType.INVOKE if what == "call" else OpType.OK
            value = asked if what == "call" else results[number]
            events.append(Op(kind, number, f, key=f"k{key}", value=value))
    history = History(events)
    took, verdict = judged(history, "cas-register")
    return f"{took:.3f} s, {verdict}, {len(history.operations):,} operations"


def distinct(count: int) -> str:
    """Judge a register in which no value repeats, and read it from a file first."""
    acts = simulated(random.Random(7), int(count * 1.385), 30, crash_rate=0.01)
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        for op in as_history(acts).ops:
            file.write(encode_op(op) + b"\n")
        file.flush()
        del acts
        gc.collect()
        started = time.perf_counter()
        gc.disable()
        history = read_history(file.name)
        gc.enable()
        read = time.perf_counter() - started
    took, verdict = judged(history, "cas-register")
    return f"{took:.2f} s, {verdict}, {len(history.operations):,} operations; reading {read:.2f} s"


def container(model: str, put: str, take: str, place: int, count: int) -> str:
    """Judge a queue or stack with 10 clients; what is taken out stands at `place`."""
    rng = random.Random(7)
    acts: list[Act] = []
    inside: list[int] = []
    open_ones: list[list[Any]] = []
    event = value = 0
    while len(acts) < count:
        if len(open_ones) < 10 and rng.random() < 0.5:
            if rng.random() < 0.5:
                value += 1
                inside.append(value)
                open_ones.append([put, value, event])
            else:
                taken = inside.pop(place) if inside else None
                open_ones.append([take, taken, event])
        elif open_ones:
            f, what, call = open_ones.pop(rng.randrange(len(open_ones)))
            acts.append(Act(f, what, call, event))
        event += 1
    acts += [Act(f, what, call, None) for f, what, call in open_ones if f == put]
    history = as_history(acts)
    took, verdict = judged(history, model)
    return f"{took:.3f} s, {verdict}, {len(history.operations):,} operations"


def list_append_file(count: int) -> Path:
    """Write list-append transactions: 10 clients, 10 keys at a time, 32 appends a key."""
    rng = random.Random(7)
    lists: dict[int, list[int]] = {}
    keys = list(range(10))
    fresh = 10
    path = Path(tempfile.mkdtemp()) / "list-append.jsonl"
    running: dict[int, list[list[Any]]] = {}
    index = done = 0
    with path.open("w") as file:

        def line(kind: str, process: int, value: Any) -> None:
            nonlocal index
            event = {"index": index, "time": index * 1000, "type": kind, "process": process}
            file.write(json.dumps({**event, "f": "txn", "value": value}) + "\n")
            index += 1

        while done < count or running:
            process = rng.randrange(10)
            if process in running:
                line("ok", process, running.pop(process))
                done += 1
            elif done + len(running) < count:
                asked, answered = [], []
                for _ in range(rng.randint(1, 4)):
                    place = rng.randrange(10)
                    key = keys[place]
                    elements = lists.setdefault(key, [])
                    if rng.random() < 0.5:
                        asked.append(["r", key, None])
                        answered.append(["r", key, list(elements)])
                        continue
                    elements.append(len(elements) + 1)
                    asked.append(["append", key, len(elements)])
                    answered.append(["append", key, len(elements)])
                    if len(elements) == 32:
                        keys[place] = fresh
                        fresh += 1
                line("invoke", process, asked)
                running[process] = answered
    return path


def command(path: Path, *flags: str) -> str:
    """Run `labrys check` as a user does."""
    labrys = Path(sys.executable).with_name("labrys")
    started = time.perf_counter()
    done = subprocess.run(
        [labrys, "check", path, *flags], capture_output=True, text=True, check=False
    )
    took = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    verdict = done.stdout.split("\n")[0].split(": ")[-1].split(" ")[0]
    return f"{took:.2f} s, {verdict}, {peak} MiB"


def small_file() -> Path:
    """Write a history of 300 operations."""
    path = Path(tempfile.mkdtemp()) / "small.jsonl"
    ops = as_history(simulated(random.Random(7), 400, 5, values=5)[:300]).ops
    path.write_bytes(b"".join(encode_op(op) + b"\n" for op in ops))
    return path


CASES: dict[str, Callable[[], str]] = {
    "etcd logs": lambda: corpus("etcd-jepsen"),
    "knossos cas-register files": lambda: corpus("knossos/cas-register", initial=0, nil_read="any"),
    **{
        f"{count:,} ops, {clients} clients, {crashed:.0%} crashed": (
            lambda count=count, clients=clients, crashed=crashed: register(count, clients, crashed)
        )
        for count, clients, crashed in [
            *((count, 30, q) for count in (1_000, 10_000, 100_000) for q in (0.0, 0.01, 0.05)),
            (10_000, 10, 0.05),
        ]
    },
    **{
        f"100,000 ops, {keys} keys, {clients} clients": (
            lambda keys=keys, clients=clients: keyed(keys, clients)
        )
        for keys in (100, 1_000)
        for clients in (10, 30)
    },
    "distinct values, 1,000,000 ops": lambda: distinct(1_000_000),
    "fifo queue, 100,000 ops": lambda: container("fifo-queue", "enqueue", "dequeue", 0, 100_000),
    "stack, 100,000 ops": lambda: container("stack", "push", "pop", -1, 100_000),
    "bag, 100,000 ops": lambda: container("unordered-queue", "enqueue", "dequeue", 0, 100_000),
    "stale read in 100,000, 10 clients": lambda: stale(10, 200),
    "stale read in 100,000, 30 clients": lambda: stale(30, 600),
    "100,000 ops, 30 clients, 200 values, 1 % crashed": lambda: register(
        100_000, 30, 0.01, values=200, smart=0.5
    ),
    "list-append, 100,000 transactions, as a command": lambda: command(
        list_append_file(100_000), "--model", "list-append"
    ),
    "300 operations, as a command": lambda: command(small_file(), "--model", "cas-register"),
}


def _measured(name: str) -> None:
    what = CASES[name]()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    other = next((text for part, text in OTHERS.items() if part in name), "")
    print(f"{name:52} {what}; peak {peak} MiB   | {other}", flush=True)


def main(wanted: list[str]) -> None:
    """Run the cases that are wanted, each in a process of its own."""
    for name in CASES:
        if not wanted or any(part in name for part in wanted):
            one = multiprocessing.get_context("fork").Process(target=_measured, args=(name,))
            one.start()
            one.join()


if __name__ == "__main__":
    main(sys.argv[1:])
