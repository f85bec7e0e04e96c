"""Numbers for Prometheus, in its text format (version 0.0.4)."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Sample(msgspec.Struct, frozen=True):
    """One value; `suffix` is added to the name of its metric."""

    value: float
    labels: Mapping[str, str] = {}
    suffix: str = ""


class Metric(msgspec.Struct, frozen=True):
    """A name with all its samples."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: Sequence[Sample]


class Histogram:
    """Counts of observations up to each bound, cheap enough for every request."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def samples(self, labels: Mapping[str, str]) -> list[Sample]:
        """As Prometheus wants it: cumulative, with the sum and the count."""
        total = 0
        found = []
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            found.append(Sample(total, {**labels, "le": _number(bound)}, "_bucket"))
        return [*found, Sample(self._sum, labels, "_sum"), Sample(total, labels, "_count")]


def gauge(name: str, help_: str, value: float, labels: Mapping[str, str] | None = None) -> Metric:
    """A number that goes up and down."""
    return Metric(name, "gauge", help_, (Sample(value, labels or {}),))


def counter(name: str, help_: str, value: float) -> Metric:
    """A number that only goes up while the node lives."""
    return Metric(name, "counter", help_, (Sample(value),))


def render(metrics: Iterable[Metric]) -> bytes:
    """All of it as text."""
    lines: list[str] = []
    for metric in metrics:
        lines.append(f"# HELP {metric.name} {_escaped(metric.help)}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        for sample in metric.samples:
            pairs = [
                f'{name}="{_escaped(text, quote=True)}"' for name, text in sample.labels.items()
            ]
            labels = f"{{{','.join(pairs)}}}" if pairs else ""
            lines.append(f"{metric.name}{sample.suffix}{labels} {_number(sample.value)}")
    return "".join(f"{line}\n" for line in lines).encode()


def _labels(labels: Mapping[str, str]) -> str:
    pairs = [f'{name}="{_escaped(text, quote=True)}"' for name, text in labels.items()]
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _escaped(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quote else text


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if float(value).is_integer() else repr(float(value))
