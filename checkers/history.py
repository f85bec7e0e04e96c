"""The history: every event of a run in order, paired into operations, and its JSONL form.

Order is the order of events, never the clock: an operation's interval is [index of its invoke,
index of its completion]. Recording may widen that interval but never narrow it, so an order
between two operations in the history is one that the clients could have observed.

A history is checked once, here, for what every checker relies on: a process does one thing at a
time, every completion has its invoke, a process whose op ended in info is never used again, and
time does not run backwards. Checkers then trust it.
"""

import bisect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from labrys.checkers.op import NEMESIS, Op, OpType

PHASE: Final = "phase"
"""The `f` of the nemesis ops that mark where a phase of the run begins; the value names it."""
SETUP: Final = "setup"
"""Everything before the first mark."""
MAIN: Final = "main"
HEAL: Final = "heal"
FINAL: Final = "final"

FOREVER: Final = 1 << 60
"""The return of an operation that never returned: it may take effect at any time after its call, or
never."""


class HistoryError(ValueError):
    """A history that cannot be judged: says where it is broken and why.

    `position` is the place of the offending event among the events given, counted from 0.
    """

    def __init__(self, message: str, position: int = 0) -> None:
        super().__init__(message)
        self.position = position


class Operation(msgspec.Struct, frozen=True, gc=False):
    """An invocation and what became of it. Without a completion its outcome is unknown: info."""

    invoke: Op
    completion: Op | None

    @property
    def call(self) -> int:
        """Index of the invocation."""
        return self.invoke.index

    @property
    def ret(self) -> int | None:
        """Index of the completion, or None while the outcome is open: it may still take effect."""
        if self.completion is None or self.completion.type is OpType.INFO:
            return None
        return self.completion.index

    @property
    def process(self) -> int | str:
        """Who did it."""
        return self.invoke.process

    @property
    def f(self) -> str:
        """What was done: read, write, cas."""
        return self.invoke.f

    @property
    def key(self) -> str | None:
        """The object it was done to."""
        return self.invoke.key

    @property
    def value(self) -> Any:
        """The value of the completion if it is ok, else the one invoked with."""
        if self.completion is not None and self.completion.type is OpType.OK:
            return self.completion.value
        return self.invoke.value

    @property
    def is_ok(self) -> bool:
        """Whether it certainly happened."""
        return self.completion is not None and self.completion.type is OpType.OK

    @property
    def is_fail(self) -> bool:
        """Whether it certainly did not happen."""
        return self.completion is not None and self.completion.type is OpType.FAIL

    @property
    def is_info(self) -> bool:
        """Whether nobody knows."""
        return self.completion is None or self.completion.type is OpType.INFO


class History:
    """A sequence of events that a run can have produced. Raises `HistoryError` for any other.

    Events without an index get their position. Indices must rise; they name ops in findings.
    """

    ops: tuple[Op, ...]
    operations: tuple[Operation, ...]
    """The clients' operations, in order of invocation."""
    torn: bool
    """Whether the file ended in half a line, which was left out."""

    def __init__(self, ops: Iterable[Op], *, torn: bool = False, monotonic: bool = True) -> None:
        """Make the history of `ops`. Other tools' clocks may not be `monotonic`: ours must be."""
        self.ops = tuple(_numbered(ops, monotonic))
        self.operations = tuple(_paired(self.ops))
        self.torn = torn
        self._marks = tuple(
            (op.index, str(op.value)) for op in self.ops if op.f == PHASE and op.process == NEMESIS
        )

    @property
    def client_ops(self) -> tuple[Op, ...]:
        """The clients' events, without those of the nemesis."""
        return tuple(op for op in self.ops if op.is_client)

    def operations_by_key(self) -> dict[str | None, list[Operation]]:
        """Return the clients' operations of each key, in order of first use.

        Linearizability is local: a history is linearizable iff each of these is.
        """
        keys: dict[str | None, list[Operation]] = {}
        for operation in self.operations:
            known = keys.get(operation.invoke.key)
            if known is None:
                keys[operation.invoke.key] = [operation]
            else:
                known.append(operation)
        return keys

    def phase_of(self, index: int) -> str:
        """Return the phase that the event `index` falls into: setup, main, heal or final.

        A history without any mark, such as a bare file, is all `main`.
        """
        if not self._marks:
            return MAIN
        place = bisect.bisect_right(self._marks, index, key=lambda mark: mark[0])
        return self._marks[place - 1][1] if place else SETUP


