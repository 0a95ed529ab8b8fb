"""Read a SQLite file without ever being in HAK/GAL's way.

A connection lives for one read: one that stays open would keep HAK/GAL's last close
from folding its log back into the file.
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

# Takes the lock and reads the schema: fails here, not in a collector, if it cannot.
_FIRST_READ = "SELECT COUNT(*) FROM sqlite_schema"
BUSY_SHARE = 0.25  # of the time that is left, to wait for a lock
UNSETTLED_SECONDS = 0.25  # opening and closing take milliseconds
RETRY_SECONDS = 0.002
LEAST_ATTEMPTS = 3
SHARED_BYTES = (510, 0x40000002)  # length and start of SQLite's shared lock on a file
STEPS_PER_CHECK = 20_000  # virtual machine steps between looks at the clock, about 2 ms

_MISSING = (
    "the file does not exist (yet); it is picked up when HAK/GAL makes it, else check"
    " the path"
)
_EXPLANATIONS = {
    "SQLITE_BUSY": "another connection has it locked; if this lasts, find out which",
    "SQLITE_INTERRUPT": "the scrape's time was up before the read had finished",
    "SQLITE_CANTOPEN": "the file or its -wal cannot be opened; check permissions",
    "SQLITE_CORRUPT": "the file is damaged; check it with 'PRAGMA integrity_check'",
    "SQLITE_READONLY": "its writer crashed; start HAK/GAL, which mends the file",
}
# Also said where the index was looked at while somebody wrote it.
_PASSING = ("SQLITE_READONLY_RECOVERY", "SQLITE_READONLY_CANTINIT")


class Database:
    """One SQLite file, read by one thread."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path.absolute()

    def read(self, work: Work[T], deadline: float) -> T:
        """Return what ``work`` makes of a fresh connection, if need be in a second try.

        ``deadline`` is on the monotonic clock. ``work`` reads in one transaction, and
        calls ``release`` where that would last too long.

        Raises:
            DatabaseError: missing, locked, damaged, not readable, too slow.
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
        """Return the error with the database, the path and what to do."""
        reason, code = str(error), _code(error)
        if isinstance(error, FileNotFoundError):
            reason = _MISSING
        elif isinstance(error, OSError):  # or no descriptors are left, or a disk fails
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
                raise UnsettledError("it was changed while it was read")

    @contextmanager
    def _kept_log(self, file: DatabaseFile) -> Iterator[None]:
        """Keep ``-wal`` and ``-shm`` where they are: SQLite would make them anew.

        A last close removes them only if it gets the lock on the file for itself.
        """
        with open(file.path, "rb", buffering=0) as opened:
            try:
                fcntl.lockf(opened, fcntl.LOCK_SH | fcntl.LOCK_NB, *SHARED_BYTES)
            except OSError as error:
                raise UnsettledError(_EXPLANATIONS["SQLITE_BUSY"]) from error
            if not all(os.path.exists(file.path + side) for side in ("-wal", "-shm")):
                raise UnsettledError("it is just being closed")
            yield

    @contextmanager
    def _connection(self, file: DatabaseFile, deadline: float) -> Iterator[Connection]:
        """Open a connection, in one transaction: each lock may make a writer wait."""
        option = "immutable=1" if file.is_immutable else "readonly_shm=1"
        uri = f"{Path(file.path).as_uri()}?mode=ro&{option}"
        wait = max(0.0, BUSY_SHARE * (deadline - time.monotonic()))
        connection = sqlite3.connect(uri, timeout=wait, isolation_level=None, uri=True)
        try:
            # Of a file in another mode that has come since, SQLite might make a -wal.
            if status(file.path)[1:3] != file.version[1:3]:
                raise UnsettledError("it was just replaced")
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            limit(connection, deadline)
            # A build may map files by default; a truncated one would then kill us.
            connection.execute("PRAGMA mmap_size = 0")
            connection.execute("BEGIN")
            connection.execute(_FIRST_READ).fetchone()
            yield connection
        finally:
            connection.close()


def limit(db: Connection, deadline: float) -> None:
    """Interrupt whatever statement goes on beyond a moment of the monotonic clock."""
    db.set_progress_handler(lambda: time.monotonic() > deadline, STEPS_PER_CHECK)


def release(db: Connection) -> None:
    """Let a writer in; the next statement reads on in another transaction."""
    db.rollback()
    db.execute("BEGIN")


def _may_pass(error: Exception) -> bool:
    """Say whether another attempt a moment later may succeed."""
    if isinstance(error, FileNotFoundError):  # a side file: just being closed
        return str(error.filename).endswith("-shm")
    return _code(error) in _PASSING or isinstance(error, UnsettledError)


def _code(error: Exception) -> str:
    """Return SQLite's name for an error."""
    if isinstance(error, UnicodeDecodeError):  # a damaged name in its message
        return "SQLITE_CORRUPT"
    return getattr(error, "sqlite_errorname", None) or ""
