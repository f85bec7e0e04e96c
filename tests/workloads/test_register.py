"""The register workload: its ops in simulated runs, its final reads, its client."""

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from labrys.checkers.checker import Evidence
from labrys.checkers.history import History
from labrys.checkers.linearizable import Linearizable
from labrys.checkers.op import Op, OpType
from labrys.checkers.verdict import Verdict
from labrys.workloads import generator as gen
from labrys.workloads.client import DefiniteError, IndefiniteError
from labrys.workloads.register import (
    FINAL_KEYS_EVERYWHERE,
    FINAL_KEYS_MAX,
    REGISTER,
    RegisterClient,
    RegisterOptions,
    final_reads,
)
from labrys.workloads.registry import WORKLOADS
from labrys.workloads.simulate import System, always, simulate
from labrys.workloads.workload import parse_options

MS = 1_000_000


def registers(seed: int = 0, *, lost: float = 0.0) -> System:
    """Return atomic registers that take effect at once; some answers get lost."""
    values: dict[str | None, Any] = {}
    rng = random.Random(seed)

    def system(op: Op) -> tuple[Op, int]:
        done = msgspec.structs.replace(op, type=OpType.OK)
        if op.f == "read":
            done = msgspec.structs.replace(done, value=values.get(op.key))
        elif op.f == "write":
            values[op.key] = op.value
        elif values.get(op.key) == op.value[0]:
            values[op.key] = op.value[1]
        else:
            done = msgspec.structs.replace(done, type=OpType.FAIL)
        if rng.random() < lost:
            kind = OpType.FAIL if op.f == "read" else OpType.INFO
            done = msgspec.structs.replace(op, type=kind)
        return done, rng.randrange(10 * MS)

    return system


def run(
    options: Mapping[str, Any] | None = None, *, seconds: float = 30, seed: int = 0
) -> list[Op]:
    parsed = parse_options(REGISTER, options or {}, concurrency=10)
    source = gen.stagger(1 / 200, REGISTER.generator(parsed, 10))
    source = gen.clients(gen.time_limit(seconds, source))
    return simulate(source, clients=10, system=registers(seed, lost=0.02), seed=seed)


def test_half_of_the_ops_are_reads_and_the_rest_writes_and_cas() -> None:
    count = Counter(op.f for op in run() if op.type is OpType.INVOKE)
    total = count.total()
    assert 0.45 < count["read"] / total < 0.55
    assert 0.2 < count["write"] / total < 0.32
    assert 0.18 < count["cas"] / total < 0.3


def test_no_value_is_written_twice_to_a_key() -> None:
    written = [
        (op.key, op.value[1] if op.f == "cas" else op.value)
        for op in run()
        if op.type is OpType.INVOKE and op.f != "read"
    ]
    assert len(written) > 2000
    assert len(written) == len(set(written))


def test_a_cas_expects_what_its_worker_saw_last() -> None:
    seen: dict[tuple[int, str | None], int] = {}
    checked = 0
    for op in run():
        assert isinstance(op.process, int)
        worker = (op.process % 10, op.key)
        if op.type is OpType.INVOKE and op.f == "cas":
            assert op.value[0] == seen[worker]
            checked += 1
        elif op.type is OpType.OK and op.value is not None:
            seen[worker] = op.value[1] if op.f == "cas" else op.value
    assert checked > 1000


def test_a_fair_share_of_the_cas_succeeds() -> None:
    cas = Counter(op.type for op in run() if op.f == "cas")
    assert cas[OpType.OK] / cas[OpType.INVOKE] > 0.25


def test_small_values_come_from_five() -> None:
    ops = [op for op in run({"values": "small"}) if op.type is OpType.INVOKE]
    assert {op.value for op in ops if op.f == "write"} == {0, 1, 2, 3, 4}
    assert {new for op in ops if op.f == "cas" for new in op.value} == {0, 1, 2, 3, 4}


