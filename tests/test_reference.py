"""The reference is what the code says now."""

import runpy
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "docs" / "reference.py"


def test_page_is_what_the_code_says() -> None:
    made = runpy.run_path(str(SOURCE))["page"]()
    stands = SOURCE.with_suffix(".md").read_text()
    assert stands == made, "write it again: .venv/bin/python -m docs.reference"


@pytest.mark.parametrize(
    "line",
    [
        "### `labrys shrink RUN`",
        "| `--fault-interval S` |  | Mean seconds a fault holds (5). |",
        "| `op_timeout` | `--op-timeout` | `float` | `2.0` | Deadline of one operation. |",
        "### `restart-storm`",
        "| `jitter` | `float` | `0.3` | So much more or less, as a part of the delay, for each "
        "packet. |",
        "| `coverage` | Every kind of fault that was asked for must have been seen to take effect, "
        "else unknown. |",
    ],
)
def test_page_has_what_is_looked_for(line: str) -> None:
    assert line in SOURCE.with_suffix(".md").read_text().splitlines()


def test_everything_is_explained() -> None:
    """The last column of a table is for words."""
    rows = SOURCE.with_suffix(".md").read_text().splitlines()
    assert [row for row in rows if row.startswith("| `") and row.endswith("|  |")] == []
