"""The examples of docs/checkers.md run as they stand there."""

import contextlib
import io
import re
from pathlib import Path

import pytest
from tests.checkers.generate import as_history
from tests.checkers.oracle import Act

from labrys.checkers.catalogue import names
from labrys.checkers.history import encode_op
from labrys.checkers.transactions.levels import LEVELS

_PAGE = (Path(__file__).resolve().parents[2] / "docs" / "checkers.md").read_text()
_EXAMPLES = re.findall(r"```python\n(.*?)```", _PAGE, re.DOTALL)


@pytest.mark.parametrize(("number", "printed"), [(0, "invalid not linearizable"), (1, "invalid")])
def test_example_runs(
    number: int, printed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acts = [Act("write", 1, 0, 1), Act("read", 2, 2, 3)]
    lines = [encode_op(op) + b"\n" for op in as_history(acts).ops]
    (tmp_path / "history.jsonl").write_bytes(b"".join(lines))
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(_EXAMPLES[number], f"example {number}", "exec"), {"__name__": "example"})
    assert out.getvalue().startswith(printed)


def test_page_names_every_model_and_level() -> None:
    assert len(_EXAMPLES) == 2
    for name in names():
        assert f"`{name}`" in _PAGE, name
    for name in LEVELS:
        assert name in _PAGE or name.startswith("strong-"), name
