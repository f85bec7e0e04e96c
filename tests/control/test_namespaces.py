"""The private world of the controller: entered, left, signalled and killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.control.inside import run_inside, start_inside

from labrys.control.environments import namespaces, netns
from labrys.control.errors import InternalError, MachineError

_REASON = netns.probe()
needs_namespaces = pytest.mark.skipif(_REASON is not None, reason=str(_REASON))


def _eventually(fact: Callable[[], bool]) -> bool:
    """Whether `fact` becomes true within 10 s; for what the kernel does in its own time."""
    deadline = time.monotonic() + 10
    while not fact():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _running(mark: str) -> list[int]:
    """The processes of this machine with `mark` in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in command:
                found.append(int(entry.name))
    return found


@pytest.mark.netns
@needs_namespaces
class TestInside:
    def test_network_run_and_processes_are_private(self, tmp_path: Path) -> None:
        out = run_inside(
            tmp_path,
            """
say(os.readlink("/proc/self/ns/net"))
say(os.listdir("/run"))
say(sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())[:2], os.getpid())
say([name for _, name in socket.if_nameindex()])
socket.create_server(("127.0.0.1", 0))
""",
        ).splitlines()
        assert out[0] != os.readlink("/proc/self/ns/net")
        assert out[1:] == ["[]", "[1, 2] 2", "['lo']"]

    def test_files_made_inside_belong_to_the_user_outside(self, tmp_path: Path) -> None:
        run_inside(tmp_path, "Path(RUN_DIR, 'made').write_text('x'); say(os.geteuid())")
        assert (tmp_path / "made").stat().st_uid == os.geteuid()

    def test_orphans_are_reaped_by_init(self, tmp_path: Path) -> None:
        out = run_inside(
            tmp_path,
            """
env = environment(1)
env.provision()
orphan = int(env.run("n1", "setsid sleep 1000 & echo $!").out)
say(Path(f"/proc/{orphan}").exists())
os.kill(orphan, signal.SIGKILL)
deadline = time.monotonic() + 10
while Path(f"/proc/{orphan}").exists() and time.monotonic() < deadline:
    time.sleep(0.005)
say(Path(f"/proc/{orphan}").exists())
""",
        )
        assert out == "True\nFalse\n"

    def test_buffered_output_is_printed_once(self, tmp_path: Path) -> None:
        code = (
            "from labrys.control.environments import netns; print('before', end=' ');"
            "assert netns.probe() is None; netns.enter(); print('after')"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("before after\n", "")


@pytest.mark.netns
@needs_namespaces
class TestEnd:
    @pytest.mark.parametrize("code", [0, 1, 4, 130])
    def test_exit_code_is_the_controllers(self, tmp_path: Path, code: int) -> None:
        with start_inside(tmp_path, f"sys.exit({code})") as controller:
            controller.communicate(timeout=30)
        assert controller.returncode == code

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
    def test_death_by_signal_is_told_as_shells_tell_it(
        self, tmp_path: Path, number: signal.Signals, code: int
    ) -> None:
        with start_inside(tmp_path, "say('ready'); signal.pause()") as controller:
            assert controller.stdout is not None
            assert controller.stdout.readline() == "ready\n"
            controller.send_signal(number)
            controller.communicate(timeout=30)
        assert controller.returncode == code

    @pytest.mark.parametrize("to_group", [True, False], ids=["terminal", "kill"])
    def test_one_interrupt_is_seen_once(self, tmp_path: Path, to_group: bool) -> None:
        # SIGTERM after it ends the wait, so a second SIGINT would have been counted before.
        code = """
seen = []
signal.signal(signal.SIGINT, lambda *_: seen.append("int"))
signal.signal(signal.SIGTERM, lambda *_: seen.append("term"))
say("ready")
while "term" not in seen:
    signal.pause() if not seen else time.sleep(0.01)
    if seen == ["int"]:
        say("int")
say(seen)
sys.exit(130)
"""
        with start_inside(tmp_path, code) as controller:
            assert controller.stdout is not None
            assert controller.stdout.readline() == "ready\n"
            if to_group:
                os.killpg(controller.pid, signal.SIGINT)
            else:
                os.kill(controller.pid, signal.SIGINT)
            assert controller.stdout.readline() == "int\n"
            controller.send_signal(signal.SIGTERM)
            rest = controller.communicate(timeout=30)[0]
        assert rest.splitlines()[-1] == "['int', 'term']"
        assert controller.returncode == 130

    @pytest.mark.parametrize("victim", ["outer", "controller"])
    def test_nothing_survives_a_sigkill(self, tmp_path: Path, victim: str) -> None:
        mark = f"labrys-mark-{tmp_path.name}-{os.getpid()}"
        code = f"""
env = environment(3)
env.provision()
on_nodes(env.nodes, lambda node: env.run(node, "setsid sh -c 'sleep 1000; : {mark}' &"))
Path(env.log_dir("n1"), "log").write_text("kept")
say("ready")
signal.pause()
"""
        with start_inside(tmp_path, code) as controller:
            assert controller.stdout is not None
            assert controller.stdout.readline() == "ready\n"
            # Outer, init, controller, and three shells that may be on their way up yet.
            assert _eventually(lambda: len(_running(mark)) >= 6)
            family = _running(mark)
            os.kill(controller.pid if victim == "outer" else sorted(family)[2], signal.SIGKILL)
            controller.wait(timeout=30)
        assert _eventually(lambda: not _running(mark))
        assert controller.returncode == (-9 if victim == "outer" else 137)
        assert (tmp_path / "nodes" / "n1" / "log").read_text() == "kept"


class TestRefusals:
    def test_entering_with_threads_running_is_a_bug_that_is_told(self) -> None:
        done = threading.Event()
        thread = threading.Thread(target=done.wait)
        thread.start()
        try:
            with pytest.raises(InternalError, match="threads are running"):
                namespaces.enter()
        finally:
            done.set()
            thread.join()

    def test_missing_tools_are_named_with_their_packages(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(namespaces, "search_path", lambda: "/nonexistent")
        with pytest.raises(MachineError, match=r"ip, iptables.*apt-get install iproute2 iptables"):
            namespaces.require_tools()

    @pytest.mark.parametrize(
        ("path", "value", "said"),
        [
            ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
            (
                "kernel/apparmor_restrict_unprivileged_userns",
                "1",
                "kernel.apparmor_restrict_unprivileged_userns=0",
            ),
            ("user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
        ],
    )
    def test_the_setting_in_the_way_is_named_with_its_mend(
        self, path: str, value: str, said: str
    ) -> None:
        assert f"sysctl -w {said}" in namespaces.mend({f"/proc/sys/{path}": value}.get)

    def test_settings_that_allow_namespaces_are_not_blamed(self) -> None:
        allowed = {
            "/proc/sys/kernel/unprivileged_userns_clone": "1",
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "0",
            "/proc/sys/user/max_user_namespaces": "96364",
        }
        assert "sysctl" not in namespaces.mend(allowed.get)

    def test_a_container_is_told_which_options_to_start_it_with(self) -> None:
        assert "seccomp=unconfined" in namespaces.mend({"/.dockerenv": ""}.get)

    def test_an_attempt_reports_what_went_wrong_inside(self) -> None:
        def fail() -> None:
            raise MachineError("no such luck")

        if _REASON is not None:
            pytest.skip(_REASON)
        assert namespaces.attempt(fail, timeout_s=10) == "no such luck"
        assert not namespaces.entered()

    def test_an_attempt_that_dies_without_a_word_has_not_succeeded(self) -> None:
        if _REASON is not None:
            pytest.skip(_REASON)
        said = namespaces.attempt(lambda: os.kill(os.getpid(), signal.SIGKILL), timeout_s=10)
        assert said == "it ended with exit code 137 and said nothing"

    def test_an_attempt_that_hangs_is_ended(self) -> None:
        if _REASON is not None:
            pytest.skip(_REASON)
        said = namespaces.attempt(lambda: time.sleep(60), timeout_s=0.2)
        assert said == "no answer within 0.2 s"
