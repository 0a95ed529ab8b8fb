"""Storage: the files themselves, their free pages, logs and users.

Source: the file system, SQLite's header and WAL index, /proc.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric

from exporter.connections import count_connections
from exporter.database import Look

FREE_BYTES = (
    "SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size"
)


@dataclass(frozen=True)
class Measured:
    """One database file, in bytes, frames and connections; None where unknown."""

    size_bytes: int
    free_bytes: int
    wal_size_bytes: int
    wal_frames: int | None
    wal_checkpointed_frames: int | None
    connections: int | None


class Storage:
    """hakgal_database_* and hakgal_wal_*."""

    def free_bytes(self, db: sqlite3.Connection) -> int:
        """Return the bytes of free pages inside one database.

        Raises:
            sqlite3.Error: locked or out of time.
        """
        (free,) = db.execute(FREE_BYTES).fetchone()
        return int(free)

    def measure(self, look: Look, free_bytes: int) -> Measured:
        """Return the figures of one database."""
        wal = look.wal
        return Measured(
            look.size_bytes,
            free_bytes,
            wal.size_bytes,
            wal.frames,
            wal.checkpointed,
            count_connections(look),
        )

    def families(self, found: Mapping[str, Measured]) -> Iterator[Metric]:
        """Yield the figures of the databases that could be read.

        hakgal_database_size_bytes{database="performance"} 4096.0
        """
        for name, help_text, field in (
            ("hakgal_database_size_bytes", "Size of the file.", "size_bytes"),
            (
                "hakgal_database_free_bytes",
                "Free pages inside the file, which VACUUM would give back.",
                "free_bytes",
            ),
            (
                "hakgal_database_connections",
                "Connections of other processes, as far as this user may see them."
                " Absent in a container, unless it shares the host's processes.",
                "connections",
            ),
            (
                "hakgal_wal_size_bytes",
                "Size of the write-ahead log, 0 without one.",
                "wal_size_bytes",
            ),
            (
                "hakgal_wal_frames",
                "Pages in the write-ahead log. Absent while its index is unsettled.",
                "wal_frames",
            ),
            (
                "hakgal_wal_checkpointed_frames",
                "Pages of the write-ahead log that are in the database already."
                " Absent while its index is unsettled.",
                "wal_checkpointed_frames",
            ),
        ):
            family = GaugeMetricFamily(name, help_text, labels=["database"])
            for database, measured in found.items():
                value = getattr(measured, field)
                if value is not None:
                    family.add_metric([database], value)
            yield family
