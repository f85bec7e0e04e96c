"""Run directories for the tests of the report: a simulated register, hurt and read stale."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from labrys.checkers.fault import FaultEvent, FaultStage
from labrys.checkers.history import encode_op
from labrys.checkers.op import Op, OpType

MS: Final = 1_000_000
"""Nanoseconds in a millisecond."""
NODES: Final = ("n1", "n2", "n3", "n4", "n5")
RERUN: Final = "labrys test --env netns --faults partition,kill --seed 8817"
RECHECK: Final = "labrys check runs/register-partition-kill/20260304T050607Z-8817"
HOSTILE: Final = "</script><img src=x onerror=document.documentElement.dataset.pwned=1>"
"""Markup that must stay text wherever it turns up."""


def simulate(
    operation_count: int, *, seed: int = 8817, keys: int = 20, threads: int = 10
) -> tuple[list[Op], dict[str, Any]]:
    """Return the events of a register workload, linearizable but for one stale read at the end
    of one key, and the finding that explains it."""
    rng = random.Random(seed)
    values: dict[str, int | None] = {}
    process = list(range(threads))
    free_at = [rng.randrange(5 * MS) for _ in range(threads)]
    events: list[tuple[int, int, Op, int]] = []
    fresh = 0
    main_at = 40 * MS
    last: dict[str, list[int]] = {}
    for number in range(operation_count):
        thread = min(range(threads), key=lambda t: free_at[t])
        call = max(main_at, free_at[thread])
        key = f"k{rng.randrange(keys)}"
        f = rng.choices(["read", "write", "cas"], [4, 4, 2])[0]
        took = int(rng.lognormvariate(1.2, 0.6) * MS)
        luck = rng.random()
        kind = OpType.OK if luck < 0.94 else OpType.FAIL if luck < 0.97 else OpType.INFO
        fresh += 1
        value: Any = {"read": None, "write": fresh, "cas": [values.get(key), fresh]}[f]
        result: Any = value
        error: Any = None
        if kind is OpType.OK:
            if f == "read":
                result = values.get(key)
            else:
                values[key] = fresh
            last.setdefault(key, []).append(number)
        else:
            # A read without an answer had no effect on anybody: it is a fail, never an info.
            kind = OpType.FAIL if f == "read" else kind
            error = "no-leader" if kind is OpType.FAIL else ["timeout", "no answer within 1 s"]
            took = 2 * MS if kind is OpType.FAIL else 400 * MS
        node = NODES[thread % len(NODES)]
        op = Op(type=OpType.INVOKE, process=process[thread], f=f, key=key, value=value, node=node)
        # Operations on one key take effect in the order of this loop; none overlaps its
        # predecessor's effect, since each is given a point of its own at its call.
        events.append((call, 0, op, number))
        done = msgspec.structs.replace(op, type=kind, value=result, error=error)
        events.append((call + took, 1, done, number))
        free_at[thread] = call + took + rng.randrange(20 * MS, 80 * MS)
        if kind is OpType.INFO:
            process[thread] += threads
    # The stale read: one key returns the value before its last one, after all else is over.
    quiet = max(at for at, *_ in events) + 5 * MS
    stale = max(last, key=lambda key: len(last[key]))
    old, new = fresh + 1, fresh + 2
    tail = [
        ("write", old, old, 0, 6), ("read", None, old, 8, 4), ("write", new, new, 14, 7),
        ("read", None, new, 25, 5), ("read", None, old, 36, 4),
    ]  # fmt: skip
    for offset, (f, value, result, after, took) in enumerate(tail):
        thread = offset * 2 % threads
        node = NODES[thread % len(NODES)]
        op = Op(OpType.INVOKE, process[thread], f, key=stale, value=value, node=node)
        number = operation_count + offset
        events.append((quiet + after * MS, 0, op, number))
        done = msgspec.structs.replace(op, type=OpType.OK, value=result)
        events.append((quiet + (after + took) * MS, 1, done, number))
    marks = [Op(OpType.INFO, "nemesis", "phase", value=name) for name in ("main", "heal", "final")]
    events.append((main_at - 1, 0, marks[0], -1))
    events.append((quiet + 60 * MS, 0, marks[1], -1))
    events.append((quiet + 90 * MS, 0, marks[2], -1))
    events.sort(key=lambda event: event[:2])
    ops: list[Op] = []
    call_index: dict[int, int] = {}
    ret_index: dict[int, int] = {}
    for index, (at, is_ret, op, number) in enumerate(events):
        ops.append(msgspec.structs.replace(op, index=index, time=at))
        (ret_index if is_ret else call_index)[number] = index
    steps = [call_index[operation_count + i] for i in range(4)]
    refused = call_index[operation_count + 4]
    finding = {
        "message": f"key {stale}: read→{old} cannot be explained\n  the state is {new}",
        "ops": [*steps, refused],
        "key": stale,
        "data": {
            "key": stale,
            "window": [steps[0], ret_index[operation_count + 4]],
            "prefix": steps,
            "state": new,
            "core": [steps[2], refused],
            "rejected": [{"op": refused, "reason": f"the state is {new}; the read needs {old}"}],
        },
    }
    return ops, finding


def make_run(
    run_dir: Path, *, operation_count: int = 1200, hostile: bool = False, invalid: bool = True
) -> Path:
    """Write a whole run directory, as `labrys test` leaves it, and return it."""
    run_dir.mkdir(parents=True)
    ops, finding = simulate(operation_count)
    end_ns = ops[-1].time
    if hostile:
        ops = [_spoilt(op) if op.is_client and op.index > 30 else op for op in ops]
        finding["message"] = HOSTILE + "\n" + HOSTILE
        finding["key"] = finding["data"]["key"] = HOSTILE
        finding["data"]["rejected"][0]["reason"] = HOSTILE
    (run_dir / "history.jsonl").write_bytes(b"".join(encode_op(op) + b"\n" for op in ops))
    faults = _faults(end_ns)
    (run_dir / "faults.jsonl").write_bytes(
        b"".join(msgspec.json.encode(event) + b"\n" for event in faults)
    )
    spec = {
        "name": "register-partition-kill", "env": "netns", "nodes": 5, "system": "raftkv",
        "workload": "register", "faults": ["partition", "kill"], "time_limit": 60.0,
        "concurrency": 10, "seed": 8817,
    }  # fmt: skip
    (run_dir / "test.yaml").write_text(yaml.safe_dump(spec))
    _logs(run_dir, end_ns, HOSTILE if hostile else "step down, saw term 3")
    (run_dir / "results.json").write_bytes(msgspec.json.encode(_results(finding, end_ns, invalid)))
    return run_dir


STARTED_AT: Final = datetime(2026, 3, 4, 5, 6, 7, 250_000, UTC)


def _spoilt(op: Op) -> Op:
    value = HOSTILE if op.f == "write" or op.type is OpType.OK else op.value
    return msgspec.structs.replace(
        op, key=HOSTILE, value=value, f=op.f if op.index % 9 else HOSTILE,
        error=HOSTILE if op.error else None, node=HOSTILE,
    )  # fmt: skip


def _faults(end_ns: int) -> list[FaultEvent]:
    events: list[FaultEvent] = []
    grudge = {"n1": ["n3", "n4", "n5"], "n2": ["n3", "n4", "n5"],
              "n3": ["n1", "n2"], "n4": ["n1", "n2"], "n5": ["n1", "n2"]}  # fmt: skip
    plans: list[tuple[str, tuple[str, ...], dict[str, Any], dict[str, Any]]] = [
        ("partition", NODES, {"shape": "halves", "grudge": grudge}, {"n1": {"packets": 412}}),
        ("kill", ("n3",), {"target": "leader"}, {"n3": {"state": "dead"}}),
        (
            "partition",
            NODES,
            {"shape": "one-way", "grudge": {"n2": ["n4"]}},
            {"n2": {"packets": 0}},
        ),
    ]
    for number, (kind, targets, plan, observed) in enumerate(plans, 1):
        start = end_ns * (2 * number - 1) // 8
        stop = start + end_ns // 6
        bit = observed.get("n2") != {"packets": 0}
        events += [
            FaultEvent(number, FaultStage.PLANNED, start, kind, targets, plan=plan),
            FaultEvent(number, FaultStage.APPLIED, start + 3 * MS, kind, targets),
            FaultEvent(number, FaultStage.EVIDENCE, stop - MS, kind, observed=observed, bit=bit),
            FaultEvent(number, FaultStage.UNDONE, stop, kind, targets),
        ]
    return sorted(events, key=lambda event: event.time)


def _logs(run_dir: Path, end_ns: int, remark: str) -> None:
    for number, node in enumerate(NODES):
        folder = run_dir / "nodes" / node
        folder.mkdir(parents=True)
        lines = []
        for place in range(40):
            at = STARTED_AT + timedelta(microseconds=(end_ns // 1000) * place // 40 + number)
            level = "WARNING" if place % 9 == 0 else "INFO"
            text = remark if place % 13 == 5 else f"append entries up to {place * 17}"
            lines.append(f"{at.isoformat(timespec='milliseconds')} {level} {text}\n")
        (folder / "log").write_text("".join(lines))


def _results(finding: dict[str, Any], end_ns: int, invalid: bool) -> dict[str, Any]:
    checkers: dict[str, Any] = {
        "linearizable": {
            "verdict": "invalid", "summary": f"1 of 20 keys is not linearizable: {finding['key']}",
            "findings": [finding], "data": {"keys": 20},
        },
        "stats": {"verdict": "valid", "summary": "1147 ok, 41 fail, 17 info in the main phase"},
        "coverage": {
            "verdict": "unknown", "summary": "1 of 3 faults was never seen to bite",
            "hint": "raise --fault-interval so that each fault holds longer",
        },
        "availability": {
            "verdict": "valid",
            "summary": "ok 93.1 %, worst second 12 %, recovery 1.8 s after the last heal",
        },
        "errors": {
            "verdict": "valid", "summary": "2 kinds of error",
            "findings": [{"message": "no-leader: 33 times", "ops": []}],
        },
    }  # fmt: skip
    if not invalid:
        checkers["linearizable"] = {"verdict": "valid", "summary": "20 keys, 1205 operations"}
        checkers["coverage"] = {"verdict": "valid", "summary": "3 of 3 faults seen to bite"}
    return {
        "version": 1, "verdict": "invalid" if invalid else "valid", "seed": 8817,
        "name": "register-partition-kill", "started_at": STARTED_AT.isoformat(),
        "duration_s": end_ns / 1e9, "environment": "netns", "nodes": list(NODES),
        "workload": "register", "faults": ["partition", "kill"], "bug": "stale-read",
        "rerun": RERUN, "recheck": RECHECK,
        "timings": {"setup_s": 3.2, "teardown_s": 0.4}, "errors": [], "checkers": checkers,
    }  # fmt: skip
