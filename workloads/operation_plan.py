"""Client operations at fixed times: a list in a spec or a file, or those of an earlier run again.

What a workload draws depends on all that happened before; a list does not. So operations can be
taken out of it, and the others stay what and when they were.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from labrys.checkers.history import HEAL, MAIN, PHASE
from labrys.checkers.op import NEMESIS, Op, OpType
from labrys.workloads.context import Context, mask_of
from labrys.workloads.generator import PENDING, Generator, Pending, Step
from labrys.workloads.workload import Workload

SECONDS_MAX: Final = 1e6


class PlannedOperation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One operation of the list. Times are in seconds since the main phase began."""

    at_s: float
    worker: int
    """Who does it, counted from 0: worker i talks to node i modulo the number of nodes, and does
    one operation after the other."""
    f: str
    key: str | None = None
    value: Any = None


def check_operations(
    operations: Sequence[PlannedOperation],
    workload: Workload[Any],
    *,
    concurrency: int,
    time_limit_s: float,
) -> None:
    """Raise ValueError for what cannot be done, naming the operation by its place in the list."""
    known = workload.reads | workload.writes
    for number, operation in enumerate(operations, start=1):
        where = f"operations: operation {number} ({operation.f})"
        if operation.f not in known:
            raise ValueError(
                f"{where}: workload {workload.name} has no such operation: "
                f"it has {', '.join(sorted(known))}"
            )
        if not 0 <= operation.at_s <= SECONDS_MAX:
            raise ValueError(f"{where}: at_s {operation.at_s:g}: must be 0 or more seconds")
        if operation.at_s >= time_limit_s:
            raise ValueError(
                f"{where}: at_s {operation.at_s:g} is not before the end of the test, "
                f"{time_limit_s:g} s; set a longer --time-limit"
            )
        if not 0 <= operation.worker < concurrency:
            raise ValueError(
                f"{where}: worker {operation.worker}: there are 0 to {concurrency - 1}; "
                f"use --concurrency {operation.worker + 1}"
            )


def operations_of(ops: Iterable[Op], concurrency: int) -> list[PlannedOperation]:
    """Return the operations that clients began in the main phase of a history."""
    found: list[PlannedOperation] = []
    main_ns: int | None = None
    for op in ops:
        if op.process == NEMESIS and op.f == PHASE:
            if op.value == MAIN:
                main_ns = op.time
            elif op.value == HEAL:
                break
        elif op.type is OpType.INVOKE and isinstance(op.process, int) and main_ns is not None:
            found.append(
                PlannedOperation(
                    at_s=round((op.time - main_ns) / 1e9, 9),
                    worker=op.process % concurrency,
                    f=op.f,
                    key=op.key,
                    value=op.value,
                )
            )
    return found


class _Planned(Generator, frozen=True, kw_only=True):
    """Every worker's own list. Never exhausted: when all is done, nothing more happens."""

    lists: tuple[tuple[tuple[int, int, Op], ...], ...]
    """By worker: when (ns since the generator was first asked), number in the whole list, what."""
    places: tuple[int, ...]
    origin: int | None = None

    def op(self, ctx: Context) -> Step | None:
        """Return the next operation of a free worker when it is due; late rather than never."""
        origin = ctx.time if self.origin is None else self.origin
        here = msgspec.structs.replace(self, origin=origin)
        next_ones = [
            (*mine[place], worker)
            for worker, (mine, place) in enumerate(zip(self.lists, self.places, strict=True))
            if place < len(mine) and ctx.free & mask_of([worker])
        ]
        if not next_ones:
            return PENDING, here
        due_ns, _, op, worker = min(next_ones, key=lambda one: one[:2])
        if ctx.time < origin + due_ns:
            return Pending(origin + due_ns), here
        process = ctx.process_of(mask_of([worker]))
        places = (*self.places[:worker], self.places[worker] + 1, *self.places[worker + 1 :])
        return (
            msgspec.structs.replace(op, process=process, time=ctx.time),
            msgspec.structs.replace(here, places=places),
        )


def play(operations: Sequence[PlannedOperation], concurrency: int) -> Generator:
    """Return the generator of a list; like those of workloads it has no end."""
    lists: list[list[tuple[int, int, Op]]] = [[] for _ in range(concurrency)]
    for number, planned in enumerate(sorted(operations, key=lambda planned: planned.at_s)):
        op = Op(type=OpType.INVOKE, process="", f=planned.f, key=planned.key, value=planned.value)
        lists[planned.worker].append((round(planned.at_s * 1e9), number, op))
    return _Planned(lists=tuple(map(tuple, lists)), places=(0,) * concurrency)
