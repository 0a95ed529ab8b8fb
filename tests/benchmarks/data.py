"""Databases of any size, made once and kept; each run works on copies of them."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from exporter.commands.simulate import KNOWLEDGE_BASE_SCHEMA
from exporter.recorder import PERFORMANCE_SCHEMA

VERSION = 1  # of the content; another one makes it again
SIDE_ROWS = 10_000  # at most, in cache_events and audit_log
FIRST_SECOND = 1_700_000_000

_NUMBERS = (
    "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < ?1)"
)
_TIME = f"datetime({FIRST_SECOND} + id, 'unixepoch')"
_LOT = "(abs(random() % 1000003) / 1000003.0)"
# Durations from 2 ms to 10 s, so that each bucket has rows, the short ones most.
_QUERY = f"""
  0.002 / (0.0002 + {_LOT}),
  CASE abs(random() % 5) WHEN 0 THEN 'add_fact' WHEN 1 THEN 'consistency_check'
  WHEN 2 THEN 'get_system_status' WHEN 3 THEN 'health_check'
  ELSE 'search_knowledge' END,
  random() % 50 <> 0
"""
_ADD_QUERIES = f"""{_NUMBERS}
INSERT INTO query_times(id, timestamp, query_time, query_type, success)
SELECT id, {_TIME}, {_QUERY} FROM n
"""
_MORE_QUERIES = f"""{_NUMBERS}
INSERT INTO query_times(query_time, query_type, success) SELECT {_QUERY} FROM n
"""
_ADD_LOOKUPS = f"""{_NUMBERS}
INSERT INTO cache_events(id, timestamp, hit, cache_key, response_time)
SELECT id, {_TIME}, random() % 10 < 7, hex(randomblob(8)), 0.0005 / (0.001 + {_LOT})
FROM n
"""
_ADD_FACTS = f"""{_NUMBERS}
INSERT INTO facts(id, timestamp, statement, source, tags, confidence)
SELECT id, {_TIME}, 'HasPart(Computer' || abs(random() % 100000) || ', CPU).',
  'simulator', 'simulated', abs(random() % 101) / 100.0 FROM n
"""
_ADD_AUDIT_ROWS = f"""{_NUMBERS}
INSERT INTO audit_log(id, timestamp, operation, details, user_id, session_id)
SELECT id, {_TIME}, 'add_fact', 'HasPart(Computer1, CPU).', 'user-1', 'session-1'
FROM n
"""


_LOOKUPS = "INSERT INTO cache_events(hit, response_time) VALUES (?, ?)"
_FACT = "INSERT INTO facts(statement, source) VALUES ('Is(A, B).', 'simulator')"
_AUDIT_ROW = "INSERT INTO audit_log(operation) VALUES ('add_fact')"


@dataclass(frozen=True)
class Files:
    """Two databases, and what belongs to them, in a folder."""

    folder: Path
    rows: int

    @property
    def knowledge_base(self) -> Path:
        return self.folder / "hexagonal_kb.db"

    @property
    def performance(self) -> Path:
        return self.folder / "hakgal_performance.db"

    @property
    def state(self) -> Path:
        return self.folder / "exporter-state.json"


def make(cache: Path, rows: int) -> Files:
    """Return files with so many facts and queries, made if they are not there."""
    made = Files(cache / f"rows-{rows}-version-{VERSION}", rows)
    if not made.folder.exists():
        fresh = Files(made.folder.with_suffix(".part"), rows)
        shutil.rmtree(fresh.folder, ignore_errors=True)
        fresh.folder.mkdir(parents=True)
        side = min(rows, SIDE_ROWS)
        facts = {_ADD_FACTS: rows, _ADD_AUDIT_ROWS: side}
        _fill(fresh.knowledge_base, KNOWLEDGE_BASE_SCHEMA, facts)
        events = {_ADD_QUERIES: rows, _ADD_LOOKUPS: side}
        _fill(fresh.performance, PERFORMANCE_SCHEMA, events)
        fresh.folder.rename(made.folder)
    return made


def copy(made: Files, folder: Path) -> Files:
    """Return a copy that a run may write into, in WAL mode."""
    copied = Files(folder, made.rows)
    shutil.copytree(made.folder, copied.folder)
    set_journal_mode(copied, "wal")
    return copied


def set_journal_mode(files: Files, mode: str) -> None:
    """Set wal or delete on both files."""
    statement = {"wal": "PRAGMA journal_mode = wal"}.get(
        mode, "PRAGMA journal_mode = delete"
    )
    for path in (files.knowledge_base, files.performance):
        with closing(sqlite3.connect(path)) as db:
            assert db.execute(statement).fetchone() == (mode,)


def add_queries(files: Files, rows: int) -> None:
    """Write so many rows at once, as after a long pause of the monitoring."""
    with closing(sqlite3.connect(files.performance)) as db, db:
        db.execute(_MORE_QUERIES, (rows,))


def add_some(files: Files) -> None:
    """Write what may come between two scrapes: 40 rows, some in each table."""
    with closing(sqlite3.connect(files.performance)) as db, db:
        db.execute(_MORE_QUERIES, (20,))
        db.executemany(_LOOKUPS, 16 * [(True, 0.001)])
    with closing(sqlite3.connect(files.knowledge_base)) as db, db:
        for statement in 2 * (_FACT, _AUDIT_ROW):
            db.execute(statement)


def count_queries(files: Files) -> tuple[int, float]:
    """Return the rows in query_times and the sum of their durations."""
    with closing(sqlite3.connect(files.performance)) as db:
        rows, total = db.execute(
            "SELECT COUNT(*), TOTAL(query_time) FROM query_times"
        ).fetchone()
    return int(rows), float(total)


@contextmanager
def application(*many: Files) -> Iterator[None]:
    """Have the files open as an idle HAK/GAL has: log and index lie beside them."""
    paths = [p for files in many for p in (files.knowledge_base, files.performance)]
    connections = [sqlite3.connect(path) for path in dict.fromkeys(paths)]
    try:
        for db in connections:
            # A write that changes nothing makes the log; reading alone would not.
            (version,) = db.execute("PRAGMA user_version").fetchone()
            db.execute(f"PRAGMA user_version = {int(version) + 1}")
        yield
    finally:
        for db in connections:
            db.close()


def _fill(path: Path, tables: str, statements: dict[str, int]) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = off")
        db.execute("PRAGMA synchronous = off")
        db.executescript(tables)
        with db:
            for statement, rows in statements.items():
                db.execute(statement, (rows,))
