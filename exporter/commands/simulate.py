"""Stand-in for HAK/GAL: writes into both databases what the application would.

The only code of the project that writes to them, for demo, simulate and tests.
"""

import math
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from exporter.commands.activity import NORMAL, Batch, Behaviour, Totals, draw_fact
from exporter.errors import DatabaseError
from exporter.recorder import PERFORMANCE_SCHEMA

# HAK/GAL's own tables; those of the other database are the recorder's.
KNOWLEDGE_BASE_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (
    id INTEGER PRIMARY KEY AUTOINCREMENT, statement TEXT NOT NULL, source TEXT,
    timestamp TEXT DEFAULT CURRENT_TIMESTAMP, tags TEXT, confidence REAL DEFAULT 1.0
);
CREATE TABLE IF NOT EXISTS audit_log (
    id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT DEFAULT CURRENT_TIMESTAMP,
    operation TEXT NOT NULL, details TEXT, user_id TEXT, session_id TEXT
);
"""

_SET_MODE = {mode: f"PRAGMA journal_mode = {mode}" for mode in ("delete", "wal")}
_BEGIN = "BEGIN IMMEDIATE"
_ADD_QUERY = "INSERT INTO query_times(query_time, query_type, success) VALUES (?, ?, ?)"
_ADD_LOOKUP = "INSERT INTO cache_events(hit, cache_key, response_time) VALUES (?, ?, ?)"
_ADD_AUDIT_ROW = """
INSERT INTO audit_log(operation, details, user_id, session_id)
VALUES (:operation, :details, :user_id, :session_id)
"""
_ANY_FACT = "SELECT 1 FROM facts LIMIT 1"
_ADD_FACT = """
INSERT INTO facts(statement, source, tags, confidence)
VALUES (:statement, 'simulator', 'simulated', :confidence)
"""
_SOME_FACT = """
(SELECT id FROM facts WHERE id >= :place * (SELECT MAX(id) FROM facts)
 ORDER BY id LIMIT 1) RETURNING statement
