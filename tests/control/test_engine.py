"""The Docker engine as labrys sees it, as far as that needs none."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from docker.errors import APIError, NotFound

from labrys.control.environments import docker, engine, image, owner
from labrys.control.environments.shell import Shell
from labrys.control.errors import ClusterError, MachineError
from labrys.control.heal import Healed, _Leftover, heal


class TestOwner:
    def test_this_process_lives(self, tmp_path: Path) -> None:
        assert owner.lives(engine.labels(tmp_path)) is True

    def test_a_process_that_ended_does_not(self, tmp_path: Path) -> None:
        code = (
            "import json, pathlib; from labrys.control.environments import engine;"
            "print(json.dumps(engine.labels(pathlib.Path('/x'))))"
        )
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        labels = json.loads(told.stdout)
        assert owner.lives(labels) is False

    def test_a_killed_process_that_nobody_has_reaped_does_not_either(self, tmp_path: Path) -> None:
        with subprocess.Popen(["sleep", "1000"]) as child:
            labels = engine.labels(tmp_path) | {
                owner.OWNER: f"{child.pid}:{owner.start_ticks(child.pid)}"
            }
            assert owner.lives(labels) is True
            child.kill()
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, but not reaped
            assert owner.lives(labels) is False

    def test_another_process_with_the_same_number_is_not_the_owner(self, tmp_path: Path) -> None:
        labels = engine.labels(tmp_path) | {owner.OWNER: f"{os.getpid()}:1"}
        assert owner.lives(labels) is False

    def test_a_process_of_another_process_table_is_not_for_us_to_judge(
        self, tmp_path: Path
    ) -> None:
        labels = engine.labels(tmp_path) | {owner.PROCESS_TABLE: "elsewhere"}
        assert owner.lives(labels) is None

    def test_labels_without_an_owner_belong_to_nobody_alive(self, tmp_path: Path) -> None:
        labels = engine.labels(tmp_path) | {owner.OWNER: "garbage"}
        assert owner.lives(labels) is False

    def test_a_process_hidden_from_us_is_not_for_us_to_judge(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # As for other users' processes where /proc is mounted with hidepid.
        def forbid(pid: int, number: int) -> None:
            raise PermissionError(1, "Operation not permitted")

        labels = engine.labels(tmp_path)
        monkeypatch.setattr(owner, "start_ticks", lambda pid: None)
        monkeypatch.setattr(os, "kill", forbid)
        assert owner.lives(labels) is None

    def test_labels_name_run_and_node(self, tmp_path: Path) -> None:
        labels = engine.labels(tmp_path, "n3")
        assert (labels[engine.LABEL], labels[engine.RUN]) == ("1", str(tmp_path))
        assert labels[engine.NODE] == "n3"


class TestNoEngine:
    def test_a_missing_socket_is_told_with_the_mend(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
        reason = docker.probe()
        assert reason is not None
        assert "no such socket" in reason
        assert "--env netns" in reason
        with pytest.raises(MachineError, match="no Docker engine"):
            image.ensure_image(print)

    def test_an_engine_that_does_not_run_is_told_with_the_mend(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.socket(socket.AF_UNIX) as unheard:
            unheard.bind(f"{tmp_path}/dead.sock")
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/dead.sock")
        assert "it is not running" in str(docker.probe())

    def test_a_lack_of_permission_is_told_with_the_mend(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_socket: object, _path: str) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        assert "usermod -aG docker" in str(docker.probe())

    def test_an_engine_elsewhere_that_does_not_answer_is_told_with_its_address(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
        assert "no Docker engine at tcp://127.0.0.1:1" in str(docker.probe())

    def test_there_is_nothing_to_heal(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
        assert heal(print) == Healed()

    def test_one_that_is_there_but_does_not_answer_may_hold_what_nobody_can_see(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.socket(socket.AF_UNIX) as unheard:
            unheard.bind(f"{tmp_path}/dead.sock")
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/dead.sock")
        (kept,) = heal(print).kept
        assert "it is not running" in kept


class TestStrangers:
    @pytest.mark.parametrize("status", ["exited", "running"])
    def test_what_only_shares_our_label_is_never_taken_for_a_dead_run(self, status: str) -> None:
        class Container:
            pass

        stranger: Any = Container()
        stranger.status = status
        assert _Leftover({engine.LABEL: "1"}, [stranger]).is_dead is None


def test_logs_that_come_damaged_are_told_with_the_node(tmp_path: Path) -> None:
    class Container:
        name = "labrys-x-n1"

        def get_archive(self, path: str) -> tuple[list[bytes], dict[str, str]]:
            return [b"broken off" * 100], {}

    broken: Any = Container()
    with pytest.raises(ClusterError, match=r"labrys-x-n1: its logs came damaged"):
        docker.collect(broken, tmp_path)


def test_an_engine_that_went_away_is_told_and_not_the_script() -> None:
    class Gone:
        id = "1"

        def __getattr__(self, name: str) -> Any:
            return self

        def exec_create(self, *_: Any, **__: Any) -> None:
            raise requests.ConnectionError("refused")

    gone: Any = Gone()
    with pytest.raises(ClusterError) as caught:
        Shell("n1", lambda: docker._Exec("n1", gone)).run("a long script", 1)
    assert str(caught.value) == "n1: the engine starts nothing in its container: refused"


def test_a_subnet_that_is_taken_is_passed_over(tmp_path: Path) -> None:
    refusals = [
        "Pool overlaps with other one on this address space",
        "conflicts with network x (br-x): networks have overlapping IPv4",
    ]
    asked: list[str] = []

    class Engine:
        networks: Any = property(lambda self: self)

        def create(self, name: str, *, ipam: dict[str, Any], **_: Any) -> str:
            asked.append(ipam["Config"][0]["Subnet"])
            if len(asked) <= len(refusals):
                raise APIError(refusals[len(asked) - 1])
            return name

    engine_: Any = Engine()
    _, subnet = docker._make_network(engine_, "labrys-x", {})
    assert len(set(asked)) == 3
    assert asked[-1] == f"{subnet}.0/24"


class Contested:
    """A container that somebody else is removing, too."""

    id = name = "n1"

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)

    def remove(self, *, force: bool, v: bool) -> None:
        response = requests.Response()
        response.status_code = self.statuses.pop(0)
        if response.status_code == 404:
            raise NotFound("gone", response)
        raise APIError("busy", response)


def test_container_that_another_heal_removes_at_the_same_time_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    container = Contested(409, 500, 500, 404)
    engine.remove([container], [])  # type: ignore[list-item]  # it is no real one
    assert container.statuses == []
    monkeypatch.setattr(engine, "_GONE_WITHIN_S", 0)
    with pytest.raises(MachineError, match="n1: cannot be removed"):
        engine.remove([Contested(500, 500)], [])  # type: ignore[list-item]  # it is no real one
