"""Power: some nodes lose their power, and with it what they wrote and did not flush.

A killed process loses nothing that it wrote, since the kernel still has it. So the data lies on the
file system of `control/disks`, which knows what was flushed. First the disks of all targets stop,
so that nothing more gets to them or is answered; then the processes are killed; when they are gone
the disks go back to what survives. The undo starts the database on that.
"""

import random
from collections.abc import Sequence
from typing import Any, ClassVar

from labrys.control.disks import layer, volume
from labrys.control.disks.layer import Layer
from labrys.control.environments.base import Environment, on_nodes
from labrys.control.errors import UsageError
from labrys.control.names import known
from labrys.control.nemesis.aimed import AimedOptions
from labrys.control.nemesis.package import Outcome, Planned, each
from labrys.control.nemesis.processes import ProcessFault
from labrys.control.process import State
from labrys.control.systems.base import System


class PowerOptions(AimedOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of `faults: {power: ...}`."""

    unsynced: tuple[str, ...] = (volume.LOSE, volume.TEAR)
    """What becomes of writes and names that were not flushed: see `Volume.power_failure`. Each
    fault draws one of them. `holes` is more than a correct database need be able to read."""
    lie: bool = False
    """Whether flushes do nothing, as with a disk whose cache has no battery. What such a disk loses
    was acknowledged, so with a majority of them even a correct database fails."""
    writeback_ms: float = 500.0
    """How old what was flushed may be on a disk that lies."""

    def check(self, nodes: Sequence[str] | None) -> None:
        """Raise UsageError for what cannot be."""
        super().check(nodes)
        if not self.unsynced:
            raise UsageError(f"unsynced: name at least one of {', '.join(volume.UNSYNCED)}")
        for one in self.unsynced:
            known("unsynced", one, volume.UNSYNCED)
        if not 0 < self.writeback_ms <= 3_600_000:
            raise UsageError(
                f"writeback_ms: above 0 and at most 3600000, not {self.writeback_ms:g}"
            )


class Power(ProcessFault):
    """Power off for some, power on and a new start for all."""

    kind = "power"
    start_f = "power-off"
    stop_f = "power-on"
    undo_order = 2
    shade = "#8fb3c9"
    mechanism = "a FUSE file system under the data, SIGKILL"
    evidence = "state of the process, bytes lost"
    cure_word = "starting it"
    options_type = PowerOptions
    hurt_state = State.DEAD
    hurt_word = "without power"
    needs: ClassVar[frozenset[str]] = frozenset({layer.NEED})

    def __init__(self, env: Environment, system: System, options: PowerOptions) -> None:
        super().__init__(env, system, options)
        self._unsynced = options.unsynced
        self._writeback_s = options.writeback_ms / 1e3 if options.lie else None
        self._layer = Layer(env, system)

    @classmethod
    def obstacle(cls, environment: str) -> str | None:
        """See `layer.obstacle`."""
        return layer.obstacle(environment)

    def plan(self, turn: int, seed: str) -> dict[str, Any]:
        """Return whom to hurt, and what becomes of what was not flushed."""
        unsynced = random.Random(f"{seed}/unsynced/{turn}").choice(self._unsynced)
        return {**super().plan(turn, seed), "unsynced": unsynced, "seed": f"{seed}/{turn}"}

    def apply(self, planned: Planned) -> Outcome:
        """Stop the disks of the targets, kill what runs on them, and let the disks lose."""
        _, deaf = each(planned.targets, lambda node: self._layer.tell(node, "cut"))
        killed = super().apply(planned)
        gone = [node for node in killed.done if node not in deaf]
        plan = planned.plan

        def lose(node: str) -> dict[str, Any]:
            return self._layer.restore(node, plan["unsynced"], f"{plan['seed']}/{node}")

        lost, errors = each(gone, lose)
        return Outcome(
            done=killed.done,
            observed={
                node: {**states, **lost.get(node, {})} for node, states in killed.observed.items()
            },
            bit=killed.bit,
            errors={**killed.errors, **deaf, **errors},
        )

    def hurt(self, node: str) -> None:
        """Kill the process and wait until it is gone; its disk has stopped."""
        self.system.kill(node)

    def cure(self, node: str) -> None:
        """Start the process if it is dead; its disk has power again."""
        self._layer.restore(node)
        self.system.start(node)

    def set_up(self) -> None:
        """Put a disk of our own under every node's data. Raises MachineError where it can't."""

        def prepare(node: str) -> None:
            self._layer.mount(node)
            self._layer.tell(node, "lie", writeback_s=self._writeback_s)

        on_nodes(self.env.nodes, prepare)

    def tear_down(self) -> None:
        """Take the disks away; one that a database still runs on stays, and is sound."""
        on_nodes(self.env.nodes, self._layer.leave)
