"""The performance database as the application writes it."""

import math
import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from exporter import schema

# An event is its kind, when it was in Unix time, and the columns of its table.
Event = tuple[int, float, Any, Any, Any]
QUERY, LOOKUP = 0, 1
TABLES = ("query_times", "cache_events")

LONGEST_TEXT = 1_000_000  # characters; one that SQLite cannot take would stop the rest
PRUNED_ROWS = 500  # in one transaction

_INSERT = (
    "INSERT INTO query_times(timestamp, query_time, query_type, success)"
    " VALUES (datetime(?, 'unixepoch'), ?, ?, ?)",
    "INSERT INTO cache_events(timestamp, hit, cache_key, response_time)"
    " VALUES (datetime(?, 'unixepoch'), ?, ?, ?)",
)
# Ids that are given out without a row are what the exporter reports as missed rows.
# They are counted from where SQLite itself would go on, which is not below a row.
_LARGEST = "(SELECT COALESCE(MAX(id), 0) FROM {0})"
_SKIP = (
    f"UPDATE sqlite_sequence SET seq = MAX(COALESCE(seq, 0), {_LARGEST}) + ?"
    " WHERE name = '{0}'"
)
_SKIP_FIRST = f"INSERT INTO sqlite_sequence(name, seq) VALUES ('{{0}}', {_LARGEST} + ?)"
_OLDEST = "SELECT id, timestamp FROM {} ORDER BY id LIMIT ?"
_LAST_OLD = (
    f"SELECT MAX(id), COUNT(*) FROM ({_OLDEST})"
    " WHERE CAST(strftime('%s', timestamp) AS INTEGER) < strftime('%s', 'now') - ?"
)
_DELETE = "DELETE FROM {} WHERE id <= ?"
_SYNCHRONOUS_NORMAL = "PRAGMA synchronous = NORMAL"


class Store:
    """One database, used by one thread at a time; opened when it is needed."""

    def __init__(self, path: Path, keep: timedelta | None) -> None:
        """Take the path, and how old rows may become; None is for ever."""
        self._path = path
        self._keep = keep
        self._db: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None

    @property
    def keeps_not_all(self) -> bool:
        """Whether old rows are deleted."""
        return self._keep is not None

    def write(self, events: Iterable[Event], skipped: Sequence[int]) -> None:
        """Insert events in one transaction, after skipping as many ids as were dropped.

        Raises:
            sqlite3.Error, OSError: nothing was written.
        """
        rows: tuple[list[Any], list[Any]] = ([], [])
        skipped = list(skipped)
        for event in events:
            try:
                rows[event[0]].append(_row(event))
            except Exception:  # whatever an object raises that is asked for its value
                skipped[event[0]] += 1
        db = self._open()
        db.execute("BEGIN IMMEDIATE")
        try:
            for table, number in zip(TABLES, skipped, strict=True):
                if number and not db.execute(_SKIP.format(table), (number,)).rowcount:
                    db.execute(_SKIP_FIRST.format(table), (number,))
            for insert, new in zip(_INSERT, rows, strict=True):
                db.executemany(insert, new)
            db.execute("COMMIT")
        except BaseException:
            self.close()  # which undoes it, whatever state an error left behind
            raise

    def prune(self) -> bool:
        """Delete some rows that are too old; tell whether there may be more.

        Ids rise with time, so that only the oldest rows are looked at.

        Raises:
            sqlite3.Error, OSError: locked, missing.
        """
        if self._keep is None:
            return False
        db = self._open()
        full = False
        for table in TABLES:
            age = (PRUNED_ROWS, self._keep.total_seconds())
            last, count = db.execute(_LAST_OLD.format(table), age).fetchone()
            if last is not None:
                db.execute(_DELETE.format(table), (last,))
                full |= count == PRUNED_ROWS
        return full

    def close(self) -> None:
        """Let go of the file."""
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()

    def _open(self) -> sqlite3.Connection:
        """Return a connection to the file that is at the path now."""
        if self._db is not None and self._inode == _inode(self._path):
            return self._db
        self.close()
        before = _inode(self._path)
        is_new = before is None or not self._path.stat().st_size
        # Not waiting for locks: a fork must not wait for us.
        db = sqlite3.connect(
            self._path, timeout=0.0, isolation_level=None, check_same_thread=False
        )
        try:
            if is_new:
                db.execute("PRAGMA journal_mode = WAL")
            db.executescript(schema.PERFORMANCE)
            ((mode,),) = db.execute("PRAGMA journal_mode").fetchall()
            # With a log, a power cut costs the newest commits and never the file.
            if mode == "wal":
                db.execute(_SYNCHRONOUS_NORMAL)
            self._inode = _inode(self._path)
            if before not in (None, self._inode):
                raise sqlite3.OperationalError("it was replaced while it was opened")
        except BaseException:
            db.close()
            raise
        self._db = db
        return db


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


def _row(event: Event) -> tuple[Any, ...]:
    kind, moment, first, second, third = event
    if kind == QUERY:
        return moment, _number(first), _text(second), bool(third)
    return moment, bool(first), _text(second), None if third is None else _number(third)


def _number(value: Any) -> float | str:
    """Return what SQLite takes; what is no number stays visible, as a rejected row."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return str(_text(value))
    return "nan" if math.isnan(number) else number


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = str(value)
    if len(text) > LONGEST_TEXT:
        raise ValueError("too long")
    return text.encode("utf-8", "replace").decode()
