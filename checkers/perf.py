"""The perf checker: how long operations took, and how many got through."""

from typing import Any, Final

from labrys.checkers.checker import Evidence
from labrys.checkers.history import MAIN, History
from labrys.checkers.quantiles import quantiles_ms
from labrys.checkers.verdict import CheckResult, Verdict

_SECOND_NS: Final = 1_000_000_000


class Perf:
    """Latencies by function and outcome, and throughput, in the main phase.

    Figures, not demands: no latency is wrong, so it is always valid.
    """

    name = "perf"

    def check(self, history: History, evidence: Evidence) -> CheckResult:
        """Measure the clients' operations in `history`."""
        latencies: dict[str, dict[str, list[int]]] = {}
        times: list[int] = []
        succeeded = 0
        for operation in history.operations:
            completion, began = operation.completion, operation.invoke.time
            if completion is None or began < 0 or history.phase_of(operation.call) != MAIN:
                continue
            of_function = latencies.setdefault(operation.f, {})
            of_function.setdefault(completion.type.value, []).append(completion.time - began)
            times += (began, completion.time)
            succeeded += operation.is_ok
        if not times:
            return CheckResult(Verdict.VALID, "nothing was timed in the main phase")
        seconds = (max(times) - min(times)) / _SECOND_NS
        figures: dict[str, Any] = {
            f: {
                outcome: {"count": len(took), **quantiles_ms(took)}
                for outcome, took in sorted(outcomes.items())
            }
            for f, outcomes in sorted(latencies.items())
        }
        rate = succeeded / seconds if seconds else 0.0
        told = "; ".join(
            f"{f} {outcomes['ok']['p50']:.3g}/{outcomes['ok']['p99']:.3g} ms"
            for f, outcomes in figures.items()
            if "ok" in outcomes
        )
        return CheckResult(
            Verdict.VALID,
            f"{rate:.0f} ok/s; median and 99 % of those: {told}" if told else "nothing succeeded",
            data={"latency_ms": figures, "ok_per_s": round(rate, 1), "seconds": round(seconds, 3)},
        )
