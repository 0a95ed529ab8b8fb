"""The exporter about itself: what it is, how far it has read, what did not count."""

import platform
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from exporter import __version__
from exporter.fold import Table
from exporter.isolation import Outcome
from exporter.tail import Reading, State


def build_info() -> Metric:
    """Return the constant that says what is running.

    hakgal_exporter_build_info{version="1.0",revision="3f2a…",python_version="3.11.2",
    sqlite_version="3.40.1"} 1.0
    """
    family = GaugeMetricFamily(
        "hakgal_exporter_build_info",
        "Always 1; the labels say what is running.",
        labels=["version", "revision", "python_version", "sqlite_version"],
    )
    versions = [platform.python_version(), sqlite3.sqlite_version]
    family.add_metric([__version__, _revision(), *versions], 1)
    return family


def outcomes(found: Mapping[str, Outcome[list[Metric]]]) -> Iterator[Metric]:
    """Yield success and duration of each collector in this scrape.

    hakgal_exporter_collector_success{collector="facts"} 1.0
    """
    success = GaugeMetricFamily(
        "hakgal_exporter_collector_success",
        "Whether the collector succeeded in this scrape, 1 or 0.",
        labels=["collector"],
    )
    duration = GaugeMetricFamily(
        "hakgal_exporter_collector_duration_seconds",
        "Time that the collector took in this scrape, in seconds.",
        labels=["collector"],
    )
    for name, outcome in found.items():
        success.add_metric([name], 0 if outcome.error else 1)
        duration.add_metric([name], outcome.seconds)
    yield success
    yield duration


def up(readable: Mapping[str, bool]) -> Metric:
    """Return which databases could be read.

    hakgal_up{database="performance"} 1.0
    """
    family = GaugeMetricFamily(
        "hakgal_up",
        "Whether the database could be read in this scrape, 1 or 0.",
        labels=["database"],
    )
    for database, is_readable in readable.items():
        family.add_metric([database], 1 if is_readable else 0)
    return family


def freshness(
    readings: Mapping[str, Reading], shown: Mapping[str, State]
) -> Iterator[Metric]:
    """Yield how far each table that could be read has been read, by table name.

    hakgal_exporter_backlog_rows{table="query_times"} 0.0
    hakgal_last_event_timestamp_seconds{table="query_times"} 1.7e+09
    """
    backlog = GaugeMetricFamily(
        "hakgal_exporter_backlog_rows",
        "Rows committed, not in the counters yet. Absent if the table is unreadable.",
        labels=["table"],
    )
    last_event = GaugeMetricFamily(
        "hakgal_last_event_timestamp_seconds",
        "Time of the newest row in seconds since the epoch. Absent without one.",
        labels=["table"],
    )
    for table, reading in readings.items():
        if not reading.table.is_followed:
            continue
        passed = shown[table].passed if table in shown else 0
        # Negative for a moment when a scrape beside this one has shown more.
        unseen = max(0, reading.state.passed - passed)
        backlog.add_metric([table], reading.backlog + unseen)
        if reading.last_event is not None:
            last_event.add_metric([table], reading.last_event)
    yield backlog
    yield last_event


def trouble(
    tables: Mapping[str, Table], shown: Mapping[str, State]
) -> Iterator[Metric]:
    """Yield the rows that did not count as they should, by table name.

    hakgal_exporter_rejected_rows_total{table="query_times",reason="negative"} 2.0
    """
    missed = CounterMetricFamily(
        "hakgal_exporter_missed_rows",
        "Rows that were pruned before they could be read, or dropped before they were"
        " written. Always 0 for facts, where ids are given out without a row.",
        labels=["table"],
    )
    rejected = CounterMetricFamily(
        "hakgal_exporter_rejected_rows",
        "Rows that could not be counted, by reason.",
        labels=["table", "reason"],
    )
    resets = CounterMetricFamily(
        "hakgal_exporter_resets",
        "How often a table could not be read on where reading had stopped, by reason.",
        labels=["table", "reason"],
    )
    overflows = CounterMetricFamily(
        "hakgal_exporter_label_overflows",
        "Rows whose label value became 'other', because there were too many.",
        labels=["metric"],
    )
    for name, state in shown.items():
        missed.add_metric([name], 0 if tables[name].burns_ids else state.missed)
        for reason in tables[name].reasons:
            rejected.add_metric([name, reason], state.counts.rejected[reason])
        for reason, number in state.resets.items():
            resets.add_metric([name, reason], number)
        if tables[name].label:
            overflows.add_metric([tables[name].metric], state.counts.overflowed)
    yield from (missed, rejected, resets, overflows)


def checkpoint(saved_at: float | None) -> Metric:
    """Return when the counters were last made durable."""
    return GaugeMetricFamily(
        "hakgal_exporter_checkpoint_timestamp_seconds",
        "Time of the last checkpoint in seconds since the epoch. Absent without one.",
        value=saved_at,
    )


def _revision() -> str:
    """Return the commit: of the build if it was noted, else of the checkout."""
    package = Path(__file__).parent.parent
    try:
        noted = package / "REVISION"
        if noted.exists():
            return noted.read_text().strip()
        git = package.parent / ".git"
        head = (git / "HEAD").read_text().strip()
        return (git / head[5:]).read_text().strip() if head[:5] == "ref: " else head
    except OSError:
        return "unknown"
