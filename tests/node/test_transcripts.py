"""Every transcript in `transcripts/` is what its commands lead to.

After a change that is meant: `pytest tests/node/test_transcripts.py --regenerate-transcripts`, and
read the diff as carefully as the change itself.
"""

import difflib
from pathlib import Path

import pytest
from tests.node.transcript import play

FILES = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_trace_is_as_it_was(path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text()
    found = play(text)
    if request.config.getoption("--regenerate-transcripts"):
        path.write_text(found)
        return
    diff = "\n".join(
        difflib.unified_diff(text.splitlines(), found.splitlines(), path.name, "now", lineterm="")
    )
    assert not diff, f"{path.name} has changed:\n{diff}"


def test_there_is_one_for_every_part_of_the_protocol() -> None:
    assert {path.stem for path in FILES} >= {
        "check-quorum", "conflicts", "elections", "figure-8", "group-commit", "joint-consensus",
        "membership", "pipelining", "pre-vote", "reads", "recall", "replication", "sessions",
        "snapshots", "split-vote", "transfer",
    }  # fmt: skip


def test_an_unknown_command_is_no_silent_line() -> None:
    with pytest.raises(AttributeError):
        play("> dance n1\n")
