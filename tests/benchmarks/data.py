"""Databases of any size, made once and kept; each run works on copies of them."""

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from exporter.commands.simulate import KNOWLEDGE_BASE_SCHEMA
from exporter.recorder import PERFORMANCE_SCHEMA

VERSION = 1  # of the content; another one makes it again
FIRST_SECOND = 1_700_000_000
SIDE_ROWS = 10_000  # at most, in cache_events and audit_log

SCRIPTS = [Path(__file__).with_name(f"{name}.sql") for name in ("facts", "events")]


@dataclass(frozen=True)
class Files:
    """Two databases, and what belongs to them, in a folder."""

    folder: Path
    rows: int

    @property
    def size(self) -> str:
        """How many facts and queries they had when they were made: 10k, 1M."""
        for unit, letter in ((1_000_000, "M"), (1_000, "k")):
            if self.rows % unit == 0:
                return f"{self.rows // unit}{letter}"
        return str(self.rows)

    @property
    def both(self) -> tuple[Path, Path]:
        """The knowledge base and the performance database."""
        return self.folder / "hexagonal_kb.db", self.folder / "hakgal_performance.db"


def make(cache: Path, rows: int) -> Files:
    """Return files with so many facts and queries, made if they are not there."""
    made = Files(cache / f"rows-{rows}-version-{VERSION}", rows)
    if not made.folder.exists():
        fresh = Files(made.folder.with_suffix(".part"), rows)
        shutil.rmtree(fresh.folder, ignore_errors=True)
        fresh.folder.mkdir(parents=True)
        schemas = (KNOWLEDGE_BASE_SCHEMA, PERFORMANCE_SCHEMA)
        for path, schema in zip(fresh.both, schemas, strict=True):
            with closing(sqlite3.connect(path)) as db:
                db.executescript(f"PRAGMA journal_mode = off; {schema}")
        side = min(rows, SIDE_ROWS)
        _add(fresh, FIRST_SECOND, (rows, side), (rows, side))
        fresh.folder.rename(made.folder)
    return made


def _add(files: Files, since: int, *numbers: tuple[int, int]) -> None:
    for path, script, (most, others) in zip(files.both, SCRIPTS, numbers, strict=True):
        text = script.read_text()
        statements = text.format(since=since, most=most, others=others)
        with closing(sqlite3.connect(path)) as db:
            db.executescript(f"BEGIN; {statements}; COMMIT")


def add_some(files: Files) -> None:
    """Write what may come between two scrapes: 40 rows, some in each table."""
    _add(files, int(time.time()) - 20, (2, 2), (20, 16))


def copy(made: Files, folder: Path) -> Files:
    """Return a copy that a run may write into, in WAL mode."""
    copied = Files(folder, made.rows)
    shutil.copytree(made.folder, copied.folder)
    set_journal_mode(copied, "wal")
    return copied


def set_journal_mode(files: Files, mode: str) -> None:
    """Set wal or delete on both files."""
    for path in files.both:
        with closing(sqlite3.connect(path)) as db:
            is_set = db.execute(f"PRAGMA journal_mode = {mode}").fetchone() == (mode,)
            assert is_set


def count_queries(files: Files) -> tuple[int, float]:
    """Return the rows in query_times and the sum of their durations."""
    counting = "SELECT COUNT(*), TOTAL(query_time) FROM query_times"
    with closing(sqlite3.connect(files.both[1])) as db:
        rows, total = db.execute(counting).fetchone()
    return int(rows), float(total)


@contextmanager
def application(*many: Files) -> Iterator[None]:
    """Have the files open as an idle HAK/GAL has: log and index lie beside them."""
    connections = [sqlite3.connect(path) for files in many for path in files.both]
    try:
        for db in connections:
            # A write that changes nothing makes the log; reading alone would not.
            (version,) = db.execute("PRAGMA user_version").fetchone()
            db.execute(f"PRAGMA user_version = {int(version) + 1}")
        yield
    finally:
        for db in connections:
            db.close()
