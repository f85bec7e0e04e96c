"""Nodes as processes in network namespaces: the embedded default, without root and Docker.

Everything here happens inside the private world of `namespaces.enter`, which must have been called
first. A node is a network namespace with one address on a bridge; the controller holds the last
address of the network and sits on the same bridge, so clients reach every node whatever the
nodes' own iptables rules do to each other. All nodes share the file system and the PID namespace
of the controller: a node's home is a folder of the private tmpfs /run, and its log folder lies in
the run directory itself, so that logs survive even a controller that is killed.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from labrys.control.environments import namespaces
from labrys.control.environments.base import Output, check, on_nodes, output
from labrys.control.environments.gate import Gate
from labrys.control.environments.namespaces import enter
from labrys.control.environments.scripts import run_script, search_path
from labrys.control.errors import ClusterError, InternalError, MachineError, UsageError

__all__ = ["NetnsEnvironment", "enter", "probe"]

_NETWORK = "10.213.0"
_CONTROLLER = 254
_BRIDGE = "br0"
_LINK = "veth"
_GROUP = 213  # of the links made here, so that they can be deleted together
_GONE_WITHIN_S = 5.0

# TCP doubles its retransmission time-out while a cut lasts, and after a cut of 15 s the connection
# sits silent for another 11 s. Where the kernel can bound it to a second, the lag after a heal is
# at most that. The bound alone makes a connection give up early, hence more retries. IPv6
# link-local addresses would go round the IPv4 rules of a partition.
NODE_SYSCTLS = """
cd /proc/sys/net
for disable in ipv6/conf/all/disable_ipv6 ipv6/conf/default/disable_ipv6; do
    if [ -e $disable ]; then echo 1 >$disable; fi
done
if [ -e ipv4/tcp_rto_max_ms ]; then
    echo 1000 >ipv4/tcp_rto_max_ms
    echo 60 >ipv4/tcp_retries2
fi
"""


def probe() -> str | None:
    """Return None if this machine can run nodes in network namespaces, else the reason and mend.

    It really tries, in a child process: private namespaces, a named network namespace and an
    iptables chain in it. Takes about 20 ms and leaves nothing behind.
    """
    reason = namespaces.attempt(_try_chain, timeout_s=10)
    return f"netns: {reason}" if reason else None


class NetnsEnvironment:
    """Nodes in network namespaces on one bridge, 10.213.0.1 for the first node and so on."""

    def __init__(self, nodes: tuple[str, ...], run_dir: Path, say: Callable[[str], None]) -> None:
        """`run_dir` is the run directory, where logs go; `say` gets progress lines."""
        if len(nodes) >= _CONTROLLER:
            raise UsageError(f"netns: {len(nodes)} nodes asked for; {_CONTROLLER - 1} fit")
        self._nodes = nodes
        self._run_dir = run_dir.resolve()
        self._say = say
        self._gate = Gate()
        self._frozen: dict[str, dict[int, int]] = {}
        """By node that stands still: descriptors of the processes that were stopped, by pid."""

    @property
    def name(self) -> str:
        """The name of this environment."""
        return "netns"

    @property
    def nodes(self) -> tuple[str, ...]:
        """The node names."""
        return self._nodes

    def require(self, needs: frozenset[str]) -> None:
        """Nodes here can do whatever the private world can."""

    def provision(self) -> None:
        """Make the bridge and one namespace per node. About 50 ms for five.

        Raises InternalError outside a private world (it would change the host's network),
        MachineError if the kernel refuses.
        """
        if not namespaces.entered():
            raise InternalError("netns: provision before enter")
        started = time.monotonic()
        lines = [
            f"link add {_BRIDGE} group {_GROUP} type bridge",
            f"addr add {_NETWORK}.{_CONTROLLER}/24 dev {_BRIDGE}",
            f"link set {_BRIDGE} up",
        ]
        for number, node in enumerate(self._nodes, start=1):
            lines += [
                f"netns add {node}",
                f"link add {_LINK}{number} group {_GROUP} type veth peer name eth0 netns {node}",
                f"link set {_LINK}{number} master {_BRIDGE} up",
            ]
        _batch(lines)
        on_nodes(self._nodes, self._prepare)
        self._say(
            f"netns: {len(self._nodes)} nodes up in {(time.monotonic() - started) * 1000:.0f} ms"
        )

    def address(self, node: str) -> str:
        """The IP address of `node`."""
        return f"{_NETWORK}.{self._nodes.index(node) + 1}"

    def home(self, node: str) -> str:
        """The folder of `node` on the private tmpfs."""
        return f"/run/labrys/{node}"

    def log_dir(self, node: str) -> str:
        """The log folder of `node`, inside the run directory."""
        return str(self._run_dir / "nodes" / node)

    def python(self, node: str) -> str:
        """The controller's own interpreter: nodes share its file system."""
        return sys.executable

    def run(self, node: str, script: str, *, timeout_s: float = 10.0) -> Output:
        """Run `script` with /bin/sh in the namespace of `node`. About 2 ms."""
        within = ("nsenter", f"--net=/run/netns/{node}")
        with self._gate.passed(node):
            return output(node, script, timeout_s, run_script(script, timeout_s, within))

    def upload(self, node: str, files: Mapping[str, bytes]) -> None:
        """Put files, by path below `home(node)`, into `node`."""
        for path, content in files.items():
            target = Path(self.home(node), path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)

    def freeze(self, node: str) -> int:
        """Stop every process in the namespace of `node`; return how many have stopped.

        Those that somebody else had stopped before are none of ours: `thaw` leaves them asleep.
        """
        self._gate.close(node)
        ours = self._frozen.setdefault(node, {})
        inode = os.stat(f"/run/netns/{node}").st_ino
        deadline = time.monotonic() + _GONE_WITHIN_S
        # Again and again: a process that was not stopped yet may have made another.
        while awake := [pid for pid in _processes_in({inode}) if not _has_stopped(pid)]:
            if time.monotonic() > deadline:
                raise ClusterError(f"{node}: told to stop, but still going: processes {awake}")
            for pid in awake:
                with contextlib.suppress(ProcessLookupError):
                    if pid not in ours:
                        ours[pid] = os.pidfd_open(pid)
                    signal.pidfd_send_signal(ours[pid], signal.SIGSTOP)
            time.sleep(0.002)
        return len(ours)

    def thaw(self, node: str) -> bool:
        """Let go on what `freeze` stopped; whether it had stopped anything."""
        ours = self._frozen.pop(node, {})
        for descriptor in ours.values():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGCONT)
            os.close(descriptor)
        self._gate.open(node)
        return bool(ours)

    def collect_logs(self, node: str, into: Path) -> None:
        """Copy the files of `log_dir(node)` to `into`, unless they lie there already."""
        source = Path(self.log_dir(node))
        if source.is_dir() and into.resolve() != source:
            shutil.copytree(source, into, dirs_exist_ok=True)

    def destroy(self) -> None:
        """Kill what runs in the nodes and remove namespaces, bridge and homes. Idempotent."""
        if not namespaces.entered():
            return  # nothing can have been made
        made = [node for node in self._nodes if Path("/run/netns", node).exists()]
        _kill_all(made)
        for node in self._nodes:
            self.thaw(node)
        # Deleting a namespace takes its end of a veth pair along, but at a time of the kernel's own
        # choosing. Deleted as a group, the links are gone on return and can be made again; one by
        # one they would cost 25 ms each.
        lines = [f"netns del {node}" for node in made]
        links = [name for _, name in socket.if_nameindex()]
        if any(name == _BRIDGE or name.startswith(_LINK) for name in links):
            lines.insert(0, f"link del group {_GROUP}")  # an empty group would be an error
        _batch(lines)
        for node in self._nodes:
            for mounted in _mounts_below(self.home(node)):
                namespaces.unmount(mounted)
            shutil.rmtree(self.home(node), ignore_errors=True)

    def _prepare(self, node: str) -> None:
        Path(self.home(node)).mkdir(parents=True, exist_ok=True)
        Path(self.log_dir(node)).mkdir(parents=True, exist_ok=True)
        script = f"""{NODE_SYSCTLS}
ip -batch - <<END
link set lo up
addr add {self.address(node)}/24 dev eth0
link set eth0 up
END
"""
        check(node, "setting up its network", self.run(node, script))


