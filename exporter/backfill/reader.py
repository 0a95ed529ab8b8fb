"""The performance database, read in slices by id."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from exporter.database.reader import Database

T = TypeVar("T")

BATCH_ROWS = 2000  # some milliseconds: what a writer in rollback mode may have to wait
READ_SECONDS = 30.0
# Of a text only what it can have to say: 2,000 rows of a megabyte would be gigabytes.
TIME = "substr(timestamp, 1, 64)"


class Reader:
    """Reads as the exporter does; nothing is open between two reads."""

    def __init__(self, path: Path) -> None:
        self._database = Database("performance", path)

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what ``work`` makes of a fresh connection; it may run again.

        Raises:
            DatabaseError: missing, locked, damaged, another schema.
        """
        deadline = time.monotonic() + READ_SECONDS
        return self._database.read(lambda db, look: work(db), deadline)

    def largest_id(self, table: str) -> int:
        """Return the newest row's id, 0 without rows."""
        sql = f"SELECT MAX(id) FROM {table}"
        return self.read(lambda db: db.execute(sql).fetchone()[0]) or 0

    def batches(self, table: str, columns: str) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows there are now, oldest first, as (id, columns...)."""
        last, upto = 0, self.largest_id(table)
        sql = (
            f"SELECT id, {columns} FROM {table} WHERE id > ? AND id <= ?"
            f" ORDER BY id LIMIT {BATCH_ROWS}"
        )
        while rows := self._rows(sql, last, upto):
            yield rows
            last = rows[-1][0]

    def newest_first(self, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows there are now, newest first."""
        last = self.largest_id(table) + 1
        sql = (
            f"SELECT id, {columns} FROM {table} WHERE id < ? AND id > ?"
            f" ORDER BY id DESC LIMIT {BATCH_ROWS}"
        )
        while rows := self._rows(sql, last, 0):
            yield from rows
            last = rows[-1][0]

    def _rows(self, sql: str, *bounds: int) -> list[tuple[Any, ...]]:
        return self.read(lambda db: db.execute(sql, bounds).fetchall())
