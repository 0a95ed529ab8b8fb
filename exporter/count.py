"""Count the rows of a table that others delete from, without scanning it each scrape.

The second thing that outlives a scrape (see ``tail``). The count of the rows up to some
id is kept until the file changes; the tail knows how many have come since. A count of
a large table is made between scrapes, in short slices and a bounded share of the time.
"""

import sqlite3
import time
from typing import NamedTuple

from exporter.database import Look
from exporter.tail import State

INLINE_IDS = 100_000  # up to here a count takes about 3 ms and is made in the scrape
SLICE_ROWS = 20_000  # about 2 ms
# A slice, four times its length of rest: a fifth of one core. While somebody writes, or
# where readers block writers at all, only one commit of 200 may meet a slice: its p99
# does not show that.
PAUSES = 4
PAUSES_BESIDE_WRITER = 199


class _Count(NamedTuple):
    """Rows found up to ``cursor``, of which the tail had read ``rows_read``.

    ``version`` is the file's before the count began, ``resets`` the tail's.
    """

    rows: int
    rows_read: int
    cursor: int
    resets: int
    version: tuple[object, ...]
    done: int = 0


class RowCount:
    """The number of rows in one table."""

    def __init__(self, table: str) -> None:
        self.table = table
        self._all = (
            f"SELECT COUNT(*), (SELECT COUNT(*) FROM {table} WHERE rowid > ?)"
            f" FROM {table}"
        )
        self._some = (
            f"SELECT COUNT(*), MAX(rowid) FROM (SELECT rowid FROM {table}"
            f" WHERE rowid > ? AND rowid <= ? ORDER BY rowid LIMIT {SLICE_ROWS})"
        )
        self._known: _Count | None = None
        self._running: _Count | None = None
        self._next: _Count | None = None  # of rows that changed while one is running
        self._slice_version: tuple[object, ...] = ()

    def measure(self, db: sqlite3.Connection, look: Look, state: State) -> int | None:
        """Return the number of rows, None if it is not known yet.

        Raises:
            sqlite3.Error: table missing, locked, or out of time.
        """
        resets = sum(state.resets.values())
        if self._known and self._known.resets != resets:
            self._known = None
        if self._known is None or self._known.version != look.version:
            new = _Count(0, state.rows, state.cursor, resets, look.version)
            if state.cursor <= INLINE_IDS:
                self._known = self._count_now(db, new)
            elif self._running is None or self._running.resets != resets:
                self._running, self._next = new, None
            elif self._running.version != look.version:
                self._next = new
        return self.known(state)

    def known(self, state: State) -> int | None:
        """Return the number of rows as far as it has been counted; asks nobody."""
        known = self._known
        return known.rows + state.rows - known.rows_read if known else None

    @property
    def running(self) -> bool:
        """Whether a count is to be continued by ``count_slice``."""
        return self._running is not None

    def count_slice(self, db: sqlite3.Connection, look: Look) -> float:
        """Count some rows more and return the seconds to rest before the next slice."""
        running, started = self._running, time.monotonic()
        if running is None:
            return 0.0
        bounds = (running.done, running.cursor)
        rows, last = db.execute(self._some, bounds).fetchone()
        running = running._replace(rows=running.rows + rows, done=last or running.done)
        if rows < SLICE_ROWS:
            self._known, self._running, self._next = running, self._next, None
        else:
            self._running = running
        is_quiet = look.is_wal and look.version == self._slice_version
        self._slice_version = look.version
        pauses = PAUSES if is_quiet else PAUSES_BESIDE_WRITER
        return pauses * (time.monotonic() - started)

    def _count_now(self, db: sqlite3.Connection, new: _Count) -> _Count:
        rows, newer = db.execute(self._all, (new.cursor,)).fetchone()
        return new._replace(rows=rows - newer)
