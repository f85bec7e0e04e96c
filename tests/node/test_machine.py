"""The state machine: what each command does, and that JSON values keep their types."""

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from labrys.node.commands import (
    Add,
    Append,
    Batch,
    Cas,
    Change,
    Command,
    Delete,
    Get,
    Logged,
    Once,
    OpenSession,
    Put,
    Transfer,
    Txn,
    decode_request,
    encode_request,
)
from labrys.node.machine import RECORD_KEYS, Machine, Unsound, same_json
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
from labrys.node.outcome import Outcome


def run(machine: Machine, command: Command) -> Outcome:
    return machine.apply(1, encode_request(command))


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


@given(st.text(min_size=1), json_values, json_values, st.integers(-(2**63), 2**63 - 1))
def test_requests_round_trip(key: str, value: Any, other: Any, number: int) -> None:
    commands: tuple[Command, ...] = (
        Put(key, value),
        Cas(key, value, other),
        Append(key, value),
        Add(key, number),
        Delete(key),
        Txn((("r", key, None), ("w", key, value), ("append", key, other))),
    )
    for request in (
        *commands,
        *(Once(abs(number), 3, command, 4) for command in commands),
        Batch(commands),
        Once(1, 2, Batch(commands), 9),
        OpenSession(1000, 5),
        Get(key),
        Get(key, lease=True),
        Transfer(None),
        Change({"n4": "h:1"}, {"n5": "h:2"}, ("n1",)),
    ):
        assert decode_request(encode_request(request)) == request


@given(json_values)
def test_a_value_is_the_same_as_its_copy(value: Any) -> None:
    assert same_json(value, msgspec.json.decode(msgspec.json.encode(value)))


keys = st.sampled_from("ab")
txn_ops = st.tuples(st.sampled_from(["r", "w", "append"]), keys, json_values)
plain_commands = st.one_of(
    st.builds(Put, keys, json_values),
    st.builds(Append, keys, json_values),
    st.builds(Cas, keys, json_values, json_values),
    st.builds(Add, keys, st.integers(-5, 5)),
    st.builds(Delete, keys),
    st.builds(Txn, st.lists(txn_ops, max_size=4).map(tuple)),
)
times_ms = st.integers(0, 4000)
commands = st.one_of(
    plain_commands,
    st.builds(OpenSession, st.just(1000), times_ms),
    st.builds(Once, st.integers(1, 4), st.integers(0, 3), plain_commands, times_ms),
    st.builds(
        Once, st.integers(1, 4), st.integers(0, 3),
        st.lists(plain_commands, max_size=3).map(tuple).map(Batch), times_ms,
    ),
)  # fmt: skip


def run_all(machine: Machine, script: list[Logged], first_index: int = 1) -> list[bytes]:
    """What each leads to, encoded at once, as a client would get it."""
    return [
        msgspec.json.encode(machine.apply(index, encode_request(command)))
        for index, command in enumerate(script, first_index)
    ]


@given(st.lists(commands, max_size=20))
def test_the_same_commands_lead_to_the_same_state(script: list[Logged]) -> None:
    first, second = Machine(), Machine()
    one_by_one = run_all(first, script)
    at_once = second.apply_all(1, [encode_request(command) for command in script])
    # Encoded only at the end: no outcome changes after it was handed out.
    assert one_by_one == [msgspec.json.encode(outcome) for outcome in at_once]
    assert [first.get(key) for key in "ab"] == [second.get(key) for key in "ab"]
    assert first.state_hash == second.state_hash


@given(st.lists(commands, max_size=20), st.lists(commands, max_size=20))
def test_a_frozen_state_is_that_of_its_moment_and_goes_on_alike(
    before: list[Logged], after: list[Logged]
) -> None:
    machine = Machine()
    run_all(machine, before)
    then = machine.state_hash
    frozen = machine.freeze()
    outcomes = run_all(machine, after, len(before) + 1)
    other = Machine.restored(frozen.records())
    assert other.state_hash == then
    assert run_all(other, after, len(before) + 1) == outcomes
    assert other.state_hash == machine.state_hash


