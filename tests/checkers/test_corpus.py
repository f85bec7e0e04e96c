"""The shared corpus of histories with known verdicts."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from labrys.checkers.catalogue import checker_for
from labrys.checkers.checker import Evidence
from labrys.checkers.formats import detect, read_any

_ROOT = Path(__file__).resolve().parents[2]
_FOLDER = Path(os.environ.get("LABRYS_SHARED", _ROOT.parent / "shared")) / "histories"
_EXPECTED = _FOLDER / "expected.json"

_MODELS = {
    "register": "register",
    "cas-register": "cas-register",
    "kv": "kv",
    "kv-string (get/put/append, per key)": "kv",
    "mutex": "mutex",
    "queue": "fifo-queue",
    "uqueue": "unordered-queue",
    "set": "set",
    "multi-register": "multi-register",
}
"""The models of the corpus that are supported, by the name that it gives them."""

_VACUOUS = {
    "knossos/cas-register/good/mongodb-v0-ack-rollback-.edn",
    "knossos/cas-register/good/mongodb-v0-ack-rollback-10.edn",
}
"""Labelled good, but nothing ever succeeded in them: that is no evidence, so `unknown`."""


def _entries() -> list[tuple[str, dict[str, Any]]]:
    if not _EXPECTED.exists():
        return []
    entries: dict[str, dict[str, Any]] = json.loads(_EXPECTED.read_text())
    return [
        (path, entry)
        for path, entry in sorted(entries.items())
        if entry["model"] in _MODELS and entry.get("linearizable") is not None
    ]


@pytest.mark.skipif(not _EXPECTED.exists(), reason=f"no corpus at {_FOLDER} (LABRYS_SHARED)")
def test_the_corpus_is_there_and_not_empty() -> None:
    assert len(_entries()) >= 100


@pytest.mark.parametrize(
    ("path", "entry"), _entries(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_history_of_the_corpus_gets_its_verdict(path: str, entry: dict[str, Any]) -> None:
    assert detect(_FOLDER / path) == entry["format"]
    history = read_any(_FOLDER / path, keyed=entry["model"] == "kv")
    initial = 0 if entry["model"] == "kv" else entry["init"]
    is_register = "register" in entry["model"]
    checker = checker_for(
        _MODELS[entry["model"]],
        initial=initial,
        nil_read=entry.get("nil_read", "absent") if is_register else None,
    )

    result = checker.check(history, Evidence())

    expected = "valid" if entry["linearizable"] else "invalid"
    assert result.verdict.value == ("unknown" if path in _VACUOUS else expected)


_TRANSACTIONS = ("list-append", "rw-register")
_SHARPER = {"synthetic/rw-register-read-committed-s1.jsonl"}
"""Not strict-serializable, which dependencies alone do not show but a search does."""


def _transactional() -> list[tuple[str, str]]:
    if not _EXPECTED.exists():
        return []
    entries = json.loads(_EXPECTED.read_text())
    return [
        (path, level)
        for path, entry in sorted(entries.items())
        if entry["model"] in _TRANSACTIONS
        for level in entry["elle"]
    ]


@pytest.mark.parametrize(("path", "level"), _transactional())
def test_transactions_of_the_corpus_get_their_verdict(path: str, level: str) -> None:
    entry = json.loads(_EXPECTED.read_text())[path]
    history = read_any(_FOLDER / path)

    result = checker_for(entry["model"], level=level).check(history, Evidence())

    expected = "valid" if entry["elle"][level]["valid"] else "invalid"
    if path in _SHARPER and level == "strict-serializable":
        assert entry["linearizable"] is False
        expected = "invalid"
    assert result.verdict.value == expected, result.summary
    if level == "strict-serializable" and entry.get("linearizable") is not None:
        assert (expected == "valid") is entry["linearizable"]
