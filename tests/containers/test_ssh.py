"""Hosts by ssh: scripts, files, locks, lost connections, and nothing left at the end."""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests import whole_runs
from tests.containers.sshd import Hosts
from tests.whole_runs import WholeRun, eventually

from labrys.control.environments import owner
from labrys.control.environments.base import check, on_nodes
from labrys.control.environments.docker import DockerEnvironment
from labrys.control.environments.held import HELD, Held, write_held
from labrys.control.environments.ssh import SshEnvironment
from labrys.control.errors import ClusterError, InternalError, MachineError
from labrys.control.heal_hosts import heal_hosts
from labrys.control.nemesis.nemesis import PACKAGES

NODES = ("n1", "n2", "n3")
MakeEnvironment = Callable[..., SshEnvironment]


@pytest.fixture(scope="module")
def hosts(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Three hosts for all tests here."""
    machines = DockerEnvironment(NODES, tmp_path_factory.mktemp("machines"), print)
    machines.require(frozenset({"fuse"}))
    try:
        machines.provision()
        yield Hosts(machines, tmp_path_factory.mktemp("home"))
    finally:
        machines.destroy()


@pytest.fixture
def make(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeEnvironment]:
    """Return a function that makes an environment on the hosts; at the end nothing may be left."""
    monkeypatch.setenv("HOME", str(hosts.home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    made: list[SshEnvironment] = []

    def make(*nodes: str, run_dir: Path = tmp_path, at: tuple[str, ...] = ()) -> SshEnvironment:
        run_dir.mkdir(exist_ok=True)
        made.append(SshEnvironment(nodes or NODES, run_dir, print, at))
        return made[-1]

    yield make
    hosts.write_config()
    hosts.write_known_hosts(NODES)
    for env in made:
        env.destroy()
    assert {node: hosts.leftovers(node) for node in NODES} == dict.fromkeys(NODES, "")


class TestNodes:
    def test_scripts_run_as_root_with_output_apart(self, make: MakeEnvironment) -> None:
        env = make()
        env.provision()
        done = env.run("n1", "id -u; echo err >&2; exit 3")
        assert (done.code, done.out, done.err) == (3, "0\n", "err\n")
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: env.run("n2", f"echo {n}").out, range(50)))
        assert answers == [f"{n}\n" for n in range(50)]
        with pytest.raises(ClusterError, match=r"n1: script did not end within 0\.2 s"):
            env.run("n1", "sleep 987", timeout_s=0.2)
        assert env.run("n1", "echo back").out == "back\n"

    def test_addresses_are_the_hosts_own(self, make: MakeEnvironment, hosts: Hosts) -> None:
        env = make("n1", "n2", at=("n3", "n1"))
        with pytest.raises(InternalError, match="before provision"):
            env.address("n1")
        env.provision()
        assert env.address("n1") == hosts.machines.address("n3")
        assert f" {env.address('n2')}/" in env.run("n2", "ip -o -4 addr").out

    def test_files_go_up_and_logs_come_back(self, make: MakeEnvironment, tmp_path: Path) -> None:
        env = make()
        env.provision()
        big = bytes(range(256)) * 20_000
        env.upload("n1", {"deep/er/a": b"echo from a\n", "big": big})
        assert env.run("n1", f"sh {env.home('n1')}/deep/er/a").out == "from a\n"
        assert env.run("n1", f"wc -c <{env.home('n1')}/big").out.strip() == str(len(big))
        env.run("n1", f"mkdir {env.log_dir('n1')}/old; echo old >{env.log_dir('n1')}/old/log")
        env.run("n1", f"cp {env.home('n1')}/big {env.log_dir('n1')}/log")
        env.collect_logs("n1", tmp_path / "n1")
        assert (tmp_path / "n1" / "log").read_bytes() == big
        assert (tmp_path / "n1" / "old" / "log").read_text() == "old\n"
        env.collect_logs("n2", tmp_path / "n2")
        assert not (tmp_path / "n2").exists()

    def test_a_python_is_made_where_none_has_what_the_node_needs(
        self, make: MakeEnvironment, hosts: Hosts
    ) -> None:
        where = hosts.machines.run(
            "n2", "python3 -c 'import msgspec; print(msgspec.__path__[0])'"
        ).out.strip()
        check("n2", "hiding", hosts.machines.run("n2", f"mv {where} {where}.hidden"))
        try:
            env = make()
            env.provision()
            assert env.python("n2") == f"{env.home('n2')}/venv/bin/python"
            assert env.python("n1") == "/usr/bin/python3"
            code = "import msgspec, httptools; print(msgspec.__file__)"
            assert "/venv/" in env.run("n2", f"{env.python('n2')} -c '{code}'").out
        finally:
            check("n2", "showing", hosts.machines.run("n2", f"mv {where}.hidden {where}"))

    def test_sudo_is_used_by_others_than_root_and_its_refusal_is_told(
        self, make: MakeEnvironment, hosts: Hosts
    ) -> None:
        # A stand-in for sudo, which the image lacks: it is root's, and set-uid takes no scripts.
        hosts.machines.upload("n1", {"keys": hosts.public_key.encode()})
        script = f"""\
useradd -m -s /bin/bash ordinary; usermod -p '*' ordinary
mkdir -p /home/ordinary/.ssh
mv {hosts.machines.home("n1")}/keys /home/ordinary/.ssh/authorized_keys
chown -R ordinary /home/ordinary/.ssh && chmod -R go= /home/ordinary/.ssh
printf '#!/bin/sh\\necho "sudo: a password is required" >&2; exit 1\\n' >/usr/local/bin/sudo
chmod 755 /usr/local/bin/sudo
"""
        check("n1", "adding somebody", hosts.machines.run("n1", script))
        hosts.write_config("Host n1\n    User ordinary\n")
        env = make()
        with pytest.raises(MachineError, match=r"n1: .*ordinary@.*sudo: a password is required"):
            env.provision()
        env.destroy()


class TestHostKeys:
    def test_an_unknown_host_is_refused_with_its_fingerprint_and_the_mend(
        self, make: MakeEnvironment, hosts: Hosts
    ) -> None:
        hosts.write_known_hosts(("n1", "n3"))
        env = make()
        with pytest.raises(MachineError) as caught:
            env.provision()
        said = str(caught.value)
        assert f"n2 (root@{hosts.machines.address('n2')}): its host key is not known" in said
        shown = hosts.machines.run("n2", "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").out
        assert shown.split()[1] in said
        assert "ssh n2 true" in said
        assert (hosts.ssh / "known_hosts").read_text().count("\n") == 2
        assert hosts.leftovers("n2") == ""

    def test_a_host_without_the_device_that_faults_take_is_refused_before_anything_starts(
        self, make: MakeEnvironment, hosts: Hosts, tmp_path: Path
    ) -> None:
        check("n2", "hiding", hosts.machines.run("n2", "mv /dev/fuse /dev/fuse.hidden"))
        try:
            env = make()
            env.require(frozenset({"fuse"}))
            with pytest.raises(
                MachineError, match=r"n2: the host n2 has no /dev/fuse.*disk and pow"
            ):
                env.provision()
            env.destroy()
            make(run_dir=tmp_path / "other").provision()  # nobody asked for such faults
        finally:
            check("n2", "showing", hosts.machines.run("n2", "mv /dev/fuse.hidden /dev/fuse"))

    def test_a_host_with_another_key_than_the_known_one_is_refused(
        self, make: MakeEnvironment, hosts: Hosts
    ) -> None:
        known = (hosts.ssh / "known_hosts").read_text()
        swapped = known.replace(hosts.known_hosts["n2"], hosts.known_hosts["n1"])
        (hosts.ssh / "known_hosts").write_text(swapped)
        env = make()
        with pytest.raises(MachineError, match=r"n2 .*not the one that is known.*ssh-keygen -R"):
            env.provision()


class TestLostConnections:
    def test_a_script_whose_connection_was_lost_is_told_and_not_run_again(
        self, make: MakeEnvironment, hosts: Hosts
    ) -> None:
        env = make()
        env.provision()
        script = f"echo run >>{env.home('n1')}/runs; touch {env.home('n1')}/go; sleep 2"

        def cut() -> None:
            # Every sshd process but the listener: what a network does that loses the connection.
            hosts.machines.run(
                "n1",
                f"while [ ! -e {env.home('n1')}/go ]; do sleep 0.02; done\n"
                'for p in $(pgrep sshd); do [ $p = "$(cat /run/sshd.pid)" ] || kill -9 $p; done',
            )

        thread = threading.Thread(target=cut)
        thread.start()
        with pytest.raises(ClusterError, match=r"n1: its shell failed.*the next script gets a new"):
            env.run("n1", script)
        thread.join()
        # The next one waits until the first has ended, for it may be at work still.
        assert env.run("n1", f"cat {env.home('n1')}/runs").out == "run\n"

    def test_a_connection_that_was_lost_meanwhile_costs_nobody_anything(
        self, make: MakeEnvironment, hosts: Hosts
    ) -> None:
        env = make()
        env.provision()
        kill = 'for p in $(pgrep sshd); do [ $p = "$(cat /run/sshd.pid)" ] || kill -9 $p; done'
        hosts.machines.run("n3", kill)
        connection = env._connections["n3"]
        eventually(lambda: not connection.is_alive(), "the loss is noticed", timeout_s=20)
        assert env.run("n3", "echo here").out == "here\n"

    def test_an_sshd_that_is_back_soon_is_waited_for(
        self, make: MakeEnvironment, hosts: Hosts
    ) -> None:
        hosts.machines.run("n2", "kill $(cat /run/sshd.pid)")
        start = "sleep 0.5; /usr/sbin/sshd -h /etc/ssh/ssh_host_ed25519_key -o UsePAM=no"
        thread = threading.Thread(target=lambda: hosts.machines.run("n2", start))
        thread.start()
        env = make()
        try:
            env.provision()
        finally:
            thread.join()
        assert env.run("n2", "echo here").out == "here\n"

    def test_a_host_that_cannot_be_reached_at_the_end_stops_no_other_and_is_healed_later(
        self, make: MakeEnvironment, hosts: Hosts, tmp_path: Path
    ) -> None:
        run_dir = tmp_path / "runs" / "t" / "r"
        run_dir.mkdir(parents=True)
        (run_dir / "test.yaml").write_text("env: ssh\n")
        env = make(run_dir=run_dir)
        env.provision()
        on_nodes(NODES, lambda node: env.run(node, "iptables -w -N LABRYS"))
        sshd = "for p in $(pgrep sshd); do kill -9 $p; done"
        hosts.machines.run("n2", sshd)
        with pytest.raises(MachineError, match=r"clean-up failed, try labrys heal: n2"):
            env.destroy()
        assert (hosts.leftovers("n1"), hosts.leftovers("n3")) == ("", "")
        healed = heal_hosts(tmp_path / "runs", print)
        assert len(healed.failures) == 1
        assert "n2" in healed.failures[0]
        assert healed.standing == (str(run_dir),)
        hosts.machines.run("n2", "/usr/sbin/sshd -h /etc/ssh/ssh_host_ed25519_key -o UsePAM=no")
        healed = heal_hosts(tmp_path / "runs", print)
        assert (healed.removed, healed.failures) == (("n2 on n2",), ())
        assert not (run_dir / HELD).exists()
        env.destroy()


class TestOneRunAtATime:
    def test_a_host_in_use_is_refused_and_left_alone(
        self, make: MakeEnvironment, tmp_path: Path
    ) -> None:
        first = make("n1", "n2", run_dir=tmp_path / "first")
        first.provision()
        first.run("n1", f"touch {first.home('n1')}/mine")
        second = make(run_dir=tmp_path / "second")
        with pytest.raises(MachineError, match=rf"n1.* in use by the run {tmp_path}/first of pr"):
            second.provision()
        second.destroy()
        assert first.run("n1", f"ls {first.home('n1')}").out == "mine\n"
        first.destroy()
        second.provision()
        assert second.run("n1", f"ls {second.home('n1')}").out == ""

    def test_two_names_of_one_machine_are_no_two_nodes(
        self, make: MakeEnvironment, hosts: Hosts
    ) -> None:
        hosts.write_config(
            f"Host alias\n    HostName {hosts.machines.address('n1')}\n    User root\n"
        )
        with pytest.raises(MachineError, match=r"as n1's has; each node needs a machine of its"):
            make("n1", "n2", at=("n1", "alias")).provision()

    def test_a_cluster_left_on_purpose_is_not_taken_over(
        self, make: MakeEnvironment, hosts: Hosts, tmp_path: Path
    ) -> None:
        left = tmp_path / "left"
        left.mkdir()
        (left / "results.json").write_text("{}")
        record = {"token": "t", "node": "n1", "run": str(left), "machine": "here"}
        content = json.dumps(record | owner.marks() | {owner.OWNER: "1:1"})
        hosts.machines.run("n1", f"cat >/run/labrys.lock <<'END'\n{content}\nEND")
        env = make()
        with pytest.raises(
            MachineError, match=r"left its cluster standing.*labrys heal --runs-dir"
        ):
            env.provision()
        (left / "results.json").unlink()
        env.provision()  # now it is a run that died
        assert env.run("n1", "echo taken").out == "taken\n"

    def test_healing_leaves_hosts_alone_that_another_run_has_taken(
        self, make: MakeEnvironment, tmp_path: Path
    ) -> None:
        run_dir = tmp_path / "runs" / "t" / "dead"
        run_dir.mkdir(parents=True)
        (run_dir / "test.yaml").write_text("env: ssh\n")
        write_held(run_dir, Held("another", {node: node for node in NODES}))
        env = make("n1", run_dir=tmp_path / "alive")
        env.provision()
        healed = heal_hosts(tmp_path / "runs", print)
        assert (healed.removed, healed.failures, healed.standing) == ((), (), ())
        assert not (run_dir / HELD).exists()
        assert env.run("n1", "echo alive").out == "alive\n"


class TestWholeRuns:
    def test_correct_node_is_valid_and_nothing_is_left(
        self, make: MakeEnvironment, tmp_path: Path
    ) -> None:
        run = WholeRun(
            tmp_path,
            *("--env", "ssh", "--hosts", "n3,n1,n2", "--faults", "partition,kill"),
            *("--time-limit", "8", "--fault-interval", "1.5", "--seed", "4"),
        )
        out = run.end()
        assert run.process.returncode == 0, out
        assert "--hosts n3,n1,n2" in out.splitlines()[1]
        results = run.results()
        assert results["errors"] == []
        kinds = results["checkers"]["coverage"]["data"]["kinds"]
        assert all(kinds[kind]["bit"] >= 1 for kind in ("partition", "kill")), kinds
        assert all((run.directory / "nodes" / node / "log").is_file() for node in NODES)
        assert not (run.directory / HELD).exists()

    def test_a_killed_run_is_healed_and_judged(
        self, make: MakeEnvironment, hosts: Hosts, tmp_path: Path
    ) -> None:
        run = WholeRun(
            tmp_path,
            *("--env", "ssh", "--nodes", "3", "--faults", "partition,kill,pause,delay"),
            *("--fault-interval", "2"),
        )
        run.await_fault()
        run.process.kill()
        run.process.communicate(timeout=30)
        assert all(hosts.leftovers(node) for node in NODES)
        whole_runs.check_heal_after_kill(run)
        assert {node: hosts.leftovers(node) for node in NODES} == dict.fromkeys(NODES, "")
        assert (run.directory / "nodes" / "n1" / "log").is_file()
        assert not (run.directory / HELD).exists()

    def test_an_interrupted_run_lets_go_of_its_hosts(
        self, make: MakeEnvironment, hosts: Hosts, tmp_path: Path
    ) -> None:
        run = whole_runs.check_interrupted_run(tmp_path, "ssh", signal.SIGINT, "--nodes", "3")
        assert {node: hosts.leftovers(node) for node in NODES} == dict.fromkeys(NODES, "")
        assert not (run.directory / HELD).exists()

    def test_every_fault_but_those_of_whole_machines_can_be_had_on_hosts(
        self, make: MakeEnvironment
    ) -> None:
        done = whole_runs.labrys("doctor", "ssh", "--faults", "--hosts", "n1,n2,n3", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        missing = {row["fault"] for row in rows if row["environments"] != {"ssh": None}}
        assert missing == {"oom", "freeze"}, rows
        assert len(rows) == len(PACKAGES)
