"""Recognise a table by its rows, so that no row is counted twice.

A path and an inode are not enough: VACUUM INTO and a rename leave the same table in
another file, ``cp`` puts other rows into the same file. So we keep fingerprints of some
rows, at distances from the cursor that double. A fingerprint covers only columns that
are never updated: the time and, in a log, the counted columns.

A table was replaced if a known row has changed, a row has appeared where there was
none, or the largest id is below the cursor though SQLite reuses no ids. The mark then
becomes the newest time ever counted, and reading continues after the newest row that
is not above the mark. From then on, a row counts only if its own time is above the
mark. So rows that return with a restored copy do not count again.
"""

import math
import time
from collections.abc import Iterable
from dataclasses import replace
from sqlite3 import Connection
from zlib import crc32

from exporter.counting.fold import time_sql
from exporter.counting.table import Counts, Fingerprint, State, Table

DAY_SECONDS = 86_400


def high_water(db: Connection, table: Table) -> tuple[int, bool, float | None]:
    """Return the largest id ever used, if SQLite remembers it, and the newest time.

    The time is None if the newest row has none, and NaN if it cannot be read.
    """
    # SQLite casts it the same way when it assigns the next id.
    given_out = "SELECT CAST(seq AS INTEGER) FROM sqlite_sequence WHERE lower(name) ="
    sequence = f"({given_out} '{table.source}')" if table.has_sequences else "NULL"
    times = f"{table.time or 'NULL'}, {time_sql(table.time)}"
    largest, written, last_event, last = db.execute(
        f"SELECT MAX(rowid), {times}, {sequence} FROM {table.source}"
    ).fetchone()
    if written is not None and last_event is None:
        last_event = math.nan
    return max(largest or 0, last or 0), last is not None, last_event


def recognise(
    db: Connection, table: Table, state: State, highest: int, is_lasting: bool
) -> State:
    """Return the state with the cursor from which to continue in this table."""
    new = State(Counts.zero(table), source=table.source, resets=state.resets)
    if not state.source:
        return new
    found = _fingerprints(db, table, state.known)
    same = {n: old for n, old in state.known.items() if _is_same(old, found.get(n))}
    # No row may appear between the newest row that was read and the cursor.
    behind = f"SELECT 1 FROM {table.source} WHERE rowid > ? AND rowid <= ? LIMIT 1"
    span = max(state.known, default=0), state.cursor
    differs = len(same) < len(found) or table.source != state.source
    differs = differs or db.execute(behind, span).fetchone() is not None
    if not differs and highest >= state.cursor:
        return state
    newest = state.newest and min(state.newest, time.time() + DAY_SECONDS)
    mark = latest(state.mark, newest)
    state = replace(state, source=table.source, mark=mark, known=same)
    if not differs and same and not is_lasting:
        # The newest rows were deleted, and SQLite will reuse their ids.
        return remember(db, table, replace(state, cursor=highest), 0)
    if not state.complete:
        return new
    state = replace(state, cursor=_last_not_newer(db, table, mark, highest))
    # The rows up to the cursor identify this table next time.
    return remember(db, table, state, 0).reset("replaced")


def remember(db: Connection, table: Table, state: State, start: int) -> State:
    """Return the state with fingerprints of some rows read since ``start``."""
    cursor = state.cursor
    distances = [0, *(2**n for n in range((cursor - start).bit_length()))]
    places = ", ".join(f"({cursor - distance})" for distance in distances)
    nearest = f"SELECT MAX(rowid) FROM {table.source} WHERE rowid <= column1"
    found = db.execute(f"SELECT ({nearest} AND rowid > {start}) FROM (VALUES {places})")
    known = state.known | _fingerprints(db, table, {row for (row,) in found})
    rows = sorted((row for row in known if row <= cursor), reverse=True)
    # Keep the oldest row of each distance: it is the first to reach the next one.
    kept = {(cursor - row).bit_length(): row for row in rows}
    return replace(state, known={n: known[n] for n in {*rows[:1], *kept.values()}})


def newest_time(
    db: Connection, table: Table, span: range, is_exact: bool
) -> float | None:
    """Return the newest time of the rows whose ids are in the span.

    Parsing every time costs as much as counting the rows. Unless ``is_exact``, parse
    only the time that sorts last as text: the last row's, or a later one.
    """
    if not table.time:
        return None
    source = f"FROM {table.source} WHERE rowid BETWEEN ?1 AND ?2"
    row = f"FROM {table.source} WHERE rowid <= ?2 ORDER BY rowid DESC LIMIT 1"
    last = f"SELECT MAX({table.time}) AS last {source} AND {table.time} >= "
    last = f"SELECT {time_sql('last')} FROM ({last} (SELECT {table.time} {row}))"
    newest = f"SELECT MAX({time_sql(table.time)}) {source}"
    for statement in [newest] if is_exact else [last, newest]:
        (seconds,) = db.execute(statement, (span.start, span[-1])).fetchone()
        if seconds is not None:
            return float(seconds)
    return None


def latest(*times: float | None) -> float | None:
    """Return the latest time, None if there is none."""
    return max((one for one in times if one is not None), default=None)


def _last_not_newer(
    db: Connection, table: Table, mark: float | None, highest: int
) -> int:
    """Return the newest row that is not above the mark, else the id before all rows.

    If no row has a time, return the largest id.
    """
    moment = time_sql(table.time)
    rows = f"SELECT rowid FROM {table.source}"
    not_newer = f"{rows} WHERE {moment} <= ? ORDER BY rowid DESC LIMIT 1"
    if row := db.execute(not_newer, (mark,)).fetchone():
        return int(row[0])
    if not db.execute(f"{rows} WHERE {moment} IS NOT NULL LIMIT 1").fetchone():
        return highest
    return int(db.execute(f"{rows} ORDER BY rowid LIMIT 1").fetchone()[0]) - 1


def _fingerprints(
    db: Connection, table: Table, rows: Iterable[int]
) -> dict[int, Fingerprint]:
    """Return the fingerprints of the rows that still exist, by id."""
    columns = {column: column for column in table.counted} if table.is_log else {}
    if table.time:
        columns["time"] = time_sql(table.time)
    wanted = list(rows)
    found = db.execute(
        f"SELECT {', '.join(('rowid', *columns.values()))} FROM {table.source}"
        f" WHERE rowid IN ({', '.join('?' * len(wanted))})",
        wanted,
    )
    return {
        row: {n: _checksum(v) for n, v in zip(columns, values, strict=True)}
        for row, *values in found
    }


def _checksum(value: object) -> int:
    return 0 if value is None else crc32(repr(value).encode())


def _is_same(old: Fingerprint, new: Fingerprint | None) -> bool:
    """Return whether a row exists and is unchanged, in the columns of then and now.

    A value that was NULL, such as an unreadable time, is not compared.
    """
    if new is None:
        return False
    return all(new.get(name, value) == value for name, value in old.items() if value)
