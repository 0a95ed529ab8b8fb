"""HAK/GAL's side of the fault test: one database, its writer and what befalls it.

Timestamps look as SQLite writes them but come from a clock of the test's own that
stands still unless told, so that a seed gives the same rows and many share a second.
"""

import os
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.ledger import Ledger, Row
from tests.faults.rows import Drawn, Spec

SIDE_FILES = ("-wal", "-shm", "-journal")
FOLD_SECONDS = 2.0


@dataclass
class Clock:
    """The time that rows are written at."""

    seconds: int = 1_577_836_800  # in the past, and it stays there

    def tick(self, seconds: int = 1) -> None:
        self.seconds += seconds


@dataclass
class TableModel:
    """What the writer knows of a table; ``last`` is the last id given out."""

    spec: Spec
    ledger: Ledger
    last: int = 0


@dataclass(frozen=True)
class Backup:
    """A copy of the database, all of it read, and each table's last id then."""

    path: Path
    last: dict[str, int]


class Store:
    """One database."""

    def __init__(
        self,
        path: Path,
        schema: str,
        specs: tuple[Spec, ...],
        rng: random.Random,
        clock: Clock,
    ) -> None:
        self.path = path
        self.rng = rng
        self.clock = clock
        self.mode = "wal"
        self.tables = {
            spec.name: TableModel(spec, Ledger(burns_ids=spec.burns_ids))
            for spec in specs
        }
        self.harm: list[str] = []
        self.slowest_seconds = 0.0
        self.written = 0
        self.discarded = 0
        self.kept: list[Backup] = []  # made some rounds ago
        self._schema = schema
        self._db: sqlite3.Connection | None = None
        self._copies = 0

    @property
    def db(self) -> sqlite3.Connection:
        """The writer's connection, opened if it is not."""
        if self._db is None:
            with self.unharmed("open"):
                self._db = _connect(self.path, self.mode)
                self._db.executescript(self._schema)
        assert self._db
        return self._db

    @property
    def is_open(self) -> bool:
        """Whether the writer has the file open."""
        return self._db is not None

    def check_closed(self) -> None:
        """Note side files that somebody else has left while the writer was gone."""
        left = [s for s in SIDE_FILES if self._side(s).exists()]
        if left and not self.is_open:
            self.harm.append(f"made beside {self.path.name}: {left}")

    def connect(self) -> sqlite3.Connection:
        """Return another connection to the file."""
        return _connect(self.path)

    def close(self) -> None:
        """Stop writing, in order: the last connection folds the log."""
        if self._db:
            self._db.close()
            self._db = None
        until = time.monotonic() + FOLD_SECONDS
        while self._side("-wal").exists() and time.monotonic() < until:
            with self.unharmed("fold the log"), closing(_connect(self.path)) as db:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        left = [s for s in SIDE_FILES if self._side(s).exists()]
        if left:
            self.harm.append(f"left beside {self.path.name}: {left}")

    def insert(
        self, name: str, count: int, *, commits: bool = True, age: int | None = 0
    ) -> None:
        """Write rows in one transaction, perhaps to roll it back.

        ``age`` is how many seconds old they are, None if they have no time.
        """
        table = self.tables[name]
        moment = None if age is None else self.clock.seconds - age
        drawn = [table.spec.draw(self.rng) for _ in range(count)]
        with self.unharmed("insert"):
            self.db.execute("BEGIN IMMEDIATE")
            rows = ((write_time(moment), *row.columns) for row in drawn)
            self.db.executemany(table.spec.insert, rows)
            self.db.execute("COMMIT" if commits else "ROLLBACK")
            if commits:
                ids = range(table.last + 1, table.last + count + 1)
                self.commit(table, moment, dict(zip(ids, drawn, strict=True)))

    def commit(
        self, table: TableModel, moment: int | None, rows: dict[int, Drawn]
    ) -> None:
        """Enter rows that were committed, by id, in the ledger."""
        table.last = max(table.last, *rows) if rows else table.last
        self.written += len(rows)
        added = [Row(moment, n, row.key, row.value) for n, row in rows.items()]
        table.ledger.commit(added)

    def prune(self, name: str, upto: int) -> None:
        """Delete the oldest rows."""
        with self.unharmed("prune"):
            self.db.execute(f"DELETE FROM {name} WHERE id <= ?", (upto,))
            self.tables[name].ledger.prune(lambda row: row.id <= upto)

    def clear(self, name: str) -> None:
        """Delete all rows, as SQLite does it best: without a look at any."""
        with self.unharmed("clear"):
            self.db.execute(f"DELETE FROM {name}")
            self.tables[name].ledger.prune(lambda row: True)

    def delete(self, name: str, ids: set[int]) -> None:
        """Delete any rows."""
        with self.unharmed("delete"):
            self.db.execute("BEGIN IMMEDIATE")
            statement = f"DELETE FROM {name} WHERE id = ?"
            self.db.executemany(statement, [(n,) for n in ids])
            self.db.execute("COMMIT")
            self.tables[name].ledger.prune(lambda row: row.id in ids)

    def run(self, statement: str) -> None:
        """Execute a statement that changes no row that is counted."""
        with self.unharmed(statement):
            self.db.execute(statement).fetchall()

    def value(self, query: str) -> int:
        """Return the only value of a query."""
        ((value,),) = self.db.execute(query).fetchall()
        return int(value or 0)

    def recreate(self, name: str) -> None:
        """Drop a table, its sequence with it, and create it again."""
        with self.unharmed("recreate"):
            self.db.execute(f"DROP TABLE {name}")
            self.db.executescript(self._schema)
            self.swap(name, 0)

    def replace(self, *, renamed: bool) -> None:
        """Put a new database in the file's place, at once or step by step."""
        self.close()
        for name in self.tables:
            self.swap(name, 0)
        if renamed:
            new = self._copy_name()
            with closing(_connect(new, self.mode)) as db:
                db.executescript(self._schema)
            os.replace(new, self.path)
        else:
            self.path.unlink()
        self.db.execute("SELECT 1")

    def copy(self, how: Callable[[Path, Path], object] | None = None) -> Path:
        """Return a copy of the database, by VACUUM INTO unless told how."""
        copy = self._copy_name()
        if how is None:
            with self.unharmed("VACUUM INTO"):
                self.db.execute("VACUUM INTO ?", (str(copy),))
        else:
            self.close()
            how(self.path, copy)
        return copy

    def put(self, copy: Path, *, same_inode: bool = False) -> None:
        """Put a copy in the file's place: as another file, or over its bytes."""
        self.close()
        if same_inode:
            shutil.copyfile(copy, self.path)
            copy.unlink()
        else:
            os.replace(copy, self.path)

    def backup(self) -> Backup:
        """Return a copy of the database to be restored later."""
        return Backup(self.copy(), {n: t.last for n, t in self.tables.items()})

    def restore(self, backup: Backup, *, same_inode: bool = False) -> None:
        """Put a backup in the file's place."""
        copy = self._copy_name()
        shutil.copyfile(backup.path, copy)
        self.put(copy, same_inode=same_inode)
        for name, last in backup.last.items():
            self.swap(name, last)

    def swap(self, name: str, last: int) -> None:
        """Note another table in one's place, with its last id."""
        self.tables[name].last = last
        self.discarded += self.tables[name].ledger.swap(last)

    @contextmanager
    def unharmed(self, what: str) -> Iterator[None]:
        """Note when the writer cannot do what it would without the exporter."""
        started = time.monotonic()
        try:
            yield
        except sqlite3.Error as error:
            self.harm.append(f"{what} in {self.path.name}: {error}")
            if self._db and self._db.in_transaction:
                self._db.rollback()
        self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - started)

    def _copy_name(self) -> Path:
        self._copies += 1
        return self.path.with_name(f"{self.path.stem}-copy-{self._copies}.db")

    def _side(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)


def write_time(moment: int | None) -> str | None:
    """Return a time as SQLite writes it."""
    return (
        None
        if moment is None
        else f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S}"
    )


def _connect(path: Path, mode: str | None = None) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    if mode:
        db.execute(f"PRAGMA journal_mode = {mode}").fetchall()
    return db
