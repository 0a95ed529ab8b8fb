"""Build metric families from values by label value.

A key is a tuple for several labels, and "" for none. None and NaN give no sample.
"""

import math
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import core
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from exporter.counting.table import Series

Values = Mapping[Any, float | None]


def gauge(name: str, help_: str, values: Values, *labels: str) -> core.Metric:
    """Return a gauge."""
    return _fill(core.GaugeMetricFamily(name, help_, labels=labels), values)


def counter(name: str, help_: str, values: Values, *labels: str) -> core.Metric:
    """Return a counter; ``name`` comes without ``_total``."""
    return _fill(core.CounterMetricFamily(name, help_, labels=labels), values)


def histogram(
    name: str,
    help_: str,
    buckets: tuple[float, ...],
    values: Mapping[Any, Series],
    *labels: str,
    exemplar: str = "",
) -> core.Metric:
    """Return a histogram; ``exemplar`` names the exemplar label for a row's id."""
    family = core.HistogramMetricFamily(name, help_, labels=labels)
    bounds = [*map(floatToGoString, buckets), "+Inf"]
    for key, series in values.items():
        counts = map(float, accumulate(series.counts[:-1]))
        filled: list[Any] = list(zip(bounds, counts, strict=True))
        for n, (row, value) in series.exemplars.items() if exemplar else ():
            filled[n] += (Exemplar({exemplar: str(row)}, value),)
        family.add_metric(_list(key), filled, float(series.total))
    return family


def _fill(
    family: core.GaugeMetricFamily | core.CounterMetricFamily, values: Values
) -> core.Metric:
    for key, value in values.items():
        if value is not None and not math.isnan(value):
            # A wrong type would fail only when the page is written, and lose it all.
            family.add_metric(_list(key), float(value))
    return family


def _list(key: Any) -> list[str]:
    return [key] if isinstance(key, str) else [*key]
