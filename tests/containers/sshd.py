"""Hosts for tests: containers with sshd, and a home whose ~/.ssh knows them."""

import os
from collections.abc import Iterable
from pathlib import Path

import paramiko

from labrys.control.environments.base import check, on_nodes
from labrys.control.environments.docker import DockerEnvironment

_START = """\
mkdir -p /run/sshd /root/.ssh && chmod 700 /root/.ssh
key=/etc/ssh/ssh_host_ed25519_key
[ -e $key ] || ssh-keygen -q -t ed25519 -N '' -f $key
/usr/sbin/sshd -h $key -o UsePAM=no
cut -d' ' -f1,2 $key.pub
"""


class Hosts:
    """Machines with sshd, each named as its node is."""

    def __init__(self, machines: DockerEnvironment, user_home: Path) -> None:
        """`machines` are provisioned; `user_home` becomes somebody's home who may log in."""
        self.machines = machines
        self.home = user_home
        self.ssh = user_home / ".ssh"
        self.ssh.mkdir(mode=0o700)
        key = paramiko.ECDSAKey.generate()
        key.write_private_key_file(str(self.ssh / "id_ecdsa"))
        self.public_key = f"{key.get_name()} {key.get_base64()} test\n"
        keys = on_nodes(machines.nodes, self._start)
        self.known_hosts = {node: keys[node].strip() for node in machines.nodes}
        self.write_known_hosts(machines.nodes)
        self.write_config()

    def write_config(self, more: str = "") -> None:
        """Write ~/.ssh/config with the nodes' addresses; `more` comes first."""
        sections = [
            f"Host {node}\n    HostName {self.machines.address(node)}\n    User root\n"
            for node in self.machines.nodes
        ]
        (self.ssh / "config").write_text(more + "\n".join(sections))

    def write_known_hosts(self, nodes: Iterable[str]) -> None:
        """Let the keys of some nodes be known."""
        lines = [f"{self.machines.address(node)} {self.known_hosts[node]}\n" for node in nodes]
        (self.ssh / "known_hosts").write_text("".join(lines))

    def environ(self) -> dict[str, str]:
        """The environment of a process of that somebody, without an agent."""
        kept = {key: value for key, value in os.environ.items() if key != "SSH_AUTH_SOCK"}
        return {**kept, "HOME": str(self.home)}

    def leftovers(self, node: str) -> str:
        """What runs left on a host, in words; empty if nothing."""
        script = """\
for table in filter mangle; do iptables -w 5 -t $table -S | grep LABRYS; done
ls -d /run/labrys.lock /var/log/labrys 2>/dev/null
ls -A /var/lib/labrys 2>/dev/null
grep ' /var/lib/labrys/' /proc/mounts
for file in /proc/[0-9]*/cmdline; do
    tr '\\0' ' ' <$file 2>/dev/null | grep -E 'labrys[.]node|delayer[.]py'
done
exit 0
"""
        return check(node, "looking for leftovers", self.machines.run(node, script))

    def _start(self, node: str) -> str:
        self.machines.upload(node, {"authorized_keys": self.public_key.encode()})
        place = f"{self.machines.home(node)}/authorized_keys"
        script = f"{_START}mv {place} /root/.ssh/authorized_keys\nchmod 600 /root/.ssh/*\n"
        script += "rmdir /var/log/labrys\n"
        return check(node, "starting sshd", self.machines.run(node, script))
