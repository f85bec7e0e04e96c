"""Histories written for Jepsen's tools: what our own reader makes of them is the same history."""

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.checkers.generate import as_history, messy, messy_of
from tests.checkers.test_corpus import _EXPECTED, _FOLDER

from labrys.checkers.catalogue import checker_for
from labrys.checkers.checker import Evidence
from labrys.checkers.edn import read_forms
from labrys.checkers.formats import detect, read_any
from labrys.checkers.history import History, HistoryError
from labrys.checkers.jepsen_edn import Keyword, edn_text, jepsen_lines
from labrys.checkers.op import Op, OpType
from labrys.checkers.verdict import Verdict

INVOKE, OK, FAIL, INFO = OpType.INVOKE, OpType.OK, OpType.FAIL, OpType.INFO

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def back(path: Path, history: History, *, keyed: bool = False) -> History:
    path.write_text("".join(f"{line}\n" for line in jepsen_lines(history.ops)))
    assert detect(path) == "jepsen-edn"
    return read_any(path, "jepsen-edn", keyed=keyed)


def judged(model: str, history: History) -> Verdict:
    return checker_for(model).check(history, Evidence()).verdict


@given(_JSON)
def test_every_json_value_comes_back(value: Any) -> None:
    assert read_forms(edn_text(value)) == [(value, 1)]


def test_words_of_jepsen_are_keywords_and_values_are_not() -> None:
    ops = [
        Op(INVOKE, 3, "cas", 0, 5, value=[1, 4], node="n1"),
        Op(INFO, "nemesis", "kill", 1, 6, value={"n1": "killed"}),
        Op(INFO, 3, "cas", 2, 9, value=[1, 4], error=["timeout", 'no "answer"'], node="n1"),
        Op(INVOKE, 4, "txn", value=[["append", "x", 1], ["r", "x", None]]),
    ]
    assert list(jepsen_lines(ops)) == [
        '{:type :invoke, :f :cas, :value [1 4], :process 3, :time 5, :index 0, :node "n1"}',
        '{:type :info, :f :kill, :value {"n1" "killed"}, :process :nemesis, :time 6, :index 1}',
        "{:type :info, :f :cas, :value [1 4], :process 3, :time 9, :index 2, "
        ':error [:timeout "no \\"answer\\""], :node "n1"}',
        '{:type :invoke, :f :txn, :value [[:append "x" 1] [:r "x" nil]], :process 4}',
    ]


def test_a_function_that_cannot_be_a_keyword_is_a_string() -> None:
    assert edn_text(Keyword("add-user!")) == ":add-user!"
    assert edn_text(Keyword("two words")) == '"two words"'
    assert edn_text(Keyword("1st")) == '"1st"'
    assert edn_text(Keyword("")) == '""'


KEYED = [
    Op(INVOKE, 0, "write", key="k 1", value=1),
    Op(INVOKE, 1, "read", key="7", value=None),
    Op(INFO, 0, "write", value=None, error="timeout"),
    Op(OK, 1, "read", key="7", value=[1, 2]),
]


def test_an_op_on_one_of_many_keys_carries_the_key_beside_its_value(tmp_path: Path) -> None:
    values = [read_forms(line)[0][0]["value"] for line in jepsen_lines(KEYED)]
    assert values == [["k 1", 1], ["7", None], ["k 1", None], ["7", [1, 2]]]
    again = back(tmp_path / "h.edn", History(KEYED), keyed=True)
    assert [op.key for op in again.ops] == ["k 1", "7", "k 1", "7"]
    assert [op.value for op in again.ops] == [1, None, None, [1, 2]]


def test_the_history_of_one_key_has_bare_values_and_the_faults() -> None:
    kill = Op(INFO, "nemesis", "kill")
    forms = [read_forms(line)[0][0] for line in jepsen_lines([*KEYED, kill], key="7")]
    assert [(form["f"], form["value"]) for form in forms] == [
        ("read", None),
        ("read", [1, 2]),
        ("kill", None),
    ]


def test_a_history_with_and_without_keys_is_refused() -> None:
    with pytest.raises(HistoryError, match="op 1: some operations name a key"):
        list(jepsen_lines([Op(INVOKE, 0, "read", 0, key="x"), Op(INVOKE, 1, "read", 1)]))


_FAMILIES = {
    "register": "cas-register",
    "fifo-queue": "fifo-queue",
    "set": "set",
    "counter": "counter",
    "append": "append",
    "owned-mutex": "owned-mutex",
    "multi-register": "multi-register",
    "txn": "txn",
}


@pytest.mark.parametrize("family", _FAMILIES)
def test_random_histories_come_back_with_their_verdict(family: str, tmp_path: Path) -> None:
    verdicts: set[Verdict] = set()
    for seed in range(60):
        rng = random.Random(f"edn {family} {seed}")
        acts = messy(rng) if family == "register" else messy_of(rng, family)
        history = as_history(acts)
        again = back(tmp_path / "h.edn", history)
        assert again.ops == history.ops, f"seed {seed}"
        verdict = judged(_FAMILIES[family], history)
        assert judged(_FAMILIES[family], again) is verdict, f"seed {seed}"
        verdicts.add(verdict)
    assert {Verdict.VALID, Verdict.INVALID} <= verdicts


def test_random_keyed_histories_come_back_with_their_verdict(tmp_path: Path) -> None:
    verdicts: set[Verdict] = set()
    for seed in range(60):
        rng = random.Random(f"edn keyed {seed}")
        events: list[Op] = []
        for key in ("k1", "2", "[3]"):
            shift = 1_000 * len(events)
            for op in as_history(messy(rng)).ops:
                assert isinstance(op.process, int)
                moved = op.process + shift
                events.append(msgspec.structs.replace(op, key=key, process=moved))
        events.sort(key=lambda op: op.time)
        crashed = [
            Op(OpType.INFO, op.process, op.f, error=["timeout", "5 s"], key=op.key)
            for op in events
            if op.type is INVOKE
            and not any(o.type is OK and o.process == op.process for o in events)
        ]
        history = History(msgspec.structs.replace(op, index=-1) for op in (*events, *crashed))
        again = back(tmp_path / "h.edn", history, keyed=True)
        assert again.ops == history.ops, f"seed {seed}"
        verdict = judged("cas-register", history)
        assert judged("cas-register", again) is verdict, f"seed {seed}"
        verdicts.add(verdict)
    assert verdicts == {Verdict.VALID, Verdict.INVALID}


@pytest.mark.skipif(not _EXPECTED.exists(), reason=f"no corpus at {_FOLDER} (LABRYS_SHARED)")
def test_the_corpus_comes_back_unchanged(tmp_path: Path) -> None:
    for name, entry in json.loads(_EXPECTED.read_text()).items():
        keyed = "kv" in entry["model"]
        history = read_any(_FOLDER / name, keyed=keyed and entry["format"] == "jepsen-edn")
        has_keys = any(op.key is not None for op in history.ops)
        again = back(tmp_path / "h.edn", history, keyed=has_keys)
        assert again.operations == history.operations, name
