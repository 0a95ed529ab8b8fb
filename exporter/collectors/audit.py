"""Audit: what was done to the knowledge base.

Source: table ``audit_log``, one row an operation.
"""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric

from exporter.collectors.base import TableCollector
from exporter.config import Config
from exporter.fold import Table
from exporter.tail import Reading, State

OPERATIONS = ("add_fact", "delete_fact", "update_fact")


class Audit(TableCollector):
    """hakgal_audit_events_total."""

    database = "knowledge_base"

    def __init__(self, config: Config) -> None:
        self.table = Table(
            "audit_log",
            lasting=("timestamp", "operation", "details"),
            label="operation",
            required=("operation",),
            known_labels=OPERATIONS,
            label_limit=config.label_limit,
            metric="hakgal_audit_events_total",
        )

    def families(self, state: State | None, reading: Reading) -> Iterator[Metric]:
        """Yield the number of operations.

        hakgal_audit_events_total{operation="add_fact"} 12.0
        """
        if state is None:
            return
        events = CounterMetricFamily(
            "hakgal_audit_events",
            "Operations in the audit log, by operation.",
            labels=["operation"],
        )
        for (operation, _), series in state.counts.series.items():
            events.add_metric([operation], sum(series.counts))
        yield events
