"""What tests of exporter/database read, and what a reader may have changed by it."""

import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.database import Database
from exporter.database.file import DatabaseFile
from exporter.errors import DatabaseError
from tests.databases import App, Files, beside

COUNT = "SELECT COUNT(*) FROM query_times"
INSERT = "INSERT INTO query_times (query_time) VALUES (0.05)"
SECONDS = 20.0  # far more than a read takes


def make(folder: Path, journal_mode: str = "wal") -> Path:
    """Return a performance database with three queries that nobody has open."""
    with Files(folder, journal_mode) as files:
        for _ in range(3):
            files.add_query()
    return files.performance.path


def read(
    path: Path,
    sql: str = COUNT,
    seconds: float = SECONDS,
    work: Callable[[sqlite3.Connection, DatabaseFile], Any] | None = None,
) -> Any:
    """Return the only value of a query, or what ``work`` returns."""

    def ask(db: sqlite3.Connection, file: DatabaseFile) -> Any:
        return db.execute(sql).fetchone()[0]

    return Database("performance", path).read(work or ask, time.monotonic() + seconds)


def read_file(path: Path) -> DatabaseFile:
    """Return what a reader is told about the file."""
    file: DatabaseFile = read(path, work=lambda db, file: file)
    return file


def refusal(path: Path) -> str:
    """Return why a file is not read within a second."""
    with pytest.raises(DatabaseError) as caught:
        read(path, seconds=1.0)
    return str(caught.value)


def copy_in_use(path: Path) -> Path:
    """Return a copy of a file with a fourth row in its log, and of what is beside."""
    folder = path.with_name("copy")
    folder.mkdir()
    with App(path) as app:
        app.run(INSERT)
        for suffix in ("", "-wal", "-shm"):
            shutil.copy(beside(path, suffix), folder)
    return folder / path.name
