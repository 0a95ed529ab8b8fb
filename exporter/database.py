"""Read HAK/GAL's SQLite files without ever being in HAK/GAL's way.

How a file is opened depends on what lies beside it:

* ``-wal`` and ``-shm`` exist: somebody uses the file in WAL mode, or crashed. Open
  read-only with ``readonly_shm``, so that SQLite uses the index but can neither create
  nor write it. A plain ``mode=ro`` would create both files as *our* user.
* no ``-wal``, or one without frames: nobody has written. A file in WAL mode is opened
  as immutable for this read, and the result is thrown away if the file has changed.
* a ``-wal`` with content but no ``-shm``: only a writer can build the index; an error.

Connections live for one read: a connection that stays open would keep HAK/GAL's last
close from folding its log back into the file. For that one read the log must stay: if
it went between our look and SQLite's, SQLite would make it anew, as *our* user.
"""

import fcntl
import os
import sqlite3
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import TypeVar

from exporter.errors import DatabaseError

T = TypeVar("T")

# Takes the lock and reads the schema: fails here, not in a collector, if it cannot.
_FIRST_READ = "SELECT COUNT(*) FROM sqlite_schema"
MAGIC = b"SQLite format 3\x00"
WAL_VERSION = 2  # bytes 18 and 19 of the header; 1 is a rollback journal
READ_VERSION = 19  # of the two the one by which SQLite itself opens a log, or makes it
# Bytes of a -wal before its first frame. Where a crash left just these, SQLite without
# write access to the -shm tries for 10 s to make sense of them, and nothing stops it.
WAL_HEADER = 32
BUSY_SHARE = 0.25  # of the time that is left, to wait for a lock: a writer that never
# pauses in rollback mode leaves gaps, but short ones
UNSETTLED_SECONDS = 0.25  # opening and closing take milliseconds
RETRY_SECONDS = 0.002
LEAST_ATTEMPTS = 3
SHARED_BYTES = (510, 0x40000002)  # length and start of SQLite's shared lock on a file
STEPS_PER_CHECK = 20_000  # virtual machine steps between looks at the clock, about 2 ms

_EXPLANATIONS = {
    "SQLITE_BUSY": "another connection has it locked; if this lasts, find out which",
    "SQLITE_INTERRUPT": "the scrape's time was up before the read had finished",
    "SQLITE_CANTOPEN": "the file or its -wal cannot be opened; check permissions",
    "SQLITE_NOTADB": "the file is not a SQLite database; check the path",
    "SQLITE_CORRUPT": "the file is damaged; check it with 'PRAGMA integrity_check'",
    "SQLITE_READONLY_ROLLBACK": "its writer crashed inside a transaction; start"
    " HAK/GAL, which rolls it back",
    "SQLITE_READONLY_RECOVERY": "the index of its log is damaged; start HAK/GAL, which"
    " makes it anew",
}
# Also said where the index was looked at while somebody wrote it.
_PASSING = ("SQLITE_READONLY_RECOVERY", "SQLITE_READONLY_CANTINIT")


@dataclass(frozen=True)
class WalIndex:
    """Figures of a write-ahead log.

    ``size_bytes`` is the size of the ``-wal`` file. ``frames`` and ``checkpointed`` are
    the pages in the log and those already copied into the database, None when unknown.
    """

    size_bytes: int = 0
    frames: int | None = 0
    checkpointed: int | None = 0


@dataclass(frozen=True)
class Look:
    """What the file system says about a database before it is opened.

    ``version`` changes whenever anybody commits. ``shm_inode`` is that of the WAL index
    where the file is in use in WAL mode.
    """

    path: str
    device: int
    inode: int
    size_bytes: int
    immutable: bool
    wal: WalIndex
    version: tuple[object, ...]
    shm_inode: int | None = None

    @property
    def is_wal(self) -> bool:
        """Whether a read of it never makes a writer wait."""
        return self.immutable or self.shm_inode is not None


class _UnsettledError(DatabaseError):
    """The file is just being opened, closed or changed; a moment later it is not."""


