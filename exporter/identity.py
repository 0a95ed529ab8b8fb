"""Recognise a table by its rows, so that no row of it counts twice.

A path and an inode say little: VACUUM INTO and a rename give the same table in another
file, ``cp`` gives other rows in the same file. So each tail remembers fingerprints of
rows that it has read: all of the last ``WINDOW`` ids, and older ones at distances that
double. Where even those cannot tell old rows from new ones, the rows' own time does.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple
from zlib import crc32

from exporter.fold import Table

WINDOW = 1024  # ids; 4 bytes each in the state file
ABSENT = 0  # the fingerprint of an id without a row
SAMPLE_ROWS = 16  # of what may be rows of a past life
WHOLE = 0xFFFFFFFF
LASTING = 0xFFFF0000


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of rows that have been read.

    ``window[n]`` belongs to id ``first + n``; ``older`` holds (id, fingerprint) pairs,
    oldest first, the very first row read among them.
    """

    first: int = 1
    window: tuple[int, ...] = ()
    older: tuple[tuple[int, int], ...] = ()

    def newest_first(self) -> Iterator[tuple[int, int]]:
        """Yield (id, fingerprint) of all rows remembered."""
        for offset in range(len(self.window) - 1, -1, -1):
            if self.window[offset] != ABSENT:
                yield self.first + offset, self.window[offset]
        yield from reversed(self.older)


@dataclass(frozen=True)
class Life:
    """A table up to the moment when another took its place; it may come back.

    ``newest`` is the time of the row under ``cursor`` in seconds since the epoch.
    """

    cursor: int
    known: Fingerprints
    newest: float | None


class Place(NamedTuple):
    """Where to read on, and why counting does not simply continue (None if it does)."""

    cursor: int
    reason: str | None = None


def remember(
    db: sqlite3.Connection, table: Table, known: Fingerprints, cursor: int
) -> Fingerprints:
    """Return ``known`` moved on to ``cursor``; reads at most ``WINDOW`` rows."""
    end = known.first + len(known.window) - 1
    if cursor <= end:
        return known
    start = max(cursor - WINDOW, end) + 1
    fresh = _fingerprints(db, table, start, cursor)
    added = tuple(fresh.get(row, ABSENT) for row in range(start, cursor + 1))
    kept = known.window if start == end + 1 else ()
    window = (kept + added)[-WINDOW:]
    first = cursor - len(window) + 1
    passed = enumerate(known.window[: max(0, first - known.first)], known.first)
    older = [*known.older, *((n, f) for n, f in passed if f != ABSENT)]
    if not older and first > 1:
        older = list(_fingerprints(db, table, 1, first - 1, limit=1).items())
    return Fingerprints(first, window, _thin(older, cursor))


def forget_after(known: Fingerprints, cursor: int) -> Fingerprints:
    """Return ``known`` without what it says of ids above ``cursor``."""
    if cursor < known.first:
        older = tuple(pair for pair in known.older if pair[0] <= cursor)
        return Fingerprints(cursor + 1, (), older)
    return Fingerprints(
        known.first, known.window[: cursor - known.first + 1], known.older
    )


def locate(
    db: sqlite3.Connection, table: Table, life: Life, high_water: int, same_file: bool
) -> Place:
    """Return where to read on in the table that is there now.

    ``high_water`` is the largest id ever given out in it, ``same_file`` whether the
    inode is still the same: in the same file a row may have been updated, so that only
    its lasting part counts.
    """
    cursor, known = life.cursor, life.known
    mask = LASTING if same_file and high_water >= cursor and table.mutable else WHOLE
    if high_water >= cursor and _unchanged(db, table, known, cursor, mask):
        return Place(cursor)
    match, stranger, mismatch = _compare(db, table, known, mask)
    if high_water >= cursor and _is_updated(db, table, known):
        return Place(cursor)
    before_all = _first_id(db, table, 0) - 1
    if match is None and mismatch is not None and stranger is None:
        return Place(before_all, "table_replaced")
    if match is None and high_water == 0 and cursor > 0:
        return Place(0, "table_replaced")
    if mismatch is None and stranger is None and high_water >= cursor:
        return Place(cursor)
    end = min(high_water, cursor) if mismatch is None else mismatch - 1
    start = _first_newer(db, table, life.newest, match or 0, end, known.first) - 1
    if start == cursor:
        return Place(cursor)
    if match is None and start <= before_all:
        return Place(before_all, "table_replaced")
    return Place(start, "backup_restored")


