"""What the seeded bugs do that the correct node does not.

Most faults of the core are convicted in `test_model` and `test_raft`, some of the whole node in
`tests/control/test_sim_promises.py`; the others are here.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from tests.node.cluster import Cluster
from tests.node.mutants import MUTANTS
from tests.node.one_service import Fixture

from labrys.control.sim.disk import SimDisk
from labrys.node.answers import Answer, fault
from labrys.node.api import Api, Call
from labrys.node.bugs import BUGS, SUBJECTS, Bug
from labrys.node.commands import Add, Cas, Once, OpenSession, Put, Request, encode_request
from labrys.node.configuration import Configuration
from labrys.node.effects import Persist, SnapshotMeta
from labrys.node.machine import Machine
from labrys.node.messages import (
    AppendReply,
    AppendRequest,
    Entry,
    ForwardReply,
    ForwardRequest,
    HardState,
)
from labrys.node.raft import Raft
from labrys.node.service import Service
from labrys.node.storage import Storage

ROOT = Path(__file__).parents[2]
DATA = Path("/data")
THREE = Configuration(("n1", "n2", "n3"))


def bugs(name: str) -> pytest.MarkDecorator:
    """The same test for the correct node and for a faulty one: `bug` is None, or the fault."""
    return pytest.mark.parametrize("bug", [None, BUGS[name]], ids=["correct", name])


# ---- the catalogue ------------------------------------------------------------------------------


def test_every_bug_says_what_goes_wrong_where_it_was_seen_and_who_sees_it() -> None:
    assert len(BUGS) >= 30
    for name, bug in BUGS.items():
        assert len(bug.description) <= 80, name
        assert bug.mechanism.endswith("."), name
        assert bug.seen_in, name
        assert bug.seen_by.split()[0].strip(",") in ("raft", "linearizable"), name


def test_no_two_bugs_are_the_same_node() -> None:
    parts = [msgspec.structs.astuple(bug.parts) for bug in BUGS.values()]
    assert len({*parts}) == len(parts)


def test_the_page_of_the_bugs_names_all_of_them() -> None:
    page = (ROOT / "docs" / "bugs.md").read_text()
    missing = [name for name, bug in BUGS.items() if f"`{name}` | {bug.description}" not in page]
    assert not missing, "run python -m benchmarks.bugs --hunts 0"


DIRECTED = {
    "lease-wall-clock", "snapshot-fuzzy", "snapshot-torn", "execute-again", "forget-answers",
    "duplicate-says-ok", "local-expiry", "local-cache", "skip-fsync", "ignore-flush-error",
    "skip-checksum", "cut-the-middle", "leave-torn-tail", "unknown-as-failure", "cas-at-propose",
    "answer-by-index", "ack-on-forward", "mix-replies",
}  # fmt: skip
"""Here, in `test_storage` or in `test_sim_promises`."""


def test_every_bug_has_a_test() -> None:
    assert set(BUGS) == (set(MUTANTS) | DIRECTED) & set(BUGS)
    assert set(SUBJECTS) >= {"elections", "log", "commit", "reads", "leases", "snapshots"}


# ---- leases -------------------------------------------------------------------------------------


class WallClock:
    """A wall clock that can be set."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.ahead_ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.cluster.now_ms + self.ahead_ms


def core(bug: Bug | None) -> type[Raft]:
    return bug.parts.raft if bug else Raft


@bugs("lease-wall-clock")
def test_lease_by_the_wall_clock_outlasts_the_office_when_that_clock_is_set_back(
    monkeypatch: pytest.MonkeyPatch, bug: Bug | None
) -> None:
    cluster = Cluster(3, 1, core(bug))
    wall = WallClock(cluster)
    monkeypatch.setattr(core(bug), "wall_ms", wall, raising=False)
    leader = cluster.up(cluster.elect())
    assert leader.has_lease(cluster.now_ms)
    cluster.now_ms += leader.config.lease_ms + 1
    assert not leader.has_lease(cluster.now_ms), "both agree while the clock is right"
    wall.ahead_ms -= 1000
    assert leader.has_lease(cluster.now_ms) is (bug is not None)


@bugs("lease-from-answer")
def test_lease_from_an_answer_that_comes_late_outlasts_the_loyalty_of_the_followers(
    bug: Bug | None,
) -> None:
    cluster = Cluster(3, 1, core(bug))
    leader = cluster.up(cluster.elect())
    cluster.now_ms += leader.config.heartbeat_ms
    cluster.tick(leader.id)
    cluster.now_ms += 200
    cluster.drain()
    cluster.now_ms += leader.config.lease_ms - 100
    assert leader.has_lease(cluster.now_ms) is (bug is not None)


