"""Queries: their number, duration and outcome.

Source: table ``query_times``, one row per query.
"""

from collections.abc import Iterator

from prometheus_client.core import Metric

from exporter.collectors.families import histogram
from exporter.config import Config
from exporter.counting.table import Reading, Table

QUERY_TYPES = (
    "add_fact",
    "consistency_check",
    "get_system_status",
    "health_check",
    "search_knowledge",
)
OUTCOMES = ("failure", "success")  # for 0 and 1 in the column success


def table(config: Config) -> Table:
    return Table(
        "query_times",
        "performance",
        ("query_times",),
        label="query_type",
        flag="success",
        value="query_time",
        required=("query_type", "success", "query_time"),
        buckets=config.query_buckets,
        known_labels=QUERY_TYPES,
        label_limit=config.label_limit,
        metric="hakgal_query_duration_seconds",
    )


def families(reading: Reading) -> Iterator[Metric]:
    """Yield the durations; each exemplar is the id of the newest row in its bucket.

    hakgal_query_duration_seconds_bucket{query_type="add_fact",outcome="success",
    le="0.1"} 8.0 # {query_id="17"} 0.08
    """
    if state := reading.state:
        yield histogram(
            "hakgal_query_duration_seconds",
            "Duration of queries in seconds, by type and outcome.",
            reading.table.buckets,
            {(t, OUTCOMES[s]): one for (t, s), one in state.counts.series.items()},
            *("query_type", "outcome"),
            exemplar="query_id",
        )
