"""Cache: hits, misses, and the duration of look-ups.

Source: table ``cache_events``, one row per look-up.
"""

from collections.abc import Iterator

from prometheus_client.core import Metric

from exporter.collectors.families import counter, histogram
from exporter.config import Config
from exporter.counting.table import Reading, Table

# A hit takes milliseconds; a miss takes as long as the query behind it.
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


def table(config: Config) -> Table:
    return Table(
        "cache_events",
        "performance",
        ("cache_events",),
        flag="hit",
        value="response_time",
        value_optional=True,
        required=("hit",),
        buckets=BUCKETS,
    )


def families(reading: Reading) -> Iterator[Metric]:
    """Yield the look-ups by result; those without a response time are in no bucket.

    hakgal_cache_hits_total 70.0
    hakgal_cache_misses_total 30.0
    hakgal_cache_response_seconds_bucket{result="hit",le="0.005"} 70.0
    """
    if not (state := reading.state):
        return
    miss, hit = (state.counts.series["", flag] for flag in (False, True))
    found = "Cache look-ups that hit."
    yield counter("hakgal_cache_hits", found, {"": sum(hit.counts)})
    not_found = "Cache look-ups that missed."
    yield counter("hakgal_cache_misses", not_found, {"": sum(miss.counts)})
    if reading.table.value:
        help_ = "Duration of cache look-ups in seconds, by result, where recorded."
        name, results = "hakgal_cache_response_seconds", {"miss": miss, "hit": hit}
        yield histogram(name, help_, BUCKETS, results, "result")
