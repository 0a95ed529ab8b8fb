"""The command ``backfill``: export the old monitor's history as OpenMetrics.

``promtool tsdb create-blocks-from openmetrics`` turns it into Prometheus' TSDB blocks.

Source: table ``performance_metrics``, one row per value. Metrics are read one after the
other, in short reads. Only the newest sample of a step is kept in memory.
"""

import argparse
import json
import math
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from sqlite3 import Connection
from typing import Any

from exporter import config
from exporter.counting.fold import time_sql
from exporter.database import Database
from exporter.database.schema import Schema
from exporter.errors import ConfigError, DatabaseError, ExporterError

EPILOG = """\
Write the output to history.om. Then, before Prometheus' first start, run:

  promtool tsdb create-blocks-from openmetrics history.om FOLDER

FOLDER is Prometheus' --storage.tsdb.path, on Debian /var/lib/prometheus/metrics2.
docs/migration.md describes the whole migration."""
# 2020-01-01, in seconds. A single row from an unset clock would make promtool read the
# whole history once for each day of decades.
EARLIEST = 1_577_836_800.0
TABLE = "performance_metrics"
NUMBER = "CASE WHEN typeof(metric_value) IN ('integer', 'real') THEN metric_value END"
BATCH_ROWS = 20_000  # per read, during which a writer in rollback mode has to wait
READ_SECONDS = 30.0
# The series that replaces an old metric on dashboards, and a divisor.
MEASURES = {
    "facts_count": ("hakgal_facts", 1),
    "cache_hits": ("hakgal_cache_hits_total", 1),
    "cache_misses": ("hakgal_cache_misses_total", 1),
    "avg_query_time": ("instance:hakgal_query_duration_seconds:mean5m", 1),
    "system_cpu_percent": ("instance:hakgal_cpu_utilisation:ratio_rate5m", 100),
    "system_memory_percent": ("instance:hakgal_memory_utilisation:ratio", 100),
}
# If the exporter already counts all rows, its counter would jump above the old one.
COUNTERS = {"cache_hits", "cache_misses"}
LEFT_OUT = {
    "system_disk_percent": "it is about /, not the database's disk",
    "database_connections": "it was a constant 1, not a measurement",
    "wal_size_bytes": "it was a constant 0, not a measurement",
    **dict.fromkeys(COUNTERS, "the exporter counts all rows of cache_events"),
}