def _mounts_below(folder: str) -> list[str]:
    """Where file systems are mounted below `folder`, the innermost first."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    places = [line.split(" ")[1] for line in mounts]
    return [place for place in reversed(places) if place.startswith(f"{folder}/")]


def _batch(lines: list[str]) -> None:
    """Run `ip` commands in one process; all of them, even if one fails."""
    done = subprocess.run(
        ["ip", "-force", "-batch", "-"],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": search_path()},
        check=False,
    )
    if done.returncode != 0:
        raise MachineError(f"netns: ip refused: {done.stderr.strip()[:1000]}")


def _kill_all(nodes: list[str]) -> None:
    """Kill every process in the network namespaces of `nodes` and wait until all are gone."""
    inodes = {os.stat(f"/run/netns/{node}").st_ino for node in nodes}
    deadline = time.monotonic() + _GONE_WITHIN_S
    while left := list(_processes_in(inodes)):
        if time.monotonic() > deadline:
            raise ClusterError(f"netns: killed, but still there: processes {left}")
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


def _processes_in(inodes: set[int]) -> Iterator[int]:
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            # A process may end while we look, and a zombie has no namespaces any more.
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{entry}/ns/net").st_ino in inodes:
                    yield int(entry)


def _has_stopped(pid: int) -> bool:
    """Whether a process stands still, or is no more."""
    try:
        # proc(5): the name, field 2, may itself hold spaces and brackets; the state is field 3.
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "TZX"


def _try_chain() -> None:
    """Make one node and a rule in it, or raise MachineError."""
    script = "ip netns add probe && nsenter --net=/run/netns/probe iptables -w -N LABRYS"
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": search_path()},
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.strip()[:500]
        raise MachineError(
            f"namespaces work, but iptables in them does not: {said}. "
            "If a kernel module is missing: sudo modprobe nf_tables (or ip_tables); "
            "if the other backend works: update-alternatives --config iptables"
        )