@bugs("lease-across-pause")
def test_lease_that_held_before_a_pause_does_not_hold_after_it(bug: Bug | None) -> None:
    cluster = Cluster(3, 1, core(bug))
    leader = cluster.up(cluster.elect())
    cluster.now_ms += 10_000
    assert leader.has_lease(cluster.now_ms) is (bug is not None)


@bugs("lease-after-handing-over")
def test_who_has_called_another_one_to_campaign_has_no_lease(bug: Bug | None) -> None:
    cluster = Cluster(3, 1, core(bug))
    leader = cluster.elect()
    cluster.transfer(leader, None)
    assert cluster.up(leader).has_lease(cluster.now_ms) is (bug is not None)


# ---- the store, its sessions and its snapshots --------------------------------------------------


def machine(bug: Bug | None) -> Machine:
    return (bug.parts.machine if bug else Machine)()


def execute(state: Machine, *commands: Request) -> None:
    for index, command in enumerate(commands, 1):
        state.apply(index, encode_request(command))


@bugs("forget-answers")
def test_what_was_executed_before_a_snapshot_is_not_executed_after_it(bug: Bug | None) -> None:
    state = machine(bug)
    once = Once(1, 1, Add("k", 1))
    execute(state, OpenSession(60_000), once)
    state = type(state).restored(state.freeze().records())
    state.apply(3, encode_request(once))
    assert state.get("k").value == (1 if bug is None else 2)


@bugs("duplicate-says-ok")
def test_a_duplicate_gets_the_first_answer(bug: Bug | None) -> None:
    state = machine(bug)
    execute(state, OpenSession(60_000), Put("k", 1))
    first, again = (state.apply(3, encode_request(Once(1, 1, Cas("k", 9, 2)))) for _ in range(2))
    assert (first == again) is (bug is None)


@bugs("local-expiry")
def test_sessions_end_by_what_stands_in_the_log(bug: Bug | None) -> None:
    def hash_at(wall_ms: int) -> int:
        fixture = Fixture(kind=bug.parts.service if bug else Service)
        fixture.service.machine = machine(bug)
        fixture.service._wall_ms = lambda: wall_ms
        commands = (OpenSession(1000, 0), Once(1, 1, Put("k", 1), 10))
        fixture.service.apply(1, [Entry(1, encode_request(each)) for each in commands])
        return fixture.service.machine.state_hash

    assert (hash_at(0) == hash_at(50_000)) is (bug is None)


@bugs("local-cache")
def test_what_a_command_does_depends_on_the_state_alone(bug: Bug | None) -> None:
    state = machine(bug)
    execute(state, Put("k", 1))
    again = type(state).restored(state.freeze().records())
    for each in (state, again):
        each.apply(2, encode_request(Cas("k", 1, 2)))
    assert (state.state_hash == again.state_hash) is (bug is None)


@bugs("snapshot-fuzzy")
def test_a_snapshot_is_of_one_moment(bug: Bug | None) -> None:
    state = machine(bug)
    execute(state, Put("k", 1))
    frozen = state.freeze()
    state.apply(2, encode_request(Put("k", 2)))
    assert type(state).restored(frozen.records()).get("k").value == (1 if bug is None else 2)


@bugs("snapshot-torn")
def test_a_snapshot_has_its_name_when_it_is_durable(bug: Bug | None) -> None:
    parts = bug.parts if bug else None
    disk = SimDisk()
    state = Machine()
    execute(state, Put("k", "x" * 2000))
    with (parts.storage if parts else Storage)(DATA, "n1", disk=disk) as storage:
        storage.snapshots.write(SnapshotMeta(1, 1, THREE), state.freeze().records())
    found = {
        _value(disk.after_crash(0.5, random.Random(seed)), parts or BUGS["lose-tail"].parts)
        for seed in range(20)
    }
    assert (found == {"x" * 2000}) is (bug is None)


def _value(disk: SimDisk, parts: Any) -> object:
    with parts.storage(DATA, "n1", disk=disk) as storage:
        if storage.snapshot is None:
            return None
        state = parts.machine.restored(storage.snapshots.records(storage.snapshot.index))
        return state.get("k").value


# ---- the disk -----------------------------------------------------------------------------------


def batch(first: int, *commands: bytes) -> Persist:
    entries = tuple(Entry(1, command) for command in commands)
    return Persist(1, first + len(entries) - 1, HardState(1, "n1"), first, entries)


def written(storage: type[Storage]) -> tuple[SimDisk, bytearray]:
    """A disk with nine entries, and the content of their file."""
    disk = SimDisk()
    with storage(DATA, "n1", disk=disk) as opened:
        for index in range(1, 10):
            opened.write([batch(index, b"%d" % index)])
    return disk, disk.names_now[DATA / "log-0000000001"].content


