"""Follow a growing table: read each row once, from the cursor, in short slices."""

import time
from dataclasses import replace
from sqlite3 import Connection

from exporter.counting import recognition
from exporter.counting.fold import fold
from exporter.counting.table import Counts, Reading, State, Table
from exporter.database import release
from exporter.errors import DatabaseError

SLICE_ROWS = 5000  # about 2 ms, during which a writer in rollback mode has to wait


def read_on(db: Connection, table: Table, state: State, until: float) -> Reading:
    """Read from the cursor to the last row; stop at ``until`` (monotonic clock).

    Raises:
        DatabaseError: the table is damaged.
    """
    if not table.is_followed:
        return Reading(table, None)
    highest, is_lasting, last_event = recognition.high_water(db, table)
    state = recognition.recognise(db, table, state, highest, is_lasting)
    start = state.cursor
    if start < highest:
        state = replace(state, counts=state.counts.copy())
    while state.cursor < highest:
        state = _read_slice(db, table, state, highest)
        if state.cursor >= highest or time.monotonic() >= until:
            break
        release(db)
        highest, _, last_event = recognition.high_water(db, table)
    if state.cursor > start:
        state = recognition.remember(db, table, state, start)
    if state.cursor >= highest and not state.complete:
        if state.missed:  # some old rows are gone: count only new ones
            state = replace(state, counts=Counts.zero(table), rows=0, missed=0)
        state = replace(state, complete=True)
    return Reading(table, state, highest - state.cursor, last_event)


def _read_slice(db: Connection, table: Table, state: State, highest: int) -> State:
    """Read one slice of rows, and skip a gap in the ids before it."""
    last, rows, passed_over, newest = highest, 0, 0, None
    next_row = f"SELECT MIN(rowid) FROM {table.source} WHERE rowid > ?"
    (first,) = db.execute(next_row, (state.cursor,)).fetchone()
    if first is not None:
        last = min(first + SLICE_ROWS - 1, highest)
        span = range(first, last + 1)
        rows, passed_over = fold(db, table, state.counts, span, state.mark)
        newest = recognition.newest_time(db, table, span, is_exact=last == highest)
    missed = last - state.cursor - rows
    if missed < 0:
        hint = "its ids are out of order; check it with 'PRAGMA integrity_check'"
        raise DatabaseError(f"table {table.source} is damaged: {hint}")
    return replace(
        state,
        cursor=last,
        rows=state.rows + rows - passed_over,
        missed=state.missed + missed,
        newest=recognition.latest(state.newest, newest),
    )
