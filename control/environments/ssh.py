"""Nodes as hosts that somebody else runs, through ssh: the Jepsen way.

A host is reached as the user's own ssh reaches it (see `ssh_config`), with its key checked. It
needs Python, iptables and iproute2, and root or sudo without a password. Peers and clients use the
IPv4 address that the host's name resolves to on the controller, which must be the host's own.

Scripts run through one long-lived process per host (see `shell`), which also holds the host for
this run: two runs on one host would undo each other's faults (see `tenant`). Every run cleans a
host before it uses it, as if somebody had died there, and leaves nothing when it goes.

A connection that is lost is made again for the next script. A script whose answer was lost is not
sent a second time: nobody knows whether it ran.
"""

import ipaddress
import json
import platform
import re
import shlex
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any, Final

from labrys.control import process
from labrys.control.environments import owner, scripts, ssh_config, tenant, wheels
from labrys.control.environments.archives import pack, unpack_logs
from labrys.control.environments.base import Output, check, on_nodes, output
from labrys.control.environments.held import Held, forget_held, write_held
from labrys.control.environments.shell import BOOT, Shell
from labrys.control.environments.ssh_connection import (
    ChannelLink,
    Connection,
    Ended,
    agent_keys,
    connect,
)
from labrys.control.errors import ClusterError, InternalError, LabrysError, MachineError, UsageError

_RESULTS: Final = "results.json"
_HOME: Final = "/var/lib/labrys"
_LOGS: Final = "/var/log/labrys"
_LOCK: Final = "/run/labrys.lock"
_ANSWER_TIMEOUT_S: Final = 40.0
_PATIENCE_S: Final = 12.0
"""How long a lock may stay with a connection that is lost, until its process is killed."""
_CLEAN_TIMEOUT_S: Final = 60.0
_VENV_TIMEOUT_S: Final = 120.0
_COPY_TIMEOUT_S: Final = 120.0
_TOOLS: Final = {"ip": "iproute2", "iptables": "iptables", "setsid": "util-linux", "tar": "tar"}
"""What every host must have, and the Debian package that brings it."""
_PYTHONS: Final = "python3 python3.14 python3.13 python3.12 python3.11 /usr/local/bin/python3"

# Only our own chains, and the rules that jump to them: the rest of the host's firewall is not ours.
_REMOVE_CHAINS: Final = """\
for table in filter mangle; do
    chains=$(iptables -w 5 -t $table -S 2>/dev/null | sed -n 's/^-N \\(LABRYS[^ ]*\\)$/\\1/p')
    [ -n "$chains" ] || continue
    iptables -w 5 -t $table -S | sed -n '/^-A .* -j LABRYS[^ ]*$/s/^-A/-D/p' |
        while read -r rule; do iptables -w 5 -t $table $rule || exit 1; done || exit 1
    for chain in $chains; do iptables -w 5 -t $table -F $chain || exit 1; done
    for chain in $chains; do iptables -w 5 -t $table -X $chain || exit 1; done
done
"""

# The folders themselves may be mounts.
_REMOVE_FOLDERS: Final = f"""\
for folder in {_HOME} {_LOGS}; do
    [ -d $folder ] || continue
    sed -n "s#^[^ ]* \\($folder/[^ ]*\\) .*#\\1#p" /proc/mounts | sort -r | while read -r mount; do
        umount -l "$mount" || exit 1
    done || exit 1
    find $folder -mindepth 1 -maxdepth 1 -exec rm -rf --one-file-system {{}} + || exit 1
    rmdir $folder 2>/dev/null
done
exit 0
"""


def probe() -> str | None:
    """Return None if this machine can use ssh, else why not and the mend."""
    try:
        ssh_config.read_config()
    except UsageError as error:
        return str(error)
    return None


def describe() -> tuple[bool, str]:
    """Return whether there is a key to log in with, and what there is, in words."""
    reason = probe()
    if reason is not None:
        return False, reason
    config = ssh_config.read_config()
    named = [host for host in config.get_hostnames() if not set("*?!") & set(host)]
    files = {key for host in named for key in ssh_config.destination(host, config).keys}
    files |= set(map(str, Path("~/.ssh").expanduser().glob("id_*")))
    files = {file for file in files if not file.endswith(".pub")}
    agent = len(agent_keys())
    hosts = f"{len(named)} hosts in ~/.ssh/config" if named else "no hosts in ~/.ssh/config"
    found = f"{agent} keys in the agent, {len(files)} key files, {hosts}"
    if not agent and not files:
        return False, (
            f"no key to log in with ({found}): ssh-keygen -t ed25519, then ssh-copy-id HOST for "
            "each host, or ssh-add"
        )
    return True, f"{found}; labrys test --env ssh --hosts A,B,C"


