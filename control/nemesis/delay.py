"""Delay: packets from peers are held back on their way into some nodes."""

import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from labrys.control.environments.base import Environment
from labrys.control.errors import UsageError
from labrys.control.nemesis.aimed import AimedOptions
from labrys.control.nemesis.queued import QueuedFault
from labrys.control.systems.base import System

_BITES_FROM: Final = 0.5
"""The part of the delay that was asked for from which on it counts as felt."""


class DelayOptions(AimedOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of `faults: {delay: ...}`."""

    delay_ms: tuple[float, ...] = (20.0, 100.0, 400.0)
    """Each fault draws one of them."""
    jitter: float = 0.3
    """So much more or less, as a part of the delay, for each packet."""
    reorder: bool = False
    """Whether jitter may change the order of packets. Otherwise one waits for those before it."""

    def check(self, nodes: Sequence[str] | None) -> None:
        """Raise UsageError for delays that cannot be."""
        super().check(nodes)
        if not self.delay_ms or not all(0 < one <= 60_000 for one in self.delay_ms):
            raise UsageError("delay_ms: name at least one, each above 0 and at most 60000")
        if not 0 <= self.jitter <= 1:
            raise UsageError(f"jitter: a part of the delay, from 0 to 1, not {self.jitter:g}")


class Delay(QueuedFault):
    """Holds back what peers send to the targets. Clients are served without delay."""

    kind = "delay"
    start_f = "start-delay"
    stop_f = "stop-delay"
    shade = "#e8dfa0"
    evidence = "how long packets were held"
    options_type = DelayOptions
    what = "delayed packets"
    chain = "LABRYS-DELAY"
    hook = "INPUT"
    queue = 213
    process = "delayer"
    healed_word = "hears at once"
    trial: ClassVar[Mapping[str, Any]] = {
        "delay_ms": 1, "jitter_ms": 0, "order": "keep", "seed": "",
    }  # fmt: skip

    def __init__(self, env: Environment, system: System, options: DelayOptions) -> None:
        super().__init__(env, system, options)
        self._delays_ms, self._jitter = options.delay_ms, options.jitter
        self._order = "reorder" if options.reorder else "keep"

    def plan(self, turn: int, seed: str) -> dict[str, Any]:
        """Return whom to hurt and how much."""
        delay_ms = random.Random(f"{seed}/delay/{turn}").choice(self._delays_ms)
        more = {"delay_ms": delay_ms, "jitter_ms": round(delay_ms * self._jitter, 3)}
        return {**super().plan(turn, seed), **more, "order": self._order, "seed": f"{seed}/{turn}"}

    def words(self, plan: Mapping[str, Any]) -> tuple[str, ...]:
        """See `QueuedFault`."""
        return (str(plan["delay_ms"]), str(plan["jitter_ms"]), "0", plan["order"], plan["seed"])

    def hurt_word(self, plan: Mapping[str, Any]) -> str:
        """See `QueuedFault`."""
        return f"hears {plan['delay_ms']:g} ms late"

    def bites(self, facts: Mapping[str, Any]) -> bool:
        """Whether packets were held for about as long as was asked."""
        return bool(facts["mean_ms"] >= _BITES_FROM * facts["asked_ms"])
