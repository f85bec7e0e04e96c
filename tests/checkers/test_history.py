"""Reading and writing histories, and refusing those that cannot have happened."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrys.checkers.history import (
    FINAL,
    HEAL,
    MAIN,
    SETUP,
    History,
    HistoryError,
    decode_op,
    encode_op,
    read_history,
)
from labrys.checkers.op import NEMESIS, Op, OpType

INVOKE, OK, FAIL, INFO = OpType.INVOKE, OpType.OK, OpType.FAIL, OpType.INFO

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
_OPS = st.builds(
    Op,
    type=st.sampled_from(OpType),
    process=st.integers(0, 1000) | st.just(NEMESIS),
    f=st.text(max_size=8),
    index=st.integers(0, 10**9),
    time=st.integers(0, 10**15),
    key=st.none() | st.text(max_size=4),
    value=_JSON,
    error=_JSON,
    node=st.none() | st.just("n1"),
)


def mark(phase: str) -> Op:
    return Op(INFO, NEMESIS, "phase", value=phase)


@given(_OPS)
def test_line_of_an_op_reads_back_as_that_op(op: Op) -> None:
    line = encode_op(op)
    assert b"\n" not in line
    assert decode_op(line) == op


@given(_OPS)
def test_line_has_its_value_even_when_null_and_its_keys_in_order(op: Op) -> None:
    fields = list(msgspec.json.decode(encode_op(op)))
    everything = ["index", "time", "type", "process", "f", "key", "value", "error", "node"]
    optional = {"key": op.key, "error": op.error, "node": op.node}
    assert fields == [name for name in everything if optional.get(name, "") is not None]


def test_contract_line_reads_as_it_stands() -> None:
    line = (
        '{"index":17,"time":1234567,"type":"invoke","process":3,"f":"cas","key":"k7","value":[1,4]}'
    )
    assert decode_op(line) == Op(INVOKE, 3, "cas", 17, 1234567, "k7", [1, 4])
    assert encode_op(decode_op(line)) == line.encode()


def test_invokes_pair_with_the_completions_of_their_process() -> None:
    history = History(
        [
            Op(INVOKE, 0, "write", value=1),
            Op(INVOKE, 1, "read"),
            Op(INFO, NEMESIS, "kill", value="n1"),
            Op(OK, 1, "read", value=1),
            Op(INFO, 0, "write", value=1, error="timeout"),
            Op(INVOKE, 2, "cas", value=[1, 2]),
            Op(FAIL, 2, "cas", value=[1, 2], error="mismatch"),
            Op(INVOKE, 3, "read"),
        ]
    )
    write, read, cas, unfinished = history.operations
    assert (write.call, write.ret, write.is_info) == (0, None, True)
    assert (read.call, read.ret, read.is_ok, read.value) == (1, 3, True, 1)
    assert (cas.call, cas.ret, cas.is_fail) == (5, 6, True)
    assert (unfinished.ret, unfinished.is_info) == (None, True)
    assert len(history.client_ops) == 7


def test_keys_split_with_their_indices() -> None:
    history = History(
        [
            mark(MAIN),
            Op(INVOKE, 0, "write", key="a", value=1),
            Op(INVOKE, 1, "write", key="b", value=2),
            Op(OK, 0, "write", key="a", value=1),
            mark(FINAL),
            Op(INVOKE, 0, "read", key="b"),
        ]
    )
    parts = history.operations_by_key()
    assert list(parts) == ["a", "b"]
    assert [(operation.call, operation.ret) for operation in parts["a"]] == [(1, 3)]
    assert [operation.call for operation in parts["b"]] == [2, 5]
    assert [history.phase_of(operation.call) for operation in parts["b"]] == [MAIN, FINAL]


def test_phases_begin_at_their_marks() -> None:
    write = Op(INVOKE, 0, "write")
    ops = [write, mark(MAIN), mark(HEAL), mark(FINAL), Op(OK, 0, "write")]
    history = History(ops)
    assert [history.phase_of(i) for i in range(5)] == [SETUP, MAIN, HEAL, FINAL, FINAL]
    assert History([write]).phase_of(0) == MAIN, "a bare file is all main phase"


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        (
            [Op(INVOKE, 0, "write"), Op(INVOKE, 0, "read")],
            "op 1: process 0 invokes read while its write (op 0) is still open",
        ),
        ([Op(OK, 0, "read")], "op 0: process 0 completes read without having invoked it"),
        (
            [Op(INVOKE, 0, "write"), Op(INFO, 0, "write"), Op(INVOKE, 0, "read")],
            "op 2: process 0 invokes read after its op 1 ended in info",
        ),
        (
            [Op(INVOKE, 0, "write", key="a"), Op(OK, 0, "write", key="b")],
            "op 1: process 0 completes write of b but had invoked write of a (op 0)",
        ),
        (
            [Op(INVOKE, 0, "read", time=5), Op(OK, 0, "read", time=4)],
            "op 1: time runs backwards, from 5 to 4 ns",
        ),
        ([Op(INVOKE, 0, "read", index=7), Op(OK, 0, "read", index=7)], "index 7 follows index 7"),
    ],
)
def test_history_that_cannot_have_happened_is_refused(ops: Sequence[Op], message: str) -> None:
    with pytest.raises(HistoryError) as caught:
        History(ops)
    assert message in str(caught.value)


def test_near_misses_of_impossible_histories_are_accepted() -> None:
    History(
        [
            Op(INVOKE, 0, "write", time=5),
            Op(INVOKE, 1, "read", time=5),
            Op(FAIL, 0, "write", time=5),
            Op(INVOKE, 0, "read", time=6),  # a fail ends the op, not the process
            Op(INFO, NEMESIS, "kill", time=6),
            Op(INFO, NEMESIS, "kill", time=7),
            Op(INFO, 1, "read", time=7),
            Op(INVOKE, 3, "read", time=8),
        ]
    )


def written(path: Path, ops: Sequence[Op], tail: bytes = b"") -> Path:
    path.write_bytes(b"".join(encode_op(op) + b"\n" for op in ops) + tail)
    return path


OPS = [
    Op(INVOKE, 0, "write", 0, 10, value=1),
    Op(OK, 0, "write", 1, 20, value=1),
    Op(INVOKE, 0, "read", 2, 30),
]


@pytest.mark.parametrize("tail", [b'{"index":3,"time":40,"ty', b"{", b'{"index":3,"f":"\xe2\x82'])
def test_torn_last_line_is_left_out(tmp_path: Path, tail: bytes) -> None:
    history = read_history(written(tmp_path / "h.jsonl", OPS, tail))
    assert list(history.ops) == OPS
    assert history.torn


def test_whole_last_line_without_newline_counts(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_bytes(b"\n".join(encode_op(op) for op in OPS))
    history = read_history(path)
    assert list(history.ops) == OPS
    assert not history.torn


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"index":3,"ty', "not a history event"),
        (b'{"type":"invoke","process":1}', "missing required field `f`"),
        (b'{"type":"done","process":1,"f":"read"}', "Invalid enum value 'done'"),
        (b'{"type":"invoke","process":1.5,"f":"read"}', "`$.process`"),
        (b'{"type":"ok","process":1,"f":"read"}', "process 1 completes read without"),
        (b"[]", "not a history event"),
    ],
)
def test_broken_line_is_named_with_path_and_number(
    tmp_path: Path, line: bytes, message: str
) -> None:
    path = written(tmp_path / "h.jsonl", OPS[:1], b"\n" + line + b"\n")
    with pytest.raises(HistoryError) as caught:
        read_history(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert message in str(caught.value)


def test_empty_file_is_an_empty_history(tmp_path: Path) -> None:
    history = read_history(written(tmp_path / "h.jsonl", []))
    assert (history.ops, history.operations, history.torn) == ((), (), False)


def test_file_without_indices_is_numbered_by_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    line: dict[str, Any] = {"type": "invoke", "process": 4, "f": "read"}
    path.write_bytes(
        msgspec.json.encode(line) + b"\n" + msgspec.json.encode({**line, "type": "ok"}) + b"\n"
    )
    assert [op.index for op in read_history(path).ops] == [0, 1]
