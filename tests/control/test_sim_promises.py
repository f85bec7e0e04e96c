"""Each promise that is looked after in a simulation is seen to be broken by a seeded bug."""

import contextlib
import random

import pytest
from tests.control.sim_rig import Rig, running
from tests.node.cluster import Cluster, play

from labrys.control.sim.configurations import are_disjoint
from labrys.control.sim.kept import Kept
from labrys.control.sim.promises import Promises
from labrys.control.sim.replica import Replica
from labrys.control.sim.violation import Violation
from labrys.node.bugs import BUGS
from labrys.node.bugs.careless import Careless
from labrys.node.bugs.sessions import DuplicateSaysOk, ExecuteAgain
from labrys.node.commands import Add, Once, OpenSession, Request, encode_request
from labrys.node.configuration import Configuration
from labrys.node.effects import Persist, SnapshotMeta
from labrys.node.machine import Machine
from labrys.node.messages import AppendReply, Entry, HardState, VoteReply

THREE = Configuration(("n1", "n2", "n3"))
BASE = SnapshotMeta(0, 0, THREE)


class FallingCommit(Careless):
    """Forgets with each new term how far it had applied."""

    def _become_follower(self, term: int, leader: str | None) -> None:
        if term > self.term and self.applied > self.log.base_index + 2:
            self.commit = self.applied = self.applied - 2
        super()._become_follower(term, leader)


@pytest.mark.parametrize(
    ("promise", "bug"),
    [
        ("election safety", "vote-twice"),
        ("election safety", "speak-after-step-down"),
        ("log matching", "ignore-previous-term"),
        ("leader completeness", "any-log-wins"),
        ("state machine safety", "commit-beyond-vouched"),
        ("durability", "own-copy-at-once"),
        ("persisted state", "ack-before-disk"),
        ("persisted state", "vote-before-disk"),
        ("persisted state", "cut-on-every-append"),
        ("configuration safety", "change-at-once"),
        ("configuration safety", "next-step-too-early"),
        ("monotone commit", None),
    ],
)
def test_a_promise_is_seen_to_be_broken_by(promise: str, bug: str | None) -> None:
    core = BUGS[bug].parts.raft if bug else FallingCommit
    told = []
    for seed in range(600):
        try:
            play(seed, size=3 + 2 * (seed % 2), core=core, must_recover=False)
        except Violation as violation:
            told.append(str(violation).partition(":")[0])
            if told[-1] == promise:
                return
    pytest.fail(f"{bug} broke {set(told)} only")


@pytest.mark.parametrize("has_own", [True, False])
def test_nobody_can_be_elected_without_what_is_committed(has_own: bool) -> None:
    """Figure 8 of the paper, at the moment when the leader of term 4 commits an entry of term 2.

    Two more elections later n5 would cut it; an entry of the leader's own term prevents that.
    """
    cluster = Cluster(5, 1)
    first, old, other, own = (Entry(n, b"%d" % n) for n in (1, 2, 3, 4))
    logs = {
        **dict.fromkeys(("n1", "n2", "n3"), (first, old, own) if has_own else (first, old)),
        "n4": (first,),
        "n5": (first, other),
    }
    disks = {name: Kept(SnapshotMeta(0, 0, cluster.initial), HardState(4)) for name in logs}
    for name, entries in logs.items():
        disks[name].write(name, Persist(4, len(entries), None, 1, entries))
    cluster.promises.committed += [(first, 1), (old, 4)]
    can_be_lost = pytest.raises(Violation, match="leader completeness: 2 is committed, and n5")
    with contextlib.nullcontext() if has_own else can_be_lost:
        cluster.promises.is_there_to_stay(cluster.up("n1"), [2], disks, [cluster.initial])


# ---- what disks hold ----------------------------------------------------------------------------


def kept(term: int, vote: str | None = None, entries: int = 0) -> Kept:
    disk = Kept(BASE, HardState(term, vote))
    batch = Persist(term, entries, None, 1, tuple(Entry(1, b"%d" % n) for n in range(entries)))
    disk.write("n1", batch)
    return disk


def test_a_vote_that_is_told_is_on_disk() -> None:
    kept(5, "n2").say("n1", "n2", VoteReply(5, granted=True, pre=False))
    kept(6, "n3").say("n1", "n2", VoteReply(5, granted=True, pre=False))
    kept(4).say("n1", "n2", VoteReply(5, granted=True, pre=True))
    for disk in (kept(5, "n3"), kept(5), kept(4, "n2")):
        with pytest.raises(Violation, match="persisted state"):
            disk.say("n1", "n2", VoteReply(5, granted=True, pre=False))


def test_what_is_acknowledged_is_on_disk_and_stays_there() -> None:
    reply = AppendReply(5, 1, success=True, index=3)
    with pytest.raises(Violation, match="persisted state"):
        kept(5, entries=2).say("n1", "n2", reply)
    disk = kept(5, entries=3)
    disk.say("n1", "n2", reply)
    disk.write("n1", Persist(5, 4, None, 2, (*disk.entries[1:], Entry(5, b"x"))))
    with pytest.raises(Violation, match="vouched for 3 in term 5, and took it back"):
        disk.write("n1", Persist(5, 2, None, 2, (Entry(1, b"1"),)))


def test_in_a_newer_term_what_was_acknowledged_may_go() -> None:
    disk = kept(5, entries=3)
    disk.say("n1", "n2", AppendReply(5, 1, success=True, index=3))
    disk.write("n1", Persist(6, 2, HardState(6), 2, (Entry(6, b"new"),)))


