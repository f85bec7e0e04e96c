"""A cluster made of dictionaries, to play faults on."""

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from labrys.control.environments.base import Output
from labrys.control.errors import ClusterError
from labrys.control.process import State
from labrys.control.systems.base import DataFiles

FIVE = ("n1", "n2", "n3", "n4", "n5")


class FakeEnvironment:
    """Notes the scripts that nodes are given, and answers as it is told."""

    name = "fake"

    def __init__(self, nodes: tuple[str, ...] = FIVE) -> None:
        self.nodes = nodes
        self.scripts: dict[str, list[str]] = {node: [] for node in nodes}
        self.answers: dict[str, Output] = {}
        """By node: what any script leaves; by default nothing and success."""
        self.broken: set[str] = set()
        """Nodes in which no script can be run at all."""
        self.frozen: set[str] = set()

    def require(self, needs: frozenset[str]) -> None: ...

    def provision(self) -> None: ...

    def destroy(self) -> None: ...

    def address(self, node: str) -> str:
        return f"10.213.0.{self.nodes.index(node) + 1}"

    def home(self, node: str) -> str:
        return f"/home/{node}"

    def log_dir(self, node: str) -> str:
        return f"/log/{node}"

    def python(self, node: str) -> str:
        return "python3"

    def run(self, node: str, script: str, *, timeout_s: float = 10.0) -> Output:
        if node in self.broken:
            raise ClusterError(f"{node}: no answer")
        self.scripts[node].append(script)
        return self.answers.get(node, Output(0, "", ""))

    def upload(self, node: str, files: Mapping[str, bytes]) -> None: ...

    def collect_logs(self, node: str, into: Path) -> None: ...

    def freeze(self, node: str) -> int:
        if node in self.broken:
            raise ClusterError(f"{node}: no answer")
        self.frozen.add(node)
        return 3

    def thaw(self, node: str) -> bool:
        if node in self.broken:
            raise ClusterError(f"{node}: no answer")
        was_frozen = node in self.frozen
        self.frozen.discard(node)
        return was_frozen


class LimitedEnvironment(FakeEnvironment):
    """One that can limit CPU and memory; counts as many waits and kills as limits."""

    def __init__(self, nodes: tuple[str, ...] = FIVE) -> None:
        super().__init__(nodes)
        self.limits: dict[str, list[float | None]] = {node: [] for node in nodes}

    def limit_cpu(self, node: str, share: float | None) -> int:
        return self._limit(node, share)

    def limit_memory(self, node: str, room_bytes: int | None) -> int:
        return self._limit(node, room_bytes)

    def _limit(self, node: str, limit: float | None) -> int:
        if node in self.broken:
            raise ClusterError(f"{node}: no answer")
        self.limits[node].append(limit)
        return len(self.limits[node])


class FakeSystem:
    """Processes that are nothing but their states."""

    process_name = "db"
    monotonic_s = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)

    def __init__(self, nodes: tuple[str, ...] = FIVE) -> None:
        self.states = dict.fromkeys(nodes, State.RUNNING)
        self.calls: list[tuple[str, str]] = []
        self.refusing: set[tuple[str, str]] = set()
        """(what, node) that raises."""
        self.leading: tuple[str, ...] = ("n3",)
        self.voters = nodes
        self.environ: Mapping[str, Mapping[str, str]] = {}
        self.newcomers: set[str] = set()
        self.blank: set[str] = set()
        """Nodes that do not know yet what they promised."""
        self.tolerated = 2
        self._lock = threading.Lock()

    def _act(self, what: str, node: str) -> State:
        with self._lock:
            self.calls.append((what, node))
        if (what, node) in self.refusing:
            raise ClusterError(f"{node}: {what} refused")
        return self.states[node]

    def data_dir(self, node: str) -> str:
        return f"/home/{node}/data"

    def nodes_of(self, what: str) -> list[str]:
        return sorted(node for call, node in self.calls if call == what)

    def start(self, node: str) -> None:
        if self._act("start", node) is State.DEAD:
            self.states[node] = State.RUNNING

    def kill(self, node: str) -> None:
        self._act("kill", node)
        self.states[node] = State.DEAD

    def pause(self, node: str) -> None:
        if self._act("pause", node) is State.RUNNING:
            self.states[node] = State.STOPPED

    def resume(self, node: str) -> None:
        if self._act("resume", node) is State.STOPPED:
            self.states[node] = State.RUNNING

    def state(self, node: str) -> State:
        return self.states[node]

    def leaders(self) -> tuple[str, ...]:
        return self.leading

    def transfer_leadership(self, target: str, timeout_s: float) -> None:
        self._act("transfer", target)
        self.leading = (target,)

    def members(self) -> tuple[str, ...] | None:
        return self.voters

    def change_members(
        self, timeout_s: float, *, add: Sequence[str] = (), remove: Sequence[str] = ()
    ) -> tuple[str, ...]:
        self._act("change", self.leading[0])
        self.voters = tuple(sorted({*self.voters, *add} - {*remove}))
        return self.voters

    def data_files(self, node: str) -> Mapping[str, DataFiles]:
        return {}

    def lose_data(self, node: str) -> int:
        self._act("lose", node)
        self.newcomers.discard(node)
        self.blank.add(node)
        return 7

    def make_newcomer(self, node: str) -> None:
        assert self._act("newcomer", node) is State.DEAD
        assert node not in self.voters, "a member would forget its promises"
        self.newcomers.add(node)
        self.blank.discard(node)

    def knows_removal(self, node: str, removed: Sequence[str]) -> bool:
        return self.states[node] is State.RUNNING

    def is_whole(self, node: str) -> bool | None:
        return node not in self.blank if self.states[node] is State.RUNNING else None

    def tolerated_losses(self) -> int:
        return self.tolerated

    def log_end(self, node: str) -> int:
        return 0

    def log_since(self, node: str, end: int) -> tuple[str, ...]:
        return ("event=boot",)
