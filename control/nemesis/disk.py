"""Disk: the file system under the data of some nodes fails, runs full, is slow or stands still.

By the file system of `control/disks`, which lies under the data of every node for as long as the
run lasts. A database that does not go on after a failed write or flush is right to stop itself, so
the undo starts again what is dead.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from labrys.control.disks import fuse, layer
from labrys.control.disks.layer import Layer
from labrys.control.environments.base import Environment, on_nodes
from labrys.control.errors import UsageError
from labrys.control.names import known
from labrys.control.nemesis.aimed import AimedFault, AimedOptions
from labrys.control.nemesis.package import Outcome, Planned, deal, each
from labrys.control.process import State
from labrys.control.systems.base import System

ALL: Final = "all"
OPERATIONS: Final = (fuse.READ, fuse.WRITE, fuse.FSYNC, fuse.NAME, ALL)
"""What `error` can hit: `name` makes, renames and removes files, `all` is all four."""
_ROOM_BYTES: Final = 4096
"""A disk runs full so many bytes after the fault, or fewer: the last write is a short one."""
_STOPS_WITHIN_S: Final = 1.0
"""How long a database that was refused an operation may take to stop itself."""
_POLL_S: Final = 0.02
_WORDS: Final[Mapping[str, str]] = {
    fuse.FULL: "has a full disk",
    fuse.READONLY: "has a disk that can only be read",
    fuse.HANG: "has a disk that stands still",
}


class DiskOptions(AimedOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of `faults: {disk: ...}`."""

    modes: tuple[str, ...] = fuse.MODES
    """What goes wrong; each has its turn."""
    operations: tuple[str, ...] = (fuse.WRITE, fuse.FSYNC, ALL)
    """What fails in the mode `error`, with EIO; each fault draws one of them."""
    slow_ms: tuple[float, ...] = (20.0, 100.0, 500.0)
    """How much longer each write and flush takes in the mode `slow`; each fault draws one."""

    def check(self, nodes: Sequence[str] | None) -> None:
        """Raise UsageError for a mode, operation or time that cannot be."""
        super().check(nodes)
        for name, given, there_are in (
            ("modes", self.modes, fuse.MODES),
            ("operations", self.operations, OPERATIONS),
        ):
            if not given:
                raise UsageError(f"{name}: name at least one of {', '.join(there_are)}")
            for one in given:
                known(name.removesuffix("s"), one, there_are)
        if not self.slow_ms or not all(0 < one <= 60_000 for one in self.slow_ms):
            raise UsageError("slow_ms: name at least one, each above 0 and at most 60000")


class Disk(AimedFault):
    """Spoils the disks of the targets; the other nodes' stay sound."""

    kind = "disk"
    start_f = "spoil-disk"
    stop_f = "mend-disk"
    undo_order = 1
    """Before processes are started: on a bad disk they would die again."""
    strike_order = 2
    """Early: who has been killed does not notice."""
    shade = "#c9b08f"
    mechanism = "a FUSE file system under the data"
    evidence = "operations that failed or waited"
    cure_word = "mending it, starting what stopped"
    options_type = DiskOptions
    choices = "modes"
    needs: ClassVar[frozenset[str]] = frozenset({layer.NEED})

    def __init__(self, env: Environment, system: System, options: DiskOptions) -> None:
        super().__init__(env, system, options)
        self._modes = [(mode,) for mode in options.modes]
        self._operations, self._slow_ms = options.operations, options.slow_ms
        self._layer = Layer(env, system)

    @classmethod
    def obstacle(cls, environment: str) -> str | None:
        """See `layer.obstacle`."""
        return layer.obstacle(environment)

    def plan(self, turn: int, seed: str) -> dict[str, Any]:
        """Return whom to hurt and how."""
        rng = random.Random(f"{seed}/disk/{turn}")
        mode = deal(self._modes, turn, f"{seed}/mode")
        more: dict[str, Any] = {"mode": mode}
        if mode == fuse.ERROR:
            more["operation"] = rng.choice(self._operations)
        elif mode == fuse.SLOW:
            more["slow_ms"] = rng.choice(self._slow_ms)
        elif mode == fuse.FULL:
            more["room_bytes"] = rng.randrange(_ROOM_BYTES)
        return {**super().plan(turn, seed), **more}

    def apply(self, planned: Planned) -> Outcome:
        """Spoil the disks of the targets, in parallel."""
        wish, word = _wish(planned.plan)
        done, errors = each(planned.targets, lambda node: self._layer.tell(node, "fail", **wish))
        return Outcome(done=dict.fromkeys(done, word), errors=errors)

    def undo(self) -> Outcome:
        """Mend all disks and start what stopped; tells what failed or waited until then."""
        found, errors = each(self.env.nodes, self._mend)
        observed = {node: facts for node, (_, facts) in found.items() if facts}
        return Outcome(
            done={node: state for node, (state, _) in found.items()},
            observed=observed,
            bit=any(
                facts["failed"] or facts["short"] or facts["held"] for facts in observed.values()
            ),
            errors=errors,
        )

    def set_up(self) -> None:
        """Put a disk of our own under every node's data. Raises MachineError where it can't."""
        on_nodes(self.env.nodes, self._layer.mount)

    def tear_down(self) -> None:
        """Take the disks away; one that a database still runs on stays, and is sound."""
        on_nodes(self.env.nodes, self._layer.leave)

    def _mend(self, node: str) -> tuple[str, dict[str, Any]]:
        facts = self._layer.lift(node)
        deadline = self.system.monotonic_s() + _STOPS_WITHIN_S
        state = self.system.state(node)
        # It may be on its way down, and a start would find it still there.
        while (
            facts.get("failed") and state is not State.DEAD and self.system.monotonic_s() < deadline
        ):
            self.system.sleep(_POLL_S)
            state = self.system.state(node)
        self.system.start(node)
        return "had stopped, is started" if state is State.DEAD else "has a sound disk", facts


def _wish(plan: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """What the disk is told, and what is told of the node."""
    mode = plan["mode"]
    wish: dict[str, Any] = {"mode": mode}
    if mode == fuse.ERROR:
        operation = plan["operation"]
        if operation != ALL:
            wish["operations"] = [operation]
        word = "every operation" if operation == ALL else f"every {operation}"
        return wish, f"{word} fails"
    if mode == fuse.SLOW:
        wish |= {"operations": [fuse.WRITE, fuse.FSYNC], "delay_ms": plan["slow_ms"]}
        return wish, f"writes and flushes take {plan['slow_ms']:g} ms longer"
    if mode == fuse.FULL:
        wish["room_bytes"] = plan["room_bytes"]
    return wish, _WORDS[mode]
