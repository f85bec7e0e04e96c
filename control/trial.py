"""What a hunt does with one seed, wherever it is done, and how that ends."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from labrys.checkers.verdict import Verdict
from labrys.control.interruption import Interruption
from labrys.control.report import text
from labrys.control.spec import Spec, rerun_command

RunAll = Callable[[Sequence[int]], Iterator["Hunted"]]
"""Runs these seeds, and yields how they ended, in any order; may be closed before the last."""
FINDINGS: Final = (Verdict.INVALID, Verdict.ERROR)


class Hunted(msgspec.Struct, frozen=True):
    """How one seed ended."""

    seed: int
    verdict: Verdict
    simulated_s: float
    why: str = ""
    """In a few words, unless it was valid."""
    rerun: str | None = None
    """The command that runs a finding again, with all that its seed drew."""
    path: str | None = None
    """The run directory of a finding."""
    probes: dict[str, int] = {}
    """How often its nodes got into which rare state; see `labrys.node.probes`."""

    @property
    def is_finding(self) -> bool:
        """Whether there is something to look at."""
        return self.verdict in FINDINGS


class Trial(msgspec.Struct, frozen=True):
    """The test that is tried with many seeds. Travels to other processes and machines."""

    spec: Spec
    vary: Callable[[Spec, int], Spec] | None = None
    """Gives a seed a configuration of its own."""

    def spec_of(self, seed: int) -> Spec:
        """The test of one seed."""
        if self.vary is not None:
            return self.vary(self.spec, seed)
        return msgspec.structs.replace(self.spec, seed=seed)

    def run(self, runs_dir: Path, seed: int) -> Hunted:
        """Run one seed; throw its directory away unless it is a finding."""
        from labrys.control.lifecycle import run_test

        spec = self.spec_of(seed)
        outcome = run_test(
            spec,
            runs_dir,
            interruption=Interruption(),
            say=lambda line: None,
            keep=lambda verdict: verdict in FINDINGS,
        )
        results = outcome.results
        verdict = Verdict(results["verdict"])
        is_finding = verdict in FINDINGS
        return Hunted(
            seed=seed,
            verdict=verdict,
            simulated_s=results["duration_s"],
            why="" if verdict is Verdict.VALID else text.reason(results),
            rerun=rerun_command(spec) if is_finding else None,
            path=str(outcome.run.path) if is_finding else None,
            probes=results["probes"],
        )

    def failed(self, seed: int, why: str) -> Hunted:
        """A seed that could not be run to its end."""
        return Hunted(seed, Verdict.ERROR, 0.0, why, rerun_command(self.spec_of(seed)))
