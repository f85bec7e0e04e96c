"""Containers as nodes: addresses, scripts, files, and nothing left at the end."""

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from docker.errors import NotFound

from labrys.control.environments import docker, engine
from labrys.control.environments.base import on_nodes
from labrys.control.environments.docker import DockerEnvironment
from labrys.control.errors import ClusterError, InternalError, MachineError

MakeEnvironment = Callable[..., DockerEnvironment]


def left_of(run_dir: Path) -> list[str]:
    """The names of containers and networks that a run directory's runs have on the engine."""
    client = engine.connect()
    containers, networks = engine.labelled(client, f"{engine.RUN}={run_dir.resolve()}")
    client.close()
    return engine.names(containers, networks)


class TestNodes:
    def test_addresses_follow_the_order_of_the_nodes(self, cluster: DockerEnvironment) -> None:
        show = "ip -4 -o addr show eth0"
        shown = on_nodes(cluster.nodes, lambda node: cluster.run(node, show).out)
        for number, node in enumerate(cluster.nodes, start=1):
            assert cluster.address(node).rpartition(".")[2] == str(number)
            assert f" {cluster.address(node)}/24 " in shown[node]

    def test_nodes_know_each_other_by_name(self, cluster: DockerEnvironment) -> None:
        assert cluster.run("n1", "getent hosts n4").out.split()[0] == cluster.address("n4")

    def test_nodes_may_change_their_own_rules_and_nothing_more(
        self, cluster: DockerEnvironment
    ) -> None:
        made = cluster.run("n1", "iptables -w -N PROBE && iptables -w -X PROBE")
        assert made.code == 0, made.err
        assert cluster.run("n1", "mount -t tmpfs none /mnt").code != 0

    def test_the_nodes_python_has_what_the_node_needs(self, cluster: DockerEnvironment) -> None:
        code = "import httptools, msgspec, sys; print(sys.version_info >= (3, 11))"
        assert cluster.run("n1", f"{cluster.python('n1')} -c '{code}'").out == "True\n"

    def test_orphans_are_reaped(self, cluster: DockerEnvironment) -> None:
        pid = cluster.run("n1", "setsid sleep 1000 & echo $!").out.strip()
        waited = cluster.run(
            "n1", f"kill -9 {pid}; while [ -e /proc/{pid} ]; do sleep 0.01; done", timeout_s=10
        )
        assert waited.code == 0

    def test_address_before_provision_is_a_bug_that_is_told(
        self, make_environment: MakeEnvironment
    ) -> None:
        with pytest.raises(InternalError, match="before provision"):
            make_environment("n1").address("n1")


class TestScripts:
    def test_run_returns_code_output_and_errors_apart(self, cluster: DockerEnvironment) -> None:
        done = cluster.run("n1", "echo out; echo err >&2; exit 3")
        assert (done.code, done.out, done.err) == (3, "out\n", "err\n")

    def test_threads_that_share_a_node_get_their_own_answers(
        self, cluster: DockerEnvironment
    ) -> None:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: cluster.run("n2", f"echo {n}").out, range(100)))
        assert answers == [f"{n}\n" for n in range(100)]

    def test_binary_output_does_not_confuse_later_scripts(self, cluster: DockerEnvironment) -> None:
        junk = "head -c 300000 /dev/urandom; head -c 3000 /dev/urandom >&2"
        assert cluster.run("n3", junk).code == 0
        assert cluster.run("n3", "printf '\\0\\n\\0'").out == "\0\n\0"

    def test_a_script_that_does_not_end_is_ended_and_the_shell_goes_on(
        self, cluster: DockerEnvironment
    ) -> None:
        with pytest.raises(ClusterError, match=r"n1: script did not end within 0\.2 s.*so far"):
            cluster.run("n1", "echo so far; sleep 987654", timeout_s=0.2)
        waited = cluster.run("n1", "while pgrep -x -f 'sleep 987654'; do sleep 0.01; done")
        assert waited.code == 0

    def test_a_background_process_neither_holds_the_script_nor_speaks_in_the_next(
        self, cluster: DockerEnvironment
    ) -> None:
        script = "setsid sh -c 'while echo noise; do sleep 0.01; done' & echo $!"
        pid = cluster.run("n4", script, timeout_s=5).out.split()[0]
        assert cluster.run("n4", "sleep 0.05; echo clear").out == "clear\n"
        assert cluster.run("n4", f"kill -9 {pid}").code == 0

    def test_a_shell_that_was_killed_is_told_and_replaced(self, cluster: DockerEnvironment) -> None:
        with pytest.raises(ClusterError, match=r"n5: its shell failed .*gets a new one"):
            cluster.run("n5", "kill -9 $PPID; sleep 1")
        assert cluster.run("n5", "echo back").out == "back\n"