def test_what_was_told_is_found_after_a_restart() -> None:
    before = kept(5, "n2", entries=3)
    before.say("n1", "n2", AppendReply(5, 1, success=True, index=3))
    kept(5, "n2", entries=3).follows("n1", before)
    kept(6, entries=1).follows("n1", before)
    for found in (kept(4, "n2", 3), kept(5, None, 3), kept(5, "n3", 3), kept(5, "n2", 2)):
        with pytest.raises(Violation, match="persisted state"):
            found.follows("n1", before)


@pytest.mark.parametrize("bug", ["rejoin-as-voter", None])
def test_a_node_that_lost_its_data_takes_no_part_before_it_knows_the_log(bug: str | None) -> None:
    with running(bug=bug) as rig:
        node = rig.followers()[0]
        for number in range(5):
            rig.put(rig.leader(), "k", number)
        rig.system.kill(node)
        rig.machine(node).lose_data()
        rig.system.start(node)
        rig.stage.sleep(2.0)
        told = rig.stage._watch.broken
    assert (told is None) if bug is None else "lost its data and takes part again" in str(told)


@pytest.mark.parametrize("bug", ["lease-across-pause", None])
def test_nobody_is_elected_while_another_leader_trusts_its_lease(bug: str | None) -> None:
    with running(bug=bug) as rig:
        rig.system.pause(rig.leader())
        rig.stage.sleep(2.0)
        told = rig.stage._watch.broken
    assert (told is None) if bug is None else str(told).startswith("leases: ")


def test_an_entry_that_was_changed_on_a_disk_is_seen() -> None:
    promises = Promises()
    told = kept(5)
    promises.store("n1", told, Persist(5, 2, None, 1, (Entry(1, b"a"), Entry(2, b"b"))))
    promises.find("n1", told)
    changed = kept(5)
    changed.write("n1", Persist(5, 2, None, 1, (Entry(1, b"a"), Entry(2, b"c"))))
    with pytest.raises(Violation, match="log matching: n1 came back with another 2"):
        promises.find("n1", changed)


# ---- members ------------------------------------------------------------------------------------


def test_majorities_of_one_step_of_a_change_meet() -> None:
    old, new = ("n1", "n2", "n3"), ("n3", "n4", "n5")
    joint = Configuration(voters=new, outgoing=old)
    assert are_disjoint(Configuration(old), Configuration(new))
    assert not are_disjoint(Configuration(old), joint)
    assert not are_disjoint(joint, Configuration(new))
    assert not are_disjoint(Configuration(old), Configuration((*old, "n4")))


# ---- sessions and states ------------------------------------------------------------------------


def committed(machine: type[Machine]) -> None:
    """A command of a session stands in the log twice, with others before and between."""
    replica = Replica(machine())
    commands: list[Request] = [
        OpenSession(60_000, 0), Once(1, 1, Add("k", 1)), Once(1, 2, Add("k", 1)),
        Once(1, 1, Add("k", 1)), Once(1, 2, Add("k", 1)),
    ]  # fmt: skip
    for index, command in enumerate(commands, 1):
        replica.execute(index, Entry(1, encode_request(command)))


@pytest.mark.parametrize("bug", [ExecuteAgain, DuplicateSaysOk])
def test_a_command_of_a_session_counts_once_and_is_answered_alike(bug: type[Machine]) -> None:
    committed(Machine)
    with pytest.raises(Violation, match="exactly-once sessions: number 1 of session 1"):
        committed(bug)


def test_a_state_that_the_log_does_not_lead_to_is_seen() -> None:
    replica, right, wrong = Replica(Machine()), Machine(), Machine()
    for index, value in enumerate((b'["put","k",1]', b'["put","k",2]'), 1):
        replica.execute(index, Entry(1, value))
        right.apply(index, value)
    replica.remember(2)
    replica.compare("n1", 2, right)
    wrong.apply(1, b'["put","k",2]')
    replica.compare("n1", 1, wrong)  # not noted
    with pytest.raises(Violation, match="state machine safety: n1 has the state"):
        replica.compare("n1", 2, wrong)


# ---- whole nodes --------------------------------------------------------------------------------


def broken(bug: str | None) -> str | None:
    """Which promise three nodes break under writes, snapshots, reads and kills."""
    with running(bug=bug, system_options={"snapshot-entries": 5}) as rig:
        rng = random.Random(1)
        for number in range(60):
            live_a_little(rig, rng, number)
            if rig.stage._watch.broken is not None:
                break
        return rig.stage._watch.broken


def live_a_little(rig: Rig, rng: random.Random, number: int) -> None:
    node = rng.choice(rig.stage.env.nodes)
    with contextlib.suppress(OSError, KeyError):  # refused, or no answer
        rig.put(node, f"k{number % 3}", number)
        rig.get(rng.choice(rig.stage.env.nodes), "k0")
    if number % 10 == 9:
        rig.system.kill(node)
        rig.stage.sleep(0.2)
        rig.system.start(node)
        rig.stage.sleep(1.0)


@pytest.mark.parametrize("bug", ["skip-fsync", None])
def test_what_is_told_is_flushed(bug: str | None) -> None:
    rig = Rig(bug=bug)
    with rig.stage.entered():
        rig.system.start_all()
        rig.stage.sleep(2.0)
        told = rig.stage._watch.broken
        rig.stage.env.destroy()
    assert (told is None) if bug is None else "bytes of it are not flushed" in str(told)


@pytest.mark.parametrize(
    ("bug", "promise"),
    [
        ("stale-read", "reads"),
        ("snapshot-fuzzy", "state machine safety"),
        ("snapshot-off-by-one", "state machine safety"),
        ("lose-tail", "persisted state"),
        ("forget-vote", "persisted state"),
        (None, None),
    ],
)
def test_promises_of_whole_nodes(bug: str | None, promise: str | None) -> None:
    told = broken(bug)
    assert (told.partition(":")[0] if told is not None else None) == promise, told
