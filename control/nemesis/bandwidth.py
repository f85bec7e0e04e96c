"""Bandwidth: what peers send to some nodes comes over a slow line.

By the same program as delays, in a queue and a place of its own, so that both can hold at once. The
line takes packets one after the other; what would have to wait for more than a second is dropped,
and TCP slows down. Clients have a fast line to every node.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from labrys.control.environments.base import Environment
from labrys.control.errors import UsageError
from labrys.control.nemesis.aimed import AimedOptions
from labrys.control.nemesis.queued import QueuedFault
from labrys.control.systems.base import System


class BandwidthOptions(AimedOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of `faults: {bandwidth: ...}`."""

    kbit_s: tuple[float, ...] = (64.0, 256.0, 1024.0)
    """The rate of the line, for all peers together; each fault draws one of them."""

    def check(self, nodes: Sequence[str] | None) -> None:
        """Raise UsageError for rates that cannot be."""
        super().check(nodes)
        if not self.kbit_s or not all(1 <= one <= 1e6 for one in self.kbit_s):
            raise UsageError("kbit_s: name at least one, each from 1 to 1000000")


class Bandwidth(QueuedFault):
    """Gives the targets a slow line from their peers."""

    kind = "bandwidth"
    start_f = "start-slow-line"
    stop_f = "stop-slow-line"
    shade = "#dcd3a6"
    evidence = "packets that found the line busy"
    options_type = BandwidthOptions
    what = "slow lines"
    chain = "LABRYS-LINE"
    hook = "PREROUTING"
    queue = 214
    process = "line"
    healed_word = "hears at full speed"
    trial: ClassVar[Mapping[str, Any]] = {"kbit_s": 1024}

    def __init__(self, env: Environment, system: System, options: BandwidthOptions) -> None:
        super().__init__(env, system, options)
        self._rates = options.kbit_s

    def plan(self, turn: int, seed: str) -> dict[str, Any]:
        """Return whom to hurt and how much."""
        kbit_s = random.Random(f"{seed}/kbit_s/{turn}").choice(self._rates)
        return {**super().plan(turn, seed), "kbit_s": kbit_s}

    def words(self, plan: Mapping[str, Any]) -> tuple[str, ...]:
        """See `QueuedFault`."""
        return ("0", "0", str(plan["kbit_s"]), "keep", "")

    def hurt_word(self, plan: Mapping[str, Any]) -> str:
        """See `QueuedFault`."""
        return f"hears at {plan['kbit_s']:g} kbit/s"

    def bites(self, facts: Mapping[str, Any]) -> bool:
        """Whether packets found the line busy."""
        return bool(facts["queued"] or facts["dropped"])
