"""Follow a growing table: read each row once, from the cursor on, in short slices.

This and the count of facts are the two things that outlive a scrape: cursor and counts
live as long as the process and in the checkpoint, and a backlog is caught up between
scrapes. A state is never changed once it is handed out; a pass makes a new one.
"""

import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial

from exporter.database import Look, release
from exporter.errors import DatabaseError
from exporter.fold import Counts, Fold, Table
from exporter.identity import (
    Fingerprints,
    Life,
    forget_after,
    locate,
    parse_time,
    recognise,
    refresh,
    remember,
    resume,
)

Ahead = tuple[Counts, int]  # what a partner has counted, and in how many rows
# Runs a call with a connection of its own in a thread of its own.
Partner = Callable[[Callable[[sqlite3.Connection], Ahead]], Future[Ahead]]

PAST_LIVES = 3  # 8 KB each in the state file
SLICE_ROWS = 5000  # about 2 ms: what a writer in rollback mode may have to wait
# Read by each of two, before they put together what they have counted: not longer than
# this, or on a slow disk neither would be done when the step's time is up.
SPAN_SECONDS = 0.01
RESET_REASONS = (
    "backup_restored",
    "buckets_changed",
    "file_replaced",
    "state_damaged",
    "state_missing",
    "table_recreated",
)


@dataclass(frozen=True)
class State:
    """How far a table has been read, and what was counted.

    Args:
        cursor: the last id that was read.
        passed: ids passed in all files so far; what AUTOINCREMENT has given out.
        rows: rows read, counted or rejected.
        missed: ids passed that had no row any more.
        newest: time of the row under the cursor, seconds since the epoch.
        file: device and inode.
        past: the tables that were here before, newest first.
        complete: False while a table is first read; its counts are not shown yet.
        reason: why there is no checkpoint, until the first look at the table.
    """

    counts: Counts
    cursor: int = 0
    passed: int = 0
    rows: int = 0
    missed: int = 0
    newest: float | None = None
    file: tuple[int, ...] = ()
    known: Fingerprints = field(default_factory=Fingerprints)
    past: tuple[Life, ...] = ()
    resets: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(RESET_REASONS, 0)
    )
    complete: bool = True
    reason: str | None = None

    def reset(self, reason: str) -> "State":
        """Return the state with one more reset, to count on from its cursor."""
        resets = {**self.resets, reason: self.resets[reason] + 1}
        return replace(self, resets=resets, reason=None)


@dataclass(frozen=True)
class Reading:
    """A table as one pass found it.

    ``backlog`` rows are committed but not read yet; ``last_event`` is the time of the
    newest row in seconds since the epoch, None without one; ``table`` is the table as
    it was found; ``rows`` how many rows the
    table holds, where that is counted; ``version`` that of the file before it was read.
    """

    state: State
    table: Table
    backlog: int
    last_event: float | None
    rows: int | None = None
    version: tuple[object, ...] = ()

    def is_still(self, state: State, table: Table, version: tuple[object, ...]) -> bool:
        """Say whether to read again would give the same."""
        is_same = self.state is state and self.table == table
        return is_same and self.version == version and not self.backlog


