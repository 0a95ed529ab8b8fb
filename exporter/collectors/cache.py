"""Cache: look-ups, hits and misses, and how long each took.

Source: table ``cache_events``, one row a look-up.
"""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from exporter.collectors.base import TableCollector, add_histogram
from exporter.fold import Table
from exporter.tail import Reading, State

# A hit takes milliseconds, a miss as long as the query behind it.
RESPONSE_BUCKETS = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
)
RESULTS = ("miss", "hit")  # by the column hit: 0, 1


class Cache(TableCollector):
    """hakgal_cache_*."""

    database = "performance"
    table = Table(
        "cache_events",
        lasting=("timestamp", "hit", "cache_key", "response_time"),
        flag="hit",
        required=("hit",),
        value="response_time",
        value_optional=True,
        buckets=RESPONSE_BUCKETS,
    )

    def families(self, state: State | None, reading: Reading) -> Iterator[Metric]:
        """Yield look-ups by result; one without a response time is in no bucket.

        hakgal_cache_hits_total 70.0
        hakgal_cache_misses_total 30.0
        hakgal_cache_response_seconds_bucket{result="hit",le="0.005"} 70.0
        """
        if state is None:
            return
        miss, hit = (state.counts.series["", flag] for flag in (0, 1))
        yield CounterMetricFamily(
            "hakgal_cache_hits",
            "Cache look-ups that found their entry.",
            value=sum(hit.counts),
        )
        yield CounterMetricFamily(
            "hakgal_cache_misses",
            "Cache look-ups that did not find their entry.",
            value=sum(miss.counts),
        )
        if reading.table.value is None:
            return
        responses = HistogramMetricFamily(
            "hakgal_cache_response_seconds",
            "Duration of cache look-ups in seconds, by result; those with a time.",
            labels=["result"],
        )
        for result, series in zip(RESULTS, (miss, hit), strict=True):
            add_histogram(responses, [result], self.table, series)
        yield responses
