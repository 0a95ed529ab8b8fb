"""What the monitor that was replaced wrote, as it wrote it.

Nine rows a collection, in the order of its dictionary, each with the default type and
no tags. Its counters began anew whenever it was restarted.
"""

import math
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from exporter.schema import PERFORMANCE

WEEK_SECONDS = 7 * 86400
_INSERT = (
    "INSERT INTO performance_metrics(metric_name, metric_value, timestamp)"
    " VALUES (?, ?, ?)"
)
_QUERY = (
    "INSERT INTO query_times(query_time, query_type, success, timestamp)"
    " VALUES (?, ?, ?, ?)"
)
_LOOKUP = "INSERT INTO cache_events(hit, response_time, timestamp) VALUES (?, ?, ?)"


class Collection(NamedTuple):
    """What it measured at one moment."""

    moment: int
    values: dict[str, float]


def collections(
    end: int, seconds: int = WEEK_SECONDS, interval: int = 60, restart_each: int = 86400
) -> Iterator[Collection]:
    """Yield what it would have measured up to a moment; the same for the same span."""
    random_source = random.Random(7)
    hits = misses = 0
    for moment in range(end - seconds, end, interval):
        if (moment - (end - seconds)) % restart_each == 0:
            hits = misses = 0
        hits += random_source.randrange(40)
        misses += random_source.randrange(15)
        phase = math.sin(moment / 86400 * math.tau)
        yield Collection(
            moment,
            {
                "system_cpu_percent": round(
                    40 + 30 * phase + random_source.random(), 1
                ),
                "system_memory_percent": round(60 + 10 * phase, 1),
                "system_disk_percent": 71.3,
                "facts_count": 5000 + (moment - end + seconds) // 600,
                "avg_query_time": 0.05 + random_source.random() / 10,
                "cache_hits": hits,
                "cache_misses": misses,
                "database_connections": 1,
                "wal_size_bytes": 0,
            },
        )


def write_history(path: Path, found: Iterator[Collection]) -> int:
    """Write collections into a performance database and return how many rows."""
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(PERFORMANCE)
        rows = (
            (name, value, text(moment))
            for moment, values in found
            for name, value in values.items()
        )
        return db.executemany(_INSERT, rows).rowcount


def write_events(path: Path, start: int, end: int, each: int = 20) -> int:
    """Write a query and a look-up every so many seconds; return how many rows."""
    source = random.Random(11)
    kinds = ("search_knowledge", "add_fact", "health_check", "import_facts")
    moments = range(start, end, each)
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(PERFORMANCE)
        queries = (
            (source.random() / 3, source.choice(kinds), source.random() > 0.1, text(t))
            for t in moments
        )
        db.executemany(_QUERY, queries)
        lookups = (
            (source.random() < 0.8, 0.1 * source.random(), text(t)) for t in moments
        )
        db.executemany(_LOOKUP, lookups)
    return 2 * len(moments)


def text(moment: float) -> str:
    """Return a moment as SQLite's CURRENT_TIMESTAMP."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S")
