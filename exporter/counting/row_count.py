"""Count the rows of a table with deletions, without a scan at every scrape.

A count stays valid until the file changes; rows read since are added to it. A large
table is counted between scrapes, in short slices and for a small share of the time.
"""

import time
from sqlite3 import Connection
from typing import NamedTuple

from exporter.counting.table import Reading
from exporter.database.file import DatabaseFile

INLINE_ROWS = 100_000  # counted during the scrape, in a few milliseconds
SLICE_ROWS = 20_000  # of a larger table: about 2 ms
REST = 4  # pause before the next slice, as a multiple of the slice's duration
COUNT_AGAIN_SECONDS = 600.0  # so that the cost does not grow with the writes


class _Count(NamedTuple):
    """Rows up to ``last``, minus those read at its start; counted up to ``done``."""

    table: tuple[object, ...]
    version: tuple[object, ...]
    last: int
    rows: int
    done: int = -(2**63)


class RowCount:
    """The number of rows in one table; a count is in progress while ``running``."""

    def __init__(self) -> None:
        self.running: _Count | None = None
        self._known: _Count | None = None
        self._next = 0.0

    def measure(
        self, db: Connection, file: DatabaseFile, reading: Reading
    ) -> int | None:
        """Return the number of rows, None if it is not known yet."""
        state, source = reading.state, reading.table.source
        # Includes the rows that were skipped.
        rows_read = state.cursor - state.missed if state else 0
        table = source, *(state.resets.values() if state else ()), state and state.mark
        if self._known and self._known.table != table:
            self._known, self.running, self._next = None, None, 0.0
        if self._known and self._known.version == file.version:
            return self._known.rows + rows_read
        (largest,) = db.execute(f"SELECT MAX(rowid) FROM {source}").fetchone()
        last, now = state.cursor if state else largest or 0, time.monotonic()
        new = _Count(table, file.version, last, -rows_read)
        count = f"SELECT COUNT(*) FROM (SELECT rowid FROM {source} LIMIT ?)"
        is_small = not self._known or self._known.rows + rows_read <= INLINE_ROWS
        rows = is_small and db.execute(count, (INLINE_ROWS + 1,)).fetchone()[0]
        if is_small and rows <= INLINE_ROWS:
            later = f"SELECT COUNT(*) FROM {source} WHERE rowid > ?"
            rows -= db.execute(later, (last,)).fetchone()[0] + rows_read
            self._known, self.running = new._replace(rows=rows), None
        elif not self.running and now >= self._next:
            self.running, self._next = new, now + COUNT_AGAIN_SECONDS
        return self._known.rows + rows_read if self._known else None

    def count_slice(self, db: Connection, file: DatabaseFile) -> float:
        """Count another slice; return the seconds to pause before the next one."""
        started, running = time.monotonic(), self.running
        if not running:
            return 0.0
        rows, done = db.execute(
            f"SELECT COUNT(*), MAX(rowid) FROM (SELECT rowid FROM {running.table[0]}"
            f" WHERE rowid > ? AND rowid <= ? ORDER BY rowid LIMIT {SLICE_ROWS})",
            (running.done, running.last),
        ).fetchone()
        running = running._replace(
            rows=running.rows + rows, done=running.done if done is None else done
        )
        self.running = running if rows == SLICE_ROWS else None
        self._known = self._known if self.running else running
        return REST * (time.monotonic() - started)
