"""What a program sees of a disk that is spoiled and mended, tried in the nodes of any environment.

The database is a loop that appends a line, flushes it and then says so in a file beside the disk:
what it says has to be there after any fault. Like a good database it ends at the first error.
"""

import shlex
from typing import Any

from tests.control.probes import Sleepers, until_deadline

from labrys.control import process
from labrys.control.disks import fuse
from labrys.control.disks.layer import Layer
from labrys.control.environments.base import Environment, check
from labrys.control.nemesis.disk import Disk, DiskOptions
from labrys.control.nemesis.package import Planned
from labrys.control.nemesis.power import Power, PowerOptions
from labrys.control.process import State

_APPEND = """
import os, sys
data, told = sys.argv[1:]
log = os.open(data + "/log", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
directory = os.open(data, os.O_RDONLY)
os.fsync(directory)
count = os.fstat(log).st_size // 100
os.ftruncate(log, 100 * count)
print("starts at", count, flush=True)
out = os.open(told, os.O_WRONLY | os.O_CREAT)
while True:
    line = str(count).encode().rjust(99) + b"\\n"
    written = os.write(log, line)
    if written < len(line):
        print("short write", flush=True)
        os.write(log, line[written:])
    os.fdatasync(log)
    count += 1
    os.pwrite(out, str(count).encode(), 0)
"""


class Appenders(Sleepers):
    """A system whose database does nothing but append."""

    def start(self, node: str) -> None:
        log = f"{self.env.log_dir(node)}/log"
        argv = [self.env.python(node), "-c", _APPEND, self.data_dir(node), self.told(node)]
        process.start(self.env, node, "db", argv, log)

    def told(self, node: str) -> str:
        return f"{self.env.home(node)}/told"

    def count(self, node: str) -> int:
        """How many lines it said to be durable."""
        script = f"cat {shlex.quote(self.told(node))} 2>/dev/null || echo 0"
        return int(check(node, "counting", self.env.run(node, script)).strip() or 0)

    def lines(self, node: str) -> int:
        """How many lines are in its log."""
        path = shlex.quote(f"{self.data_dir(node)}/log")
        return int(check(node, "counting lines", self.env.run(node, f"wc -l <{path}")))

    def said(self, node: str) -> str:
        return self.env.run(node, f"cat {shlex.quote(self.env.log_dir(node))}/log").out


