"""HAK/GAL's two databases as real files, for tests: what is written and what befalls.

``Files`` writes from within the test process. SQLite's locks belong to a process, so
whoever tests locks, or what happens beside a running writer, starts an ``App``.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from exporter.commands.simulate import KNOWLEDGE_BASE_SCHEMA
from exporter.recorder import PERFORMANCE_SCHEMA

EPOCH = 1767225600  # 2026-01-01 00:00:00 UTC
JOURNAL_MODES = ("wal", "delete")


class File:
    """One database file, and the connection that writes it while it is open."""

    def __init__(self, path: Path, schema: str, journal_mode: str = "wal") -> None:
        self.path = path
        self.schema = schema
        self.journal_mode = journal_mode
        self.open()

    def open(self) -> None:
        """Open the writer's connection; makes the file if it is missing."""
        self.db = sqlite3.connect(self.path, isolation_level=None)
        self.db.execute("PRAGMA synchronous = OFF")
        self.db.execute(f"PRAGMA journal_mode = {self.journal_mode}")
        self.db.executescript(self.schema)

    def close(self) -> None:
        """Close the writer's connection; the last one folds the log into the file."""
        self.db.close()

    def run(self, sql: str, *parameters: object) -> list[Any]:
        """Execute one statement and return its rows."""
        return self.db.execute(sql, parameters).fetchall()

    def value(self, sql: str, *parameters: object) -> Any:
        """Return the only value of a query."""
        ((value,),) = self.run(sql, *parameters)
        return value

    def insert(self, table: str, **columns: object) -> int:
        """Insert a row and return its id; a column left out gets its default."""
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        values = f"({names}) VALUES ({marks})" if columns else "DEFAULT VALUES"
        cursor = self.db.execute(
            f"INSERT INTO {table} {values}", tuple(columns.values())
        )
        return cursor.lastrowid or 0

    def prune(self, table: str, keep: int = 0) -> None:
        """Delete all rows but the newest ``keep``."""
        newest = f"SELECT id FROM {table} ORDER BY id DESC LIMIT {keep}"
        self.run(f"DELETE FROM {table} WHERE id NOT IN ({newest})")

    def vacuum(self) -> None:
        """Write the file anew in place."""
        self.run("VACUUM")

    def recreate(self, table: str) -> None:
        """Drop a table, its sequence with it, and create it again."""
        self.run(f"DROP TABLE {table}")
        self.db.executescript(self.schema)

    def vacuum_into(self) -> None:
        """Replace the file by what VACUUM INTO makes of it."""
        new = self.path.with_name("vacuumed.db")
        self.run("VACUUM INTO ?", str(new))
        self._put(new)

    def move_to_copy(self) -> None:
        """Replace the file by a copy, as on a new disk: same content, other inode."""
        self.close()
        self._put(Path(shutil.copy(self.path, self.path.with_name("copied.db"))))

    def backup(self, name: str = "backup.db") -> Path:
        """Return a copy of the file as it is now."""
        backup = self.path.with_name(name)
        backup.unlink(missing_ok=True)
        self.run("VACUUM INTO ?", str(backup))
        return backup

    def restore(self, backup: Path, same_inode: bool = True) -> None:
        """Put a backup in the file's place: over its bytes, or as another file."""
        self.close()
        if same_inode:
            shutil.copyfile(backup, self.path)
            self.open()
        else:
            self._put(Path(shutil.copy(backup, self.path.with_name("restored.db"))))

    def replace(self, same_inode: bool = False) -> None:
        """Put a new and empty database in the file's place."""
        new = File(self.path.with_name("new.db"), self.schema, self.journal_mode)
        new.close()
        self.restore(new.path, same_inode)
        new.path.unlink()

    def _put(self, new: Path) -> None:
        self.close()
        os.replace(new, self.path)
        self.open()


class Files:
    """Both databases in one folder; ``with Files(tmp_path) as files`` closes them."""

    def __init__(self, folder: Path, journal_mode: str = "wal") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.knowledge_base = File(
            folder / "hexagonal_kb.db", KNOWLEDGE_BASE_SCHEMA, journal_mode
        )
        self.performance = File(
            folder / "hakgal_performance.db", PERFORMANCE_SCHEMA, journal_mode
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close both writers' connections: HAK/GAL has stopped."""
        self.knowledge_base.close()
        self.performance.close()

    def add_query(
        self,
        query_time: object = 0.05,
        query_type: object = "search_knowledge",
        success: object = 1,
        **columns: object,
    ) -> int:
        """Add a row to ``query_times``; ``timestamp=…`` instead of now."""
        named = {"query_type": query_type, "success": success} | columns
        return self.performance.insert("query_times", query_time=query_time, **named)

    def add_cache(
        self, hit: object = 1, response_time: object = 0.002, **columns: object
    ) -> int:
        """Add a row to ``cache_events``."""
        return self.performance.insert(
            "cache_events", hit=hit, response_time=response_time, **columns
        )

    def add_audit(self, operation: object = "add_fact", **columns: object) -> int:
        """Add a row to ``audit_log``."""
        return self.knowledge_base.insert("audit_log", operation=operation, **columns)

    def add_fact(
        self,
        statement: object = "HasPart(Computer, CPU).",
        confidence: object = 0.9,
        **columns: object,
    ) -> int:
        """Add a row to ``facts``."""
        return self.knowledge_base.insert(
            "facts", statement=statement, confidence=confidence, **columns
        )

    def add_each(self) -> None:
        """Add a row to each table."""
        for add in (self.add_fact, self.add_audit, self.add_query, self.add_cache):
            add()


_APP = """
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=float(sys.argv[2]))
for line in sys.stdin:
    try:
        answer = {"rows": db.execute(json.loads(line)).fetchall()}
    except sqlite3.Error as error:
        answer = {"error": error.sqlite_errorname}
    print(json.dumps(answer), flush=True)
db.close()
"""


class App:
    """Another process that has a database open; ``with App(path) as app`` ends it.

    ``timeout`` is how long it waits for locks, in seconds.
    """

    def __init__(self, path: Path, timeout: float = 5.0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _APP, str(path), str(timeout)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def run(self, sql: str) -> list[Any]:
        """Execute one statement there and return its rows.

        Raises:
            sqlite3.OperationalError: with the error's name, as ``SQLITE_BUSY``.
        """
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(sql) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise sqlite3.OperationalError(answer["error"])
        rows: list[Any] = answer["rows"]
        return rows

    def close(self) -> None:
        """End it in order: it closes its connection."""
        self._process.communicate()

    def kill(self) -> None:
        """End it as a crash would: SIGKILL, nothing is closed."""
        self._process.kill()
        self._process.communicate()


def beside(path: Path, suffix: str) -> Path:
    """Return the path of a file's ``-wal``, ``-shm`` and so on."""
    return path.with_name(path.name + suffix)


def traces(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return what a reader might have changed of each file in a folder."""
    with os.scandir(folder) as entries:
        found = {one.name: one.stat(follow_symlinks=False) for one in entries}
    return {
        name: (s.st_ino, s.st_uid, s.st_gid, s.st_mode, s.st_size, s.st_mtime_ns)
        for name, s in found.items()
    }


def at(seconds: int) -> str:
    """Return the timestamp that SQLite would have written so long after EPOCH."""
    return str(datetime.fromtimestamp(EPOCH + seconds, UTC).replace(tzinfo=None))
