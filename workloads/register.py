"""The register workload: reads, writes and compare-and-set on many independent keys.

Every key is a register. About half of the ops are reads, the rest writes and cas in equal parts. A
cas expects the value that its worker saw last, which is likely to be there still, and a write sets
a fresh one: where no two writes of a key share a value, each read says exactly which write it saw.
Measured on planted stale reads, distinct values show 97 to 100 % of them, five values 4 to 58 %.
"""

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from labrys.checkers.op import Op, OpType
from labrys.workloads.context import Context
from labrys.workloads.generator import (
    PENDING,
    Generator,
    Source,
    Step,
    any_of,
    delay,
    on_threads,
    repeat,
    template,
    until_ok,
)
from labrys.workloads.keys import (
    default_threads_per_key,
    divide_threads,
    independent_keys,
)
from labrys.workloads.keyvalue import Consistency, KeyValue
from labrys.workloads.workload import Workload

READ_SHARE = 0.5
"""Of all ops."""
WRITE_SHARE = 0.5
"""Of the others; the rest is cas."""
SMALL_VALUES = range(5)

FINAL_KEYS_MAX = 2_000
"""How many keys are read at the end, the newest ones: damage to older ones shows in their own ops,
since the run's faults hit while they were in use."""

FINAL_KEYS_EVERYWHERE = 4
"""How many of them every worker reads, and so every node answers for."""

FINAL_RETRY_S = 0.1
"""Between the reads of one worker: an unreachable node is not to be flooded."""


class Values(StrEnum):
    """Which values are written."""

    DISTINCT = "distinct"
    """1, 2, 3, ... for each key: a read says which write it saw."""
    SMALL = "small"
    """0 to 4 at random: cas succeeds by chance, and many histories are ambiguous."""


class RegisterOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of the register workload."""

    ops_per_key: int = 150
    """A key is left for a new one after 90 to 100 % of so many ops."""
    threads_per_key: int | None = None
    """How many workers share a key; must divide the concurrency. By default 5 or what comes
    closest from below."""
    values: Values = Values.DISTINCT
    """Which values are written: distinct, or small for Jepsen's five."""
    consistency: Consistency = Consistency.LINEARIZABLE
    """What reads ask for: linearizable, lease, or stale, which is found to be just that."""
    sessions: bool = False
    """Whether each client has a session, and sends a write again until it knows the outcome."""


class RegisterOps(Generator, frozen=True):
    """The ops of one key, without end. Knows the next fresh value and what each worker saw last."""

    values: Values = Values.DISTINCT
    fresh: int = 1
    seen: dict[int, int] = msgspec.field(default_factory=dict)
    """By thread, since a worker outlives its processes."""

    def op(self, ctx: Context) -> Step | None:
        process = ctx.free_process()
        if not isinstance(process, int):
            return PENDING, self
        if ctx.rng.random() < READ_SHARE:
            return self._op(ctx, process, "read", None), self
        is_small = self.values is Values.SMALL
        new = ctx.rng.choice(SMALL_VALUES) if is_small else self.fresh
        after = RegisterOps(self.values, self.fresh + 1, self.seen)
        expected = self.seen.get(process % ctx.clients)
        if expected is None or ctx.rng.random() < WRITE_SHARE:
            return self._op(ctx, process, "write", new), after
        return self._op(ctx, process, "cas", [expected, new]), after

    def _op(self, ctx: Context, process: int, f: str, value: object) -> Op:
        return Op(type=OpType.INVOKE, process=process, f=f, value=value, time=ctx.time)

    def update(self, ctx: Context, event: Op) -> Generator:
        if event.type is not OpType.OK or not isinstance(event.process, int):
            return self
        value = event.value[1] if event.f == "cas" else event.value
        if value is None:  # a read before the first write
            return self
        seen = {**self.seen, event.process % ctx.clients: value}
        return RegisterOps(self.values, self.fresh, seen)


class RegisterClient:
    """Performs the ops of the register workload on a key-value store."""

    def __init__(self, kv: KeyValue) -> None:
        self._kv = kv

    def open(self) -> None:
        """Open the connection."""
        self._kv.open()

    def invoke(self, op: Op) -> Op:
        """Perform a read, a write or a cas; a cas that does not match raises `mismatch`."""
        key = op.key if op.key is not None else "register"
        value = op.value
        match op.f:
            case "read":
                value = self._kv.get(key)
            case "write":
                self._kv.put(key, op.value)
            case "cas":
                self._kv.cas(key, *op.value)
            case f:
                raise ValueError(f"a register has no {f!r}")
        return msgspec.structs.replace(op, type=OpType.OK, value=value)

    def close(self) -> None:
        """Close the connection."""
        self._kv.close()


def main_ops(options: RegisterOptions, concurrency: int) -> Source:
    """Return the ops of the main phase: one key after the other, on several keys at a time."""
    return independent_keys(
        lambda key: RegisterOps(options.values),
        threads_per_key=_threads_per_key(options, concurrency),
        ops_per_key=options.ops_per_key,
    )


def final_reads(options: RegisterOptions, concurrency: int, recorded: Iterable[Op]) -> Source:
    """Return reads of the keys in `recorded`, each by one worker until it succeeds.

    The FINAL_KEYS_MAX keys that were used last are shared out among the workers; the newest
    FINAL_KEYS_EVERYWHERE are read by all of them.
    """
    last_used: dict[str, None] = {}
    for op in recorded:
        if op.key is not None:
            last_used.pop(op.key, None)
            last_used[op.key] = None
    keys = list(reversed(last_used))[:FINAL_KEYS_MAX]

    def reads_of(thread: int) -> Source:
        mine = [
            key
            for place, key in enumerate(keys)
            if place < FINAL_KEYS_EVERYWHERE or place % concurrency == thread
        ]
        read = [template("read", key=key) for key in mine]
        return [until_ok(delay(FINAL_RETRY_S, repeat(op))) for op in read]

    return any_of(*[on_threads([thread], reads_of(thread)) for thread in range(concurrency)])


def _threads_per_key(options: RegisterOptions, concurrency: int) -> int:
    return options.threads_per_key or default_threads_per_key(concurrency)


def _validate(options: RegisterOptions, concurrency: int) -> None:
    if options.ops_per_key < 1:
        raise ValueError(f"ops_per_key must be at least 1, not {options.ops_per_key}")
    if options.threads_per_key is not None:
        divide_threads(concurrency, options.threads_per_key)


REGISTER = Workload(
    name="register",
    description="reads, writes and cas on many independent registers; linearizable per key",
    model="cas-register",
    reads=frozenset({"read"}),
    writes=frozenset({"write", "cas"}),
    options=RegisterOptions,
    validate=_validate,
    generator=main_ops,
    final_generator=final_reads,
    client=RegisterClient,
    consistency=lambda options: options.consistency,
    sessions=lambda options: options.sessions,
)
