"""Nodes in network namespaces, for a test that stays outside.

A process moves into a private world as a whole (`labrys.control.environments.namespaces`), and a
test runner must not. So a child of it does: there the nodes are, and it takes orders over a pipe.
Clients stay in the test and reach each node at a port of loopback that the child forwards. When the
child ends, however it does, the kernel ends all that runs inside; and it ends with the test runner.
"""

import multiprocessing
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Any, Final
from urllib.parse import urlsplit

from labrys.control.environments.namespaces import end_with_parent
from labrys.control.errors import ClusterError, InternalError, LabrysError
from labrys.control.nemesis.package import Outcome
from labrys.control.spec import Spec
from labrys.control.store import RunDirectory
from labrys.control.testing import forwarder
from labrys.control.testing.nodes import StagedNodes
from labrys.workloads.kv import KvClient
from labrys.workloads.sessions import SessionClient

ANSWER_TIMEOUT_S: Final = 90.0
"""Longer than any order takes: each has limits of its own."""
END_TIMEOUT_S: Final = 10.0


class InsideNodes:
    """Passes orders on to `StagedNodes` in a private world; see `Nodes`."""

    def __init__(self, spec: Spec, run: RunDirectory) -> None:
        """Starts the child, which makes no node yet."""
        self._op_timeout_s = spec.op_timeout
        self.started_at = datetime.now(UTC)
        self._began_ns = time.monotonic_ns()
        self._lock = threading.Lock()
        self._is_busy = False
        """Whether the child still owes an answer; for good, if nobody waits for it any more."""
        listeners = {node: forwarder.listen() for node in spec.node_names}
        self._urls = {node: forwarder.url(listener) for node, listener in listeners.items()}
        ours, theirs = multiprocessing.Pipe()
        self._orders = ours
        child = multiprocessing.get_context("fork").Process(
            target=_obey, args=(spec, run, listeners, theirs, ours), daemon=True
        )
        with warnings.catch_warnings():
            # Python 3.12 warns of a fork beside threads. The child takes no lock that one could
            # hold: it uses nothing of what the test runner has begun.
            warnings.simplefilter("ignore", DeprecationWarning)
            child.start()
        self._child = child
        theirs.close()
        for listener in listeners.values():
            listener.close()

    def begin(self) -> None:
        """See `Nodes`."""
        self._order("begin")

    def kill(self, node: str) -> None:
        """See `Nodes`."""
        self._order("kill", node)

    def start(self, node: str) -> None:
        """See `Nodes`."""
        self._order("start", node)

    def pause(self, node: str) -> None:
        """See `Nodes`."""
        self._order("pause", node)

    def resume(self, node: str) -> None:
        """See `Nodes`."""
        self._order("resume", node)

    def cut(self, grudge: dict[str, list[str]]) -> None:
        """See `Nodes`."""
        self._order("cut", grudge)

    def heal(self) -> Outcome:
        """See `Nodes`."""
        outcome: Outcome = self._order("heal")
        return outcome

    def await_healthy(self) -> None:
        """See `Nodes`."""
        self._order("await_healthy")

    def leader(self, among: Sequence[str], timeout_s: float) -> str:
        """See `Nodes`."""
        leader: str = self._order("leader", among, timeout_s)
        return leader

    def statuses(self) -> dict[str, dict[str, Any] | None]:
        """See `Nodes`."""
        statuses: dict[str, dict[str, Any] | None] = self._order("statuses")
        return statuses

    def url(self, node: str) -> str:
        """See `Nodes`: the port of loopback that leads there."""
        return self._urls[node]

    def client(self, node: str, consistency: str, *, has_session: bool) -> KvClient:
        """See `Nodes`."""
        kind = SessionClient if has_session else KvClient
        return kind(self.url(node), timeout_s=self._op_timeout_s, consistency=consistency)

    def clock_ns(self) -> int:
        """See `Nodes`."""
        return time.monotonic_ns() - self._began_ns

    def sleep(self, seconds: float) -> None:
        """See `Nodes`."""
        time.sleep(seconds)

    def end(self) -> None:
        """See `Nodes`."""
        if self._orders.closed:
            return
        try:
            if self._is_busy:  # Ctrl-C, most likely: with the child all of it ends at once
                self._child.kill()
            else:
                self._order("end")
        finally:
            self._orders.close()
            self._child.join(END_TIMEOUT_S)
            if self._child.exitcode is None:
                self._child.kill()
                self._child.join()

    def _order(self, name: str, *args: Any) -> Any:
        with self._lock:
            try:
                if self._is_busy:
                    raise ClusterError(f"{name}: an earlier order was never answered")
                self._is_busy = True
                self._orders.send((name, args))
                if not self._orders.poll(ANSWER_TIMEOUT_S):
                    raise ClusterError(f"{name}: no answer within {ANSWER_TIMEOUT_S:g} s")
                answer = self._orders.recv()
                self._is_busy = False
            except (EOFError, OSError) as error:
                raise ClusterError(f"{name}: the process inside the namespaces died") from error
        if isinstance(answer, BaseException):
            raise answer
        return answer


def _obey(
    spec: Spec,
    run: RunDirectory,
    listeners: dict[str, socket.socket],
    orders: "Connection[Any, Any]",
    theirs: "Connection[Any, Any]",
) -> None:
    """Move inside and carry out orders until there can be no more."""
    theirs.close()  # else we would never see its end
    os.setsid()  # Ctrl-C is for the test runner, which then orders the end
    for handled in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(handled, signal.SIG_DFL)
    end_with_parent(signal.SIGKILL)
    try:
        from labrys.control.environments.netns import enter

        enter()  # from here on we are another process, inside
        nodes = StagedNodes(spec, run, lambda: None)
    except LabrysError as error:
        orders.recv()
        orders.send(error)
        return
    while True:
        try:
            name, args = orders.recv()
        except EOFError:
            return  # and with us ends all that we made
        try:
            answer = getattr(nodes, name)(*args)
            if name == "begin":
                for node, listener in listeners.items():
                    target = urlsplit(nodes.url(node))
                    assert target.hostname is not None
                    assert target.port is not None
                    forwarder.forward(listener, target.hostname, target.port)
        except LabrysError as error:
            answer = error
        except Exception as error:
            answer = InternalError(f"{name}: {type(error).__name__}: {error}")
        orders.send(answer)
