"""What has come of the seeds of a hunt: verdicts, findings, and which rare states were reached."""

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from labrys.checkers.verdict import Verdict, combine
from labrys.control.trial import Hunted
from labrys.node.probes import Probe


class Tally:
    """What has come of the seeds so far."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.verdicts: Counter[Verdict] = Counter()
        self.simulated_s = 0.0
        self.findings: list[Hunted] = []
        self.probe_seeds: Counter[str] = Counter()
        """How many seeds reached each probe."""
        self.probe_counts: Counter[str] = Counter()
        """How often all of them together did."""
        self._began_s = time.monotonic()

    @property
    def done(self) -> int:
        """How many seeds have ended."""
        return self.verdicts.total()

    @property
    def verdict(self) -> Verdict:
        """That of all together. Seeds that were unknown are counted and told, no more: of many
        some are vacuous, and that says nothing of the others."""
        told = [verdict for verdict in self.verdicts if verdict is not Verdict.UNKNOWN]
        return combine(told) if told else Verdict.UNKNOWN

    def add(self, hunted: Hunted) -> None:
        """One more has ended."""
        self.verdicts[hunted.verdict] += 1
        self.simulated_s += hunted.simulated_s
        self.probe_seeds.update(hunted.probes.keys())
        self.probe_counts.update(hunted.probes)
        if hunted.is_finding:
            self.findings.append(hunted)

    @property
    def never_reached(self) -> list[str]:
        """The probes that no seed reached: what this hunt says nothing about."""
        return [probe.label for probe in Probe if probe.label not in self.probe_seeds]

    def probe_lines(self) -> Iterator[str]:
        """What was reached by how many seeds, the most first, and what was not."""
        reached = [probe.label for probe in Probe if probe.label in self.probe_seeds]
        for label in sorted(reached, key=self.probe_seeds.__getitem__, reverse=True):
            seeds, count = self.probe_seeds[label], self.probe_counts[label]
            yield f"  {label:28}{seeds} of {self.done} seeds, {count} times"
        if self.never_reached:
            yield f"never reached: {', '.join(self.never_reached)}"

    def facts(self) -> dict[str, Any]:
        """All of it as one object."""
        return {
            "done": self.done,
            "seeds": self.count,
            "simulated_s": round(self.simulated_s, 3),
            "verdicts": {v.value: self.verdicts[v] for v in Verdict if self.verdicts[v]},
            "probes": {
                label: {"seeds": seeds, "count": self.probe_counts[label]}
                for label, seeds in sorted(self.probe_seeds.items())
            },
            "never_reached": self.never_reached,
        }

    def line(self) -> str:
        """All of it in one line."""
        taken_s = max(time.monotonic() - self._began_s, 1e-9)
        hours = self.simulated_s / 3600
        told = ", ".join(f"{self.verdicts[v]} {v.value}" for v in Verdict if self.verdicts[v])
        return (
            f"{self.done} of {self.count} seeds, {self.done / taken_s:.2f}/s, {hours:.3f} simulated"
            f" hours, {hours / taken_s * 60:.3f} a minute; {told or 'nothing yet'}"
        )
