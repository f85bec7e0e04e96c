"""Nodes in network namespaces: reachable, apart, and gone at the end."""

from pathlib import Path

import pytest
from tests.control.inside import run_inside, start_inside

from labrys.control.environments import netns
from labrys.control.errors import InternalError

_REASON = netns.probe()
needs_namespaces = pytest.mark.skipif(_REASON is not None, reason=str(_REASON))

# In each node a server that says the node's name to whoever connects.
SERVERS = """
SERVER = "import socket as s\\nl = s.create_server(('', 7))\\nwhile 1: l.accept()[0].send(b'{}')"
ASK = '''import socket, sys
for address in sys.argv[1:]:
    try:
        with socket.create_connection((address, 7), timeout=0.3) as c:
            print(c.recv(9).decode(), end=" ")
    except OSError:
        print("-", end=" ")
'''

def serve(env):
    for node in env.nodes:
        env.upload(node, {"server.py": SERVER.format(node).encode(), "ask.py": ASK.encode()})
        env.run(node, f"setsid {env.python(node)} {env.home(node)}/server.py >/dev/null 2>&1 &")
    for node in env.nodes:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection((env.address(node), 7), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, f"{node} does not listen"
                time.sleep(0.01)

def ask(env, node):
    addresses = " ".join(map(env.address, env.nodes))
    return env.run(node, f"{env.python(node)} {env.home(node)}/ask.py {addresses}").out.strip()
"""


@pytest.mark.netns
@needs_namespaces
class TestNodes:
    def test_five_nodes_reach_each_other_and_the_controller_reaches_all(
        self, tmp_path: Path
    ) -> None:
        code = "env = environment(5); env.provision(); serve(env)\n"
        out = run_inside(
            tmp_path,
            SERVERS + code + "for line in on_nodes(env.nodes, lambda n: ask(env, n)).values():"
            " say(line)\nsay(*map(env.address, env.nodes))",
        )
        assert out.splitlines() == [
            *["n1 n2 n3 n4 n5"] * 5,
            "10.213.0.1 10.213.0.2 10.213.0.3 10.213.0.4 10.213.0.5",
        ]

    def test_a_rule_in_one_node_cuts_that_node_alone_and_never_the_controller(
        self, tmp_path: Path
    ) -> None:
        code = """
env = environment(3); env.provision(); serve(env)
say(env.run("n1", f"iptables -w -A INPUT -s {env.address('n2')} -j DROP").code)
say(ask(env, "n2")); say(ask(env, "n3"))
with socket.create_connection((env.address("n1"), 7), timeout=5) as c: say(c.recv(9).decode())
say(env.run("n1", "iptables -w -F INPUT").code)
say(ask(env, "n2"))
"""
        out = run_inside(tmp_path, SERVERS + code).splitlines()
        assert out == ["0", "- n2 n3", "n1 n2 n3", "n1", "0", "n1 n2 n3"]

    def test_nodes_have_no_ipv6_to_slip_round_a_partition(self, tmp_path: Path) -> None:
        code = "env = environment(1); env.provision(); say(env.run('n1', 'ip -6 addr').out)"
        assert run_inside(tmp_path, code).strip() == ""

    def test_nodes_cannot_leave(self, tmp_path: Path) -> None:
        code = "env = environment(1); env.provision(); say(env.run('n1', 'ip route').out)"
        assert "default" not in run_inside(tmp_path, code)

    def test_two_runs_at_once_do_not_meet(self, tmp_path: Path) -> None:
        code = """
env = environment(2); env.provision()
serve(env)
say("up")
Path(RUN_DIR, "up").touch()
deadline = time.monotonic() + 20
while not Path(OTHER, "up").exists() and time.monotonic() < deadline: time.sleep(0.01)
Path("/run/labrys", NAME).touch()
say(ask(env, "n1"), sorted(os.listdir("/run/labrys")))
Path(RUN_DIR, "asked").touch()
if NAME == "left":
    env.destroy()
    Path(RUN_DIR, "gone").touch()
else:
    while not Path(OTHER, "gone").exists() and time.monotonic() < deadline: time.sleep(0.01)
    say(ask(env, "n1"))
"""
        (tmp_path / "left").mkdir()
        (tmp_path / "right").mkdir()
        left, right = tmp_path / "left", tmp_path / "right"
        left_code = f"NAME, OTHER = 'left', {str(right)!r}\n{SERVERS}{code}"
        right_code = f"NAME, OTHER = 'right', {str(left)!r}\n{SERVERS}{code}"
        with start_inside(left, left_code) as one, start_inside(right, right_code) as two:
            left_out, left_err = one.communicate(timeout=60)
            right_out, right_err = two.communicate(timeout=60)
        assert (one.returncode, two.returncode) == (0, 0), left_err + right_err
        assert left_out.splitlines() == ["up", "n1 n2 ['left', 'n1', 'n2']"]
        assert right_out.splitlines() == ["up", "n1 n2 ['n1', 'n2', 'right']", "n1 n2"]


