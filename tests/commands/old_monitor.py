"""What the monitor that was replaced wrote: nine rows a collection, in this order."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from exporter.recorder import PERFORMANCE_SCHEMA
from tests.databases import File

Collection = tuple[int, dict[str, float]]  # a moment, and what was measured


def collections(end: int, seconds: int) -> Iterator[Collection]:
    """Yield a collection each minute; the counters begin anew each day."""
    for moment in range(end - seconds, end, 60):
        minute = moment // 60
        values = {
            "system_cpu_percent": minute % 997 / 10,
            "system_memory_percent": minute % 991 / 10,
            "system_disk_percent": 71.3,
            "facts_count": 5000 + minute % 983,
            "avg_query_time": 0.05 + minute % 977 / 1000,
            "cache_hits": minute % 1440 * 20,
            "cache_misses": minute % 1440 * 7,
            "database_connections": 1,
            "wal_size_bytes": 0,
        }
        yield moment, values


def write_history(path: Path, found: Iterable[Collection]) -> None:
    """Write collections into a performance database."""
    columns = "metric_name, metric_value, timestamp"
    values = "VALUES (?, ?, datetime(?, 'unixepoch'))"
    rows = ((*item, moment) for moment, metrics in found for item in metrics.items())
    with closing(File(path, PERFORMANCE_SCHEMA)) as file, file.db as db:
        db.execute("BEGIN")
        db.executemany(f"INSERT INTO performance_metrics({columns}) {values}", rows)
