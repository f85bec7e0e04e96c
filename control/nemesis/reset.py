"""Resets: connections between nodes die while the network is fine.

By `ss -K`, which makes the kernel abort a connection at both ends. Peers connect again at once;
what was on its way is lost, and nobody can tell whether it arrived. There is nothing to undo.
"""

import re
import shlex
from typing import Any, Final

from labrys.control.environments.base import check, on_nodes
from labrys.control.errors import MachineError
from labrys.control.nemesis.aimed import AimedFault
from labrys.control.nemesis.package import Outcome, Planned, each

# A connection of the node with itself: does it die?
_TRY: Final = """\
import socket, subprocess
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
port = client.getsockname()[1]
subprocess.run(["ss", "-K", "-t", "src", f"127.0.0.1:{port}"], check=True, capture_output=True)
client.settimeout(1)
try:
    client.recv(1)
    raise SystemExit("the connection was closed in order")
except ConnectionError:
    pass
except TimeoutError:
    raise SystemExit("ss -K had no effect: the kernel lacks CONFIG_INET_DIAG_DESTROY")
"""


class Reset(AimedFault):
    """Aborts all connections between the targets and their peers; those of clients live on."""

    kind = "reset"
    start_f = "reset"
    stop_f = "reconnect"
    undo_order = 0
    shade = "#d9a7c7"
    mechanism = "ss -K aborts TCP connections"
    evidence = "connections that it names"
    cure_word = "nothing: peers connect again"
    nodes_min = 2

    def apply(self, planned: Planned) -> Outcome:
        """Abort the connections of the targets; what `ss` names has died."""
        died, errors = each(planned.targets, self._abort)
        observed: dict[str, Any] = {node: {"connections": by} for node, by in died.items() if by}
        return Outcome(
            done={node: f"lost {sum(by.values())} connections" for node, by in died.items()},
            observed=observed,
            bit=bool(observed),
            errors=errors,
        )

    def undo(self) -> Outcome:
        """Nothing to undo: nothing keeps the nodes from connecting again."""
        return Outcome()

    def set_up(self) -> None:
        """See that connections can be aborted. Raises MachineError where they cannot."""

        def attempt(node: str) -> None:
            script = f"{self.env.python(node)} -c {shlex.quote(_TRY)}"
            output = self.env.run(node, script)
            if output.code != 0:
                said = (output.err.strip() or output.out.strip()).splitlines()[-1:]
                raise MachineError(
                    f"{node}: connections cannot be aborted: {''.join(said)}. It takes `ss` "
                    "(iproute2), the capability NET_ADMIN and CONFIG_INET_DIAG_DESTROY"
                )

        on_nodes(self.env.nodes, attempt)

    def tear_down(self) -> None:
        """Nothing to put in order."""

    def _abort(self, node: str) -> dict[str, int]:
        """Return how many connections died, by peer."""
        env = self.env
        peers = {env.address(peer): peer for peer in env.nodes if peer != node}
        anyone = " or ".join(f"dst {address}" for address in peers)
        script = f"ss -H -n -K -t state established '( {anyone} )'"
        died: dict[str, int] = {}
        for line in check(node, "aborting connections", env.run(node, script)).splitlines():
            addresses = re.findall(r"([0-9.]+):\d+", line)
            if len(addresses) == 2 and addresses[1] in peers:
                peer = peers[addresses[1]]
                died[peer] = died.get(peer, 0) + 1
        return died
