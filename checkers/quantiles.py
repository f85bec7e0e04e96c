"""Quantiles of measured values: always one of the values, never one in between."""

import math
from collections.abc import Sequence
from typing import Final, TypeVar

Number = TypeVar("Number", int, float)
SHARES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}


def quantile(ordered: Sequence[Number], share: float) -> Number:
    """Return the least of the rising values `ordered` that `share` of them do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def quantiles_ms(times_ns: Sequence[int]) -> dict[str, float]:
    """Return median, 95th and 99th percentile and maximum of durations (ns) in milliseconds."""
    ordered = sorted(times_ns)
    return {name: round(quantile(ordered, share) / 1e6, 3) for name, share in SHARES.items()}
