"""The image recipe, as far as that needs no engine."""

import os
import signal
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from labrys.control.environments import image, wheels
from labrys.control.errors import MachineError

_REPO = Path(__file__).resolve().parents[2]


def test_the_recipe_of_the_checkout_is_found() -> None:
    assert image._recipe() == _REPO / "docker"


def test_the_nodes_requirements_are_those_of_pyproject() -> None:
    stated = tomllib.loads((_REPO / "pyproject.toml").read_text())["project"]["dependencies"]
    assert set(wheels.requirements()) <= set(stated)
    assert len(wheels.requirements()) == 2


def test_a_changed_recipe_or_requirement_makes_another_tag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    first = image._fingerprint(tmp_path)
    assert image._fingerprint(tmp_path) == first
    (tmp_path / "Dockerfile").write_text("FROM scratch\n\n")
    second = image._fingerprint(tmp_path)
    monkeypatch.setattr(wheels, "requirements", lambda: ["msgspec>=99"])
    assert len({first, second, image._fingerprint(tmp_path)}) == 3


def test_the_stages_of_a_base_are_told_once_each(tmp_path: Path) -> None:
    script = tmp_path / "make"
    script.write_text(
        "echo I: Retrieving a; echo I: Validating a; echo I: Retrieving b; echo W: Packing what;"
        "echo I: Packing; echo content >$1"
    )
    told: list[str] = []
    image._make_rootfs(script, tmp_path / "rootfs.tar", told.append)
    assert told == ["image: base system: retrieving", "image: base system: packing"]
    assert (tmp_path / "rootfs.tar").read_text() == "content\n"


def test_a_base_that_cannot_be_made_is_told_with_the_scripts_last_words(tmp_path: Path) -> None:
    script = tmp_path / "make"
    script.write_text("echo make-base-image: debootstrap needs root; exit 1")
    with pytest.raises(MachineError, match=r"cannot be pulled, and .*needs root"):
        image._make_rootfs(script, tmp_path / "rootfs.tar", print)


def test_an_interrupted_base_is_given_up_at_once(tmp_path: Path) -> None:
    script = tmp_path / "make"
    script.write_text("echo $$ >$1; echo I: Retrieving; sleep 1000")

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        image._make_rootfs(script, tmp_path / "pid", interrupt)
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_work_folders_of_dead_builds_are_removed_but_not_while_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "_PLACE", tmp_path)
    stale = tmp_path / "labrys-image-dead"
    (stale / "context").mkdir(parents=True)
    with image._one_at_a_time(print):
        assert image.remove_stale_work() == []
    assert image.remove_stale_work() == [str(stale)]
    assert not stale.exists()


def _break_off(*_: object) -> bool:
    raise requests.ConnectionError("the engine has gone")


@pytest.mark.parametrize(
    ("exists", "place", "said"),
    [
        (_break_off, "/var/tmp", "the engine has gone"),
        (lambda *_: False, "/nonexistent", "No such file or directory: '/nonexistent/labrys-image"),
    ],
)
def test_what_goes_wrong_on_the_way_is_the_machines_fault_and_told(
    monkeypatch: pytest.MonkeyPatch, exists: Callable[..., bool], place: str, said: str
) -> None:
    class Client:
        def close(self) -> None: ...

    monkeypatch.setattr(image, "connect", Client)
    monkeypatch.setattr(image, "_exists", exists)
    monkeypatch.setattr(image, "_PLACE", Path(place))
    with pytest.raises(MachineError) as caught:
        image.ensure_image(print)
    assert said in str(caught.value)


def test_the_base_script_says_how_it_is_called() -> None:
    done = subprocess.run(
        ["/bin/sh", str(_REPO / "docker" / "make-base-image")], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "usage: make-base-image" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, None])
def test_the_base_script_cleans_up_whatever_ends_it(
    tmp_path: Path, number: signal.Signals | None
) -> None:
    # None: nobody reads it any more, as when labrys was killed.
    programs = {
        "id": "echo 0",
        "debootstrap": 'touch "$4/made"; while echo I: Retrieving; do sleep 0.02; done; exit 1',
    }
    (tmp_path / "bin").mkdir()
    for name, script in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    with subprocess.Popen(
        ["/bin/sh", str(_REPO / "docker" / "make-base-image"), str(tmp_path / "rootfs.tar")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "TMPDIR": str(tmp_path)},
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        while process.stdout.readline() != b"I: Retrieving\n":
            assert process.poll() is None
        assert list(tmp_path.glob("labrys-base.*/made")) != []
        if number is not None:
            os.killpg(process.pid, number)
        process.stdout.close()
        assert process.wait(30) != 0
    assert list(tmp_path.glob("labrys-base.*")) == []


def test_docker_stays_no_python_package() -> None:
    assert not (_REPO / "docker" / "__init__.py").exists()