class SshEnvironment:
    """Nodes on hosts that are reached by ssh."""

    def __init__(
        self,
        nodes: tuple[str, ...],
        run_dir: Path,
        say: Callable[[str], None],
        hosts: Sequence[str] = (),
        *,
        token: str | None = None,
    ) -> None:
        """`hosts` in the order of the nodes; none: they are called as the nodes are.

        `token` names an earlier use of the hosts, which is to be finished.
        """
        if hosts and len(hosts) != len(nodes):
            raise UsageError(f"--hosts: {len(hosts)} hosts for {len(nodes)} nodes")
        self._nodes = nodes
        self._hosts = dict(zip(nodes, hosts or nodes, strict=True))
        self._run_dir = run_dir.resolve()
        self._say = say
        self._token = token or token_hex(8)
        self._config = ssh_config.read_config()
        self._connecting = {node: threading.Lock() for node in nodes}
        self._lock = threading.Lock()  # of all that follows
        self._connections: dict[str, Connection] = {}
        self._needs: frozenset[str] = frozenset()
        self._addresses: dict[str, str] = {}
        self._pythons: dict[str, str] = {}
        self._held: set[str] = set()
        """The nodes whose hosts this run may hold."""
        self._shells = {node: Shell(node, self._opener(node)) for node in nodes}

    @property
    def name(self) -> str:
        """The name of this environment."""
        return "ssh"

    @property
    def nodes(self) -> tuple[str, ...]:
        """The node names."""
        return self._nodes

    def require(self, needs: frozenset[str]) -> None:
        """Have `provision` look whether the hosts can do it. Beyond that, root there can do all."""
        self._needs = needs

    def provision(self) -> None:
        """Connect to all hosts, take them for this run, and clean what an earlier one left there.

        Raises MachineError for a host that cannot be reached, is in use, or lacks something.
        """
        started = time.monotonic()
        write_held(self._run_dir, Held(self._token, self._hosts))
        self._addresses = on_nodes(self._nodes, self._resolve)
        _assert_distinct(self._addresses)
        on_nodes(self._nodes, self._take)
        on_nodes(self._nodes, self._prepare)
        self._make_pythons()
        took = time.monotonic() - started
        self._say(f"ssh: {len(self._nodes)} nodes ready in {took:.1f} s")

    def address(self, node: str) -> str:
        """The IPv4 address of the host; known once it was provisioned."""
        if node not in self._addresses:
            raise InternalError("ssh: address asked for before provision")
        return self._addresses[node]

    def home(self, node: str) -> str:
        """The folder on the host."""
        return _HOME

    def log_dir(self, node: str) -> str:
        """The log folder on the host."""
        return _LOGS

    def python(self, node: str) -> str:
        """The host's own interpreter if it has all that the node needs, else one made for it."""
        return self._pythons[node]

    def run(self, node: str, script: str, *, timeout_s: float = 10.0) -> Output:
        """Run `script` with /bin/sh as root on the host. About 3 ms.

        A node's scripts run one after the other, whatever threads they come from.
        """
        if node not in self._held:
            raise ClusterError(f"{node}: its host is not held for this run; was it provisioned?")
        try:
            return output(node, script, timeout_s, self._shells[node].run(script, timeout_s))
        except MachineError as error:  # the connection was lost and cannot be made again
            raise ClusterError(f"{node}: {error}") from error

    def upload(self, node: str, files: Mapping[str, bytes]) -> None:
        """Put files, by path below `home(node)`, onto the host."""
        command = f"tar -C {_HOME} -xf -"
        done = self._execute(node, command, "upload", pack(files))
        if done.code != 0:
            raise ClusterError(f"{node}: upload failed (exit {done.code}): {done.err.strip()}")

    def collect_logs(self, node: str, into: Path) -> None:
        """Copy the files of `log_dir(node)` to `into`; a host that was never taken has none."""
        if node not in self._held:
            return
        parent, folder = _LOGS.rsplit("/", 1)
        command = f"if [ -d {_LOGS} ]; then tar -C {parent} -cf - {folder}; fi"
        done = self._execute(node, command, "fetching its logs")
        if done.code > 1:  # 1: a file grew while it was read
            raise ClusterError(
                f"{node}: its logs cannot be copied (exit {done.code}): {done.err.strip()[-500:]}"
            )
        if done.out:
            unpack_logs(node, done.out, into)

    def destroy(self) -> None:
        """Clean every host that this run holds and let go of it. Idempotent.

        One that cannot be reached does not stop the others; it stays marked in the run directory.
        """
        try:
            on_nodes(tuple(self._held), self._leave)
        except LabrysError as error:
            failure = MachineError(f"ssh: clean-up failed, try labrys heal: {error}")
            for note in getattr(error, "__notes__", ()):  # the other hosts that failed
                failure.add_note(note)
            raise failure from error
        finally:
            self.close()
            if not self._held:
                forget_held(self._run_dir)

    def close(self) -> None:
        """Close all connections. What is held stays held."""
        for shell in self._shells.values():
            shell.close()
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def finish(self, node: str) -> bool:
        """Do for a dead run what it could not: save the logs of a node, clean its host, let go.

        Returns False if the host is not held for that run any more. Raises LabrysError.
        """
        link = self._open(node, only_if_there=True)
        if link is None:
            return False
        link.close()
        into = self._run_dir / "nodes" / node
        self._kill_all(node)
        into.mkdir(parents=True, exist_ok=True)
        try:
            self.collect_logs(node, into)
        finally:
            self._leave(node)
        return True

    def _resolve(self, node: str) -> str:
        """Return the host's address. Raises MachineError where peers could not use it."""
        host = self._hosts[node]
        hostname = ssh_config.destination(host, self._config).hostname
        try:
            found = socket.getaddrinfo(hostname, None, socket.AF_INET, socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise MachineError(
                f"{node}: no IPv4 address for the host {hostname}: {error.strerror}. Peers and "
                "clients need one: name the hosts with --hosts, or write HostName into "
                "~/.ssh/config"
            ) from error
        address = str(found[0][4][0])
        if ipaddress.ip_address(address).is_loopback:
            raise MachineError(
                f"{node}: the host {hostname} is {address} here, which its peers cannot reach; "
                "give it the address that the other hosts use"
            )
        return address

    def _take(self, node: str) -> None:
        """Open the node's shell, which takes its host for this run."""
        self._shells[node].run("true", _ANSWER_TIMEOUT_S)

    def _opener(self, node: str) -> Callable[[], ChannelLink]:
        def open_again() -> ChannelLink:
            link = self._open(node, only_if_there=False)
            assert link is not None, "taken or raised"
            return link

        return open_again

    def _open(self, node: str, *, only_if_there: bool) -> ChannelLink | None:
        """Return the link to a new shell on the host, which is then held for this run.

        None: it is not, nor has to be. Raises MachineError if it cannot be had.
        """
        connection = self._connected(node)
        record = {
            "token": self._token,
            "node": node,
            "run": str(self._run_dir),
            "machine": platform.node(),
            **owner.marks(),
        }
        wish = {
            "path": _LOCK,
            "record": record,
            "only_if_there": only_if_there,
            "patience_s": _PATIENCE_S,
            "program": Path(scripts.__file__).read_text(),
        }
        source = Path(tenant.__file__).read_text()
        lines = f"{json.dumps(source)}\n{json.dumps(wish)}\n".encode()
        try:
            link = connection.start(_as_root(f"exec python3 -c {shlex.quote(BOOT)}"))
            try:
                link.send(lines)
                answer = _answer(link)
                if "tenant" in answer:
                    if only_if_there:
                        link.close()
                        return None
                    self._judge(node, answer["tenant"], is_connected=answer["is_connected"])
                    link.send(b"take\n")
                    answer = _answer(link)
            except BaseException:
                link.close()
                raise
        except (OSError, EOFError, ValueError) as error:
            raise MachineError(_explain(connection.place, node, str(error))) from error
        if "absent" in answer:
            link.close()
            return None
        assert "taken" in answer, f"{node}: {answer}"
        with self._lock:
            self._held.add(node)
        return link

    def _judge(self, node: str, there: dict[str, Any], *, is_connected: bool) -> None:
        """Return if the tenant of a host is over; else raise MachineError that says whose it is."""
        run = there.get("run", "?")
        what = f"{node}: the host {self._hosts[node]} is"
        if there.get("token") == self._token:
            raise MachineError(f"{what} the same machine as {there.get('node')}'s; each needs one")
        marks = {key: str(value) for key, value in there.items()}
        lives = owner.lives(marks)
        pid = marks.get(owner.OWNER, "?").partition(":")[0]
        if lives or (lives is None and is_connected):
            raise MachineError(
                f"{what} in use by the run {run} of process {pid} on {there.get('machine')}; "
                "wait for its end, or name other hosts"
            )
        if lives is False and Path(run, _RESULTS).is_file():
            raise MachineError(
                f"{what} still held for the run {run}, which left its cluster standing or could "
                f"not remove it; `labrys heal --runs-dir {Path(run).parent.parent}` does"
            )
        self._say(f"ssh: {node} was left by the dead run {run}; cleaning it")

    def _connected(self, node: str) -> Connection:
        """Return the connection to a host, made again if it was lost."""
        with self._connecting[node]:
            connection = self._connections.get(node)
            if connection is not None:
                if connection.is_alive():
                    return connection
                connection.close()
            to = ssh_config.destination(self._hosts[node], self._config)
            connection = connect(to, self._config)
            with self._lock:
                self._connections[node] = connection
            return connection

    def _prepare(self, node: str) -> None:
        """Clean the host, look whether it can be a node, and make its folders."""
        missing = [tool for tool in self._run_checked(node, _missing_tools(), "looking").split()]
        if missing:
            packages = " ".join(dict.fromkeys(_TOOLS[tool] for tool in missing))
            raise MachineError(
                f"{node}: the host {self._hosts[node]} lacks {', '.join(missing)}; "
                f"on Debian: apt-get install {packages}"
            )
        self._check_needs(node)
        self._clean(node)
        self._check_addresses(node)
        self._run_checked(node, f"mkdir -p {_HOME} {_LOGS}", "making its folders")

    def _check_needs(self, node: str) -> None:
        """Raise MachineError if faults that were asked for take what this host lacks."""
        if "fuse" in self._needs and self.run(node, "test -c /dev/fuse").code != 0:
            raise MachineError(
                f"{node}: the host {self._hosts[node]} has no /dev/fuse, which the faults disk and "
                "power take: `modprobe fuse` there, or leave these two out"
            )

    def _check_addresses(self, node: str) -> None:
        """Raise MachineError unless what this host sends to its peers comes from its address."""
        address = self.address(node)
        own = self._run_checked(node, "ip -o -4 addr", "listing its addresses")
        if f" {address}/" not in own:
            has = ", ".join(re.findall(r" inet (?!127\.)([0-9.]+)/", own))
            raise MachineError(
                f"{node}: the host {self._hosts[node]} is {address} here, but has {has} itself "
                "(a router that translates addresses?); peers need an address of its own"
            )
        for peer in self._nodes:
            if peer == node:
                continue
            script = f"ip -o route get {self.address(peer)}"
            route = self._run_checked(node, script, f"finding the way to {peer}")
            if f" src {address} " not in f"{route} ":
                raise MachineError(
                    f"{node}: what it sends to {peer} comes from another address than {address}, "
                    f"so no rule against {node} would cut it: {route.strip()}. Give the hosts the "
                    "addresses by which they reach each other"
                )

    def _make_pythons(self) -> None:
        """Find an interpreter for the node on every host; make one where there is none."""
        told = on_nodes(
            self._nodes, lambda node: self._run_checked(node, _find_python(), "finding Python")
        )
        bare: dict[str, tuple[str, wheels.Python]] = {}
        for node, line in told.items():
            kind, _, rest = line.strip().partition(" ")
            path, _, facts = rest.partition(" ")
            if kind == "ready":
                self._pythons[node] = path
            elif kind == "bare":
                bare[node] = (path, wheels.parse_python(facts))
            else:
                raise MachineError(
                    f"{node}: the host {self._hosts[node]} has no Python 3.11 or newer"
                )
        if not bare:
            return
        self._say(
            f"ssh: {', '.join(bare)} lack {' and '.join(wheels.NODE_NEEDS)}: installing them for "
            "this run"
        )
        with TemporaryDirectory(prefix="labrys-wheels-") as folder:
            archives: dict[wheels.Python, dict[str, bytes]] = {}
            for number, wanted in enumerate({wanted for _, wanted in bare.values()}):
                into = Path(folder, str(number))
                wheels.fetch(wanted, into, "ssh")
                archives[wanted] = {f"wheels/{f.name}": f.read_bytes() for f in into.iterdir()}

        def make(node: str) -> None:
            path, wanted = bare[node]
            self.upload(node, archives[wanted])
            script = f"""\
{path} -m venv --without-pip {_HOME}/venv &&
{_HOME}/venv/bin/python $(echo {_HOME}/wheels/pip-*.whl)/pip install --quiet --no-index \
    --find-links {_HOME}/wheels --no-cache-dir --disable-pip-version-check \
    {" ".join(wheels.NODE_NEEDS)} && rm -rf {_HOME}/wheels
"""
            self._run_checked(node, script, "making a Python for it", timeout_s=_VENV_TIMEOUT_S)
            self._pythons[node] = f"{_HOME}/venv/bin/python"

        on_nodes(bare, make)

    def _leave(self, node: str) -> None:
        """Clean the host and let go of it."""
        self._clean(node)
        self._run_checked(node, f"rm -f {_LOCK}", "letting go of it")
        with self._lock:
            self._held.discard(node)

    def _clean(self, node: str) -> None:
        """Undo whatever a run can have done to a host, whether it ended in order or not.

        First the processes, which may hold packets, then the rules, then what lies on the disk.
        """
        self._kill_all(node)
        self._run_checked(node, _REMOVE_CHAINS, "removing our iptables chains")
        self._run_checked(node, _REMOVE_FOLDERS, "removing our folders", timeout_s=_CLEAN_TIMEOUT_S)

    def _kill_all(self, node: str) -> None:
        """Kill every process that has a pid file in the node's home, stopped ones too."""
        script = f'for file in {_HOME}/*.pid; do [ -e "$file" ] && echo "$file"; done; exit 0'
        for file in self._run_checked(node, script, "looking for processes").splitlines():
            process.kill(self, node, Path(file).stem)

    def _run_checked(self, node: str, script: str, what: str, *, timeout_s: float = 20.0) -> str:
        return check(node, what, self.run(node, script, timeout_s=timeout_s))

    def _execute(self, node: str, command: str, what: str, given: bytes = b"") -> Ended:
        """Run a command that moves files, beside the node's shell."""
        if node not in self._held:
            raise ClusterError(f"{node}: its host is not held for this run; was it provisioned?")
        try:
            connection = self._connected(node)
            return connection.execute(_as_root(command), given, timeout_s=_COPY_TIMEOUT_S)
        except (MachineError, OSError, EOFError) as error:
            raise ClusterError(f"{node}: {what} failed: {error or type(error).__name__}") from error


def _answer(link: ChannelLink) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(link.line(time.monotonic() + _ANSWER_TIMEOUT_S))
    return found


def _as_root(command: str) -> str:
    """Return a command for whatever login shell there is: as root, by sudo if need be."""
    shell = f"/bin/sh -c {shlex.quote(command)}"
    # A PATH without sbin, as users have it, is mended by `scripts`.
    script = f'if [ "$(id -u)" = 0 ]; then exec {shell}; else exec sudo -n {shell}; fi'
    return f"exec /bin/sh -c {shlex.quote(script)}"


def _explain(place: str, node: str, said: str) -> str:
    """Say why a host gives no shell, and the mend."""
    if "sudo" in said:
        return (
            f"{node}: {place}: no root there: {said}. Log in as root (User root in ~/.ssh/config), "
            'or allow sudo without a password: echo "$USER ALL=(ALL) NOPASSWD: ALL" | sudo tee '
            "/etc/sudoers.d/labrys"
        )
    if "not found" in said:
        return f"{node}: {place}: {said}; on Debian: apt-get install python3"
    return f"{node}: {place}: no shell there: {said}"


def _assert_distinct(addresses: Mapping[str, str]) -> None:
    by_address: dict[str, str] = {}
    for node, address in addresses.items():
        first = by_address.setdefault(address, node)
        if first != node:
            raise MachineError(
                f"{node}: its host has the address {address}, as {first}'s has; each node needs a "
                "machine of its own"
            )


def _missing_tools() -> str:
    tools = " ".join(_TOOLS)
    return f"for tool in {tools}; do command -v $tool >/dev/null || echo $tool; done"


def _find_python() -> str:
    """The script that prints `ready PATH` or `bare PATH VERSION...` for the best interpreter."""
    fits = "import sys; sys.exit(sys.version_info < (3, 11))"
    has_all = f"import {', '.join(wheels.NODE_NEEDS)}"
    return f"""\
for name in {_PYTHONS}; do
    path=$(command -v $name) || continue
    $path -c {shlex.quote(fits)} 2>/dev/null || continue
    if $path -c {shlex.quote(has_all)} 2>/dev/null; then echo ready $path; exit 0; fi
    bare=${{bare:-$path}}
done
if [ -n "$bare" ]; then echo bare $bare $($bare -c {shlex.quote(wheels.WHICH_PYTHON)}); fi
exit 0
"""
