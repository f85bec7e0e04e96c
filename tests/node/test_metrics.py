"""Prometheus text, read by Prometheus' own parser."""

import math

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from labrys.node.metrics import Histogram, Metric, Sample, counter, gauge, render

texts = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=20)


@given(texts, texts, st.floats(allow_nan=False))
def test_any_text_and_number_comes_back(about: str, label: str, value: float) -> None:
    metric = gauge("m", about, value, {"l": label})
    (family,) = text_string_to_metric_families(render([metric]).decode())
    (sample,) = family.samples
    assert (sample.name, sample.labels) == ("m", {"l": label})
    assert sample.value == value


def test_counters_and_gauges_are_what_they_say() -> None:
    text = render([counter("a_total", "A.", 3), gauge("b", "B.", -1.5)]).decode()
    first, second = text_string_to_metric_families(text)
    assert (first.type, first.samples[0].value) == ("counter", 3)
    assert (second.type, second.samples[0].value) == ("gauge", -1.5)


@given(st.lists(st.floats(0, 10), max_size=50))
def test_a_histogram_counts_everything_once(values: list[float]) -> None:
    histogram = Histogram((0.5, 1, 5))
    for value in values:
        histogram.observe(value)
    metric = Metric("h", "histogram", "H.", histogram.samples({"to": "x"}))
    (family,) = text_string_to_metric_families(render([metric]).decode())
    found = {s.labels.get("le", s.name): s.value for s in family.samples}
    assert found["+Inf"] == found["h_count"] == len(values)
    assert found["1"] == sum(value <= 1 for value in values)
    assert math.isclose(found["h_sum"], sum(values), abs_tol=1e-9)


def test_a_metric_without_samples_is_only_described() -> None:
    assert render([Metric("m", "gauge", "M.", ())]) == b"# HELP m M.\n# TYPE m gauge\n"
    assert render([Metric("m", "gauge", "M.", (Sample(1, suffix="_x"),))]).endswith(b"m_x 1\n")