class Database:
    """One SQLite file, read by one thread."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path.absolute()
        self._file = str(self.path)

    def read(self, work: Callable[[sqlite3.Connection, Look], T], deadline: float) -> T:
        """Return what ``work`` makes of a fresh connection.

        ``deadline`` is on the monotonic clock, in seconds. ``work`` may run more than
        once, so it must not keep anything. It reads in one transaction, and calls
        ``release`` where that would last too long.

        Raises:
            DatabaseError: missing, locked, damaged, not readable, too slow.
        """
        started = time.monotonic()
        patience = min(BUSY_SHARE * (deadline - started), UNSETTLED_SECONDS)
        give_up = started + patience
        attempts_left = LEAST_ATTEMPTS
        while True:
            attempts_left -= 1
            try:
                return self._read_once(work, deadline)
            except sqlite3.Error as error:
                is_over = attempts_left <= 0 and time.monotonic() >= give_up
                if is_over or _name(error) not in _PASSING:
                    raise self.explain(error) from error
            except UnicodeDecodeError as error:  # a damaged name in SQLite's message
                raise self._error(_EXPLANATIONS["SQLITE_CORRUPT"]) from error
            except _UnsettledError:
                if attempts_left <= 0 and time.monotonic() >= give_up:
                    raise
            except OSError as error:  # out of descriptors, or the disk is failing
                raise self._error(error.strerror or str(error)) from error
            time.sleep(RETRY_SECONDS)

    def unchanged(self, version: tuple[object, ...]) -> Look | None:
        """Return a fresh look if the file could be read now and is as it was.

        Opening a connection and reading the schema costs six times as much.
        """
        try:
            look = self.look()
            if look.version != version:
                return None
            if not look.immutable:
                with self._shared_lock():
                    pass  # nobody has it for himself
        except (DatabaseError, OSError):
            return None  # a read says what is wrong
        return look

    def look(self) -> Look:
        """Return the state of the file and its siblings; never opens it with SQLite.

        Raises:
            DatabaseError: missing, not a file, not readable, or not readable safely.
        """
        # SQLite keeps the side files beside what a link points to.
        self._file = os.path.realpath(self.path)
        stat = self._stat()
        header = self._head(self.path, 100)
        if header and (len(header) < 100 or not header.startswith(MAGIC)):
            raise self._error(_EXPLANATIONS["SQLITE_NOTADB"])
        if not header or header[READ_VERSION] != WAL_VERSION:
            return self._look(
                stat, False, WalIndex(), (*stat, header and header[24:28])
            )
        wal_stat, shm_stat = self._sibling_stat("-wal"), self._sibling_stat("-shm")
        wal_size = wal_stat.st_size if wal_stat else 0
        if wal_size > WAL_HEADER and not shm_stat:
            raise self._error(
                "its -wal has content but its -shm is missing, so that it cannot be"
                " read without writing; if HAK/GAL runs, it has locked the file, else"
                " start it, or run as the file's owner:"
                f" sqlite3 '{self.path}' 'PRAGMA wal_checkpoint(TRUNCATE)'",
                _UnsettledError,
            )
        if not (wal_stat and shm_stat) or 0 < wal_size <= WAL_HEADER:
            return self._look(stat, True, WalIndex(), (*stat, header[24:28]))
        index = self._head(self._sibling("-shm"), 136) or b""
        version = (*stat, header[24:28], wal_size, index[:48])
        wal = _wal_index(wal_size, index)
        return self._look(stat, False, wal, version, shm_stat.st_ino)

    def explain(self, error: sqlite3.Error) -> DatabaseError:
        """Return the error with the database, the path and what to do."""
        name = _name(error)
        hint = _EXPLANATIONS.get(name) or _EXPLANATIONS.get(_primary(name))
        return self._error(hint or _plain(str(error)))

    def _read_once(
        self, work: Callable[[sqlite3.Connection, Look], T], deadline: float
    ) -> T:
        look = self.look()
        if look.shm_inode is not None:
            with self._kept_log(), self.connection(look, deadline) as db:
                return work(db, look)
        try:
            with self.connection(look, deadline) as db:
                return work(db, look)
        finally:
            if look.immutable and self._stat() != look.version[:4]:
                raise self._error("it was changed while it was read", _UnsettledError)

    @contextmanager
    def _kept_log(self) -> Iterator[None]:
        """Keep ``-wal`` and ``-shm`` where they are.

        A last close removes them only if it gets the lock on the file for itself.
        """
        with self._shared_lock():
            if not (self._sibling_stat("-wal") and self._sibling_stat("-shm")):
                raise self._error("it is just being closed", _UnsettledError)
            yield

    @contextmanager
    def _shared_lock(self) -> Iterator[None]:
        with open(self.path, "rb", buffering=0) as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, *SHARED_BYTES)
            except OSError as error:
                hint = _EXPLANATIONS["SQLITE_BUSY"]
                raise self._error(hint, _UnsettledError) from error
            yield

    @contextmanager
    def connection(self, look: Look, deadline: float) -> Iterator[sqlite3.Connection]:
        """Open a connection, in a read transaction: in rollback mode each lock anew may
        make a writer wait.

        A second one only from within the work of a first.

        Raises:
            sqlite3.Error: locked, damaged, too slow.
        """
        option = "immutable=1" if look.immutable else "readonly_shm=1"
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode=ro&{option}",
            uri=True,
            isolation_level=None,
            timeout=max(0.0, BUSY_SHARE * (deadline - time.monotonic())),
            cached_statements=16,
        )
        try:
            connection.text_factory = _text
            limit(connection, deadline)
            # A build may map files by default; a truncated one would then kill us.
            connection.execute("PRAGMA mmap_size = 0")
            connection.execute("BEGIN")
            connection.execute(_FIRST_READ).fetchone()
            yield connection
        finally:
            connection.close()

    def _stat(self) -> tuple[int, int, int, int]:
        try:
            stat = os.stat(self.path)
        except FileNotFoundError:
            raise self._error(
                "the file does not exist (yet); it is picked up when HAK/GAL makes it,"
                " else check the path"
            ) from None
        except OSError as error:
            raise self._error(
                f"{error.strerror}; check the path's permissions"
            ) from error
        if not S_ISREG(stat.st_mode):
            raise self._error("it is not a regular file; check the path")
        return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns

    def _look(
        self,
        stat: tuple[int, int, int, int],
        immutable: bool,
        wal: WalIndex,
        version: tuple[object, ...],
        shm_inode: int | None = None,
    ) -> Look:
        return Look(self._file, *stat[:3], immutable, wal, version, shm_inode)

    def _head(self, path: Path, length: int) -> bytes:
        # Closing a file drops this process' locks on it: only ever called by the one
        # thread that reads this database, while it has no connection.
        try:
            with open(path, "rb", buffering=0) as file:
                return file.read(length)
        except FileNotFoundError as error:
            raise self._error("it is just being closed", _UnsettledError) from error
        except OSError as error:
            raise self._error(
                f"{path.name}: {error.strerror}; give this user read permission"
            ) from error

    def _sibling(self, suffix: str) -> Path:
        return Path(self._file + suffix)

    def _sibling_stat(self, suffix: str) -> os.stat_result | None:
        try:
            stat = os.stat(self._sibling(suffix))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._error(f"{error.strerror}; check its permissions") from error
        if not S_ISREG(stat.st_mode):  # to open a pipe would never end
            raise self._error(f"its {suffix} is not a regular file; remove it")
        return stat

    def _error(
        self, reason: str, kind: type[DatabaseError] = DatabaseError
    ) -> DatabaseError:
        return kind(f"cannot read the {self.name} database {self.path}: {reason}")


def limit(db: sqlite3.Connection, deadline: float) -> None:
    """Interrupt whatever statement goes on beyond a moment of the monotonic clock."""
    db.set_progress_handler(lambda: time.monotonic() > deadline, STEPS_PER_CHECK)


def release(db: sqlite3.Connection) -> None:
    """Let a writer in; the next statement reads on in another transaction."""
    db.rollback()
    db.execute("BEGIN")


def _wal_index(size_bytes: int, index: bytes) -> WalIndex:
    """Decode the head of a ``-shm`` file (SQLite's "WAL-mode File Format", 2.1).

    Two copies of a 48 byte header that agree unless a writer is between them, then the
    checkpoint information. Native byte order. Unknown when torn or not initialised.
    """
    if len(index) < 136 or index[:48] != index[48:96] or not index[12]:
        return WalIndex(size_bytes, None, None)
    (frames,) = struct.unpack_from("=I", index, 16)
    (checkpointed,) = struct.unpack_from("=I", index, 96)
    return WalIndex(size_bytes, frames, checkpointed)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", None) or ""


def _primary(name: str) -> str:
    return "_".join(name.split("_")[:2])


def _plain(message: str) -> str:
    if message.startswith(("no such table", "no such column")):
        return f"{message}; the schema must be HAK/GAL's"
    return message
