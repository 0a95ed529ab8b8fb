"""Audit: what was done to the knowledge base.

Source: table ``audit_log``, one row per operation.
"""

from collections.abc import Iterator

from prometheus_client.core import Metric

from exporter.collectors.families import counter
from exporter.config import Config
from exporter.counting.table import Reading, Table


def table(config: Config) -> Table:
    return Table(
        "audit_log",
        "knowledge_base",
        ("audit_log",),
        label="operation",
        required=("operation",),
        known_labels=("add_fact", "delete_fact", "update_fact"),
        label_limit=config.label_limit,
        metric="hakgal_audit_events_total",
    )


def families(reading: Reading) -> Iterator[Metric]:
    """Yield the number of operations.

    hakgal_audit_events_total{operation="add_fact"} 12.0
    """
    if state := reading.state:
        series = state.counts.series.items()
        events = {operation: sum(one.counts) for (operation, _), one in series}
        help_ = "Operations in the audit log, by operation."
        yield counter("hakgal_audit_events", help_, events, "operation")