def recognise(
    db: sqlite3.Connection,
    table: Table,
    current: Life,
    past: tuple[Life, ...],
    place: Place,
    high_water: int,
) -> Life | None:
    """Return the past life that this table goes on with, None if it is the current.

    ``place`` is that of the current life.
    """
    if place.reason:
        lives = (current, *past)
        best = max(
            lives, key=lambda life: _compare(db, table, life.known, WHOLE)[0] or 0
        )
        return best if best is not current else None
    for life in past:
        known = dict(life.known.newest_first())
        rows = sorted(n for n in known if current.cursor < n <= high_water)
        for row in {*rows[:SAMPLE_ROWS], *rows[-SAMPLE_ROWS:]}:
            if _fingerprints(db, table, row, row) == {row: known[row]}:
                return life
    return None


def resume(
    db: sqlite3.Connection,
    table: Table,
    life: Life,
    lives: Sequence[Life],
    high_water: int,
) -> Life:
    """Return ``life`` as this table goes on with it, behind all rows that were read.

    Where the table parts from it, or it ended, rows no newer than the last that was
    read follow: another of the ``lives`` has read them, but does not remember them.
    """
    place = locate(db, table, life, high_water, same_file=False)
    if place.reason is None and not _is_continued(db, table, life, lives):
        return life
    moments = (life.newest for life in lives if life.newest is not None)
    newest, after = max(moments, default=None), place.cursor
    cursor = _first_newer(db, table, newest, after, high_water, after + 1) - 1
    known = remember(db, table, forget_after(life.known, after), cursor)
    return Life(cursor, known, newest)


def refresh(db: sqlite3.Connection, table: Table, known: Fingerprints) -> Fingerprints:
    """Return ``known`` with the rows as they are now, if the newest was updated."""
    row, fingerprint = next(known.newest_first(), (0, ABSENT))
    if not table.mutable or _fingerprints(db, table, row, row) == {row: fingerprint}:
        return known

    def renewed(row: int, old: int) -> int:
        new = now.get(row, old)
        return old if old == ABSENT or (new ^ old) & LASTING else new

    now = _found(db, table, known)
    window = tuple(renewed(n, old) for n, old in enumerate(known.window, known.first))
    older = tuple((n, renewed(n, old)) for n, old in known.older)
    return Fingerprints(known.first, window, older)


