"""The faulty disk of each node, as the controller sees it: mount it, tell it what to do, remove it.

Everything goes through shell scripts in the node, so it is the same in a namespace, a container and
on a far host. The mount lives in the node's own mount namespace and is served by a process of the
node: whatever ends the node ends both.
"""

import json
import os
import shlex
from pathlib import Path
from typing import Any, Final

from labrys.control import process
from labrys.control.disks import filesystem, fuse, volume, wire
from labrys.control.environments.base import Environment, check
from labrys.control.errors import ClusterError, MachineError
from labrys.control.process import State
from labrys.control.systems.base import System

DEVICE: Final = Path("/dev/fuse")
NEED: Final = "fuse"
"""What nodes must be able to do; see `Environment.require`."""
_NAME: Final = "labrys-disk"
_FOLDER: Final = "labrys/control/disks"
_READY_WITHIN_S: Final = 10.0
_POLL_S: Final = 0.02


class Layer:
    """The disks under the data directories of a system's nodes. Methods raise ClusterError."""

    def __init__(self, env: Environment, system: System) -> None:
        self._env = env
        self._system = system
        # Kinds of faults share the disks of an environment; those of an earlier one are not theirs.
        self._token = f"{id(env):x}"

    def mount(self, node: str) -> None:
        """Put an empty disk under the node's data, unless it is there. No database may run yet.

        One that a dead rig left is taken away first. Raises MachineError where it cannot be had.
        """
        if self._is_ours(node):
            self.restore(node)
            self.lift(node)
            return
        self.unmount(node)
        env = self._env
        files = {f"{_FOLDER}/{Path(source).name}": Path(source).read_bytes() for source in _SOURCES}
        env.upload(node, files)
        data, home = self._system.data_dir(node), env.home(node)
        log = self._log(node)
        check(
            node,
            "making room for its disk",
            env.run(node, f"mkdir -p {shlex.quote(data)}; rm -f {shlex.quote(log)}"),
        )
        argv = ["env", f"PYTHONPATH={home}", env.python(node), "-m", "labrys.control.disks.fuse"]
        process.start(env, node, _NAME, [*argv, data, self._token], log)
        script = f"""\
polls={round(_READY_WITHIN_S / _POLL_S)}
until [ -e {shlex.quote(self._control(node))} ]; do
    polls=$((polls - 1))
    if [ $polls -le 0 ] || ! kill -0 "$(cut -d ' ' -f 1 {shlex.quote(f"{home}/{_NAME}.pid")})"; then
        tail -n 1 {shlex.quote(log)} >&2
        exit 1
    fi
    sleep {_POLL_S}
done
"""
        started = env.run(node, script, timeout_s=_READY_WITHIN_S + 10)
        if started.code != 0:
            self.unmount(node)
            said = started.err.strip().splitlines()[-1:]
            raise MachineError(
                f"{node}: no faulty disk can be put under {data}: {''.join(said)}. It takes "
                "/dev/fuse (modprobe fuse) and the right to mount it in the node"
            )

    def tell(self, node: str, do: str, **more: Any) -> dict[str, Any]:
        """Give the disk a command and return its answer; see `fuse`."""
        answer = self._ask(node, do, **more)
        if not answer:
            raise ClusterError(
                f"{node}: there is no disk to {do}: it was not set up, or taken away"
            )
        return answer

    def lift(self, node: str) -> dict[str, Any]:
        """Mend the disk; what waited goes on. Tells what came of the fault, if there was one."""
        return _without_token(self._ask(node, "lift"))

    def restore(self, node: str, unsynced: str = volume.LOSE, seed: str = "") -> dict[str, Any]:
        """Give the disk its power back if it has none; tells what was lost then."""
        return _without_token(self._ask(node, "restore", unsynced=unsynced, seed=seed))

    def leave(self, node: str) -> None:
        """Take the disk away if nobody uses it; else mend it and let it stay under the database."""
        self.restore(node)
        self.lift(node)
        if self._system.state(node) is State.DEAD:
            self.unmount(node)

    def unmount(self, node: str) -> None:
        """Take the disk away with all that is on it. Idempotent."""
        data = shlex.quote(self._system.data_dir(node))
        # A disk whose process died is still mounted, and even looking at it is an error.
        script = f"while grep -q ' '{data}' fuse ' /proc/mounts; do umount -l {data} || exit; done"
        check(node, "unmounting its disk", self._env.run(node, script))
        if process.signal(self._env, node, _NAME, "KILL"):
            process.wait_gone(self._env, node, _NAME)

    def _is_ours(self, node: str) -> bool:
        try:
            return bool(self._ask(node, "status").get("token") == self._token)
        except ClusterError:  # its process is dead
            return False

    def _ask(self, node: str, do: str, **more: Any) -> dict[str, Any]:
        """Return the answer to a command; nothing where no disk is mounted."""
        wish = json.dumps({"do": do, **more})
        # The control file answers on the descriptor on which it was written to.
        script = f"""\
grep -q ' '{shlex.quote(self._system.data_dir(node))}' fuse ' /proc/mounts || exit 0
{{ printf %s {shlex.quote(wish)} >&3 && cat <&3; }} 3<>{shlex.quote(self._control(node))} && exit 0
tail -n 1 {shlex.quote(self._log(node))} >&2
exit 1
"""
        said = check(node, f"telling the disk to {do}", self._env.run(node, script))
        answer: dict[str, Any] = json.loads(said or "{}")
        if "error" in answer:
            raise ClusterError(f"{node}: the disk does not {do}: {answer['error']}")
        return answer

    def _log(self, node: str) -> str:
        return f"{self._env.home(node)}/{_NAME}.log"

    def _control(self, node: str) -> str:
        return f"{self._system.data_dir(node)}/{fuse.CONTROL.decode()}"


def _without_token(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: fact for name, fact in answer.items() if name != "token"}


_SOURCES: Final = (
    Path(volume.__file__).with_name("__init__.py"),
    *(Path(str(module.__file__)) for module in (volume, wire, filesystem, fuse)),
)


def obstacle(environment: str) -> str | None:
    """Return why no node of `environment` can have a faulty disk on this machine, and the mend."""
    if environment == "ssh":
        return None  # the hosts have the device, or say that they lack it before anything starts
    if environment == "docker" and not os.environ.get("DOCKER_HOST", "unix:").startswith("unix:"):
        return None  # the engine is elsewhere, and says so itself when it has no such device
    if not DEVICE.exists():
        return f"there is no {DEVICE}: sudo modprobe fuse"
    if environment == "docker":
        return None  # the engine, which is root, opens it
    try:
        DEVICE.open("rb+", buffering=0).close()
    except OSError as error:
        return (
            f"{DEVICE} cannot be opened: {error.strerror}. Allow it with: sudo chmod 666 {DEVICE} "
            "(most systems have a udev rule for that), or run labrys as root"
        )
    return None
