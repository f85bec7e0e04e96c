"""`labrys stress`: how fast three nodes take entries in, and whether they keep every one of them.

Three servers on loopback, entries in batches from several clients, and then the questions: is every
entry on every server, in one order, after a restart, after a server lost its data, after kill -9?
The order is judged by an independent copy of the store that executes the entries by revision: its
state hash covers every key, value and revision.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import click
import msgspec

from labrys.control.errors import ClusterError, LabrysError, MachineError
from labrys.control.insertion import Entry, Inserted, entries, insert, insert_once
from labrys.control.interruption import Interrupted, Interruption
from labrys.control.loopback import Loopback, Server, wait_for
from labrys.node.commands import Put, decode_logged, encode_request
from labrys.node.errors import NodeError
from labrys.node.machine import Machine
from labrys.node.raft import NO_OP
from labrys.node.storage import Storage

PATIENCE_S = 30.0
READ_COUNT = 1000
"""Keys in one request when all are read back."""
KILL_SHARE = 5
"""One entry for so many is inserted once more while the leader is killed."""
_FLAGS = ("--snapshot-entries", "100000000", "--snapshot-mib", "100000")
"""None while it runs: the logs are compared as well."""


class Load(msgspec.Struct, frozen=True):
    """What is inserted."""

    entries: int
    batch: int
    clients: int
    key_bytes: int = 16
    value_bytes: int = 16


class Check(msgspec.Struct, frozen=True):
    """One question and how it was answered."""

    name: str
    passed: bool
    detail: str


class Result(msgspec.Struct, frozen=True):
    """One run of the stress test."""

    entries_per_s: float
    passed: bool
    checks: list[Check]


class _Failed(Exception):
    """A check found something; the message says what."""


def stress_and_print(load: Load, repeat: int, data: Path | None, *, as_json: bool) -> int:
    """Run it `repeat` times and print; the exit code. Data is kept when something failed."""
    results = []
    with Interruption().installed() as interruption, interruption.raised():
        try:
            for number in range(1, repeat + 1):
                say = _printer(as_json, repeat, number)
                results.append(_run_once(load, data, number, say, as_json=as_json))
        except Interrupted:
            click.echo(
                "labrys: interrupted; the servers were stopped, their data is kept", err=True
            )
            return 130
    rates = [result.entries_per_s for result in results]
    failed = sum(not result.passed for result in results)
    if repeat > 1 and not as_json:
        click.echo(
            f"entries/s: min {min(rates):,.0f}, median {median(rates):,.0f}, max {max(rates):,.0f}"
            f" in {repeat} runs; {failed} of {repeat} failed"
        )
    return 1 if failed else 0


def _printer(as_json: bool, repeat: int, number: int) -> Callable[[str], None]:
    mark = f"[{number}/{repeat}] " if repeat > 1 else ""
    return (lambda text: None) if as_json else (lambda text: click.echo(f"{mark}{text}"))


def _run_once(
    load: Load, data: Path | None, number: int, say: Callable[[str], None], *, as_json: bool
) -> Result:
    directory = _directory(data, number)
    try:
        with Loopback(directory, 3, _FLAGS) as cluster:
            result = Stress(cluster, load, say).run()
    except Interrupted:
        click.echo(f"labrys: interrupted; the servers' data is kept in {directory}", err=True)
        raise
    except LabrysError as error:
        error.add_note(f"data and logs of the servers are kept in {directory}")
        raise
    if as_json:
        click.echo(msgspec.json.encode(result).decode())
    if result.passed and data is None:
        shutil.rmtree(directory, ignore_errors=True)
    else:
        say(f"data and logs of the servers are kept in {directory}")
    return result


def _directory(data: Path | None, number: int) -> Path:
    try:
        if data is None:
            return Path(tempfile.mkdtemp(prefix="labrys-stress-"))
        directory = data / f"run-{number}"
        directory.mkdir(parents=True)
    except FileExistsError as error:
        raise MachineError(f"{directory} is there already: name another --data") from error
    except OSError as error:
        raise MachineError(f"cannot make a directory for the servers' data: {error}") from error
    return directory


class Stress:
    """One run, check by check; the first that fails ends it."""

    def __init__(
        self,
        cluster: Loopback,
        load: Load,
        say: Callable[[str], None],
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`patience_s` is how long the servers may take to agree."""
        self._cluster = cluster
        self._patience_s = patience_s
        self._load = load
        self._say = say
        self._entries = entries(load.entries, load.key_bytes, load.value_bytes)
        self._inserted = Inserted([], 0.0)
        self._machine = Machine()
        self._checks: list[Check] = []

    def run(self) -> Result:
        """Insert, and ask every question; raises MachineError when a server cannot run."""
        rate = 0.0
        try:
            with self._check("three servers elect a leader"):
                self._cluster.start_all()
                leader = self._cluster.leader()
            with self._check("every entry is acknowledged"):
                load = self._load
                self._inserted = insert(leader, self._entries, load.batch, load.clients)
                rate = self._inserted.count / self._inserted.elapsed_s
            self._say(
                f"{rate:,.0f} entries/s: {self._inserted.count:,} entries in batches of "
                f"{load.batch:,} from {load.clients} clients in {self._inserted.elapsed_s:.2f} s"
            )
            self._validate()
            self._restart()
            self._lose_a_server()
            self._kill()
        except _Failed:
            pass
        return Result(rate, all(check.passed for check in self._checks), self._checks)

    @contextmanager
    def _check(self, name: str) -> Iterator[None]:
        try:
            yield
        except (_Failed, ClusterError) as error:
            self._checks.append(Check(name, passed=False, detail=str(error)))
            self._say(f"FAIL  {name}: {error}")
            raise _Failed(name) from error
        self._checks.append(Check(name, passed=True, detail=""))
        self._say(f"ok    {name}")

    # ---- the questions ------------------------------------------------------------------------

    def _validate(self) -> None:
        with self._check("each client's entries are in the order in which it sent them"):
            for client, acked in enumerate(self._inserted.by_client):
                revisions = [revision for _, revision in acked]
                if revisions != sorted(set(revisions)):
                    raise _Failed(f"client {client} got revisions that do not rise")
        by_revision = sorted(
            ((revision, entry) for acked in self._inserted.by_client for entry, revision in acked),
            key=lambda pair: pair[0],
        )
        with self._check("all entries have one place in one order"):
            revisions = [revision for revision, _ in by_revision]
            if revisions != list(range(1, len(self._entries) + 1)):
                raise _Failed(f"revisions of {len(revisions)} entries are not 1 to that number")
        for revision, entry in by_revision:
            self._machine.apply(revision, encode_request(Put(entry.key, entry.value)))
        with self._check("every server has applied every entry, in that order"):
            self._compare_states(self._cluster.servers)
        with self._check("every value can be read through every server"):
            self._read_back(self._cluster.servers, self._entries)

    def _restart(self) -> None:
        with self._check("all servers stop in order"):
            for server in self._cluster.servers:
                self._cluster.stop(server)
        with self._check("every log holds the same entries in the same order"):
            self._compare_logs()
        with self._check("after a restart every server has everything"):
            self._cluster.start_all()
            self._compare_states(self._cluster.servers)
            self._read_back(self._cluster.servers, self._entries)

    def _lose_a_server(self) -> None:
        leader = self._cluster.leader()
        victim = next(server for server in self._cluster.servers if server is not leader)
        with self._check("a server whose data was deleted recovers all of it"):
            self._cluster.stop(victim)
            self._cluster.wipe(victim)
            self._cluster.start(victim)
            self._cluster.await_ready(victim)
            self._compare_states([victim])
            self._read_back([victim], self._entries)

    def _kill(self) -> None:
        load = self._load
        count = max(1, load.entries // KILL_SHARE)
        more = entries(count, load.key_bytes, load.value_bytes, prefix="k")
        batch = max(1, min(load.batch, count // 10))
        kill_at = -(-count // batch) // 2 + 1
        before = self._revisions()

        def kill_leader(number: int) -> None:
            if number == kill_at:
                victim = self._cluster.leader()
                self._cluster.kill(victim)
                self._cluster.start(victim)

        with self._check("entries sent again after kill -9 of the leader are there exactly once"):
            insert_once(self._cluster.servers, more, batch, kill_leader)
            self._await_revision(before + count)
            self._read_back(self._cluster.servers, [*self._entries, *more])
        with self._check("after kill -9 of all servers nothing acknowledged is missing"):
            for server in self._cluster.servers:
                self._cluster.kill(server)
            self._cluster.start_all()
            self._await_revision(before + count)
            self._read_back(self._cluster.servers, [*self._entries, *more])

    # ---- how they are answered ----------------------------------------------------------------

    def _compare_states(self, servers: Sequence[Server]) -> None:
        wanted = (self._machine.revision, f"{self._machine.state_hash:016x}")

        def differing() -> dict[str, object]:
            found = {server.name: _state(server) for server in servers}
            return {name: state for name, state in found.items() if state != wanted}

        if not wait_for(lambda: not differing(), self._patience_s):
            raise _Failed(f"revision and state hash should be {wanted}, found {differing()}")

    def _revisions(self) -> int:
        status = self._cluster.leader().status()
        return int(status["revision"]) if status is not None else 0

    def _await_revision(self, wanted: int) -> None:
        def states() -> list[tuple[int, str] | None]:
            return [_state(server) for server in self._cluster.servers]

        def are_right() -> bool:
            found = states()
            return found[0] is not None and found[0][0] == wanted and len({*found}) == 1

        if not wait_for(are_right, self._patience_s):
            raise _Failed(f"all servers should be at revision {wanted} in one state: {states()}")

    def _read_back(self, servers: Sequence[Server], wanted: Sequence[Entry]) -> None:
        for server in servers:
            for start in range(0, len(wanted), READ_COUNT):
                part = wanted[start : start + READ_COUNT]
                ops = [["r", entry.key, None] for entry in part]
                status, answer = _asked(server, {"ops": ops})
                if status != 200:
                    raise _Failed(f"{server.name} answered {status} {answer}")
                for entry, (_, _, value) in zip(part, answer["results"], strict=True):
                    if value != entry.value:
                        raise _Failed(f"{server.name}: {entry.key} is {value}, not {entry.value}")

    def _compare_logs(self) -> None:
        logs = {server.name: _logged(server) for server in self._cluster.servers}
        first = next(iter(logs.values()))
        for name, log in logs.items():
            if log != first:
                raise _Failed(f"the log of {name} differs: {len(log)} and {len(first)} entries")
        puts = [Entry(c.key, c.value) for c in decode_logged(first) if isinstance(c, Put)]
        if sorted(puts, key=lambda e: e.key) != sorted(self._entries, key=lambda e: e.key):
            raise _Failed(f"the logs hold {len(puts)} entries, {len(self._entries)} were sent")


def _state(server: Server) -> tuple[int, str] | None:
    status = server.status()
    return None if status is None else (status["revision"], status["state_hash"])


def _asked(server: Server, body: object) -> tuple[int, dict[str, list[list[str]]]]:
    """Read, again while there is no leader."""
    answer = wait_for(lambda: _answered(server, body), PATIENCE_S)
    return answer if answer is not None else (503, {})


def _answered(server: Server, body: object) -> tuple[int, dict[str, list[list[str]]]] | None:
    try:
        status, answer = server.call("POST", "/v1/txn", body)
    except OSError:
        return None
    return None if status == 503 else (status, answer)


def _logged(server: Server) -> list[bytes]:
    """The commands in the log of a server that is stopped."""
    try:
        with Storage(server.data, server.name) as storage:
            found = storage.entries
    except NodeError as error:
        raise _Failed(f"the log of {server.name} cannot be read: {error}") from error
    return [e.command for e in found if e.command != NO_OP and not e.is_configuration]
