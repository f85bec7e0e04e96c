"""Workers: threads that carry out one op at a time, with a client or with the nemesis.

Whatever a client or the nemesis does, a worker lives on: an exception becomes the completion of the
op. Only an op that never comes back takes its worker with it; the interpreter then makes a new one.
"""

import queue
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from labrys.checkers.op import Op, OpType
from labrys.workloads.client import (
    Client,
    DefiniteError,
    IndefiniteError,
    UnavailableError,
    completion_of_error,
)

REFUSED_PAUSE_S: Final = 0.1
"""How long a worker holds back after a node said that it cannot serve. The op, which did nothing,
ends after it."""

# Not queue.SimpleQueue: in CPython 3.11 its get() with a timeout can wait for ever, when an item
# was taken by get_nowait() before and the thread is scheduled late.
Outbox = queue.Queue


class Worker:
    """A thread that carries out one op at a time and lives until told to end."""

    def __init__(self, name: str, carry_out: "CarryOut", outbox: "Outbox[Answer]"):
        self._inbox: queue.SimpleQueue[Op | None] = queue.SimpleQueue()
        self._carry_out = carry_out
        self._outbox = outbox
        # A daemon: a wedged client must not keep the program from ending.
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)
        self.thread.start()

    def give(self, op: Op) -> None:
        self._inbox.put(op)

    def end(self) -> None:
        """Have the worker end once it is done with its op, if it ever is."""
        self._inbox.put(None)

    def _work(self) -> None:
        while (op := self._inbox.get()) is not None:
            self._outbox.put((self, self._carry_out(op)))
        self._carry_out.close()


class CarryOut(Protocol):
    """Carries out ops somehow and never raises."""

    def __call__(self, op: Op) -> tuple[Op, str | None]:
        """Return the completion, and what the nemesis raised."""

    def close(self) -> None:
        """Let go of everything. Never raises."""


Answer = tuple[Worker, tuple[Op, str | None]]


class ByClient(CarryOut):
    """Carries out ops with a client, which it opens, closes and replaces."""

    def __init__(self, make: Callable[[], Client], is_read: Callable[[Op], bool]):
        self._make = make
        self._is_read = is_read
        self._client: Client | None = None
        self._process: int | str | None = None

    def __call__(self, op: Op) -> tuple[Op, str | None]:
        if op.process != self._process:
            self.close()  # the old process may still be busy inside the database
            self._process = op.process
        only_reads = self._is_read(op)
        if self._client is None:
            client = None
            try:
                client = self._make()
                client.open()
            except Exception as error:  # any failure here is definite: nothing was sent
                if client is not None:
                    _close_quietly(client)
                return completion_of_error(op, _as_open_failure(error), only_reads=only_reads), None
            self._client = client
        try:
            return _checked(op, self._client.invoke(op), only_reads), None
        except Exception as error:  # a client may raise anything; none of it may end the worker
            if isinstance(error, UnavailableError):
                time.sleep(REFUSED_PAUSE_S)
            if not isinstance(error, DefiniteError):
                # The late answer to this op could still arrive and be taken for the next one's.
                self.close()
            return completion_of_error(op, error, only_reads=only_reads), None

    def close(self) -> None:
        if self._client is not None:
            _close_quietly(self._client)
            self._client = None


def _close_quietly(client: Client) -> None:
    try:
        client.close()
    except Exception:
        # close() promises not to raise. One that does has nothing to tell that the history,
        # which has the outcome of every op, does not know better.
        return


def _as_open_failure(error: Exception) -> DefiniteError:
    if isinstance(error, DefiniteError):
        return error
    return DefiniteError("open-failed", f"{type(error).__name__}: {error}")


def _checked(op: Op, completion: Op, only_reads: bool) -> Op:
    """Return `completion`, made to be one of `op`. Raises if it cannot be."""
    kind = completion.type
    if kind is OpType.INVOKE or (completion.process, completion.f) != (op.process, op.f):
        raise IndefiniteError("bad-completion", f"the client answered {op} with {completion}")
    if kind is OpType.INFO and only_reads:
        return msgspec.structs.replace(completion, type=OpType.FAIL)
    return completion


class ByNemesis(CarryOut):
    """Carries out ops with the nemesis. Its ops are `info` whatever happens."""

    def __init__(self, nemesis: Callable[[Op], Op]):
        self._nemesis = nemesis

    def __call__(self, op: Op) -> tuple[Op, str | None]:
        try:
            done = self._nemesis(op)
        except Exception as error:  # the run goes on; the caller hears of it in the summary
            failed = msgspec.structs.replace(op, error=[type(error).__name__, str(error)])
            return failed, f"{op.f}: {type(error).__name__}: {error}"
        return msgspec.structs.replace(done, type=OpType.INFO), None

    def close(self) -> None:
        """Nothing to let go of: the nemesis belongs to the caller."""
