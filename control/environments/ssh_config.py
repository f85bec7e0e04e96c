"""How to reach a host: what the user's ~/.ssh/config says of it.

paramiko reads the file, but knows no `Include`, which is therefore replaced here by what it names.
What ssh would ask for, a password or whether to trust an unknown key, nobody is there to answer.
"""

import getpass
import glob
import re
import shlex
from pathlib import Path
from typing import Final

import msgspec
import paramiko

from labrys.control.errors import UsageError

_INCLUDES_MAX: Final = 16
"""As deep as ssh itself follows them."""
_INCLUDE: Final = re.compile(r"\s*include(?:\s+|\s*=\s*)(.+)", re.IGNORECASE)
_SECTION: Final = re.compile(r"\s*(?:host|match)\b", re.IGNORECASE)
_HOP: Final = re.compile(r"(?:ssh://)?(?:([^@/]+)@)?([^@:/\s]+)(?::(\d+))?/?")


class Destination(msgspec.Struct, frozen=True):
    """All it takes to connect to a host."""

    host: str
    """What the user calls it."""
    hostname: str
    port: int
    user: str
    keys: tuple[str, ...]
    """Files with private keys, as far as they exist."""
    is_only_keys: bool
    """Whether neither the agent nor the default files may be asked."""
    known_as: str
    """Its name in the files of known hosts."""
    known_hosts: tuple[str, ...]
    connect_timeout_s: float
    jumps: tuple[str, ...] = ()
    """The hosts on the way there, first to last."""
    command: str | None = None
    """A command that is the way there."""

    @property
    def place(self) -> str:
        """Host, user and address in words."""
        port = f" port {self.port}" if self.port != 22 else ""
        return f"{self.host} ({self.user}@{self.hostname}{port})"


def read_config(path: Path | None = None) -> paramiko.SSHConfig:
    """Return the user's configuration; none is fine. Raises UsageError for one that is damaged."""
    path = path or Path("~/.ssh/config").expanduser()
    try:
        return paramiko.SSHConfig.from_text(_text(path, 0))
    except paramiko.ConfigParseError as error:
        raise UsageError(f"{path}: {error}") from error


def destination(host: str, config: paramiko.SSHConfig) -> Destination:
    """Return how to reach a host, which may be written as user@host:port. Raises UsageError."""
    user, name, port = _parse_hop(host)
    try:
        found = config.lookup(name)
    except (paramiko.SSHException, OSError) as error:
        raise UsageError(f"{host}: ~/.ssh/config cannot be applied: {error}") from error
    hostname = found.get("hostname", name)
    port_word = str(port or found.get("port", "22"))
    if not port_word.isdecimal():
        raise UsageError(f"{host}: ~/.ssh/config: Port {port_word!r} is no number")
    at = hostname if port_word == "22" else f"[{hostname}]:{port_word}"
    jumps = _unless_none(found.get("proxyjump"))
    command = _unless_none(found.get("proxycommand"))
    return Destination(
        host=host,
        hostname=hostname,
        port=int(port_word),
        user=user or found.get("user") or getpass.getuser(),
        keys=tuple(key for key in map(_expanded, found.get("identityfile", ())) if _is_file(key)),
        is_only_keys=found.get("identitiesonly", "no").lower() == "yes",
        known_as=found.get("hostkeyalias", at),
        known_hosts=tuple(
            _expanded(file)
            for file in shlex.split(
                found.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2")
                + " "
                + found.get("globalknownhostsfile", "/etc/ssh/ssh_known_hosts")
            )
            if file.lower() != "none"
        ),
        connect_timeout_s=_seconds(host, found.get("connecttimeout", "10")),
        jumps=tuple(jumps.split(",")) if jumps else (),
        command=None if jumps else command,
    )


def _text(path: Path, depth: int) -> str:
    """Return a configuration file with what it includes in place."""
    if depth > _INCLUDES_MAX:
        raise UsageError(f"{path}: Include goes deeper than {_INCLUDES_MAX} files")
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot read the ssh configuration: {error}") from error
    section = "Host *"
    done = []
    for line in lines:
        if _SECTION.match(line):
            section = line
        include = _INCLUDE.fullmatch(line)
        if include is None:
            done.append(line)
            continue
        for pattern in shlex.split(include[1]):
            # What is not absolute lies beside the configuration.
            where = str(Path("~/.ssh").expanduser() / Path(pattern).expanduser())
            done += [_text(Path(file), depth + 1) for file in sorted(glob.glob(where))]
        done.append(section)  # which the included files may have left
    return "\n".join(done) + "\n"


def _parse_hop(host: str) -> tuple[str | None, str, int | None]:
    parts = _HOP.fullmatch(host)
    if parts is None:
        raise UsageError(f"{host!r} is no host: write HOST, USER@HOST or USER@HOST:PORT")
    return parts[1], parts[2], int(parts[3]) if parts[3] else None


def _unless_none(value: str | None) -> str | None:
    return None if value is None or value.lower() == "none" else value


def _expanded(file: str) -> str:
    return str(Path(file).expanduser())


def _is_file(file: str) -> bool:
    return Path(file).is_file()


def _seconds(host: str, word: str) -> float:
    if not word.isdecimal() or word == "0":
        raise UsageError(f"{host}: ~/.ssh/config: ConnectTimeout {word!r}: write whole seconds")
    return float(word)
