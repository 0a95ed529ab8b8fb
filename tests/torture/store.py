"""HAK/GAL's side: one database, its writer, and what may befall its file.

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
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.databases import beside
from tests.torture.ledger import Ledger, Row
from tests.torture.rows import Spec

SIDE_FILES = ("-wal", "-shm", "-journal")
FOLD_SECONDS = 2.0


@dataclass
class Clock:
    """The time that rows are written at."""

    seconds: int = 1_577_836_800  # in the past, and it stays there

    def tick(self, seconds: int = 1) -> None:
        self.seconds += seconds


@dataclass(frozen=True)
class Backup:
    """A copy of the database, all of it read, and each table's last id then."""

    path: Path
    last: dict[str, int]


@dataclass
class Store:
    """One database; what its writer could not do because of others is ``harm``."""

    path: Path
    schema: str
    specs: tuple[Spec, ...]
    clock: Clock
    rng: random.Random
    mode: str = "wal"
    harm: list[str] = field(default_factory=list)
    kept: list[Backup] = field(default_factory=list)  # made some rounds ago
    _db: sqlite3.Connection | None = None
    _copies: int = 0

    def __post_init__(self) -> None:
        self.tables = {spec.name: Ledger(spec) for spec in self.specs}

    @property
    def db(self) -> sqlite3.Connection:
        """The writer's connection, opened if it is not."""
        if self._db is None:
            with self.unharmed("open"):
                self._db = _connect(self.path, self.mode)
                self._db.executescript(self.schema)
        assert self._db
        return self._db

    @property
    def is_open(self) -> bool:
        """Whether the writer has the file open."""
        return self._db is not None

    @property
    def collectors(self) -> tuple[str, ...]:
        """The exporter's collectors that read the file."""
        return tuple(spec.collector for spec in self.specs)

    def check_closed(self) -> None:
        """Note side files that somebody else has left while the writer was gone."""
        left = [suffix for suffix in SIDE_FILES if beside(self.path, suffix).exists()]
        if left and not self.is_open:
            self.harm.append(f"left beside {self.path.name}: {left}")

    def close(self) -> None:
        """Stop writing, in order: the last connection folds the log."""
        if self._db:
            self._db.close()
            self._db = None
        until = time.monotonic() + FOLD_SECONDS
        while beside(self.path, "-wal").exists() and time.monotonic() < until:
            with self.unharmed("fold the log"), closing(_connect(self.path)) as db:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.check_closed()

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
                numbered = zip(ids, drawn, strict=True)
                table.commit(
                    [Row(moment, n, row.key, row.value) for n, row in numbered]
                )

    def delete(self, name: str, where: str, is_gone: Callable[[Row], bool]) -> None:
        """Delete rows; without ``where`` all, which SQLite does without a look."""
        with self.unharmed("delete"):
            self.db.execute(f"DELETE FROM {name} {where}")
            self.tables[name].prune(is_gone)

    def run(self, statement: str) -> None:
        """Execute a statement that changes no row that is counted."""
        with self.unharmed(statement):
            self.db.execute(statement).fetchall()

    def recreate(self, name: str) -> None:
        """Drop a table, its sequence with it, and create it again."""
        with self.unharmed("recreate"):
            self.db.execute(f"DROP TABLE {name}")
            self.db.executescript(self.schema)
            self.tables[name].swap(0)

    def replace(self, *, renamed: bool) -> None:
        """Put a new database in the file's place, at once or step by step."""
        self.close()
        for table in self.tables.values():
            table.swap(0)
        if renamed:
            new = self._copy_name()
            with closing(_connect(new, self.mode)) as db:
                db.executescript(self.schema)
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
            self.tables[name].swap(last)

    @contextmanager
    def unharmed(self, what: str) -> Iterator[None]:
        """Note when the writer cannot do what it would without the exporter."""
        try:
            yield
        except sqlite3.Error as error:
            self.harm.append(f"{what} in {self.path.name}: {error}")
            if self._db and self._db.in_transaction:
                self._db.rollback()

    def _copy_name(self) -> Path:
        self._copies += 1
        return self.path.with_name(f"{self.path.stem}-copy-{self._copies}.db")


def write_time(moment: int | None) -> str | None:
    """Return a time as SQLite writes it."""
    if moment is None:
        return None
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S}"


def _connect(path: Path, mode: str | None = None) -> sqlite3.Connection:
    # Another thread may write while this one attacks, never both at once.
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA synchronous = OFF")
    if mode:
        db.execute(f"PRAGMA journal_mode = {mode}").fetchall()
    return db
