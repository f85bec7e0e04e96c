"""A program of ours that does its work inside the nodes, for as long as a fault holds.

It is a single file of the standard library. It is told whom to hurt on its command line, writes a
first line of facts, as JSON, once it is at work, and the last ones when it ends, on SIGTERM. It is
known by its pid file, so that whoever undoes a fault needs to know nothing of it.
"""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from labrys.control import process
from labrys.control.environments.base import Environment, check
from labrys.control.errors import ClusterError

_POLLS_S: Final = (0.02, 0.02, 0.05, 0.1, 0.2, 0.2, 0.5, 0.5, 1, 1, 1, 1, 1, 1, 1, 1)
"""When to look whether it is at work. Looking takes CPU time, and in a node that has little of it,
looking every few milliseconds would leave none for the program to come up."""


class Helper:
    """The program `source` as the process `name` of each node."""

    def __init__(self, env: Environment, name: str, source: str) -> None:
        """`source` is a file of this machine."""
        self._env = env
        self._name = name
        self._source = Path(source)

    def install(self, node: str) -> None:
        """Put it into `node`."""
        self._env.upload(node, {f"{self._name}.py": self._source.read_bytes()})

    def start(self, node: str, *words: str) -> None:
        """Start it with `words` and return once it is at work; ClusterError if it is not."""
        env, name = self._env, self._name
        home = env.home(node)
        facts, log = f"{home}/{name}.json", f"{home}/{name}.log"
        argv = [env.python(node), f"{home}/{name}.py", *words, facts]
        process.start(env, node, name, argv, log)
        script = f"""\
for pause in {" ".join(map(str, _POLLS_S))}; do
    if [ -s {shlex.quote(facts)} ]; then exit 0; fi
    sleep $pause
done
tail -n 3 {shlex.quote(log)} >&2
exit 1
"""
        output = env.run(node, script, timeout_s=sum(_POLLS_S) + 10)
        if output.code != 0:
            process.kill(env, node, name)
        check(node, f"starting the {name}", output)

    def stop(self, node: str) -> Mapping[str, Any]:
        """End it and return its last facts; nothing where there are none."""
        env, name = self._env, self._name
        if process.signal(env, node, name, "TERM"):
            try:
                process.wait_gone(env, node, name)
            except ClusterError:  # it hangs: what it holds goes with it
                process.kill(env, node, name)
        quoted = shlex.quote(f"{env.home(node)}/{name}.json")
        script = f"cat {quoted} 2>/dev/null; rm -f {quoted}"
        said = check(node, f"reading the facts of the {name}", env.run(node, script))
        facts: dict[str, Any] = json.loads(said or "{}")
        return facts
