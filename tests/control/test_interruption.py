"""Ctrl-C and SIGTERM."""

import os
import signal

import pytest

from labrys.control.interruption import Interrupted, Interruption


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_is_noted_and_nothing_is_raised_while_recording(number: int) -> None:
    with Interruption().installed() as interruption:
        send(number)
        assert interruption.asked.is_set()
        assert not interruption.impatient


def test_second_signal_is_impatience() -> None:
    with Interruption().installed() as interruption:
        send(signal.SIGINT)
        send(signal.SIGINT)
        assert interruption.impatient


def test_signal_during_set_up_is_raised_once() -> None:
    with Interruption().installed() as interruption:
        with pytest.raises(Interrupted), interruption.raised():
            send(signal.SIGTERM)
        with interruption.raised():
            pass
        send(signal.SIGTERM)
        assert interruption.count == 2


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interruption().installed():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
