"""An environment for whole-lifecycle tests that needs nothing: loopback addresses, no isolation."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from labrys.control.environments.base import Output


class LoopbackEnvironment:
    """Nodes are folders and loopback addresses of this machine; the network cannot be cut."""

    name = "loopback"

    def __init__(self, nodes: tuple[str, ...], run_dir: Path, say: Callable[[str], None]) -> None:
        self.nodes = nodes
        self.run_dir = run_dir
        self.calls: list[str] = []
        self.fail_in: str | None = None
        """The step that raises, to see what the others do then."""
        # Of this process alone: two test runs on one machine must not meet.
        self._network = f"127.{1 + os.getpid() // 250 % 250}.{1 + os.getpid() % 250}"

    def _called(self, what: str) -> None:
        self.calls.append(what)
        if what == self.fail_in:
            raise RuntimeError(f"planted in {what}")

    def require(self, needs: frozenset[str]) -> None:
        """Nothing more can be had here."""

    def provision(self) -> None:
        self._called("provision")
        for node in self.nodes:
            Path(self.home(node)).mkdir(parents=True)
            Path(self.log_dir(node)).mkdir(parents=True)

    def address(self, node: str) -> str:
        return f"{self._network}.{self.nodes.index(node) + 1}"

    def home(self, node: str) -> str:
        return str(self.run_dir / "homes" / node)

    def log_dir(self, node: str) -> str:
        return str(self.run_dir / "nodes" / node)

    def python(self, node: str) -> str:
        return sys.executable

    def run(self, node: str, script: str, *, timeout_s: float = 10.0) -> Output:
        done = subprocess.run(
            ["/bin/sh"], input=script, capture_output=True, text=True, timeout=timeout_s
        )
        return Output(done.returncode, done.stdout, done.stderr)

    def upload(self, node: str, files: Mapping[str, bytes]) -> None:
        self._called("upload")
        for name, content in files.items():
            path = Path(self.home(node)) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def collect_logs(self, node: str, into: Path) -> None:
        self._called("collect_logs")

    def destroy(self) -> None:
        self._called("destroy")
