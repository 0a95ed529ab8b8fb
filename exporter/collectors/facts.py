"""Facts: how many the knowledge base holds, how it grows, how sure it is.

Source: table ``facts``, or ``facts_extended`` where that is missing or empty; one row
a fact. Rows are added, updated and removed.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from exporter.collectors.base import TableCollector, add_histogram
from exporter.config import Config
from exporter.count import INLINE_IDS, RowCount
from exporter.database import Look
from exporter.fold import Table
from exporter.tail import Reading, State

CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Facts(TableCollector):
    """hakgal_facts and its relatives."""

    database = "knowledge_base"
    table = Table(
        "facts",
        lasting=("timestamp",),
        mutable=("statement",),
        value="confidence",
        sources=("facts", "facts_extended"),
        burns_ids=True,
        buckets=CONFIDENCE_BUCKETS,
    )

    def __init__(self, config: Config) -> None:
        self._count = RowCount(self.table.name)

    def count(self, db: sqlite3.Connection, look: Look, reading: Reading) -> int | None:
        source, state = reading.table.source, reading.state
        if self._count.table != source:
            self._count = RowCount(source)
        if not reading.table.is_followed:
            largest = db.execute(f"SELECT MAX(rowid) FROM {source}").fetchone()[0]
            state = replace(state, cursor=largest or 0)
        return self._count.measure(db, look, state)

    def counted(self, state: State) -> int | None:
        return self._count.known(state)

    @property
    def counting(self) -> bool:
        return self._count.running

    def count_slice(self, db: sqlite3.Connection, look: Look) -> float:
        return self._count.count_slice(db, look)

    def families(self, state: State | None, reading: Reading) -> Iterator[Metric]:
        """Yield number, growth, age and confidence of facts.

        hakgal_facts 120.0
        hakgal_facts_added_total 131.0
        hakgal_facts_last_added_timestamp_seconds 1.7e+09
        hakgal_fact_confidence_bucket{le="0.9"} 40.0
        """
        yield GaugeMetricFamily(
            "hakgal_facts",
            f"Facts held. Exact in every scrape up to id {INLINE_IDS}; above it facts"
            " added are exact, facts removed are seen after the next count, about 1 s"
            " per million facts, 1 min amid writes or without WAL. Absent until first"
            " counted.",
            value=reading.rows,
        )
        if state is None:
            return
        yield CounterMetricFamily(
            "hakgal_facts_added",
            "Facts seen added, removed since or not.",
            value=state.rows,
        )
        yield GaugeMetricFamily(
            "hakgal_facts_last_added_timestamp_seconds",
            "Time of the newest fact in seconds since the epoch. Absent without one.",
            value=reading.last_event,
        )
        if reading.table.value is None:
            return
        confidence = HistogramMetricFamily(
            "hakgal_fact_confidence", "Confidence of facts when added, from 0 to 1."
        )
        for series in state.counts.series.values():
            add_histogram(confidence, [], self.table, series)
        yield confidence
