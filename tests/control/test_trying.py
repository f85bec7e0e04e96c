"""What each environment can do, told beforehand: `labrys doctor --faults`."""

from pathlib import Path

import msgspec
import pytest
from tests.control.nemesis_fakes import LimitedEnvironment
from tests.whole_runs import labrys

from labrys.control import trying
from labrys.control.disks import layer
from labrys.control.environments import netns
from labrys.control.environments import registry as environments
from labrys.control.environments.base import Output
from labrys.control.errors import MachineError
from labrys.control.nemesis.clock import Clock
from labrys.control.nemesis.delay import Delay
from labrys.control.nemesis.disk import Disk
from labrys.control.nemesis.nemesis import PACKAGES
from labrys.control.nemesis.power import Power
from labrys.control.nemesis.reset import Reset
from labrys.control.sim.faults import SIM_PACKAGES
from labrys.control.trying import Row

_REASON = netns.probe() or layer.obstacle("netns")


class Tried(LimitedEnvironment):
    """Any script succeeds in it; notes whether it was removed."""

    name = "docker"

    def __init__(self) -> None:
        super().__init__(("n1", "n2", "n3"))
        self.is_gone = False
        for node in self.nodes:
            self.answers[node] = Output(0, "", "")

    def destroy(self) -> None:
        self.is_gone = True


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Tried:
    made = Tried()
    monkeypatch.setattr(environments, "obstacle", lambda name: None)
    monkeypatch.setattr(environments, "make", lambda *_: made)
    for package in (Clock, Delay, Reset, Disk, Power):  # these look closer than a fake can answer
        monkeypatch.setattr(package, "set_up", lambda self: None)
        monkeypatch.setattr(package, "tear_down", lambda self: None)
    return made


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_every_fault_is_tried_and_told_with_what_it_takes(
    env: Tried, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trying.print_table("docker", as_json=False) == 0
    lines = printed(capsys)
    assert [line.split()[:2] for line in lines[1:]] == [[kind, "yes"] for kind in PACKAGES]
    assert env.is_gone
    for package in PACKAGES.values():
        assert package.mechanism
        assert package.evidence
        assert package.cure_word


def test_fault_that_cannot_be_done_is_told_with_the_reason(
    env: Tried, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(package: Delay) -> None:
        raise MachineError("n1: Delays need the kernel's NFQUEUE")

    monkeypatch.setattr(Delay, "set_up", refuse)
    assert trying.print_table("docker", as_json=False) == 4
    lines = printed(capsys)
    assert [line.split()[1] for line in lines if line.startswith("delay")] == ["NO"]
    assert lines[-1] == "docker: delay: n1: Delays need the kernel's NFQUEUE"
    assert env.is_gone


def test_environment_that_is_not_there_says_why_once_for_all_its_faults(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "obstacle", lambda name: "docker: no engine answers")
    assert trying.print_table("docker", as_json=False) == 4
    assert printed(capsys)[-1] == f"docker: {', '.join(PACKAGES)}: docker: no engine answers"


@pytest.mark.netns
def test_the_simulation_needs_no_trying(capsys: pytest.CaptureFixture[str]) -> None:
    is_whole = {*SIM_PACKAGES} == {*PACKAGES}
    assert trying.print_table("sim", as_json=False) == (0 if is_whole else 4)
    lines = printed(capsys)[1 : 1 + len(PACKAGES)]
    assert [line.split()[:2] for line in lines] == [
        [kind, "yes" if kind in SIM_PACKAGES else "NO"] for kind in PACKAGES
    ]
    assert not any("iptables" in line for line in lines if line.split()[0] in SIM_PACKAGES)


@pytest.mark.skipif(_REASON is not None, reason=str(_REASON))
def test_namespaces_can_do_every_fault_but_run_out_of_memory() -> None:
    done = labrys("doctor", "netns", "--faults", "--json")
    rows = [msgspec.json.decode(line, type=Row) for line in done.stdout.splitlines()]
    # They were not made for it, so this machine lacks nothing.
    assert done.returncode == 0, done.stdout + done.stderr
    assert [row.fault for row in rows] == list(PACKAGES)
    cannot = {row.fault: row.environments["netns"] for row in rows if row.environments["netns"]}
    assert list(cannot) == ["oom"]
    assert "use --env docker, or kill" in str(cannot["oom"])


def test_words_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    assert labrys("doctor", "--faults", "--quiet").returncode == 2
    unknown = labrys("doctor", "moon", "--faults")
    assert unknown.returncode == 2
    assert "known: docker, netns, sim, ssh" in unknown.stderr