class Tail:
    """Reads one table on; keeps nothing of its own but its pace."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._fold = Fold(table)
        self._fold_ahead = Fold(table)  # for the partner's thread
        self._slice_seconds = SPAN_SECONDS

    def start(self, reason: str) -> State:
        """Return the state of a table without a checkpoint."""
        return State(Counts.zero(self.table), complete=False, reason=reason)

    def advance(
        self,
        db: sqlite3.Connection,
        look: Look,
        state: State,
        enough: Callable[[], bool],
        partner: Partner | None = None,
    ) -> Reading:
        """Read on until no row is left, or for the time being ``enough``.

        A ``partner`` reads every second span at the same time.

        Raises:
            sqlite3.Error: table or column missing, locked, or out of time.
        """
        if not self.table.is_followed:
            return Reading(state, self.table, 0, None, version=look.version)
        state = self._place(db, (look.device, look.inode), state)
        high_water = self._high_water(db)
        start = state.cursor
        if start < high_water:
            state = replace(state, counts=state.counts.copy())
        while state.cursor < high_water:
            state = self._read_on(db, state, partner)
            if enough():
                break
            release(db)
        return replace(self._finish(db, state, start), version=look.version)

    def _place(
        self, db: sqlite3.Connection, file: tuple[int, ...], state: State
    ) -> State:
        """Return the state with its cursor where this table is to be read on."""
        high_water = self._high_water(db)
        if state.reason:
            return self._begin(state, file, high_water)
        same_file = file == state.file
        current = Life(state.cursor, state.known, state.newest)
        place = locate(db, self.table, current, high_water, same_file)
        if place.reason and not state.complete:
            return self._begin(self.start("state_missing"), file, high_water)
        if state.past:
            life = recognise(db, self.table, current, state.past, place, high_water)
            if life:
                lives = (current, *state.past)
                goes_on = resume(db, self.table, life, lives, high_water)
                return _turned(state, life, goes_on, file).reset("backup_restored")
        if place.reason is None:
            known = refresh(db, self.table, state.known) if same_file else state.known
            is_same = same_file and known is state.known
            return state if is_same else replace(state, file=file, known=known)
        reason, known = place.reason, forget_after(state.known, place.cursor)
        if reason == "table_replaced":
            reason = "table_recreated" if same_file else "file_replaced"
            known = Fingerprints(first=place.cursor + 1)
        goes_on = Life(place.cursor, known, state.newest)
        return _turned(state, current, goes_on, file).reset(reason)

    def _begin(self, state: State, file: tuple[int, ...], high_water: int) -> State:
        """Return the first state; a new table that is still empty is no reset."""
        state = replace(state, file=file)
        if state.reason is None or (state.reason == "state_missing" and not high_water):
            return replace(state, reason=None)
        return state.reset(state.reason)

    def _from_now(self, state: State, high_water: int) -> State:
        """Return a state that counts what comes: of what was, a part is gone."""
        return replace(
            state,
            counts=Counts.zero(self.table),
            cursor=high_water,
            passed=high_water,
            rows=0,
            missed=0,
            known=Fingerprints(),
            complete=True,
        )

    def _read_on(
        self, db: sqlite3.Connection, state: State, partner: Partner | None
    ) -> State:
        """Read a slice, or two spans; gaps before them are skipped and counted."""
        high_water = self._high_water(db)
        (first,) = db.execute(
            f"SELECT MIN(rowid) FROM {self.table.source} WHERE rowid > ?",
            (state.cursor,),
        ).fetchone()
        if first is not None and first <= state.cursor:
            raise _damaged(self.table)
        last, rows = high_water, 0
        if first is not None:
            slices = max(1, int(SPAN_SECONDS / self._slice_seconds)) if partner else 1
            length, started = slices * SLICE_ROWS, time.monotonic()
            middle = min(first + length - 1, high_water)
            last = min(middle + length, high_water) if partner else middle
            labels = state.counts.labels
            ahead = partner and partner(partial(self._ahead, labels, middle, last))
            rows = _fold(self._fold, db, state.counts, first - 1, middle)
            self._slice_seconds = (time.monotonic() - started) / slices + 1e-4
            if ahead:
                release(db)
                counts, more = ahead.result()
                state.counts.merge(self.table, counts)
                rows += more
        passed = max(0, last - state.cursor)
        state = replace(
            state,
            cursor=last,
            passed=state.passed + passed,
            rows=state.rows + rows,
            missed=state.missed + passed - rows,
        )
        if state.missed and not state.complete:
            return self._from_now(state, high_water)
        return state

    def _ahead(
        self, labels: list[str], after: int, upto: int, db: sqlite3.Connection
    ) -> Ahead:
        """Fold a span into counts of its own, in the partner's thread."""
        counts = Counts.zero(self.table)
        for label in labels:
            counts.add_label(self.table, label)
        rows = _fold(self._fold_ahead, db, counts, after, upto)
        release(db)
        return counts, rows

    def _finish(self, db: sqlite3.Connection, state: State, start: int) -> Reading:
        """Return the reading, with what is to be known of the newest rows read."""
        high_water = self._high_water(db)
        if state.cursor > start:
            # Of what was passed, only the newest ``state.rows`` have counted for sure.
            after = max(start, state.cursor - min(SLICE_ROWS, state.rows))
            if self.table.exemplars and state.cursor >= high_water:
                self._fold.exemplars(db, state.counts, after, state.cursor)
            newest = self._time(db, state.cursor)
            state = replace(
                state,
                newest=state.newest if newest is None else newest,
                known=remember(db, self.table, state.known, state.cursor),
            )
        backlog = max(0, high_water - state.cursor)
        if not (backlog or state.complete):
            state = replace(state, complete=True)
        return Reading(state, self.table, backlog, self._time(db, high_water))

    def _high_water(self, db: sqlite3.Connection) -> int:
        """Return the largest id ever given out; a deleted row does not lower it."""
        (largest,) = db.execute(
            f"SELECT MAX(rowid) FROM {self.table.source}"
        ).fetchone()
        has_sequences = db.execute(
            "SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'"
        ).fetchone()
        if not has_sequences:
            return largest or 0
        # Cast as SQLite itself does when it gives out the next id.
        row = db.execute(
            "SELECT CAST(seq AS INTEGER) FROM sqlite_sequence WHERE lower(name) = ?",
            (self.table.source,),
        ).fetchone()
        return max(largest or 0, (row and row[0]) or 0)

    def _time(self, db: sqlite3.Connection, upto: int) -> float | None:
        """Return the time of the newest row up to an id."""
        if self.table.time is None:
            return None
        row = db.execute(
            f"SELECT {self.table.time} FROM {self.table.source} WHERE rowid <= ?"
            " ORDER BY rowid DESC LIMIT 1",
            (upto,),
        ).fetchone()
        return parse_time(row[0]) if row else None


def _fold(
    fold: Fold, db: sqlite3.Connection, counts: Counts, after: int, upto: int
) -> int:
    """Fold ids in slices, with a gap between them; return the rows read."""
    rows = 0
    for start in range(after, upto, SLICE_ROWS):
        if rows:
            release(db)
        end = min(start + SLICE_ROWS, upto)
        found = fold.fold(db, counts, start, end)
        if found > end - start:
            raise _damaged(fold.table)
        rows += found
    return rows


def _damaged(table: Table) -> DatabaseError:
    """Return what to say where ids are out of order or given twice."""
    return DatabaseError(
        f"cannot read the table {table.source}: its ids are not unique and in order;"
        " check it with 'PRAGMA integrity_check'"
    )


def _turned(state: State, life: Life, goes_on: Life, file: tuple[int, ...]) -> State:
    """Return the state turned to where a life goes on; what may come back is kept."""
    ended = Life(state.cursor, state.known, state.newest)
    lives = [ended, *(past for past in state.past if past is not life)]
    if goes_on is not life and life in state.past:
        lives.append(life)  # its newest rows are not of this one
    return replace(
        state,
        cursor=goes_on.cursor,
        known=goes_on.known,
        newest=goes_on.newest,
        past=tuple(lives[:PAST_LIVES]),
        file=file,
    )
