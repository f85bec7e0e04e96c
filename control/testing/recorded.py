"""A client that a test calls by hand, and whose operations go into the history.

Each is recorded before it is sent and after it came back, as the interpreter does it, and by the
same rules: a process whose operation ended in `info` is not used again.
"""

import itertools
import threading
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from labrys.checkers.op import NEMESIS, Op, OpType
from labrys.control.errors import UsageError
from labrys.control.store import Recorder
from labrys.control.worker import ByClient
from labrys.workloads.client import Client


class OpError(Exception):
    """An operation that was not `ok`: it failed for certain, or nobody knows."""

    def __init__(self, op: Op) -> None:
        self.op = op
        """The completion: its type is `fail` or `info`."""
        given = op.error if isinstance(op.error, list | tuple) else (op.error,)
        self.code = str(given[0])
        """Short and stable: mismatch, timeout, no-leader, ..."""
        what = f"{op.f} of {op.key}" if op.key is not None else op.f
        super().__init__(f"{what}: {op.type}: {': '.join(map(str, given))}")


class TestHistory:
    """The history of a test; may be written by several threads."""

    __test__ = False  # nothing for pytest to collect

    def __init__(self, recorder: Recorder, clock_ns: Callable[[], int]) -> None:
        self._recorder = recorder
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._processes = itertools.count()

    def record(self, op: Op) -> Op:
        """Append an event with the time of now."""
        with self._lock:
            return self._recorder.append(msgspec.structs.replace(op, time=self._clock_ns()))

    def remark(self, f: str, value: Any = None) -> None:
        """Append what is done to the nodes."""
        self.record(Op(type=OpType.INFO, process=NEMESIS, f=f, value=value))

    def new_process(self) -> int:
        """Return a number that no client has had."""
        with self._lock:
            return next(self._processes)


class RecordedClient:
    """One process of the history, at one node. Does one thing at a time."""

    def __init__(
        self,
        make: Callable[[], Client],
        node: str,
        history: TestHistory,
        *,
        reads: Collection[str],
        sleep: Callable[[float], None],
    ) -> None:
        """`make` makes the client that is recorded; `reads` are the `f` that change nothing."""
        self.node = node
        self._carry_out = ByClient(make, lambda op: op.f in reads, sleep)
        self._history = history
        self._process: int | None = None
        self._is_busy = False

    def invoke(self, f: str, value: Any = None, *, key: str | None = None) -> Op:
        """Do an operation and return its completion: `ok`, `fail` or `info`. Never raises for it.

        Raises UsageError if the client is in the middle of another one.
        """
        if self._is_busy:
            raise UsageError("a client does one thing at a time: make one for each thread")
        self._is_busy = True
        try:
            if self._process is None:
                self._process = self._history.new_process()
            op = Op(type=OpType.INVOKE, process=self._process, f=f, key=key, value=value)
            op = self._history.record(msgspec.structs.replace(op, node=self.node))
            done, _ = self._carry_out(op)
            done = self._history.record(
                msgspec.structs.replace(op, type=done.type, value=done.value, error=done.error)
            )
            if done.type is OpType.INFO:
                self._process = None
            return done
        finally:
            self._is_busy = False

    def call(self, f: str, value: Any = None, *, key: str | None = None) -> Any:
        """Do an operation and return its value. Raises OpError unless it is `ok`."""
        done = self.invoke(f, value, key=key)
        if done.type is not OpType.OK:
            raise OpError(done)
        return done.value

    def get(self, key: str) -> Any:
        """Read a key; None when there is nothing. Raises OpError."""
        return self.call("read", key=key)

    def put(self, key: str, value: Any) -> None:
        """Write a key. Raises OpError."""
        self.call("write", value, key=key)

    def cas(self, key: str, expect: Any, value: Any) -> None:
        """Write a key if its value is `expect`. Raises OpError, whose `code` is `mismatch` if not.

        A key that is not there yet is `not-found`.
        """
        self.call("cas", [expect, value], key=key)

    def close(self) -> None:
        """Disconnect. Never raises."""
        self._carry_out.close()
