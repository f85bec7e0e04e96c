"""History and op types, verdicts, models and the checkers that judge a history.

For notebooks and other people's tests: `read` a history file, then `check` it; docs/checkers.md
has examples.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labrys.checkers.history import History
    from labrys.checkers.models.model import Model
    from labrys.checkers.verdict import CheckResult

# What is imported from here stays light: a node and `labrys --help` pass through it.


def read(path: str | Path, file_format: str = "auto", *, keyed: bool = False) -> "History":
    """Read a history file: JSONL, Jepsen's EDN or console log, or Porcupine's kv format.

    `keyed`: the values are [key, value]. Raises `HistoryError` naming path and line.
    """
    from labrys.checkers.formats import read_any

    return read_any(path, file_format, keyed=keyed)


def check(history: "History", model: "str | Model", **how: Any) -> "CheckResult":
    """Judge a history by a model of your own or one that `labrys check --model` knows.

    `how` is what `labrys check` takes: `initial`, `nil_read`, `failed_cas`, `level`, `all_keys`.
    The search is bounded by work alone, so the answer is the same on every machine. Raises
    `ValueError` for an unknown model, or an option that means nothing to it.
    """
    from labrys.checkers.catalogue import checker_for
    from labrys.checkers.checker import Evidence
    from labrys.checkers.linearizable import Linearizable

    checker = checker_for(model, **how) if isinstance(model, str) else Linearizable(model, **how)
    return checker.check(history, Evidence())