class TestFiles:
    def test_files_go_up_below_home(self, cluster: DockerEnvironment) -> None:
        cluster.upload("n1", {"code/deep/a": b"echo from a\n", "b": bytes(range(256))})
        home = cluster.home("n1")
        assert cluster.run("n1", f"sh {home}/code/deep/a").out == "from a\n"
        assert cluster.run("n1", f"wc -c <{home}/b").out.strip() == "256"

    def test_logs_come_back_and_none_is_fine(
        self, cluster: DockerEnvironment, tmp_path: Path
    ) -> None:
        logs = cluster.log_dir("n2")
        cluster.collect_logs("n3", tmp_path / "n3")
        cluster.run("n2", f"mkdir -p {logs}/old; echo new >{logs}/log; echo old >{logs}/old/log")
        cluster.collect_logs("n2", tmp_path / "n2")
        assert (tmp_path / "n2" / "log").read_text() == "new\n"
        assert (tmp_path / "n2" / "old" / "log").read_text() == "old\n"
        assert not (tmp_path / "n3").exists()


class TestDestroy:
    def test_containers_network_and_volumes_are_gone_and_can_be_made_again(
        self, make_environment: MakeEnvironment, tmp_path: Path
    ) -> None:
        env = make_environment("n1", "n2")
        env.destroy()
        env.provision()
        client = engine.connect()
        containers, networks = engine.labelled(client, f"{engine.RUN}={tmp_path.resolve()}")
        volumes = [mount["Name"] for c in containers for mount in c.attrs["Mounts"]]
        assert (len(containers), len(networks), len(volumes)) == (2, 1, 2)
        assert networks[0].attrs["Internal"] is True
        env.destroy()
        assert left_of(tmp_path) == []
        for volume in volumes:
            with pytest.raises(NotFound):
                client.volumes.get(volume)
        client.close()
        env.provision()
        assert env.run("n2", "echo again").out == "again\n"
        env.destroy()
        env.destroy()
        assert left_of(tmp_path) == []

    def test_two_runs_at_once_have_networks_of_their_own(
        self, make_environment: MakeEnvironment, tmp_path: Path
    ) -> None:
        one = make_environment("n1", run_dir=tmp_path / "one")
        two = make_environment("n1", run_dir=tmp_path / "two")
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda env: env.provision(), (one, two)))
        assert one.address("n1") != two.address("n1")
        one.destroy()
        assert two.run("n1", "echo here").out == "here\n"

    def test_a_provision_that_fails_half_way_is_cleaned_up(
        self, make_environment: MakeEnvironment, tmp_path: Path
    ) -> None:
        env = make_environment("n1", "n 2")  # the engine refuses a space
        with pytest.raises(MachineError, match="docker: the engine refused"):
            env.provision()
        assert left_of(tmp_path) != []
        env.destroy()
        assert left_of(tmp_path) == []

    @pytest.mark.parametrize("step", ["_make_network", "_start"])
    def test_an_interrupted_provision_leaves_nothing_that_destroy_does_not_find(
        self,
        make_environment: MakeEnvironment,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        step: str,
    ) -> None:
        class Interrupted(BaseException):
            pass

        def interrupt(number: int, frame: FrameType | None) -> None:
            raise Interrupted

        place: Any = docker if step == "_make_network" else DockerEnvironment
        really = getattr(place, step)
        first = threading.Lock()

        def soon_interrupted(*arguments: Any) -> Any:
            # A request takes 30 ms and more: this hits the middle of it.
            if first.acquire(blocking=False):
                threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            return really(*arguments)

        monkeypatch.setattr(place, step, soon_interrupted)
        env = make_environment("n1", "n2")
        before = signal.signal(signal.SIGUSR1, interrupt)
        try:
            with pytest.raises(Interrupted):
                env.provision()
        finally:
            signal.signal(signal.SIGUSR1, before)
        env.destroy()
        time.sleep(0.5)  # what the engine may still be at
        assert left_of(tmp_path) == []