@bugs("cut-the-middle")
def test_damage_in_the_middle_is_no_torn_end(bug: Bug | None) -> None:
    storage = bug.parts.storage if bug else Storage
    disk, content = written(storage)
    content[200] ^= 1
    if bug is None:
        with pytest.raises(Exception, match="is damaged at byte"):
            storage(DATA, "n1", disk=disk)
        return
    with storage(DATA, "n1", disk=disk) as opened:
        assert 0 < len(opened.entries) < 9


@bugs("leave-torn-tail")
def test_what_is_written_after_a_torn_end_is_found_again(bug: Bug | None) -> None:
    storage = bug.parts.storage if bug else Storage
    disk, content = written(storage)
    del content[-5:]
    with storage(DATA, "n1", disk=disk) as opened:
        assert len(opened.entries) == 8
        opened.write([batch(9, b"new")])
    with storage(DATA, "n1", disk=disk) as opened:
        assert len(opened.entries) == (9 if bug is None else 8)


@bugs("ignore-flush-error")
def test_a_flush_that_fails_is_final(bug: Bug | None) -> None:
    disk = SimDisk()
    with (bug.parts.storage if bug else Storage)(DATA, "n1", disk=disk) as opened:

        def fail(what: str) -> None:
            if what == "flush":
                raise OSError(5, "Input/output error")

        disk.fail = fail
        if bug is None:
            with pytest.raises(Exception, match="what is on disk is unknown"):
                opened.write([batch(1, b"a")])
        else:
            opened.write([batch(1, b"a")])


# ---- the service and the API --------------------------------------------------------------------


def served(bug: Bug | None) -> Fixture:
    return Fixture(kind=bug.parts.service if bug else Service)


@bugs("unknown-as-failure")
def test_what_nobody_knows_is_not_called_a_failure(bug: Bug | None) -> None:
    class Unknown:
        def execute(self, request: Request, respond: Callable[[Answer], None]) -> None:
            respond(fault(504, "timeout", False, "no result"))

        def wake(self) -> None: ...

    answers: list[Answer] = []
    api = (bug.parts.api if bug else Api)(cast(Any, Unknown()), cast(Any, Unknown()))
    api.handle(Call("PUT", b"/v1/kv/k", b'{"value":1}'), answers.append)
    assert msgspec.json.decode(answers[0].body)["definite"] is (bug is not None)


@bugs("cas-at-propose")
def test_a_cas_compares_at_its_place_in_the_log(bug: Bug | None) -> None:
    at = served(bug)
    at.lead()
    commit(at, Put("k", 1))
    at.answers.clear()
    for value in (2, 3):
        at.service.execute(Cas("k", 1, value), at.answers.append)
    commit(at)
    assert [each.status for each in at.answers] == ([200, 409] if bug is None else [200, 200])


def commit(at: Fixture, *requests: Request) -> None:
    """Execute the requests, and let a majority have all that is in the log."""
    for request in requests:
        at.service.execute(request, at.answers.append)
    at.run()
    last, term = at.raft.log.last_index, at.raft.term
    at.raft.step("n2", AppendReply(term, at.raft._round, success=True, index=last), at.now_ms)
    at.run()


@bugs("answer-by-index")
def test_another_leaders_entry_does_not_answer_a_write(bug: Bug | None) -> None:
    at = served(bug)
    at.lead()
    at.execute(Put("k", 1))
    at.run()
    index = at.raft.log.last_index
    other = AppendRequest(2, index - 1, 1, (Entry(2, b'["put","k",2]'),), index, 1)
    at.raft.step("n2", other, at.now_ms)
    at.run()
    assert [each.status for each in at.answers] == [503 if bug is None else 200]


@bugs("ack-on-forward")
def test_a_follower_answers_a_write_when_the_leader_has(bug: Bug | None) -> None:
    at = served(bug)
    at.follow("n2")
    at.execute(Put("k", 1))
    assert len(at.sent) == 1
    assert [each.status for each in at.answers] == ([] if bug is None else [200])


@bugs("mix-replies")
def test_an_answer_goes_to_whoever_asked(bug: Bug | None) -> None:
    at = served(bug)
    at.follow("n2")
    told: dict[str, list[Answer]] = {"first": [], "second": []}
    for name, answers in told.items():
        at.service.execute(Put("k", name), answers.append)
    second = cast(ForwardRequest, at.sent[1][1])
    at.service.on_forward_reply(ForwardReply(second.request_id, 200, b"{}"))
    answered = [name for name, answers in told.items() if answers]
    assert answered == (["second"] if bug is None else ["first"])
