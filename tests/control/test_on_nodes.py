"""The same action on all nodes: in parallel, with every failure told, and never left half done."""

import os
import signal
import threading
import time
from types import FrameType

import pytest

from labrys.control.environments.base import on_nodes
from labrys.control.errors import ClusterError


def test_results_come_by_node() -> None:
    assert on_nodes(("n1", "n2"), str.upper) == {"n1": "N1", "n2": "N2"}
    assert on_nodes((), str.upper) == {}


def test_all_nodes_are_tried_and_the_first_failure_names_the_others() -> None:
    tried: list[str] = []

    def action(node: str) -> None:
        tried.append(node)
        if node != "n2":
            raise ClusterError(f"{node}: refused")

    with pytest.raises(ClusterError, match="n1: refused") as caught:
        on_nodes(("n1", "n2", "n3"), action)
    assert sorted(tried) == ["n1", "n2", "n3"]
    assert caught.value.__notes__ == ["also on n3: n3: refused"]


def test_an_interruption_comes_out_only_when_nothing_goes_on_any_more() -> None:
    class Interrupted(BaseException):
        pass

    asked = threading.Event()
    all_began = threading.Barrier(3)
    done: list[str] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        asked.set()
        raise Interrupted

    def action(node: str) -> None:
        all_began.wait(30)
        if node == "n3":
            os.kill(os.getpid(), signal.SIGUSR1)
        assert asked.wait(30)
        time.sleep(0.4 if node == "n1" else 0.2)  # as a request would take that makes a container
        done.append(node)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(Interrupted):
            on_nodes(("n1", "n2", "n3"), action)
        assert sorted(done) == ["n1", "n2", "n3"]
    finally:
        signal.signal(signal.SIGUSR1, before)
