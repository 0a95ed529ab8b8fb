"""The exporter itself: its build, its progress, and the rows it could not count."""

import platform
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client.core import Metric

from exporter import __version__
from exporter.collectors.families import counter, gauge
from exporter.counting.table import Reading, State, Table

_REVISION = Path(__file__).parent.parent / "REVISION"


def build_info() -> Metric:
    """Return the build: hakgal_exporter_build_info{version="1.0",…} 1.0."""
    revision = _REVISION.read_text().strip() if _REVISION.exists() else "unknown"
    labels = "version", "revision", "python_version", "sqlite_version"
    values = __version__, revision, platform.python_version(), sqlite3.sqlite_version
    help_ = "Always 1; the labels name the running versions."
    return gauge("hakgal_exporter_build_info", help_, {values: 1}, *labels)


def up(found: Mapping[str, Any]) -> Metric:
    """Return what could be read: hakgal_up{database="performance"} 1.0."""
    readable = {name: outcome.error is None for name, outcome in found.items()}
    help_ = "1 if the database could be read in this scrape, otherwise 0."
    return gauge("hakgal_up", help_, readable, "database")


def outcomes(found: Mapping[str, Any]) -> Iterator[Metric]:
    """Yield the success and duration of each collector in this scrape.

    hakgal_exporter_collector_success{collector="facts"} 1.0
    hakgal_exporter_collector_duration_seconds{collector="facts"} 0.002
    """
    success = {name: outcome.error is None for name, outcome in found.items()}
    seconds = {name: outcome.seconds for name, outcome in found.items()}
    succeeded = "1 if the collector succeeded in this scrape, otherwise 0."
    yield gauge("hakgal_exporter_collector_success", succeeded, success, "collector")
    took = "Duration of the collector in this scrape, in seconds."
    name = "hakgal_exporter_collector_duration_seconds"
    yield gauge(name, took, seconds, "collector")


def progress(readings: Iterable[Reading], saved_at: float | None) -> Iterator[Metric]:
    """Yield how far each table has been read, by table name.

    hakgal_exporter_backlog_rows{table="query_times"} 0.0
    hakgal_last_event_timestamp_seconds{table="query_times"} 1.7e+09
    """
    followed = {one.table.name: one for one in readings if one.table.is_followed}
    backlog = {table: reading.backlog for table, reading in followed.items()}
    times = {table: reading.last_event for table, reading in followed.items()}
    waiting = "Rows committed but not counted yet. Absent if unreadable."
    yield gauge("hakgal_exporter_backlog_rows", waiting, backlog, "table")
    newest = "Time of the newest row in seconds since the epoch. Absent if unknown."
    yield gauge("hakgal_last_event_timestamp_seconds", newest, times, "table")
    last = "Time of the last checkpoint in seconds since the epoch. Absent if none."
    name = "hakgal_exporter_checkpoint_timestamp_seconds"
    yield gauge(name, last, {"": saved_at})


def trouble(tables: dict[str, Table], shown: dict[str, State]) -> Iterator[Metric]:
    """Yield the rows that were not counted as usual, by table name.

    hakgal_exporter_rejected_rows_total{table="query_times",reason="negative"} 2.0
    """
    values = defaultdict[str, dict[object, int]](dict)
    for name, state in shown.items():
        table = tables[name]
        values["missed"][name] = state.missed if table.is_log else 0
        if table.label:
            values["overflows"][table.metric] = state.counts.overflowed
        for reason in table.reasons:
            values["rejected"][name, reason] = state.counts.rejected[reason]
        for reason, number in state.resets.items():
            values["resets"][name, reason] = number
    missed = "Rows deleted before they were read, or never written. Always 0 for facts."
    yield counter("hakgal_exporter_missed_rows", missed, values["missed"], "table")
    rejected = "Rows that could not be counted, by reason."
    name, labels = "hakgal_exporter_rejected_rows", ("table", "reason")
    yield counter(name, rejected, values["rejected"], *labels)
    anew = "Resets of a table's cursor or counts, by reason."
    yield counter("hakgal_exporter_resets", anew, values["resets"], *labels)
    name = "hakgal_exporter_label_overflows"
    too_many = "Rows counted under label value 'other' because of --label.limit."
    yield counter(name, too_many, values["overflows"], "metric")