"""
_DELETE_FACT = f"DELETE FROM facts WHERE id = {_SOME_FACT}"
_UPDATE_FACT = f"UPDATE facts SET confidence = :confidence WHERE id = {_SOME_FACT}"
# By audit operation: the figure in Totals, and the statement.
_CHANGES = {
    "add_fact": ("facts_added", f"{_ADD_FACT} RETURNING statement"),
    "delete_fact": ("facts_removed", _DELETE_FACT),
    "update_fact": ("facts_updated", _UPDATE_FACT),
}

_BATCH_PAUSE_SECONDS = (0.02, 0.02)
_BATCH_ROWS_LIMIT = 5_000  # A stop waits for one batch at most.
_BUSY_SECONDS = 0.5  # Short, so that a stop is noticed behind a lock.
_LOCK_PATIENCE_SECONDS = 10.0
_ADVICE = {
    "unable to open": "exporter.commands.simulate.create makes missing files",
    "no such table": "exporter.commands.simulate.create makes missing tables",
    "locked": "end the program that holds the lock, or try again",
}

Write = Callable[[sqlite3.Connection, Batch], Counter[str]]


def create(
    knowledge_base: Path,
    performance: Path,
    *,
    facts: int = 0,
    journal_mode: str = "wal",
    seed: int = 0,
) -> None:
    """Make folders, files and tables that are missing; drop nothing.

    Facts are added only to an empty table; the journal mode (wal or delete, which
    are those that a file keeps) is set only on a file that did not exist.

    Raises:
        DatabaseError: a folder, file or table could not be made.
    """
    with explained(performance):
        _create_tables(performance, PERFORMANCE_SCHEMA, journal_mode)
    with explained(knowledge_base):
        _create_tables(knowledge_base, KNOWLEDGE_BASE_SCHEMA, journal_mode)
        with closing(connect(knowledge_base)) as db, db:
            db.execute(_BEGIN)
            if not db.execute(_ANY_FACT).fetchall():
                rng = random.Random(seed)
                db.executemany(_ADD_FACT, (draw_fact(rng) for _ in range(facts)))


class Simulator:
    """Writes HAK/GAL's activity until told to stop.

    The same seed on equal files gives the same rows in the same order; how far it
    gets is left to the clock. ``totals`` is what the latest run has committed so far,
    also when that run ended in an error.
    """

    def __init__(
        self,
        knowledge_base: Path,
        performance: Path,
        *,
        rate: float | None = None,
        seed: int | None = None,
        behaviour: Behaviour = NORMAL,
        write_events: Sequence[Write] = (),
    ) -> None:
        """Take the rate in rows per second; None keeps the old simulator's pace.

        ``write_events`` are done to the performance database with each batch, one
        after the other, instead of writing it.
        """
        self.totals = Totals()
        self._knowledge_base = knowledge_base
        self._performance = performance
        self._rate = rate
        self._rng = random.Random(seed)
        self._behaviour = behaviour
        self._write_events = write_events or (write_batch,)

    def run(self, stop: threading.Event, duration: float | None = None) -> Totals:
        """Write until the event is set or the duration, in seconds, is over.

        Raises:
            DatabaseError: a file or table is missing, or a lock outlasted patience.
        """
        self.totals = Totals()
        pause = _BATCH_PAUSE_SECONDS if self._rate else self._behaviour.pause_seconds
        started = time.monotonic()
        ends = started + (math.inf if duration is None else duration)
        with (
            closing(connect(self._performance)) as events,
            closing(connect(self._knowledge_base)) as facts,
        ):
            while (now := time.monotonic()) < ends and not stop.is_set():
                # Not the seeded generator: the pace must not change the content.
                next_batch = min(now + random.uniform(*pause), ends)
                batch = self._draw_batch(next_batch - started)
                with explained(self._performance):
                    for write in self._write_events:
                        self.totals += patiently(partial(write, events, batch), stop)
                with explained(self._knowledge_base):
                    change = partial(_write_changes, facts, batch)
                    self.totals += patiently(change, stop)
                stop.wait(max(0.0, next_batch - time.monotonic()))
        self.totals = replace(self.totals, seconds=now - started)
        return self.totals

    def _draw_batch(self, until_seconds: float) -> Batch:
        batch = Batch(self._rng, self._behaviour)
        due = 1.0
        if self._rate is not None:
            due = self._rate * until_seconds - self.totals.events
        while self._behaviour.is_active and batch.rows < min(due, _BATCH_ROWS_LIMIT):
            batch.add_round()
        return batch


def write_batch(db: sqlite3.Connection, batch: Batch) -> Counter[str]:
    """Write queries and look-ups, and count them under their names in ``Totals``."""
    if batch.queries:
        with db:
            db.execute(_BEGIN)
            db.executemany(_ADD_QUERY, batch.queries)
            db.executemany(_ADD_LOOKUP, batch.lookups)
    return batch.count_queries()


def patiently(write: Callable[[], Counter[str]], stop: threading.Event) -> Counter[str]:
    """Try until no lock is in the way, or nothing is to be written any more.

    Raises:
        sqlite3.Error: a lock outlasted patience, or it is something else.
    """
    patience_ends = time.monotonic() + _LOCK_PATIENCE_SECONDS
    while True:
        try:
            return write()
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > patience_ends:
                raise
            if stop.is_set():
                return Counter()


def _write_changes(db: sqlite3.Connection, batch: Batch) -> Counter[str]:
    counts: Counter[str] = Counter()
    if not batch.changes:
        return counts
    with db:
        db.execute(_BEGIN)
        for change in batch.changes:
            figure, change_fact = _CHANGES[str(change["operation"])]
            for (statement,) in db.execute(change_fact, change).fetchall():
                db.execute(_ADD_AUDIT_ROW, change | {"details": statement})
                counts.update((figure, "audit_rows"))
    return counts


def _create_tables(path: Path, tables: str, journal_mode: str) -> None:
    set_mode = _SET_MODE[journal_mode]
    is_new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(connect(path, "rwc")) as db:
        if is_new:
            db.execute(set_mode)
        db.executescript(tables)


def connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    """Open a database that exists, to write.

    Raises:
        DatabaseError: it could not be opened.
    """
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    with explained(path):
        return sqlite3.connect(
            uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None
        )


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and the file system into ones that say what to do."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        advice = [text for sign, text in _ADVICE.items() if sign in str(error)]
        problem = f"cannot write {path}: {error}"
        raise DatabaseError("; ".join([problem, *advice])) from error
