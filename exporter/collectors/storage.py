"""Storage: the files, their free pages, write-ahead logs and connections.

Source: the file system, SQLite's pragmas and WAL index, /proc.
"""

from collections.abc import Iterator, Mapping
from sqlite3 import Connection

from prometheus_client.core import Metric

from exporter.collectors.families import gauge
from exporter.database.file import DatabaseFile

_GAUGES = {
    "database_size_bytes": "Size of the database file.",
    "database_free_bytes": "Size of the free pages, which VACUUM releases.",
    "database_connections": "Connections of other processes that this user may see,"
    " counted after the previous scrape. Absent if older than 5 min, or in a container"
    " with its own process namespace.",
    "wal_size_bytes": "Size of the write-ahead log, 0 if there is none.",
    "wal_frames": "Pages in the write-ahead log. Absent while its index is invalid.",
    "wal_checkpointed_frames": "Pages of the write-ahead log copied to the database"
    " already. Absent while its index is invalid.",
}

Figures = tuple[int | None, ...]  # in the order of the gauges


def measure(db: Connection, file: DatabaseFile, connections: int | None) -> Figures:
    """Return the figures of one database."""
    (pages,) = db.execute("PRAGMA freelist_count").fetchone()
    (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
    log = file.wal_size_bytes, file.wal_frames, file.wal_checkpointed_frames
    return file.size_bytes, pages * page_bytes, connections, *log


def families(found: Mapping[str, Figures]) -> Iterator[Metric]:
    """Yield the figures of the databases that could be read.

    hakgal_database_size_bytes{database="performance"} 4096.0
    """
    for n, (name, help_) in enumerate(_GAUGES.items()):
        values = {database: figures[n] for database, figures in found.items()}
        yield gauge(f"hakgal_{name}", help_, values, "database")
