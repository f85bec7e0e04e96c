"""Options of the test command."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--regenerate-transcripts`."""
    parser.addoption(
        "--regenerate-transcripts",
        action="store_true",
        help="write what the commands in tests/node/transcripts lead to now, to be read as a diff",
    )
