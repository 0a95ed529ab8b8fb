"""Queries: how many, how long, how they ended.

Source: table ``query_times``, one row a query.
"""

from collections.abc import Iterator

from prometheus_client.core import HistogramMetricFamily, Metric

from exporter.collectors.base import TableCollector, add_histogram
from exporter.config import Config
from exporter.fold import Table
from exporter.tail import Reading, State

QUERY_TYPES = (
    "add_fact",
    "consistency_check",
    "get_system_status",
    "health_check",
    "search_knowledge",
)
OUTCOMES = ("failure", "success")  # by the column success: 0, 1


class Queries(TableCollector):
    """hakgal_query_duration_seconds."""

    database = "performance"

    def __init__(self, config: Config) -> None:
        self.table = Table(
            "query_times",
            lasting=("timestamp", "query_time", "query_type", "success"),
            label="query_type",
            required=("query_time", "query_type", "success"),
            flag="success",
            value="query_time",
            buckets=config.query_buckets,
            known_labels=QUERY_TYPES,
            label_limit=config.label_limit,
            metric="hakgal_query_duration_seconds",
            exemplars=True,
        )

    def families(self, state: State | None, reading: Reading) -> Iterator[Metric]:
        """Yield the durations; an exemplar is the id of the newest row in its bucket.

        hakgal_query_duration_seconds_bucket{query_type="add_fact",outcome="success",
        le="0.1"} 8.0 # {query_id="17"} 0.08
        """
        if state is None:
            return
        durations = HistogramMetricFamily(
            "hakgal_query_duration_seconds",
            "Duration of queries in seconds, by type and outcome.",
            labels=["query_type", "outcome"],
        )
        for (query_type, success), series in state.counts.series.items():
            labels = [query_type, OUTCOMES[success]]
            add_histogram(durations, labels, self.table, series, "query_id")
        yield durations