def test_ten_workers_form_two_groups_of_five() -> None:
    groups: dict[str | None, set[int]] = {}
    for op in run(seconds=2):
        groups.setdefault(op.key, set()).add(int(op.process) % 10)
    assert groups["k0"] == {0, 1, 2, 3, 4}
    assert groups["k1"] == {5, 6, 7, 8, 9}


def test_one_seed_gives_one_history() -> None:
    assert run(seconds=3, seed=5) == run(seconds=3, seed=5)
    assert run(seconds=3, seed=5) != run(seconds=3, seed=6)


# --- judged ---------------------------------------------------------------------------------------


def judge(history: list[Op]) -> Verdict:
    return Linearizable(REGISTER.model).check(History(history), Evidence()).verdict


def test_atomic_registers_are_judged_linearizable_though_answers_get_lost() -> None:
    history = run(seconds=10)
    assert any(op.type is OpType.INFO for op in history)
    assert judge(history) is Verdict.VALID


def test_one_stale_read_is_seen() -> None:
    history = run(seconds=10)
    reads = [op for op in history if op.f == "read" and op.type is OpType.OK and op.key == "k0"]
    early, late = reads[len(reads) // 2], reads[-1]
    assert early.value != late.value
    history[late.index] = msgspec.structs.replace(late, value=early.value)
    assert judge(history) is Verdict.INVALID


# --- final reads ----------------------------------------------------------------------------------


def written(keys: int) -> list[Op]:
    return [
        Op(type=OpType.INVOKE, process=0, f="write", key=f"k{number}", value=1)
        for number in range(keys)
    ]


def final(keys: int, *, concurrency: int = 10, system: System | None = None) -> list[Op]:
    source = gen.clients(final_reads(RegisterOptions(), concurrency, written(keys)))
    return simulate(source, clients=concurrency, system=system)


def test_every_key_is_read_at_the_end_and_the_newest_by_every_worker() -> None:
    readers: dict[str | None, set[int | str]] = {}
    for op in final(50):
        assert op.f == "read"
        readers.setdefault(op.key, set()).add(op.process)
    assert set(readers) == {f"k{number}" for number in range(50)}
    newest = [f"k{number}" for number in range(50 - FINAL_KEYS_EVERYWHERE, 50)]
    assert all(readers[key] == set(range(10)) for key in newest)


def test_of_very_many_keys_those_used_last_are_read() -> None:
    count = FINAL_KEYS_MAX + 500
    recorded = [*written(count), *written(1)]
    source = gen.clients(final_reads(RegisterOptions(), 10, recorded))
    keys = {op.key for op in simulate(source, clients=10)}
    newest = {f"k{number}" for number in range(count - FINAL_KEYS_MAX + 1, count)}
    assert keys == newest | {"k0"}


def test_a_final_read_is_retried_at_a_moderate_pace_until_it_succeeds() -> None:
    def recovers(op: Op) -> tuple[Op, int]:
        kind = OpType.OK if op.time > 1000 * MS else OpType.FAIL
        return msgspec.structs.replace(op, type=kind), MS

    history = final(2, concurrency=2, system=recovers)
    outcomes = Counter(op.type for op in history)
    assert outcomes[OpType.OK] == 4
    assert 15 <= outcomes[OpType.FAIL] <= 25


def test_without_keys_there_is_nothing_to_read_at_the_end() -> None:
    assert final(0) == []


def test_more_workers_than_keys_are_fine() -> None:
    assert {op.key for op in final(6, concurrency=20)} == {f"k{number}" for number in range(6)}


# --- options --------------------------------------------------------------------------------------


def test_the_registry_knows_the_workload_by_its_name() -> None:
    assert WORKLOADS["register"] is REGISTER


def test_options_have_defaults() -> None:
    assert parse_options(REGISTER, {}, concurrency=10) == RegisterOptions()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opsperkey": 3}, "no option 'opsperkey' .did you mean ops_per_key"),
        ({"colour": 3}, "it has ops_per_key, threads_per_key, values, consistency"),
        ({"ops_per_key": "many"}, r"register: Expected `int`, got `str` - at `\$.ops_per_key`"),
        ({"values": "big"}, "Invalid enum value 'big'"),
        ({"consistency": "eventual"}, "Invalid enum value 'eventual'"),
        ({"ops_per_key": 0}, "ops_per_key must be at least 1"),
        ({"threads_per_key": 4}, "10 clients do not form groups of 4 a key: use concurrency 8"),
        ({"threads_per_key": 0}, "10 clients do not form groups of 0"),
    ],
)
def test_wrong_options_are_refused_by_name_with_the_mend(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        parse_options(REGISTER, options, concurrency=10)


def test_what_reads_ask_for_is_an_option() -> None:
    for asked in ("linearizable", "lease", "stale"):
        options = parse_options(REGISTER, {"consistency": asked}, concurrency=10)
        assert REGISTER.consistency(options) == asked
    assert REGISTER.consistency(RegisterOptions()) == "linearizable"


# --- the client -----------------------------------------------------------------------------------


class MemoryStore:
    """A key-value store in memory."""

    def __init__(self, error: Exception | None = None) -> None:
        self.values: dict[str, Any] = {}
        self.is_open = False
        self._error = error

    def open(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.is_open = False

    def _may(self) -> None:
        if self._error is not None:
            raise self._error

    def get(self, key: str) -> Any:
        self._may()
        return self.values.get(key)

    def put(self, key: str, value: Any) -> None:
        self._may()
        self.values[key] = value

    def delete(self, key: str) -> None:
        del self.values[key]

    def cas(self, key: str, expect: Any, value: Any) -> None:
        if self.values.get(key) != expect:
            raise DefiniteError("mismatch", f"the value is {self.values.get(key)}")
        self.values[key] = value

    def append(self, key: str, value: Any) -> None:
        self.values.setdefault(key, []).append(value)


def op(f: str, value: Any = None, key: str | None = "k1") -> Op:
    return Op(type=OpType.INVOKE, process=3, f=f, key=key, value=value, time=7)


def test_the_client_reads_writes_and_swaps() -> None:
    store = MemoryStore()
    client = RegisterClient(store)
    client.open()
    assert store.is_open
    assert client.invoke(op("read")).value is None
    assert client.invoke(op("write", 1)) == msgspec.structs.replace(op("write", 1), type=OpType.OK)
    assert client.invoke(op("cas", [1, 2])).type is OpType.OK
    assert client.invoke(op("read")).value == 2
    with pytest.raises(DefiniteError, match="mismatch"):
        client.invoke(op("cas", [1, 3]))
    assert store.values == {"k1": 2}
    client.close()
    assert not store.is_open


def test_without_a_key_there_is_one_register() -> None:
    store = MemoryStore()
    RegisterClient(store).invoke(op("write", 1, key=None))
    assert list(store.values.values()) == [1]


def test_what_the_store_raises_passes_through() -> None:
    client = RegisterClient(MemoryStore(IndefiniteError("timeout")))
    with pytest.raises(IndefiniteError):
        client.invoke(op("write", 1))


def test_an_op_that_is_none_of_a_register_is_refused() -> None:
    with pytest.raises(ValueError, match="a register has no 'append'"):
        RegisterClient(MemoryStore()).invoke(op("append", 1))


def test_crashed_workers_remember_what_they_saw() -> None:
    source = REGISTER.generator(RegisterOptions(ops_per_key=1000), 1)
    history = simulate(
        gen.clients(gen.limit(200, source)),
        clients=1,
        system=lambda op: (
            registers()(op) if op.f == "write" and op.value == 1 else always(OpType.INFO)(op)
        ),
    )
    later = [op.value for op in history if op.type is OpType.INVOKE and op.f == "cas"]
    assert len(later) > 20
    assert {expected for expected, _ in later} == {1}
