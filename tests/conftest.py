"""Options of the test command, and what every test may rely on."""

import signal
from collections.abc import Iterator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--regenerate-transcripts` and `--schedules`."""
    parser.addoption(
        "--regenerate-transcripts",
        action="store_true",
        help="write what the commands in tests/node/transcripts lead to now, to be read as a diff",
    )
    parser.addoption(
        "--schedules",
        type=int,
        default=1,
        metavar="FACTOR",
        help="play so many times as many random schedules against the Raft core",
    )
    parser.addoption(
        "--histories",
        type=int,
        default=2_500,
        metavar="COUNT",
        help="judge so many random histories of every model against the oracle",
    )


@pytest.fixture(scope="session")
def histories(request: pytest.FixtureRequest) -> int:
    """How many random histories of each kind a test judges."""
    count: int = request.config.getoption("--histories")
    return count


@pytest.fixture(scope="session", autouse=True)
def hanging_up_ends_a_process() -> Iterator[None]:
    """Take SIGHUP as usual, here and in what is started: under nohup it would be ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
