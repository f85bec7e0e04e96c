"""A slow CPU: what a process computes takes time, and what comes meanwhile waits."""

from typing import Final

from labrys.control.sim.world import MS_NS

TURN_NS: Final = MS_NS // 10
"""What a turn of the node takes on a whole core. It is not measured, which would be another time in
each run."""


class Cpu:
    """What a machine has of a core."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.turn_ns = round(TURN_NS / share)
        """What a turn takes."""
        self.waits = 0
        """How often something came while another turn was not over."""