def read_history(path: str | Path) -> History:
    """Read a JSONL history file. A torn last line is left out, for the writer may have been killed.

    Raises `HistoryError` naming path, line and fault; `OSError` when the file cannot be read.
    """
    data = Path(path).read_bytes()
    try:
        # All lines at once are three times as fast as one by one; what is wrong is looked for then.
        return History(_decoder.decode_lines(data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, HistoryError):
        return _read_slowly(path, data.split(b"\n"))


def _read_slowly(path: str | Path, lines: Sequence[bytes]) -> History:
    ops: list[Op] = []
    numbers: list[int] = []
    torn = False
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            ops.append(decode_op(line))
        except HistoryError as error:
            # Every whole line ends in a newline: only what follows the last one can be torn.
            if number == len(lines):
                torn = True
                break
            raise HistoryError(f"{path}:{number}: {error}", len(ops)) from None
        numbers.append(number)
    return located(path, ops, numbers, torn=torn)


def located(
    path: str | Path,
    ops: Sequence[Op],
    lines: Sequence[int],
    *,
    torn: bool = False,
    monotonic: bool = True,
) -> History:
    """Make the history of `ops`, which stood on `lines` of `path`; errors name path and line."""
    try:
        return History(ops, torn=torn, monotonic=monotonic)
    except HistoryError as error:
        raise HistoryError(f"{path}:{lines[error.position]}: {error}", error.position) from None


_decoder = msgspec.json.Decoder(Op)
_encoder = msgspec.json.Encoder()


def decode_op(line: bytes | str) -> Op:
    """Read one line of a history file. Raises `HistoryError` saying what is wrong with it."""
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HistoryError(f"not a history event: {error}") from None
    except RecursionError:
        raise HistoryError("not a history event: nested too deeply") from None


def encode_op(op: Op) -> bytes:
    """Return `op` as one line of a history file, without the newline.

    The value always stands there, even when it is null; key, error and node only when set.
    """
    fields: dict[str, Any] = {
        "index": op.index,
        "time": op.time,
        "type": op.type,
        "process": op.process,
        "f": op.f,
    }
    if op.key is not None:
        fields["key"] = op.key
    fields["value"] = op.value
    if op.error is not None:
        fields["error"] = op.error
    if op.node is not None:
        fields["node"] = op.node
    return _encoder.encode(fields)


def _numbered(ops: Iterable[Op], monotonic: bool) -> list[Op]:
    """Give each op its index, and see that neither index nor time runs backwards."""
    numbered = list(ops)
    last_index, last_time = -1, -1
    for position, op in enumerate(numbered):
        index, time = op.index, op.time
        if index < 0:
            numbered[position] = msgspec.structs.replace(op, index=position)
            index = position
        if index <= last_index:
            raise HistoryError(f"index {index} follows index {last_index}", position)
        last_index = index
        if time > last_time:
            last_time = time
        elif monotonic and 0 <= time < last_time:
            raise HistoryError(
                f"op {index}: time runs backwards, from {last_time} to {time} ns", position
            )
    return numbered


def _paired(ops: Sequence[Op]) -> list[Operation]:
    """Match the clients' completions with their invocations, in order of invocation."""
    operations: list[Operation | None] = []
    invocations: list[Op] = []
    running: dict[int | str, int] = {}
    crashed: dict[int | str, Op] = {}
    is_invoke, is_info = OpType.INVOKE, OpType.INFO
    for position, op in enumerate(ops):
        process = op.process
        if type(process) is not int:
            continue
        kind = op.type
        if kind is is_invoke:
            if process in running or process in crashed:
                raise _misused(op, position, invocations, running, crashed)
            running[process] = len(operations)
            operations.append(None)
            invocations.append(op)
            continue
        place = running.pop(process, None)
        where = "op {0.index}: process {0.process}"
        if place is None:
            raise HistoryError(
                f"{where.format(op)} completes {op.f} without having invoked it", position
            )
        invoke = invocations[place]
        if op.f != invoke.f or (op.key is not None and op.key != invoke.key):
            raise HistoryError(
                f"{where.format(op)} completes {_named(op)} but had invoked {_named(invoke)} "
                f"(op {invoke.index})",
                position,
            )
        operations[place] = Operation(invoke, op)
        if kind is is_info:
            crashed[process] = op
    return [
        Operation(invoke, None) if operation is None else operation
        for invoke, operation in zip(invocations, operations, strict=True)
    ]


def _misused(
    op: Op,
    position: int,
    invocations: Sequence[Op],
    running: dict[int | str, int],
    crashed: dict[int | str, Op],
) -> HistoryError:
    """Return the error for an invocation by a process that is busy or gone."""
    where = f"op {op.index}: process {op.process}"
    if op.process in running:
        other = invocations[running[op.process]]
        return HistoryError(
            f"{where} invokes {op.f} while its {other.f} (op {other.index}) is still open",
            position,
        )
    return HistoryError(
        f"{where} invokes {op.f} after its op {crashed[op.process].index} ended in info: "
        "a process is not used again then",
        position,
    )


def _named(op: Op) -> str:
    return op.f if op.key is None else f"{op.f} of {op.key}"
