"""Workers and their outbox."""

import queue
import threading

import pytest

from labrys.checkers.op import Op, OpType
from labrys.control.worker import REFUSED_PAUSE_S, ByClient, Outbox
from labrys.workloads.client import DefiniteError, UnavailableError


def test_outbox_wait_with_a_timeout_always_ends() -> None:
    """A queue whose timed get can wait for ever once hung a whole run."""
    outbox: Outbox[int] = Outbox()

    def wait_often() -> None:
        for _ in range(2_000):
            outbox.put(1)
            outbox.get_nowait()
            try:
                outbox.get(timeout=1e-6)
            except queue.Empty:
                continue

    waiter = threading.Thread(target=wait_often, daemon=True)
    waiter.start()
    waiter.join(timeout=60)
    assert not waiter.is_alive()


class Refusing:
    """A client whose node answers every op in the same way."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def open(self) -> None: ...

    def invoke(self, op: Op) -> Op:
        raise self.error

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("error", "pauses"),
    [
        (UnavailableError("no-connection"), [REFUSED_PAUSE_S]),
        (DefiniteError("mismatch"), []),
    ],
)
def test_worker_holds_back_only_when_its_node_cannot_serve(
    error: Exception, pauses: list[float]
) -> None:
    slept: list[float] = []
    by_client = ByClient(lambda: Refusing(error), lambda op: False, slept.append)
    completion, _ = by_client(Op(type=OpType.INVOKE, process=0, f="write", value=1))
    assert completion.type is OpType.FAIL
    assert slept == pauses
