"""Read a SQLite file without disturbing HAK/GAL.

Each read opens its own connection. A connection that stayed open would keep HAK/GAL
from checkpointing and removing the write-ahead log when it closes the file.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection
from typing import TypeVar

from exporter.database.file import DatabaseFile, UnsettledError, inspect, status
from exporter.errors import DatabaseError

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")
Work = Callable[[Connection, DatabaseFile], T]

# Takes the lock and reads the schema, so that errors show here, not in a collector.
_FIRST_READ = "SELECT COUNT(*) FROM sqlite_schema"
BUSY_SHARE = 0.25  # of the remaining time, to wait for a lock
UNSETTLED_SECONDS = 0.25  # HAK/GAL opens or closes a file in milliseconds
RETRY_SECONDS = 0.002
LEAST_ATTEMPTS = 3
SHARED_BYTES = (510, 0x40000002)  # length and start of SQLite's shared lock
STEPS_PER_CHECK = 20_000  # of SQLite's virtual machine between deadline checks, ~2 ms

_MISSING = (
    "the file does not exist; if HAK/GAL has yet to create it, wait, otherwise check"
    " the path"
)
_EXPLANATIONS = {
    "SQLITE_BUSY": "another connection has locked it; if this persists, find out which",
    "SQLITE_INTERRUPT": "the read exceeded the scrape deadline; check the disk",
    "SQLITE_CANTOPEN": "the file or its -wal cannot be opened; check permissions",
    "SQLITE_CORRUPT": "the file is damaged; check it with 'PRAGMA integrity_check'",
    "SQLITE_READONLY": "its writer crashed; start HAK/GAL to recover the file",
}
# SQLite also returns these if another process was just writing the WAL index.
_PASSING = ("SQLITE_READONLY_RECOVERY", "SQLITE_READONLY_CANTINIT")


class Database:
    """One SQLite file, read by one thread."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path.absolute()

    def read(self, work: Work[T], deadline: float) -> T:
        """Return the result of ``work`` on a fresh connection; retry if that may help.

        ``deadline`` is on the monotonic clock. ``work`` runs in one transaction, and
        calls ``release`` before it holds a lock for too long.

        Raises:
            DatabaseError: the file is missing, locked, damaged, unreadable or too slow.
        """
        now = time.monotonic()
        give_up = now + min(BUSY_SHARE * (deadline - now), UNSETTLED_SECONDS)
        attempts_left = LEAST_ATTEMPTS
        while True:
            attempts_left -= 1
            try:
                return self._read_once(work, deadline)
            except (sqlite3.Error, DatabaseError, OSError, UnicodeDecodeError) as error:
                is_over = attempts_left <= 0 and time.monotonic() >= give_up
                if is_over or not _may_pass(error):
                    raise self.explain(error) from error
            time.sleep(RETRY_SECONDS)

    def explain(self, error: Exception) -> DatabaseError:
        """Return an error that names the database, its path and what to do."""
        reason, code = str(error), _code(error)
        if isinstance(error, FileNotFoundError):
            reason = _MISSING
        elif isinstance(error, OSError):  # also a lack of descriptors, a bad disk
            name = os.path.basename(str(error.filename or self.path))
            reason = f"{name}: {error.strerror}; give this user read permission"
        known = (text for key, text in _EXPLANATIONS.items() if code.startswith(key))
        place = f"the {self.name} database {self.path}"
        return DatabaseError(f"cannot read {place}: {next(known, reason)}")

    def _read_once(self, work: Work[T], deadline: float) -> T:
        file = inspect(self.path)
        if file.shm_inode is not None and fcntl:
            with self._kept_log(file), self._connection(file, deadline) as db:
                return work(db, file)
        try:
            with self._connection(file, deadline) as db:
                return work(db, file)
        finally:
            if file.is_immutable and status(file.path) != file.version[:4]:
                raise UnsettledError("the file changed during the read")

    @contextmanager
    def _kept_log(self, file: DatabaseFile) -> Iterator[None]:
        """Keep ``-wal`` and ``-shm`` from being removed: SQLite would recreate them.

        HAK/GAL's last close removes them only if it gets an exclusive lock on the file.
        """
        with open(file.path, "rb", buffering=0) as opened:
            try:
                fcntl.lockf(opened, fcntl.LOCK_SH | fcntl.LOCK_NB, *SHARED_BYTES)
            except OSError as error:
                raise UnsettledError(_EXPLANATIONS["SQLITE_BUSY"]) from error
            if not all(os.path.exists(file.path + side) for side in ("-wal", "-shm")):
                raise UnsettledError("the file is being closed")
            yield

    @contextmanager
    def _connection(self, file: DatabaseFile, deadline: float) -> Iterator[Connection]:
        """Open a connection in one transaction: every lock may make a writer wait."""
        option = "immutable=1" if file.is_immutable else "readonly_shm=1"
        uri = f"{Path(file.path).as_uri()}?mode=ro&{option}"
        wait = max(0.0, BUSY_SHARE * (deadline - time.monotonic()))
        connection = sqlite3.connect(uri, timeout=wait, isolation_level=None, uri=True)
        try:
            # SQLite might create a -wal for a new file that is in another mode.
            if status(file.path)[1:3] != file.version[1:3]:
                raise UnsettledError("the file was just replaced")
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            limit(connection, deadline)
            # Some builds map files by default: a truncated file would then kill us.
            connection.execute("PRAGMA mmap_size = 0")
            connection.execute("BEGIN")
            connection.execute(_FIRST_READ).fetchone()
            yield connection
        finally:
            connection.close()


def limit(db: Connection, deadline: float) -> None:
    """Interrupt any statement that runs past the deadline, on the monotonic clock."""
    db.set_progress_handler(lambda: time.monotonic() > deadline, STEPS_PER_CHECK)


def release(db: Connection) -> None:
    """Let a writer in: end the transaction and begin another."""
    db.rollback()
    db.execute("BEGIN")


def _may_pass(error: Exception) -> bool:
    """Return whether the error may be gone a moment later."""
    if isinstance(error, FileNotFoundError):  # the file is being closed
        return str(error.filename).endswith("-shm")
    return _code(error) in _PASSING or isinstance(error, UnsettledError)


def _code(error: Exception) -> str:
    """Return SQLite's name for an error."""
    if isinstance(error, UnicodeDecodeError):  # a damaged name in SQLite's message
        return "SQLITE_CORRUPT"
    return getattr(error, "sqlite_errorname", None) or ""
