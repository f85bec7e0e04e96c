"""The state machine: what each command does, and that JSON values keep their types."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrys.node.machine import (
    Append,
    Cas,
    Command,
    Delete,
    Get,
    Machine,
    Outcome,
    Put,
    decode_request,
    encode_request,
    same_json,
)
from labrys.node.messages import (
    AppendReply,
    AppendRequest,
    Entry,
    ForwardReply,
    ForwardRequest,
    Hello,
    Message,
    VoteReply,
    VoteRequest,
    decode_message,
    encode_message,
)


def run(machine: Machine, command: Command) -> Outcome:
    return machine.apply(encode_request(command))


def test_put_get_delete() -> None:
    machine = Machine()
    assert machine.get("k") == Outcome("not-found", 0)
    assert run(machine, Put("k", [1, {"a": None}])) == Outcome("ok", 1)
    assert run(machine, Put("other", 2)) == Outcome("ok", 2)
    assert machine.get("k") == Outcome("ok", 1, [1, {"a": None}])
    assert run(machine, Delete("k")) == Outcome("ok", 3)
    assert run(machine, Delete("k")) == Outcome("not-found", 3)
    assert machine.get("k") == Outcome("not-found", 3)


def test_null_is_a_value_and_not_absence() -> None:
    machine = Machine()
    run(machine, Put("k", None))
    assert machine.get("k") == Outcome("ok", 1, None)
    assert run(machine, Cas("k", None, 1)) == Outcome("ok", 2)
    assert run(machine, Cas("absent", None, 1)) == Outcome("not-found", 2)


def test_cas_changes_only_what_it_expects() -> None:
    machine = Machine()
    run(machine, Put("k", 1))
    assert run(machine, Cas("k", 2, 3)) == Outcome("mismatch", 1, 1)
    assert run(machine, Cas("k", 1, 3)) == Outcome("ok", 2)
    assert machine.get("k") == Outcome("ok", 2, 3)


@pytest.mark.parametrize(
    ("held", "expect"), [(1, True), (1, 1.0), ([1], [True]), ({"a": 0}, {"a": False})]
)
def test_cas_tells_types_apart(held: Any, expect: Any) -> None:
    machine = Machine()
    run(machine, Put("k", held))
    assert run(machine, Cas("k", expect, 3)).code == "mismatch"


def test_append_to_lists_strings_and_nothing() -> None:
    machine = Machine()
    assert run(machine, Append("list", 1)) == Outcome("ok", 1)
    run(machine, Append("list", "x"))
    assert machine.get("list").value == [1, "x"]
    run(machine, Put("text", "ab"))
    run(machine, Append("text", "cd"))
    assert machine.get("text").value == "abcd"
    run(machine, Put("number", 7))
    assert run(machine, Append("number", 1)) == Outcome("wrong-type", 5, 7)
    assert run(machine, Append("text", 1)).code == "wrong-type"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(), json_values, json_values)
def test_requests_round_trip(key: str, value: Any, other: Any) -> None:
    for request in (
        Put(key, value),
        Cas(key, value, other),
        Append(key, value),
        Delete(key),
        Get(key),
    ):
        assert decode_request(encode_request(request)) == request


@given(json_values)
def test_a_value_is_the_same_as_its_copy(value: Any) -> None:
    assert same_json(value, msgspec.json.decode(msgspec.json.encode(value)))


keys = st.sampled_from("ab")
commands = st.one_of(
    st.builds(Put, keys, json_values),
    st.builds(Append, keys, json_values),
    st.builds(Cas, keys, json_values, json_values),
    st.builds(Delete, keys),
)


@given(st.lists(commands, max_size=20))
def test_the_same_commands_lead_to_the_same_state(script: list[Command]) -> None:
    first, second = Machine(), Machine()
    assert [run(first, c) for c in script] == [run(second, c) for c in script]
    assert [first.get(key) for key in "ab"] == [second.get(key) for key in "ab"]


numbers = st.integers(0, 2**63 - 1)
entries = st.builds(Entry, numbers, st.binary(max_size=20))
batches = st.lists(entries, max_size=3).map(tuple)
messages = st.one_of(
    st.builds(VoteRequest, numbers, numbers, numbers, st.booleans()),
    st.builds(VoteReply, numbers, st.booleans(), st.booleans()),
    st.builds(AppendRequest, numbers, numbers, numbers, batches, numbers, numbers),
    st.builds(AppendReply, numbers, numbers, st.booleans(), numbers, numbers, numbers),
    st.builds(Hello, st.text(), st.text()),
    st.builds(ForwardRequest, numbers, st.binary()),
    st.builds(ForwardReply, numbers, st.integers(100, 599), st.binary()),
)


@given(messages)
def test_messages_round_trip(message: Message) -> None:
    assert decode_message(encode_message(message)) == message


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_refused_and_nothing_else(data: bytes) -> None:
    try:
        message = decode_message(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return
    assert decode_message(encode_message(message)) == message
