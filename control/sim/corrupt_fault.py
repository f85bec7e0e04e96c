"""Damage to the files of simulated nodes: see `labrys.control.nemesis.corrupt` and `damage`."""

from collections.abc import Mapping, Sequence
from typing import Any

from labrys.control.environments.base import Environment
from labrys.control.nemesis import damage
from labrys.control.nemesis.corrupt import Corrupt, CorruptOptions
from labrys.control.sim.environment import simulated
from labrys.control.systems.base import System


class SimCorrupt(Corrupt):
    """Damages files of dead nodes, starts them on what is left, and replaces who refuses."""

    def __init__(self, env: Environment, system: System, options: CorruptOptions) -> None:
        super().__init__(env, system, options)
        self._marks: dict[str, str] = {}

    def _change_file(
        self, node: str, patterns: Sequence[str], plan: Mapping[str, Any], within: float
    ) -> dict[str, Any] | None:
        machine = simulated(self.env).awake(node)
        disk = machine.disk
        paths = disk.matching(patterns)
        if not paths:
            return None
        if "cut_percent" in plan:  # Changed bits are to be noticed.
            machine.watch.excuse(node)
        path = paths[int(plan["which"] * len(paths))]
        return {
            "file": str(path),
            **disk.change(path, lambda content: damaged(content, plan, within)),
        }

    def _mark(self, node: str, why: str) -> None:
        self._marks[node] = f"{self._marks.get(node, '')}{why}\n"

    def _unmark(self, node: str) -> None:
        self._marks.pop(node, None)

    def _mark_of(self, node: str) -> str:
        return self._marks.get(node, "").strip()


def damaged(content: bytearray, plan: Mapping[str, Any], within: float) -> dict[str, Any]:
    """Do to the content of a file what the program of `damage` does, and tell the same of it."""
    size = len(content)
    told: dict[str, Any] = {"size_bytes": size}
    if "cut_percent" in plan:
        cut = min(size, max(1, round(size * plan["cut_percent"] / 100)))
        del content[size - cut :]
        return told | {"cut_bytes": cut}
    span = max(1, int(size * within))
    flips = sorted(
        {(int(at * span), bit) for at, bit in zip(plan["at"], plan["bits"], strict=True)}
    )
    changes = []
    for offset, bit in flips:
        before = content[offset]
        content[offset] ^= 1 << bit
        changes.append({"offset": offset, "before": before, "after": content[offset]})
    return told | {"bits": len(changes), "changes": changes[: damage.TOLD_MAX]}
