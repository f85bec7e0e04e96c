"""Histories of other tools."""

from pathlib import Path
from typing import Any

import pytest

from labrys.checkers.edn import EdnError, read_forms, read_members
from labrys.checkers.formats import detect, read_any
from labrys.checkers.history import HistoryError
from labrys.checkers.linearizable import Linearizable
from labrys.checkers.op import Op, OpType

INVOKE, OK, FAIL, INFO = OpType.INVOKE, OpType.OK, OpType.FAIL, OpType.INFO

LOG = """\
INFO  jepsen.util - 0	:invoke	:read	nil
INFO  jepsen.util - 1   :invoke   :cas   [1 4]
INFO  jepsen.util - 0	:fail	:read	:timed-out
INFO  jepsen.util - 1	:info	:cas	:timed-out
INFO  jepsen.util - 2	:invoke	:write	3
INFO  jepsen.util - 2	:ok	:write	3
"""
EDN = """\
; a comment
[{:process 0, :type :invoke, :f :write, :value 4 :time 12}
 {:process :nemesis, :type :info, :f :kill, :value {"n1" [:a #{1}]}}
 {:process 0,
  :type :ok :f :write, :value 4
  :error [:odd "x"], :extra true} #_ {:skipped 1}]
"""
KV = """\
{:process 0, :type :invoke, :f :get, :key "7", :value nil}
{:process 0, :type :ok, :f :get, :key "7", :value "x 0 1 y"}
"""


def saved(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_jepsen_log_takes_missing_arguments_from_the_invoke(tmp_path: Path) -> None:
    path = saved(tmp_path / "h.log", LOG)
    assert detect(path) == "jepsen-log"
    read, cas, write = read_any(path).operations
    assert (read.is_fail, read.completion and read.completion.error) == (True, "timed-out")
    assert (cas.is_info, cas.value) == (True, [1, 4])
    assert (write.is_ok, write.value) == (True, 3)


def test_jepsen_edn_keeps_what_an_event_says(tmp_path: Path) -> None:
    path = saved(tmp_path / "h.edn", EDN)
    assert detect(path) == "jepsen-edn"
    assert list(read_any(path).ops) == [
        Op(INVOKE, 0, "write", 0, 12, value=4),
        Op(INFO, "nemesis", "kill", 1, value={"n1": ["a", [1]]}),
        Op(OK, 0, "write", 2, value=4, error=["odd", "x"]),
    ]


@pytest.mark.parametrize("text", [EDN.replace("[{:p", "({:p").replace("1}]\n", "1})\n"), EDN[12:]])
def test_jepsen_edn_may_be_a_list_or_have_no_comment(tmp_path: Path, text: str) -> None:
    assert len(read_any(saved(tmp_path / "h.edn", text)).ops) == 3


def test_porcupine_kv_has_its_key_apart(tmp_path: Path) -> None:
    path = saved(tmp_path / "h.txt", KV)
    assert detect(path) == "porcupine-kv"
    (get,) = read_any(path).operations
    assert (get.key, get.value) == ("7", "x 0 1 y")


def test_keyed_values_lose_their_key_only_when_told(tmp_path: Path) -> None:
    lines = [
        '{"type":"invoke","process":0,"f":"cas","value":[3,[0,1]]}',
        '{"type":"ok","process":0,"f":"cas","value":[3,[0,1]]}',
        '{"type":"invoke","process":1,"f":"write","value":["x",1]}',
        '{"type":"info","process":1,"f":"write","value":null}',
    ]
    path = saved(tmp_path / "h.jsonl", "\n".join(lines) + "\n")
    assert detect(path) == "jsonl"
    cas, write = read_any(path, keyed=True).operations
    assert (cas.key, cas.value) == ("3", [0, 1])
    assert (write.key, write.value, write.is_info) == ("x", 1, True)
    assert [op.key for op in read_any(path).ops] == [None] * 4


@pytest.mark.parametrize(
    ("text", "form", "line", "message"),
    [
        (LOG + "INFO  jepsen.util - 2 :ok\n", "auto", 7, "not an event"),
        (LOG + "INFO  jepsen.util - 2 :ok :write [3\n", "auto", 7, "[ is never closed"),
        (LOG + "INFO  jepsen.util - 2 :ok :write 3\n", "auto", 7, "without having invoked it"),
        (EDN.replace(":type :ok", ":type :done"), "auto", 4, "Invalid enum value 'done'"),
        (EDN.replace(":process 0,\n", "\n"), "auto", 4, "an event without :process"),
        (EDN.replace("[{:p", "{:p"), "auto", 6, "unexpected ]"),
        (EDN.replace(":error [", ":error ("), "auto", 6, "unexpected ]"),
        ("{:a 1} {:a", "jepsen-edn", 1, "{ is never closed"),
        ("1 2", "jepsen-edn", 1, "an event must be a map, not 1"),
    ],
)
def test_fault_is_named_with_path_and_line(
    tmp_path: Path, text: str, form: str, line: int, message: str
) -> None:
    path = saved(tmp_path / "broken", text)
    with pytest.raises(HistoryError) as caught:
        read_any(path, form)
    assert str(caught.value).startswith(f"{path}:{line}: "), str(caught.value)
    assert message in str(caught.value)


def test_unpaired_value_in_a_keyed_history_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "h.jsonl", '{"type":"invoke","process":0,"f":"write","value":3}\n')
    with pytest.raises(HistoryError, match=r"h\.jsonl:1: op 0: .* write needs \[key, value\]"):
        read_any(path, keyed=True)