@pytest.mark.netns
@needs_namespaces
class TestScripts:
    def test_run_returns_code_output_and_errors_apart(self, tmp_path: Path) -> None:
        code = """
env = environment(1); env.provision()
done = env.run("n1", "echo out; echo err >&2; exit 3")
say((done.code, done.out, done.err))
"""
        assert run_inside(tmp_path, code) == "(3, 'out\\n', 'err\\n')\n"

    def test_a_script_that_does_not_end_is_ended_and_told(self, tmp_path: Path) -> None:
        code = """
from labrys.control.errors import ClusterError
env = environment(1); env.provision()
try:
    env.run("n1", "echo so far; sleep 1000", timeout_s=0.2)
except ClusterError as error:
    say(error)
deadline = time.monotonic() + 10
def left(): return [pid for pid in os.listdir("/proc") if pid.isdecimal() and int(pid) > 2]
while left() and time.monotonic() < deadline: time.sleep(0.005)
say(left())
"""
        out = run_inside(tmp_path, code).splitlines()
        assert out[0].startswith("n1: script did not end within 0.2 s")
        assert "it said 'so far'" in out[0]
        assert out[1] == "[]"

    def test_a_background_process_that_keeps_the_output_open_does_not_hold_the_script(
        self, tmp_path: Path
    ) -> None:
        code = """
env = environment(1); env.provision()
say(env.run("n1", "setsid sleep 1000 & echo started", timeout_s=5).out)
"""
        assert run_inside(tmp_path, code).strip() == "started"

    def test_files_go_up_below_home_and_logs_lie_in_the_run_directory(self, tmp_path: Path) -> None:
        code = """
env = environment(1); env.provision()
env.upload("n1", {"code/deep/a.bin": bytes(range(256))})
say(Path(env.home("n1"), "code/deep/a.bin").read_bytes() == bytes(range(256)))
env.run("n1", f"echo line >{env.log_dir('n1')}/log")
env.collect_logs("n1", Path(RUN_DIR, "nodes", "n1"))
env.collect_logs("n1", Path(RUN_DIR, "copy"))
"""
        assert run_inside(tmp_path, code) == "True\n"
        assert (tmp_path / "nodes" / "n1" / "log").read_text() == "line\n"
        assert (tmp_path / "copy" / "log").read_text() == "line\n"


@pytest.mark.netns
@needs_namespaces
class TestDestroy:
    def test_nothing_is_left_and_the_same_nodes_can_be_made_again(self, tmp_path: Path) -> None:
        code = """
env = environment(3)
env.destroy()
for _ in range(2):
    env.provision()
    on_nodes(env.nodes, lambda n: env.run(n, "trap '' TERM HUP; setsid sleep 1000 &"))
    env.destroy()
    env.destroy()
    say([name for _, name in socket.if_nameindex()], os.listdir("/run/netns"),
        os.listdir("/run/labrys"), [p for p in os.listdir("/proc") if p.isdecimal() and int(p) > 2])
"""
        assert run_inside(tmp_path, code) == "['lo'] [] [] []\n" * 2

    def test_links_that_somebody_else_made_are_left_alone(self, tmp_path: Path) -> None:
        # Where tunnel modules are loaded, every new namespace begins with tunl0, sit0 and so on.
        code = """
subprocess.run("ip link add other0 type veth peer name other1".split(), check=True)
env = environment(2)
env.destroy()
env.provision()
env.destroy()
env.destroy()
say(sorted(name for _, name in socket.if_nameindex()))
"""
        assert run_inside(tmp_path, code) == "['lo', 'other0', 'other1']\n"

    def test_a_provision_that_failed_half_way_is_cleaned_up(self, tmp_path: Path) -> None:
        code = """
from labrys.control.errors import MachineError
env = environment(3)
subprocess.run(["ip", "netns", "add", "n2"], check=True)
try:
    env.provision()
except MachineError as error:
    say(error)
env.destroy()
say([name for _, name in socket.if_nameindex()], os.listdir("/run/netns"))
"""
        out = run_inside(tmp_path, code)
        assert out.startswith("netns: ip refused: ")
        assert out.endswith("['lo'] []\n")


def test_provision_outside_a_private_world_is_refused(tmp_path: Path) -> None:
    env = netns.NetnsEnvironment(("n1",), tmp_path, lambda line: None)
    with pytest.raises(InternalError, match="before enter"):
        env.provision()
    env.destroy()
