"""The clocks of a simulated machine: each began somewhere, and runs a little fast or slow."""

import random
from collections.abc import Mapping
from typing import Final

from labrys.control.sim.world import MS_NS, SECOND_NS, World

EPOCH_MS: Final = 946_684_800_000
"""The time of day at which a simulation begins: the year 2000. What is shown to people is put off
by the real time of the run."""
RATE_PPM: Final = 50
"""By how much the clocks of machines run fast or slow."""
EVEN: Final = 0.14
"""Two clocks that run by so much fast and slow are a third apart, which is what leases bear."""
WALL_OFF_NS: Final = 20 * MS_NS
"""By how much their times of day are off."""


class Clock:
    """A machine's clocks. `set` makes them wrong, as the clock faults do."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._true_rate = self.rate = 1.0 + rng.uniform(-RATE_PPM, RATE_PPM) / 1e6
        """Seconds of the monotonic clock in one."""
        self._booted_ns = self._mono_ns = rng.randrange(SECOND_NS, 10**6 * SECOND_NS)
        self._wall_off_ns = rng.randrange(-WALL_OFF_NS, WALL_OFF_NS)
        self.set_at_ns = 0
        """When the clocks were changed last."""
        self._wrong: Mapping[str, float] = {}
        self.is_even = True
        """Whether its monotonic clock never skipped, nor ran by more than `EVEN` fast or slow."""

    def now_ns(self) -> int:
        """Since the machine was booted."""
        return self._mono_ns + int((self._world.now_ns - self.set_at_ns) * self.rate)

    def now_ms(self) -> int:
        """The same in milliseconds."""
        return (self._mono_ns + int((self._world.now_ns - self.set_at_ns) * self.rate)) // MS_NS

    def now_s(self) -> float:
        """The same in seconds."""
        return self.now_ns() / SECOND_NS

    def wall_ms(self) -> int:
        """The time of day, since 1970."""
        now_ns = int(self._world.now_ns * self._true_rate) + self._wall_off_ns
        if self._wrong:
            now_ns += self.wall_ahead_ns()
        return EPOCH_MS + now_ns // MS_NS

    def monotonic_ahead_ns(self) -> int:
        """By how much faults have put the monotonic clock forward."""
        return self.now_ns() - self._booted_ns - int(self._world.now_ns * self._true_rate)

    def wall_ahead_ns(self) -> int:
        """By how much a fault has put the time of day forward."""
        wrong, passed_ns = self._wrong, self._world.now_ns - self.set_at_ns
        ahead_ns = int(wrong.get("wall_ns", 0) + passed_ns * wrong.get("wall_drift", 0.0))
        half_ns = wrong.get("strobe_half_ns", 0)
        if half_ns and passed_ns // half_ns % 2:
            ahead_ns += int(wrong["strobe_ns"])
        return ahead_ns

    def set(self, wrong: Mapping[str, float]) -> None:
        """Let the clocks be wrong in this way from now on; what is not named is right again.

        The names are those of `labrys.control.nemesis.clock_page`, and so is the rule that the
        monotonic clock never steps back.
        """
        self._mono_ns = self.now_ns() + int(wrong.get("skip_ns", 0))
        self.set_at_ns = self._world.now_ns
        self.rate = self._true_rate * (1.0 + wrong.get("mono_drift", 0.0))
        self._wrong = dict(wrong)
        if wrong.get("skip_ns") or abs(wrong.get("mono_drift", 0.0)) > EVEN:
            self.is_even = False