def backfill(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Export the old monitor's history as OpenMetrics, and report on its rows.

    Raises:
        DatabaseError: the performance database cannot be read.
        ExporterError: the text cannot be written; it then lacks its last line, # EOF.
    """
    _add_flags(parser)
    config.add_flags(parser)
    flags = parser.parse_args(words)
    path = config.load(flags, os.environ).performance
    if path is None:
        raise ConfigError(["database.performance: got none, want the file to read"])
    # With Python's handler, Ctrl-C during a read would look like a slow read.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    labels = {"instance": flags.instance, "job": flags.job}
    database = Database("performance", path)
    history = History(database, labels, flags.step, flags.until)
    try:
        # UTF-8, and not sys.stdout, which Python would flush again at exit.
        with open(1, "w", encoding="utf-8", errors="replace", closefd=False) as output:
            output.writelines(history.text())
    except OSError as error:  # a full disk, or a closed pipe
        reason = f"{error.strerror}; the text is incomplete, run it again"
        raise ExporterError(f"cannot write to standard output: {reason}") from error
    for line in history.report():
        print(line, file=sys.stderr)
    return 0


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    reads: dict[str, Callable[[str], object]] = {"step": _step, "until": _moment}
    for name, metavar, usual, text in (
        ("job", "NAME", "hakgal", "Label the series with this job."),
        ("instance", "NAME", "localhost:8000", "Label the series with this instance."),
        ("step", "SECONDS", "15", "Keep the newest sample of each step this long."),
        ("until", "TIME", utc(time.time()), "Leave out samples newer than this."),
    ):
        given = os.environ.get(f"HAKGAL_BACKFILL_{name.upper()}", "").strip()
        read, text = reads.get(name, str), f"{text} Default: {usual}."
        option = parser.add_argument(f"--backfill.{name}", dest=name, help=text)
        option.metavar, option.type, option.default = metavar, read, given or usual


class History:
    """Reads the table; counts rows and samples by metric, skipped rows by reason."""

    def __init__(
        self, database: Database, labels: dict[str, str], step: int, until: float
    ) -> None:
        self._database, self._step, self._until = database, step, until
        pairs = (f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in labels.items())
        self._labels = f"{{{','.join(pairs)}}}"
        self._rows, self._written, self._skipped = (Counter[str]() for _ in range(3))

    def text(self) -> Iterator[str]:
        """Yield the lines, one metric after the other."""
        until = time.monotonic() + READ_SECONDS
        column, has_events = self._database.read(_look, until)
        for (name,) in self._read_by_id("substr(metric_name, 1, 40)"):
            is_known = name in MEASURES or name in LEFT_OUT
            self._rows[name if is_known else "others"] += 1
        for old, (name, divisor) in MEASURES.items():
            if old not in self._rows or (old in COUNTERS and has_events):
                continue
            self._written[old] = 0
            kind = "counter" if old in COUNTERS else "gauge"
            yield f"# TYPE {name.removesuffix('_total')} {kind}\n"
            for moment, value in self._samples(old, column):
                self._written[old] += 1
                yield f"{name}{self._labels} {value / divisor!r} {moment:.13g}\n"
        yield "# EOF\n"

    def report(self) -> Iterator[str]:
        """Yield what became of the rows, once all have been read."""
        for name, rows in self._rows.items():
            fate = f"left out: {LEFT_OUT.get(name, 'not a metric of the old monitor')}"
            if name in self._written:
                fate = f"{self._written[name]} samples of {MEASURES[name][0]}"
            yield f"{name}: {rows} rows, {fate}"
        for reason, rows in self._skipped.items():
            yield f"skipped: {rows} rows, {reason}"

    def _samples(self, old: str, column: str) -> Iterator[tuple[float, float]]:
        """Yield the newest time and value of each step, with increasing times."""
        newest: tuple[float, float] | None = None
        for value, moment in self._read_by_id(f"{NUMBER}, {time_sql(column)}", old):
            reason = self._objection(old, value, moment)
            if not reason and newest and moment < newest[0]:
                reason = "time before the previous row's"
            if reason:
                self._skipped[reason] += 1
                continue
            if newest and newest[0] // self._step != moment // self._step:
                yield newest
            newest = moment, value
        if newest:
            yield newest

    def _objection(self, old: str, value: Any, moment: float | None) -> str | None:
        if value is None:
            return "not a number"
        if math.isinf(value) or value < 0:
            return "infinite" if math.isinf(value) else "negative"
        if old == "avg_query_time" and value == 0:
            return "mean of no queries"
        if moment is None:
            return "unreadable time"
        if moment < EARLIEST:
            return f"time before {utc(EARLIEST)}, from an unset clock"
        if moment > self._until:
            return f"time after {utc(self._until)}"
        return None

    def _read_by_id(self, columns: str, name: str | None = None) -> Iterator[Any]:
        """Yield the rows of one metric or of all, in reads of a few milliseconds."""
        start = -(2**63)
        while True:
            ids = f"SELECT rowid FROM {TABLE} WHERE rowid >= {start} ORDER BY rowid"
            ((end,),) = self._read(f"SELECT MAX(rowid) FROM ({ids} LIMIT {BATCH_ROWS})")
            if end is None:
                return
            # An index on names would make each read visit all rows of a metric.
            select = f"SELECT {columns} FROM {TABLE} NOT INDEXED WHERE metric_name IS"
            select += f" IFNULL(?, metric_name) AND rowid BETWEEN {start} AND {end}"
            yield from self._read(f"{select} ORDER BY rowid", name)
            start = end + 1

    def _read(self, sql: str, *values: str | None) -> list[Any]:
        until, read = time.monotonic() + READ_SECONDS, self._database.read
        return read(lambda db, _: db.execute(sql, values).fetchall(), until)


def utc(seconds: float) -> str:
    """Return a moment as ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _look(db: Connection, _: object) -> tuple[str, bool]:
    """Return the time column, and whether cache_events has rows to count."""
    names = TABLE, "cache_events"
    table, events = (Schema([name]).find(db, (name,)) for name in names)
    if table is None or table.objection:
        reason = table.objection if table else "there is no such table"
        raise DatabaseError(f"{TABLE}: {reason}")
    has_events = events and db.execute("SELECT 1 FROM cache_events LIMIT 1").fetchone()
    return table.column("timestamp") or "timestamp", bool(has_events)


def _step(text: str) -> int:
    if text.strip() not in map(str, range(1, 61)):
        raise argparse.ArgumentTypeError(f"got {text!r}, want a whole number, 1 to 60")
    return int(text)


def _moment(text: str) -> float:
    """Return a time in seconds since the epoch; UTC unless it has a zone."""
    moment, now = None, time.time()
    with suppress(ValueError):
        moment = datetime.fromisoformat(text.strip())
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment is None or not 0 < moment.timestamp() <= now:
        wanted = f"a time before now, such as {utc(now)}"
        raise argparse.ArgumentTypeError(f"got {text!r}, want {wanted}")
    return moment.timestamp()
