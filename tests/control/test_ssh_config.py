"""What the user's ssh configuration and the spec say of hosts."""

import getpass
from pathlib import Path
from typing import Any

import pytest

from labrys.control.environments import ssh
from labrys.control.environments.ssh import SshEnvironment
from labrys.control.environments.ssh_config import Destination, destination, read_config
from labrys.control.errors import MachineError, UsageError
from labrys.control.spec import read_spec, rerun_command, resolve, to_yaml


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of our own, with an empty ~/.ssh."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def written(home: Path, text: str, host: str = "n1") -> Destination:
    (home / ".ssh" / "config").write_text(text)
    return destination(host, read_config())


class TestDestination:
    def test_without_a_configuration_a_host_is_what_it_is_called(self, home: Path) -> None:
        found = destination("n1", read_config())
        assert (found.hostname, found.port, found.user) == ("n1", 22, getpass.getuser())
        assert (found.keys, found.is_only_keys, found.jumps, found.command) == ((), False, (), None)
        assert found.known_as == "n1"
        assert found.known_hosts[0] == str(home / ".ssh" / "known_hosts")

    def test_the_configuration_says_where_and_as_whom(self, home: Path) -> None:
        (home / "key").touch()
        found = written(
            home,
            "Host n*\n  HostName %h.lab\n  User admin\n  Port 2222\n  IdentityFile ~/key\n"
            "  IdentityFile ~/gone\n  IdentitiesOnly yes\n  ConnectTimeout 3\n",
        )
        assert found.place == "n1 (admin@n1.lab port 2222)"
        assert found.keys == (str(home / "key"),)
        assert found.is_only_keys
        assert found.known_as == "[n1.lab]:2222"
        assert found.connect_timeout_s == 3

    def test_files_of_known_hosts_and_another_name_in_them(self, home: Path) -> None:
        found = written(
            home, "Host n1\n  HostKeyAlias db\n  UserKnownHostsFile ~/one /two\n  Port 9\n"
        )
        assert found.known_as == "db"
        assert found.known_hosts[:2] == (str(home / "one"), "/two")

    def test_hosts_on_the_way(self, home: Path) -> None:
        text = "Host n1\n  ProxyJump gate,me@inner:99\nHost n2\n  ProxyCommand nc %h %p\n"
        assert written(home, text).jumps == ("gate", "me@inner:99")
        assert written(home, text, "n2").command == "nc n2 22"
        none = "Host n1\n  ProxyJump none\n  ProxyCommand none\n"
        assert (written(home, none).jumps, written(home, none).command) == ((), None)
        hop = destination("me@inner:99", read_config())
        assert (hop.user, hop.hostname, hop.port) == ("me", "inner", 99)

    def test_included_files_count_where_they_are_named(self, home: Path) -> None:
        (home / ".ssh" / "more").mkdir()
        (home / ".ssh" / "more" / "a.conf").write_text("Host n1\n  User included\n")
        text = "Include more/*.conf missing\nUser everybody\nHost n1\n  Port 7\n"
        found = written(home, text)
        assert (found.user, found.port) == ("included", 7)
        assert written(home, text, "n2").user == "everybody"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("this is no setting\nx", "config"),
            ("Host n1\n  Port many\n", "Port 'many' is no number"),
            ("Host n1\n  ConnectTimeout soon\n", "ConnectTimeout 'soon': write whole seconds"),
            ("Include config\n", "Include goes deeper than 16 files"),
        ],
    )
    def test_what_is_wrong_with_it_is_told(self, home: Path, text: str, said: str) -> None:
        with pytest.raises(UsageError, match=said):
            written(home, text)


class TestHosts:
    def test_as_many_nodes_as_hosts_and_the_same_again(self, tmp_path: Path) -> None:
        spec = resolve({"env": "ssh", "hosts": ["db1", "db2", "db3"], "seed": 1})
        assert spec.nodes == 3
        assert rerun_command(spec) == (
            "labrys test --env ssh --nodes 3 --hosts db1,db2,db3 --seed 1"
        )
        (tmp_path / "test.yaml").write_text(to_yaml(spec))
        assert resolve(read_spec(tmp_path / "test.yaml")) == spec

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            (
                {"env": "netns", "hosts": ["a"]},
                "--hosts: only with --env ssh; the nodes of netns need no hosts",
            ),
            (
                {"env": "ssh", "hosts": ["a", "b", "c"], "nodes": 5},
                "--hosts: 3 hosts for 5 nodes; name one for each node, or say --nodes 3",
            ),
            (
                {"env": "ssh", "hosts": ["a", "b", "a"]},
                "--hosts: 'a' is there twice; each node needs its own",
            ),
            (
                {"env": "ssh", "hosts": ["me@a", "b", "c"]},
                "--hosts: 'me@a' is no host name; write NAME,NAME,... (user, port and keys belong "
                "into ~/.ssh/config)",
            ),
            ({"env": "ssh", "hosts": ["a", "b"]}, "--nodes 2: a raftkv cluster needs an odd"),
        ],
    )
    def test_wrong_hosts_are_refused(self, fields: dict[str, Any], said: str) -> None:
        with pytest.raises(UsageError) as caught:
            resolve(fields)
        assert str(caught.value).startswith(said)

    def test_a_host_without_an_address_or_with_a_loopback_one_is_refused(self, home: Path) -> None:
        (home / ".ssh" / "config").write_text("Host n1\n  HostName 127.0.0.1\n")
        env = SshEnvironment(("n1",), home, print)
        with pytest.raises(MachineError, match=r"n1: the host 127\.0\.0\.1 is 127\.0\.0\.1 here"):
            env.provision()
        env.destroy()
        (home / ".ssh" / "config").write_text("Host n1\n  HostName no-such-host.invalid\n")
        env = SshEnvironment(("n1",), home, print)
        with pytest.raises(MachineError, match=r"n1: no IPv4 address for the host no-such-host"):
            env.provision()
        env.destroy()
        assert sorted(path.name for path in home.iterdir()) == [".ssh"]


class TestDoctor:
    def test_no_key_is_told_with_the_mend(self) -> None:
        ok, found = ssh.describe()
        assert not ok
        assert "ssh-keygen" in found

    def test_keys_and_hosts_are_counted(self, home: Path) -> None:
        for name in ("id_ed25519", "id_ed25519.pub"):
            (home / ".ssh" / name).touch()
        (home / ".ssh" / "config").write_text("Host *.lab\n  Port 1\nHost a b\n  Port 2\n")
        assert ssh.describe() == (
            True,
            "0 keys in the agent, 1 key files, 2 hosts in ~/.ssh/config; "
            "labrys test --env ssh --hosts A,B,C",
        )

    def test_a_damaged_configuration_is_told(self, home: Path) -> None:
        (home / ".ssh" / "config").write_text("nonsense\n")
        assert ssh.probe() is not None
        assert ssh.describe() == (False, ssh.probe())
