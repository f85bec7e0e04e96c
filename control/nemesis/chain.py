"""An iptables chain of our own in each node, which INPUT or another chain jumps to.

It is always set as a whole by one `iptables-restore`, which is atomic within a node, so a change is
either there or not, doing it twice is the same as doing it once, and a heal is simply the chain
without rules. Nobody else's rules are touched (Docker's name server lives in the nat table of every
container).

What one program has let pass from a queue skips the rest of the chains at that place, and goes on
at the next. So chains with queues have places of their own, before the filter's INPUT: otherwise
packets that are delayed would come through every partition.
"""

import re
from collections.abc import Mapping
from typing import Final

from labrys.control.environments.base import Environment, check, on_nodes
from labrys.control.errors import ClusterError, MachineError
from labrys.control.nemesis.package import Outcome, each

_LOCK_WAIT_S: Final = 5
"""How long iptables waits while another program holds its lock."""


class Chain:
    """The chain `name` in every node of an environment."""

    def __init__(
        self,
        env: Environment,
        name: str,
        what: str,
        *,
        table: str = "filter",
        hook: str = "INPUT",
    ) -> None:
        """`what` needs it: that is told where a machine cannot do it."""
        self.name = name
        self.hook = hook
        self.iptables = f"iptables -w {_LOCK_WAIT_S} -t {table}"
        """The command that works on its table."""
        self._table = table
        self._env = env
        self._what = what
        self._counter = re.compile(
            rf"^-A {name} -s ([0-9.]+)(?:/32)? .*?-c (\d+) \d+", re.MULTILINE
        )

    def prepare(self) -> dict[str, str]:
        """Make the chain without rules in every node; return what `iptables -V` says by node.

        Raises MachineError where iptables cannot do it.
        """

        def prepare(node: str) -> str:
            version = self._env.run(node, "iptables -V")
            if version.code != 0:
                said = version.err.strip()
                raise MachineError(f"{node}: {self._what} need iptables in the node: {said}")
            try:
                self.set(node, {})
            except ClusterError as error:
                raise MachineError(
                    f"{error}. {self._what.capitalize()} need root and the capability NET_ADMIN "
                    "in the node"
                ) from error
            return version.out.strip()

        return on_nodes(self._env.nodes, prepare)

    def set(self, node: str, rules: Mapping[str, str]) -> dict[str, int]:
        """Give the chain in `node` the `rules`: by peer, what to do with what comes from there.

        Returns how many packets from each peer came to the rules that were there before.
        """
        env = self._env
        peers = {env.address(peer): peer for peer in env.nodes}
        lines = [
            f"-A {self.name} -s {address} {rules[peer]}\n"
            for address, peer in peers.items()
            if peer in rules
        ]
        output = env.run(node, self._script("".join(lines)))
        if output.code == 4 and "lock" in output.err:
            raise ClusterError(
                f"{node}: another program holds the iptables lock; waited {_LOCK_WAIT_S} s. "
                "Is another rig running?"
            )
        listing = check(node, f"setting the iptables chain {self.name}", output)
        packets: dict[str, int] = {}
        for address, count in self._counter.findall(listing):
            if address in peers:
                peer = peers[address]
                packets[peer] = packets.get(peer, 0) + int(count)
        return packets

    def set_for_peers(self, node: str, rule: str) -> dict[str, int]:
        """Give what comes to `node` from all others the same `rule`; see `set`."""
        return self.set(node, {peer: rule for peer in self._env.nodes if peer != node})

    def heal(self, done: str) -> Outcome:
        """Take the rules away from every node, and call that `done`.

        The evidence is how many packets came to them until then; it bit if any did.
        """
        packets, errors = each(self._env.nodes, lambda node: self.set(node, {}))
        return Outcome(
            done=dict.fromkeys(packets, done),
            observed={
                node: {"packets": sum(by_peer.values()), "from": by_peer}
                for node, by_peer in packets.items()
                if by_peer
            },
            bit=any(sum(by_peer.values()) > 0 for by_peer in packets.values()),
            errors=errors,
        )

    def remove(self) -> None:
        """Remove the chain from every node."""
        iptables = self.iptables
        script = f"""\
{iptables} -n -L {self.name} >/dev/null
case $? in
    0) ;;
    1 | 127) exit 0 ;; # no such chain, no such program
    *) exit 1 ;;
esac
while {iptables} -D {self.hook} -j {self.name} 2>/dev/null; do :; done
{iptables} -F {self.name} && {iptables} -X {self.name}
"""
        what = f"removing the iptables chain {self.name}"
        on_nodes(self._env.nodes, lambda node: check(node, what, self._env.run(node, script)))

    def _script(self, rules: str) -> str:
        """The script that prints the chain with its counters and then gives it `rules`.

        With --noflush, naming the chain makes it if it is missing and empties it if it is there. A
        chain that nobody jumps to would do nothing, so the jump is looked after each time.
        """
        iptables = self.iptables
        return f"""\
{iptables} -v -S {self.name} 2>/dev/null
iptables-restore -w {_LOCK_WAIT_S} --noflush <<'END' || exit
*{self._table}
:{self.name} - [0:0]
{rules}COMMIT
END
{iptables} -C {self.hook} -j {self.name} 2>/dev/null || {iptables} -I {self.hook} -j {self.name}
"""
