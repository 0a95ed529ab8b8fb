"""Facts: their number, growth and confidence.

Source: table ``facts``, or ``facts_extended`` if that is missing or empty; one row per
fact. Rows are added, updated and removed.
"""

from collections.abc import Iterator

from prometheus_client.core import Metric

from exporter.collectors.families import counter, gauge, histogram
from exporter.config import Config
from exporter.counting.row_count import INLINE_ROWS
from exporter.counting.table import Reading, Table

BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def table(config: Config) -> Table:
    return Table(
        "facts",
        "knowledge_base",
        ("facts", "facts_extended"),
        value="confidence",
        value_optional=True,
        is_log=False,
        buckets=BUCKETS,
    )


def families(reading: Reading) -> Iterator[Metric]:
    """Yield the number, growth, age and confidence of facts.

    hakgal_facts 120.0
    hakgal_facts_added_total 131.0
    hakgal_facts_last_added_timestamp_seconds 1.7e+09
    hakgal_fact_confidence_bucket{le="0.9"} 40.0
    """
    yield gauge(
        "hakgal_facts",
        f"Number of facts. Exact up to {INLINE_ROWS}; above that, removals show within"
        " 10 min. Absent until first counted.",
        {"": reading.rows},
    )
    if not (state := reading.state):
        return
    added = "Facts seen so far, including those removed since."
    yield counter("hakgal_facts_added", added, {"": state.rows})
    newest = "Time of the newest fact in seconds since the epoch. Absent if unknown."
    name = "hakgal_facts_last_added_timestamp_seconds"
    yield gauge(name, newest, {"": reading.last_event})
    if reading.table.value:
        confidence = "Confidence of facts when added, from 0 to 1."
        series = {"": state.counts.series["", False]}
        yield histogram("hakgal_fact_confidence", confidence, BUCKETS, series)
