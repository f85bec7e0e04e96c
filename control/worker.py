"""Workers: they carry out one op at a time, with a client or with the nemesis.

Real ones are threads; a `Crew` says what else they may be.

Whatever a client or the nemesis does, a worker lives on: an exception becomes the completion of the
op. Only an op that never comes back takes its worker with it; the interpreter then makes a new one.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
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


class Worker(Protocol):
    """Carries out one op at a time and lives until told to end."""

    def give(self, op: Op) -> None:
        """Begin with an op; the answer goes to the crew."""

    def end(self) -> None:
        """Have the worker end once it is done with its op, if it ever is."""

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""


class Crew(Protocol):
    """Workers, and the place where their answers come together."""

    def worker(self, name: str, carry_out: "CarryOut") -> Worker:
        """Make a worker."""

    def take(self) -> "Answer | None":
        """Return an answer that is there."""

    def wait(self, seconds: float) -> "Answer | None":
        """Return the next answer, or None when the time is over."""

    def dismiss(self, workers: Sequence[Worker], seconds: float) -> None:
        """Wait for workers that were told to end, for so long together at most."""


class ThreadWorker:
    """A worker that is a thread."""

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
        self._inbox.put(None)

    @property
    def is_alive(self) -> bool:
        return self.thread.is_alive()

    def _work(self) -> None:
        while (op := self._inbox.get()) is not None:
            self._outbox.put((self, self._carry_out(op)))
        self._carry_out.close()


class ThreadCrew:
    """Workers that are threads."""

    def __init__(self) -> None:
        self._outbox: Outbox[Answer] = Outbox()

    def worker(self, name: str, carry_out: "CarryOut") -> ThreadWorker:
        return ThreadWorker(name, carry_out, self._outbox)

    def take(self) -> "Answer | None":
        try:
            return self._outbox.get_nowait()
        except queue.Empty:
            return None

    def wait(self, seconds: float) -> "Answer | None":
        try:
            return self._outbox.get(timeout=seconds)
        except queue.Empty:
            return None

    def dismiss(self, workers: Sequence[Worker], seconds: float) -> None:
        until = time.monotonic() + seconds
        for worker in workers:
            assert isinstance(worker, ThreadWorker)
            worker.thread.join(timeout=max(until - time.monotonic(), 0.0))


class CarryOut(Protocol):
    """Carries out ops somehow and never raises."""

    def __call__(self, op: Op) -> tuple[Op, str | None]:
        """Return the completion, and what the nemesis raised."""

    def close(self) -> None:
        """Let go of everything. Never raises."""


Answer = tuple[Worker, tuple[Op, str | None]]


class ByClient(CarryOut):
    """Carries out ops with a client, which it opens, closes and replaces."""

    def __init__(
        self,
        make: Callable[[], Client],
        is_read: Callable[[Op], bool],
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._make = make
        self._is_read = is_read
        self._sleep = sleep
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
                self._sleep(REFUSED_PAUSE_S)
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