class Scenarios:
    """Each method plays one fault on the first node and returns what was seen, as JSON values."""

    def __init__(self, env: Environment) -> None:
        self.env = env
        self.system = Appenders(env, leader="n1")
        self.node, self.other = env.nodes[:2]
        self.layer = Layer(env, self.system)

    def grows(self, node: str) -> bool:
        """Wait until the database has appended something."""
        before = self.system.count(node)
        return any(self.system.count(node) > before for _ in until_deadline(f"{node} to append"))

    def dies(self) -> bool:
        return any(
            self.system.state(self.node) is State.DEAD
            for _ in until_deadline(f"{self.node} to stop itself")
        )

    def begin(self) -> None:
        """All databases run, on disks of ours."""
        for node in self.env.nodes:
            self.system.start(node)
            self.grows(node)

    def spoiled(self, mode: str, **more: Any) -> dict[str, Any]:
        """Spoil the disk until the database has noticed, and mend it."""
        disk = Disk(self.env, self.system, DiskOptions(modes=(mode,)))
        disk.set_up()
        self.begin()
        seen: dict[str, Any] = {}
        before = len(self.system.said(self.node))
        applied = disk.apply(Planned((self.node,), {"mode": mode, **more}))
        if mode in (fuse.HANG, fuse.SLOW):
            for _ in until_deadline("an operation to wait"):
                if self.layer.tell(self.node, "status")["waiting"]:
                    break
        else:
            seen["stopped itself"] = self.dies()
        if mode == fuse.HANG:
            stands_at = self.system.count(self.node)
            self.grows(self.other)
            seen["stands still"] = self.system.count(self.node) == stands_at
        seen["others go on"] = self.grows(self.other)
        undone = disk.undo()
        seen["goes on"] = self.grows(self.node)
        again = disk.undo()
        facts = undone.observed.pop(self.node)
        new = self.system.said(self.node)[before:]
        words = ("Errno 5", "Errno 28", "Errno 30", "short write", "Interrupted")
        return {
            **seen,
            "said": [word for word in words if word in new],
            "counted": sorted(name for name in ("failed", "short", "held") if facts[name]),
            "others observed": undone.observed,
            "bit": undone.bit,
            "bit again": again.bit,
            "errors": {**applied.errors, **undone.errors, **again.errors},
        }

    def killed_on_a_hung_disk(self) -> dict[str, Any]:
        """A process that waits for its disk can be killed."""
        disk = Disk(self.env, self.system, DiskOptions(modes=(fuse.HANG,)))
        disk.set_up()
        self.begin()
        disk.apply(Planned((self.node,), {"mode": fuse.HANG}))
        for _ in until_deadline("an operation to wait"):
            if self.layer.tell(self.node, "status")["waiting"]:
                break
        self.system.kill(self.node)
        state = self.system.state(self.node)
        disk.undo()
        return {"killed": state, "goes on": self.grows(self.node)}

    def without_power(self, unsynced: str, lie: bool = False) -> dict[str, Any]:
        """Cut the power while there are files and lines that were not flushed."""
        options = PowerOptions(unsynced=(unsynced,), lie=lie, writeback_ms=3_600_000)
        power = Power(self.env, self.system, options)
        power.set_up()
        self.begin()
        data = shlex.quote(self.system.data_dir(self.node))
        script = f"""\
cd {data} && echo old >flushed && sync flushed . && mv flushed moved && echo new >>moved
echo x >unflushed
"""
        check(self.node, "writing", self.env.run(self.node, script))
        applied = power.apply(Planned((self.node,), {"unsynced": unsynced, "seed": "s"}))
        told = self.system.count(self.node)
        names = self.env.run(self.node, f"cd {data} && ls; cat flushed moved").out.split()
        state = self.system.state(self.node)
        lines = self.system.lines(self.node) if "log" in names else 0
        undone = power.undo()
        goes_on = self.grows(self.node)
        power.undo()
        return {
            "state": state,
            "nothing that was flushed is lost": lines >= told,
            "left": names,
            "lost names": applied.observed[self.node]["lost_names"],
            "lost bytes": applied.observed[self.node]["lost_bytes"] > 0,
            "bit": applied.bit,
            "goes on": goes_on,
            "errors": {**applied.errors, **undone.errors},
        }

    def killed_in_the_middle_of_a_write(self) -> dict[str, Any]:
        """What was being written when the power went may be there, though nobody was told."""
        power = Power(self.env, self.system, PowerOptions())
        power.set_up()
        self.begin()
        self.layer.tell(self.node, "cut")
        for _ in until_deadline("an operation to wait"):
            if self.layer.tell(self.node, "status")["waiting"]:
                break
        self.system.kill(self.node)
        told = self.system.count(self.node)
        self.layer.restore(self.node, "keep")
        return {"lines more than told": self.system.lines(self.node) - told}

    def served_by_nobody(self) -> dict[str, Any]:
        """The process behind a disk has died: one node fails, the others are mended."""
        disk = Disk(self.env, self.system, DiskOptions())
        disk.set_up()
        self.begin()
        disk.apply(Planned(self.env.nodes, {"mode": fuse.READONLY}))
        process.kill(self.env, self.node, "labrys-disk")
        undone = disk.undo()
        seen = {
            "errors": sorted(undone.errors),
            "mended": sorted(undone.done),
            "others go on": self.grows(self.other),
        }
        for node in self.env.nodes:
            self.system.kill(node)
        disk.set_up()
        self.begin()
        return {**seen, "set up again": self.grows(self.node)}

    def left_by_a_dead_rig(self) -> dict[str, Any]:
        """Another rig finds a disk that hangs: it takes it away and puts its own there."""
        disk = Disk(self.env, self.system, DiskOptions())
        disk.set_up()
        self.begin()
        disk.apply(Planned(self.env.nodes, {"mode": fuse.HANG}))
        for node in self.env.nodes:
            self.system.kill(node)
        fresh = Layer(self.env, self.system)
        fresh._token = "another"
        for node in self.env.nodes:
            fresh.mount(node)
        script = f"ls -A {shlex.quote(self.system.data_dir(self.node))}"
        empty = check(self.node, "listing", self.env.run(self.node, script))
        self.begin()
        return {"empty": not empty, "mounts": self.mounts(), "goes on": self.grows(self.node)}

    def torn_down(self) -> dict[str, Any]:
        """Nothing is left of the disks, unless a database runs on them."""
        disk = Disk(self.env, self.system, DiskOptions())
        disk.set_up()
        self.begin()
        disk.apply(Planned((self.node,), {"mode": fuse.SLOW, "slow_ms": 60_000}))
        disk.tear_down()
        running = {"mounts": self.mounts(), "goes on": self.grows(self.node)}
        for node in self.env.nodes:
            self.system.kill(node)
        for _ in range(2):
            disk.tear_down()
        pids = [process.state(self.env, node, "labrys-disk") for node in self.env.nodes]
        return {"running": running, "mounts": self.mounts(), "processes": pids}

    def mounts(self) -> list[int]:
        """How many disks of ours are mounted in each node."""
        found = []
        for node in self.env.nodes:
            data = self.system.data_dir(node)
            said = self.env.run(node, f"grep -c ' {data} fuse ' /proc/mounts").out
            found.append(int(said))
        return found


EXPECTED: dict[str, dict[str, Any]] = {
    "error": {"said": ["Errno 5"], "counted": ["failed"], "stopped itself": True},
    "readonly": {"said": ["Errno 30"], "counted": ["failed"], "stopped itself": True},
    "full": {
        "said": ["Errno 28", "short write"],
        "counted": ["failed", "short"],
        "stopped itself": True,
    },
    "hang": {"said": [], "counted": ["held"], "stands still": True},
    "slow": {"said": [], "counted": ["held"]},
}
"""By mode: what is seen besides `ALWAYS`."""

ALWAYS: dict[str, Any] = {
    "others go on": True,
    "goes on": True,
    "others observed": {},
    "bit": True,
    "bit again": False,
    "errors": {},
}
PLANS: dict[str, dict[str, Any]] = {
    "error": {"operation": "fsync"},
    "readonly": {},
    "full": {"room_bytes": 150},
    "hang": {},
    "slow": {"slow_ms": 100},
}
