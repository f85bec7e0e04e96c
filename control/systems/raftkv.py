"""Our own Raft key-value store as the system under test.

The node package is uploaded into every node at deploy time, so a changed line of code is under
test in the next run and needs no new image.
"""

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import requests

from labrys import node as node_package
from labrys.control import process
from labrys.control.environments.base import Environment, check, on_nodes
from labrys.control.errors import ClusterError, UsageError
from labrys.control.names import known
from labrys.control.systems.base import DataFiles
from labrys.node.bugs import BUGS

PEER_PORT: Final = 7000
HTTP_PORT: Final = 8000
_NAME: Final = "labrys-node"
_OPTIONS: Final = (
    "election-timeout-ms", "heartbeat-ms", "request-timeout-ms", "snapshot-entries", "snapshot-mib",
    "append-entries", "inflight-appends", "chunk-kib", "segment-kib",
)  # fmt: skip
_CHANGE_ATTEMPT_S: Final = 1.0
_STATUS_TIMEOUT_S: Final = 0.5
_POLL_S: Final = 0.05
TOLD_LINES: Final = 20
HEALTH_KEY: Final = "labrys-health"
"""The key that health checks write; no workload uses it."""


class RaftKv:
    """A cluster of `labrys-node` processes, one in each node of the environment."""

    def __init__(
        self,
        env: Environment,
        *,
        seed: int,
        bug: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """`options` are those that `parse_options` accepts."""
        self._env = env
        self._flags = self.parse_options(options or {})
        self._seed = seed
        self._bug = bug
        self.environ: Mapping[str, Mapping[str, str]] = {}
        self._voters_min = len(env.nodes)
        """How few may vote now, as far as that was brought about from here."""

    @classmethod
    def bugs(cls) -> Mapping[str, str]:
        """The deliberate faults of this system, by name, each with what it does."""
        return {name: bug.description for name, bug in BUGS.items()}

    @classmethod
    def option_names(cls) -> Sequence[str]:
        """The options of this system."""
        return _OPTIONS

    @classmethod
    def parse_options(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The flags of `labrys-node` for these options; raises UsageError for a wrong one."""
        flags: list[str] = []
        for name, value in options.items():
            known("system option", name, _OPTIONS, where="--system-option")
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(
                    f"--system-option {name}: must be a whole number above 0, not {value!r}"
                )
            flags += [f"--{name}", str(value)]
        return tuple(flags)

    @property
    def process_name(self) -> str:
        """The name of the process in every node."""
        return _NAME

    def install(self) -> None:
        """Put the node's code into every node."""
        files = _package_files()
        on_nodes(self._env.nodes, lambda node: self._env.upload(node, files))

    def data_dir(self, node: str) -> str:
        """Where the node keeps its log and snapshots."""
        return f"{self._env.home(node)}/data"

    def start(self, node: str) -> None:
        """Start the database process in `node`; one that runs already is left alone."""
        env = self._env
        variables = {"PYTHONPATH": env.home(node), **self.environ.get(node, {})}
        argv = ["env", *(f"{name}={value}" for name, value in variables.items())]
        argv += [env.python(node), "-m", "labrys.node.cli", *self.node_flags(node)]
        process.start(env, node, _NAME, argv, self._log(node))

    def node_flags(self, node: str) -> list[str]:
        """The command line of the node's program."""
        env = self._env
        peers = ",".join(f"{n}={env.address(n)}:{PEER_PORT}" for n in env.nodes)
        return [
            *("--id", node, "--peers", peers),
            *("--listen", f"{env.address(node)}:{PEER_PORT}"),
            *("--http", f"{env.address(node)}:{HTTP_PORT}"),
            *("--data", self.data_dir(node), "--seed", str(self._seed)),
            *(("--bug", self._bug) if self._bug else ()),
            *self._flags,
        ]

    # What follows is replaced where there is no real time and no real network.

    def monotonic_s(self) -> float:
        """Seconds on a clock that does not run backwards."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def session(self) -> requests.Session:
        """A session for one request to a node."""
        session = requests.Session()
        session.trust_env = False  # a proxy of the host has no business between us and the nodes
        return session

    def start_all(self) -> None:
        """Start every node."""
        on_nodes(self._env.nodes, self.start)

    def kill(self, node: str) -> None:
        """Kill the database process in `node` with SIGKILL and wait until it is gone."""
        process.kill(self._env, node, _NAME)

    def pause(self, node: str) -> None:
        """Stop the database process in `node` in its tracks (SIGSTOP)."""
        process.signal(self._env, node, _NAME, "STOP")

    def resume(self, node: str) -> None:
        """Let a paused database process go on (SIGCONT); no process is fine."""
        process.signal(self._env, node, _NAME, "CONT")

    def state(self, node: str) -> process.State:
        """Whether the database process in `node` runs, is stopped or is dead."""
        return process.state(self._env, node, _NAME)

    def stop_all(self) -> None:
        """Kill every database process, so that logs no longer change."""
        on_nodes(self._env.nodes, self.kill)

    def url(self, node: str) -> str:
        """The address of the node's HTTP API."""
        return f"http://{self._env.address(node)}:{HTTP_PORT}"

    def status(self, node: str) -> dict[str, Any] | None:
        """Return what the node says of itself, or None when it does not answer in time."""
        try:
            with self.session() as session:
                answer = session.get(f"{self.url(node)}/v1/status", timeout=_STATUS_TIMEOUT_S)
                found = answer.json()
        except (requests.RequestException, ValueError):
            return None
        return found if answer.ok and isinstance(found, dict) else None

    def statuses(self) -> dict[str, dict[str, Any] | None]:
        """Return the status of every node, asked in parallel."""
        return on_nodes(self._env.nodes, self.status)

    def end_states(
        self, timeout_s: float, *, give_up: Callable[[], bool]
    ) -> dict[str, dict[str, Any] | None]:
        """Return the status of every node once all have applied the same, or time is over."""
        deadline = self.monotonic_s() + timeout_s
        while True:
            statuses = self.statuses()
            applied = {None if s is None else s["applied"] for s in statuses.values()}
            is_settled = len(applied) == 1 and None not in applied
            if is_settled or give_up() or self.monotonic_s() >= deadline:
                return statuses
            self.sleep(_POLL_S)

    def leaders(self) -> tuple[str, ...]:
        """Return the nodes that call themselves leader, the one of the highest term first."""
        return _leading(self.statuses())

    def transfer_leadership(self, target: str, timeout_s: float) -> None:
        """Let the leader hand over to `target`, and wait until that one leads.

        Raises ClusterError when it does not within `timeout_s`.
        """
        deadline = self.monotonic_s() + timeout_s
        said = "nobody leads"
        while True:
            leaders = self.leaders()
            if leaders[:1] == (target,):
                return
            if leaders:
                said = self._ask(leaders[0], "leader", {"transfer": target})
            if self.monotonic_s() >= deadline:
                raise ClusterError(f"{target} did not take over: {said}")
            self.sleep(_POLL_S)

    def members(self) -> tuple[str, ...] | None:
        """Return the nodes that vote, as the newest leader says; None when nobody leads."""
        return _voting(self.statuses())

    def change_members(
        self, timeout_s: float, *, add: Sequence[str] = (), remove: Sequence[str] = ()
    ) -> tuple[str, ...]:
        """Let nodes become members or cease to be, and return who votes then.

        Raises ClusterError when it is not done within `timeout_s`.
        """
        deadline = self.monotonic_s() + timeout_s
        said = "nobody leads"
        while True:
            statuses = self.statuses()
            now = _voting(statuses)
            if now is not None and {*add} <= {*now} and not {*remove} & {*now}:
                self._voters_min = len(now)
                return now
            if self.monotonic_s() >= deadline:
                # It may be done later all the same.
                self._voters_min = min(self._voters_min, len(now or ()) or self._voters_min)
                self._voters_min = max(1, self._voters_min - len(remove))
                raise ClusterError(f"the members are {now}: {said}")
            for leader in _leading(statuses)[:1]:
                said = self._ask_for_change(leader, add, remove)
            self.sleep(_POLL_S)

    def _ask_for_change(self, leader: str, add: Sequence[str], remove: Sequence[str]) -> str:
        places = {node: f"{self._env.address(node)}:{PEER_PORT}" for node in add}
        return self._ask(leader, "members", {"add": places, "remove": list(remove)})

    def _ask(self, node: str, what: str, body: Mapping[str, Any]) -> str:
        """Post an administrator's wish and return the answer in words."""
        try:
            with self.session() as session:
                answer = session.post(
                    f"{self.url(node)}/v1/{what}", json=body, timeout=_CHANGE_ATTEMPT_S
                )
        except requests.RequestException as error:
            return f"{node}: {type(error).__name__}"
        return f"{node}: HTTP {answer.status_code} {answer.text[:200]}"

    def data_files(self, node: str) -> Mapping[str, DataFiles]:
        """Return where the node keeps its data, by kind. Term and vote stand in the log."""
        data = self.data_dir(node)
        return {
            "log": DataFiles((f"{data}/log-*",), end_is_checked=False),
            "snapshot": DataFiles((f"{data}/snapshots/snapshot-*",), end_is_checked=True),
            "meta": DataFiles((f"{data}/newest",), end_is_checked=True),
        }

    def lose_data(self, node: str) -> int:
        """Remove all data of a dead process, and return how many bytes that was.

        A member that lost its data is started with its old flags: it finds out by itself what it
        may have promised (`labrys.node.recall`).
        """
        data = shlex.quote(self.data_dir(node))
        # The directory itself may be a mount, and what was removed may come back from a disk that
        # loses its power, if that is not flushed.
        script = f"""\
if [ ! -d {data} ]; then echo 0; exit 0; fi
find {data} -type f -exec cat {{}} + | wc -c
find {data} -mindepth 1 -delete && sync {data}
"""
        return int(check(node, "removing the data", self._env.run(node, script)))

    def make_newcomer(self, node: str) -> None:
        """Let a dead process that is no member forget everything.

        It starts with its old flags all the same. Somebody who missed several changes of members
        may still count on that name, and `--join` would let it vote and acknowledge at once.
        """
        self.lose_data(node)

    def knows_removal(self, node: str, removed: Sequence[str]) -> bool:
        """Return whether the node will never count on a vote of `removed` as long as they are out.

        It knows of the removal for good, or that it does not vote itself and so cannot lead.
        """
        status = self.status(node)
        if status is None or status["is_changing"] or status["is_observer"]:
            return False
        voters = status["voters"]
        return node not in voters or not {*removed} & {*voters}

    def is_whole(self, node: str) -> bool | None:
        """Return whether the node takes part with all that it ever promised; None: no answer."""
        status = self.status(node)
        return None if status is None else not status["is_observer"]

    def tolerated_losses(self) -> int:
        """Return how many nodes may lose their data at once.

        A minority of the fewest that may vote now. Those who answer may be behind and name earlier
        members, so what was asked for from here counts as well.
        """
        statuses = [
            status
            for status in self.statuses().values()
            if status is not None and status["voters"] and not status["is_observer"]
        ]
        if not statuses:
            return 0
        fewest = min(self._voters_min, *(len(status["voters"]) for status in statuses))
        return (fewest - 1) // 2

    def log_end(self, node: str) -> int:
        """Return the length of the log of the node's process, in bytes."""
        log = shlex.quote(self._log(node))
        script = f"if [ -e {log} ]; then wc -c <{log}; else echo 0; fi"
        return int(check(node, "measuring the log", self._env.run(node, script)))

    def log_since(self, node: str, end: int) -> tuple[str, ...]:
        """Return the first lines that the process wrote after the log had the length `end`."""
        log = shlex.quote(self._log(node))
        script = f"tail -c +{end + 1} {log} | head -n {TOLD_LINES}"
        return tuple(check(node, "reading the log", self._env.run(node, script)).splitlines())

    def _log(self, node: str) -> str:
        return f"{self._env.log_dir(node)}/log"

    def await_healthy(self, timeout_s: float, *, give_up: Callable[[], bool]) -> bool:
        """Wait until a write through every node succeeds; False if `give_up` ended the wait.

        Raises ClusterError naming the nodes that do not answer when `timeout_s` is over.
        """
        deadline = self.monotonic_s() + timeout_s
        waiting = dict.fromkeys(self._env.nodes, "not asked yet")
        while waiting:
            answers = on_nodes(waiting, self.write_error)
            waiting = {node: error for node, error in answers.items() if error is not None}
            if waiting and give_up():
                return False
            if waiting and self.monotonic_s() >= deadline:
                told = "; ".join(f"{node}: {error}" for node, error in waiting.items())
                raise ClusterError(
                    f"the cluster is not healthy after {timeout_s:g} s: no write through {told}"
                )
            if waiting:
                self.sleep(_POLL_S)
        return True

    def write_error(self, node: str) -> str | None:
        """Write through `node`; return None if that worked, else what went wrong."""
        try:
            with self.session() as session:
                url = f"{self.url(node)}/v1/kv/{HEALTH_KEY}"
                answer = session.put(url, json={"value": node}, timeout=1.0)
        except requests.RequestException as error:
            return f"{type(error).__name__} ({self.state(node)})"
        return None if answer.ok else f"HTTP {answer.status_code} {answer.text[:200]}"


_Statuses = Mapping[str, dict[str, Any] | None]


def _leading(statuses: _Statuses) -> tuple[str, ...]:
    """Who calls itself leader, the one of the highest term first."""
    claims = [
        (int(status["term"]), node)
        for node, status in statuses.items()
        if status is not None and status.get("role") == "leader"
    ]
    return tuple(node for _, node in sorted(claims, key=lambda claim: -claim[0]))


def _voting(statuses: _Statuses) -> tuple[str, ...] | None:
    """Who votes, as the newest leader says when no change is under way there."""
    for leader in _leading(statuses):
        status = statuses[leader]
        if status is not None and not status["is_changing"]:
            return tuple(status["voters"])
    return None


def _package_files() -> dict[str, bytes]:
    """The source files of the node package, by path below a node's home."""
    files: dict[str, bytes] = {}
    for folder in node_package.__path__:
        files |= {
            f"labrys/node/{path.relative_to(folder)}": path.read_bytes()
            for path in sorted(Path(folder).rglob("*.py"))
        }
    return files
