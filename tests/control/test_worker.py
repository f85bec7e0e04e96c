"""Workers and their outbox."""

import queue
import threading

from labrys.control.worker import Outbox


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
