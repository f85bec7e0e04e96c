"""Operations at fixed times: found in a history, checked, and played again."""

import random
from typing import Any

import msgspec
import pytest

from labrys.checkers.op import NEMESIS, Op, OpType
from labrys.workloads import generator as gen
from labrys.workloads.context import context
from labrys.workloads.generator import PENDING, Pending
from labrys.workloads.operation_plan import (
    PlannedOperation,
    check_operations,
    operations_of,
    play,
)
from labrys.workloads.registry import WORKLOADS
from labrys.workloads.simulate import System, always, simulate


def planned(at_s: float, worker: int, f: str, value: Any = None) -> PlannedOperation:
    return PlannedOperation(at_s=at_s, worker=worker, f=f, key="k0", value=value)


PLAN = [planned(0.3, 1, "write", 2), planned(0.1, 0, "write", 1), planned(0.1, 1, "read")]


def begun(plan: list[PlannedOperation], system: System | None = None) -> list[Op]:
    source = gen.time_limit(2, gen.clients(play(plan, 2)))
    history = simulate(source, clients=2, system=system)
    return [op for op in history if op.type is OpType.INVOKE]


def test_every_worker_plays_its_operations_at_their_times() -> None:
    told = [(op.time / 1e9, op.process, op.f, op.key, op.value) for op in begun(PLAN)]
    assert told == [
        (0.1, 0, "write", "k0", 1),
        (0.1, 1, "read", "k0", None),
        (0.3, 1, "write", "k0", 2),
    ]


def test_a_busy_worker_is_late_and_holds_nobody_up() -> None:
    plan = [planned(0.1, 1, "read"), planned(0.2, 1, "read"), planned(0.3, 0, "read")]
    ops = begun(plan, always(OpType.OK, 500_000_000))
    assert [(op.process, op.time / 1e9) for op in ops] == [(1, 0.1), (0, 0.3), (1, 0.6)]


def test_a_worker_goes_on_with_another_process_after_an_unknown_outcome() -> None:
    ops = begun([planned(0.1, 1, "read"), planned(0.2, 1, "read")], always(OpType.INFO))
    assert [op.process for op in ops] == [1, 3]


def test_a_list_is_never_exhausted_as_little_as_a_workload() -> None:
    start = context(2, random.Random(0))
    step = play([PLAN[1]], 2).op(start.at(0))
    assert step is not None
    assert step[0] == Pending(100_000_000)
    step = step[1].op(start.at(100_000_000))
    assert step is not None
    assert isinstance(step[0], Op)
    step = step[1].op(start.at(200_000_000))
    assert step is not None
    assert step[0] == PENDING


def test_operations_of_a_run_are_played_again_as_they_were() -> None:
    mark = Op(type=OpType.INFO, process=NEMESIS, f="phase", time=400_000_000)
    early = Op(type=OpType.INVOKE, process=0, f="read", key="k0", time=1)
    ops = [
        msgspec.structs.replace(op, time=op.time + mark.time, process=int(op.process) + 4)
        for op in begun(PLAN)
    ]
    history = [
        early,
        msgspec.structs.replace(mark, value="main"),
        *ops,
        msgspec.structs.replace(mark, value="heal", time=9_000_000_000),
        msgspec.structs.replace(early, time=9_100_000_000),
    ]
    assert operations_of(history, 2) == sorted(PLAN, key=lambda each: each.at_s)


@pytest.mark.parametrize(
    ("operation", "told"),
    [
        (planned(0.1, 0, "frob"), r"operation 2 \(frob\): workload register has no such operation"),
        (planned(-0.1, 0, "read"), "at_s -0.1: must be 0 or more seconds"),
        (planned(float("nan"), 0, "read"), "at_s nan: must be 0 or more seconds"),
        (planned(5.0, 0, "read"), "at_s 5 is not before the end of the test, 5 s"),
        (planned(0.1, 2, "read"), "worker 2: there are 0 to 1; use --concurrency 3"),
    ],
)
def test_mistakes_in_a_list_are_named(operation: PlannedOperation, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        check_operations(
            [PLAN[0], operation], WORKLOADS["register"], concurrency=2, time_limit_s=5.0
        )