def test_keyed_history_that_cannot_have_happened_is_refused_with_its_path(tmp_path: Path) -> None:
    lines = [
        '{"type":"invoke","process":0,"f":"cas","value":["k",[0,1]]}',
        '{"type":"info","process":0,"f":"cas","value":[0,1]}',
    ]
    path = saved(tmp_path / "h.jsonl", "\n".join(lines) + "\n")
    with pytest.raises(HistoryError, match=r"h\.jsonl:2: op 1: process 0 completes cas of 0 but"):
        read_any(path, keyed=True)


_DEEP = "[" * 5_000 + "]" * 5_000


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"invoke","process":0,"f":"write","value":' + _DEEP + "}\n",
        "{:process 0 :type :invoke :f :write :value " + _DEEP + "}\n",
        "{:process 0 :type :invoke :f :write :value {" + _DEEP + " 1}}\n",
        _DEEP,
    ],
    ids=["json", "edn", "edn key", "no map"],
)
def test_value_nested_too_deeply_is_refused(tmp_path: Path, text: str) -> None:
    path = saved(tmp_path / "deep", text)
    with pytest.raises(HistoryError, match="nested too deeply"):
        Linearizable("register").assert_fits(read_any(path))


def test_keys_that_would_be_taken_for_one_are_refused(tmp_path: Path) -> None:
    lines = [
        '{"type":"invoke","process":0,"f":"write","value":[1,"a"]}',
        '{"type":"invoke","process":1,"f":"write","value":["1","b"]}',
    ]
    path = saved(tmp_path / "h.jsonl", "\n".join(lines) + "\n")
    with pytest.raises(HistoryError, match=r'h\.jsonl:2: op 1: the keys "1" and 1 would be taken'):
        read_any(path, keyed=True)


def test_file_that_is_no_history_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="not one of the formats jsonl, jepsen-edn"):
        read_any(saved(tmp_path / "notes.txt", "Dear diary,\n"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("nil", None),
        ("[true false]", [True, False]),
        ("-12N", -12),
        ("[1.5e3 2M]", [1500.0, 2]),
        (r'"a\n\"b\" \\ é"', 'a\n"b" \\ é'),
        (":ns/name", "ns/name"),
        (r"[\a \newline]", ["a", "\n"]),
        ("{:a 1, 2 [3]}", {"a": 1, "2": [3]}),
        ("(1, 2,, #_3 #_ #_ 4 5 6)", [1, 2, 6]),
        ('#jepsen.history.Op{:a #inst "2020"}', {"a": "2020"}),
        ("#{}", []),
    ],
)
def test_edn_reads_as_json_values(text: str, value: Any) -> None:
    ((form, line),) = read_forms(text)
    assert form == value
    assert line == 1


def test_edn_members_know_their_lines() -> None:
    assert read_members("; c\n[1\n 2]") == [(1, 2), (2, 3)]
    assert read_members("{:a 1}\n\n{:b 2}") == [({"a": 1}, 1), ({"b": 2}, 3)]


@pytest.mark.parametrize("text", ["[1", "]", "[1)", "{:a}", '"open', r'"\q"', "1e999", "-1e999M"])
def test_broken_edn_is_refused(text: str) -> None:
    with pytest.raises(EdnError):
        read_forms(text)


def test_deep_edn_does_not_exhaust_the_stack() -> None:
    depth = 5_000
    ((form, _),) = read_forms("[" * depth + "]" * depth)
    assert form == [form[0]]