def parse_time(text: object) -> float | None:
    """Return a row's timestamp in seconds since the epoch, None if it is not one.

    SQLite's CURRENT_TIMESTAMP or ISO 8601; without a zone it is UTC.
    """
    try:
        moment = datetime.fromisoformat(str(text).strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _is_continued(
    db: sqlite3.Connection, table: Table, life: Life, lives: Sequence[Life]
) -> bool:
    """Say whether another life has read this very table beyond where ``life`` ended."""
    for other in lives:
        if other is not life and other.cursor > life.cursor:
            match, *others = _compare(db, table, other.known, WHOLE)
            if match is not None and others == [None, None]:
                return True
    return False


def _unchanged(
    db: sqlite3.Connection, table: Table, known: Fingerprints, cursor: int, mask: int
) -> bool:
    """Say whether the newest row that we know is there and none came after it."""
    row, fingerprint = next(known.newest_first(), (0, ABSENT))
    found = _fingerprints(db, table, max(row, 1), cursor, limit=2)
    return [(n, f & mask) for n, f in found.items()] == (
        [(row, fingerprint & mask)] if row else []
    )


def _compare(
    db: sqlite3.Connection, table: Table, known: Fingerprints, mask: int
) -> tuple[int | None, int | None, int | None]:
    """Return the newest id that matches and the oldest ones above it that do not.

    The first of these two is below the second and had no row when it was passed: what
    is there now is new, or was missed and has been brought back.
    """
    remembered = dict(known.newest_first())
    found = _found(db, table, known)
    common = found.keys() & remembered.keys()
    same = {n for n in common if not (found[n] ^ remembered[n]) & mask}
    match = max(same, default=None)
    others = sorted(n for n in found.keys() - same if n > (match or 0))
    mismatch = next((n for n in others if n in remembered), None)
    stranger = others[0] if others and others[0] != mismatch else None
    return match, stranger, mismatch


def _is_updated(db: sqlite3.Connection, table: Table, known: Fingerprints) -> bool:
    """Say whether all rows are those that we know, but for what may be updated.

    Only of rows from more than one second, or a new file would look like that too.
    """
    if not table.mutable:
        return False
    match, *others = _compare(db, table, known, LASTING)
    if match is None or others != [None, None]:
        return False
    rows = [row for row, _ in known.older] + [match, known.first]
    marks = ", ".join("?" * len(rows))
    (seconds,) = db.execute(
        f"SELECT COUNT(DISTINCT {table.time or 0}) FROM {table.source}"
        f" WHERE rowid IN ({marks})",
        rows,
    ).fetchone()
    return bool(seconds > 1)


def _found(db: sqlite3.Connection, table: Table, known: Fingerprints) -> dict[int, int]:
    """Return fingerprints of the rows that are there now, where ``known`` looks."""
    last = known.first + len(known.window) - 1
    found = _fingerprints(db, table, known.first, last)
    for row, _ in known.older:
        found |= _fingerprints(db, table, row, row)
    return found


def _fingerprints(
    db: sqlite3.Connection, table: Table, low: int, high: int, limit: int = -1
) -> dict[int, int]:
    """Return fingerprints of the rows with ``low`` <= id <= ``high``, oldest first."""
    if low > high:
        return {}
    columns = ", ".join(("rowid", *table.lasting, *table.mutable))
    rows = db.execute(
        f"SELECT {columns} FROM {table.source} WHERE rowid BETWEEN ? AND ?"
        " ORDER BY rowid LIMIT ?",
        (low, high, limit),
    )
    lasting = 1 + len(table.lasting)
    # One at a time: each may be a megabyte long.
    return {row[0]: _fingerprint(row[:lasting], row) for row in rows}


def _fingerprint(lasting: tuple[object, ...], whole: tuple[object, ...]) -> int:
    """Return 32 bits, of which those in ``LASTING`` come from the lasting part only."""
    head = tail = crc32(repr(lasting).encode())
    if len(whole) > len(lasting):
        tail = crc32(repr(whole).encode())
    return (head & LASTING) | (tail & ~LASTING & WHOLE) or 1


def _thin(older: list[tuple[int, int]], cursor: int) -> tuple[tuple[int, int], ...]:
    """Keep the oldest row, and others at distances from the cursor that double.

    A row goes only if the next older one is near enough to stand in for it.
    """
    kept: list[tuple[int, int]] = []
    for (before, _), pair in reversed(list(pairwise(older))):
        if not kept or cursor - before > 2 * (cursor - kept[-1][0]):
            kept.append(pair)
    return (*older[:1], *reversed(kept))


def _first_newer(
    db: sqlite3.Connection,
    table: Table,
    newest: float | None,
    after: int,
    end: int,
    first: int,
) -> int:
    """Return the first id in ``after`` + 1 .. ``end`` + 1 whose row is newer.

    Rows are written in order of time, so that halving finds it. Where the time does
    not tell, new are those from id ``first`` on, which were not there before.
    """

    def is_old(row: int, timestamp: object) -> bool:
        moment = parse_time(timestamp) or 0.0  # one that cannot be read is old
        if newest is None or moment == newest:
            return row < first
        return moment < newest

    low, high = after + 1, end + 1
    while low < high:
        middle = (low + high) // 2
        found = db.execute(
            f"SELECT rowid, {table.time or 'NULL'} FROM {table.source}"
            " WHERE rowid BETWEEN ? AND ? ORDER BY rowid LIMIT 1",
            (middle, high - 1),
        ).fetchone()
        if found and is_old(*found):
            low = middle + 1
        else:
            high = middle
    if low > end:
        return low
    any_left = f"SELECT 1 FROM {table.source} WHERE rowid BETWEEN ? AND ? LIMIT 1"
    return low if db.execute(any_left, (low, end)).fetchone() else end + 1


def _first_id(db: sqlite3.Connection, table: Table, after: int) -> int:
    """Return the smallest id above ``after``, or the one after it if there is none."""
    row = db.execute(
        f"SELECT MIN(rowid) FROM {table.source} WHERE rowid > ?", (after,)
    ).fetchone()
    return row[0] if row[0] is not None else after + 1
