"""How long the operations of a run took."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from labrys.checkers.quantiles import SHARES, quantile
from labrys.control.report.operations import OUTCOME_NAMES, Operation
from labrys.control.report.schema import OK, Latency


def latencies(operations: Sequence[Operation]) -> list[Latency]:
    """Return counts and quantiles of ok operations by function, in order of first use."""
    took: defaultdict[str, list[int]] = defaultdict(list)
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for operation in operations:
        f = operation.invoke.f
        counts[f][OUTCOME_NAMES[operation.outcome]] += 1
        if operation.outcome == OK and operation.ret_us is not None:
            took[f].append(operation.ret_us - operation.call_us)
    rows: list[Latency] = []
    for f, count in counts.items():
        sample = sorted(took[f])
        p50, p95, p99, most = (
            quantile(sample, share) if sample else None for share in SHARES.values()
        )
        rows.append(
            Latency(
                f=f,
                ok=count["ok"],
                fail=count["fail"],
                info=count["info"],
                p50=p50,
                p95=p95,
                p99=p99,
                max=most,
            )
        )
    return rows