def test_a_frozen_state_of_many_keys_comes_in_pieces() -> None:
    machine = Machine()
    for number in range(2 * RECORD_KEYS + 1):
        run(machine, Put(f"k{number}", number))
    records = list(machine.freeze().records())
    assert len(records) == 4
    assert Machine.restored(records).get("k1000") == Outcome("ok", 1001, 1000)


@pytest.mark.parametrize("records", [[], [b"{}"], [b"nonsense"]])
def test_records_that_are_no_state_are_refused(records: list[bytes]) -> None:
    with pytest.raises(Unsound):
        Machine.restored(records)


def test_a_state_that_lacks_a_piece_or_has_another_is_refused() -> None:
    machine = Machine()
    run(machine, Put("k", 1))
    facts, cells = machine.freeze().records()
    for records in ([facts], [facts, cells.replace(b"1", b"2", 1)], [facts, cells, cells]):
        with pytest.raises(Unsound):
            Machine.restored(records)


@given(plain_commands, plain_commands)
@example(Put("b", [False, False]), Put("b", [False, 0]))
def test_different_states_have_different_hashes(left: Command, right: Command) -> None:
    first, second = Machine(), Machine()
    run(first, left)
    run(second, right)
    # As JSON: to Python, false is 0.
    same = all(
        msgspec.json.encode(first.get(key)) == msgspec.json.encode(second.get(key)) for key in "ab"
    )
    assert (first.state_hash == second.state_hash) == (same and first.revision == second.revision)


def test_the_hash_does_not_depend_on_how_a_list_came_about() -> None:
    put, appended = Machine(), Machine()
    run(put, Put("k", 0))
    run(put, Put("k", [1, "x"]))
    run(appended, Append("k", 1))
    run(appended, Append("k", "x"))
    assert put.state_hash == appended.state_hash


def test_add_counts_from_zero_and_refuses_what_is_no_whole_number() -> None:
    machine = Machine()
    assert run(machine, Add("n", 5)) == Outcome("ok", 1, 5)
    assert run(machine, Add("n", -7)) == Outcome("ok", 2, -2)
    for held in (True, 1.0, "1", [1], None, 2**63 - 1):
        run(machine, Put("other", held))
        before = machine.state_hash
        assert run(machine, Add("other", 1)) == Outcome("wrong-type", machine.revision, held)
        assert machine.state_hash == before


def test_a_transaction_reads_what_it_wrote_and_is_all_or_nothing() -> None:
    machine = Machine()
    run(machine, Put("n", 1))
    script = Txn((("r", "x", None), ("append", "x", 1), ("append", "x", 2), ("r", "x", None),
                  ("w", "y", 3), ("r", "n", None)))  # fmt: skip
    results = [("r", "x", None), ("append", "x", 1), ("append", "x", 2), ("r", "x", [1, 2]),
               ("w", "y", 3), ("r", "n", 1)]  # fmt: skip
    assert run(machine, script) == Outcome("ok", 3, results)
    before = machine.state_hash
    refused = Txn((("w", "x", 0), ("append", "n", 1)))
    assert run(machine, refused) == Outcome("wrong-type", 3, 1)
    assert machine.state_hash == before
    assert machine.get("x").value == [1, 2]


def test_a_transaction_that_only_reads_changes_nothing() -> None:
    machine = Machine()
    run(machine, Put("k", [1]))
    before = machine.state_hash
    outcome = machine.read_all(Txn((("r", "k", None), ("r", "absent", None))))
    assert outcome == Outcome("ok", 1, [("r", "k", [1]), ("r", "absent", None)])
    assert machine.state_hash == before


def test_an_index_without_a_command_for_the_store_changes_nothing() -> None:
    machine = Machine()
    assert machine.apply_all(1, [b"", encode_request(Put("k", 1)), b""])[2] == Outcome("ok", 1)


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
