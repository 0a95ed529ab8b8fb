"""Inspect a database through the file system, before SQLite opens it.

How to open a file in WAL mode depends on the files beside it. SQLite must never create
a ``-wal`` or ``-shm`` for us: *our* user would own it and HAK/GAL could not write.

* Both exist: another process uses the file, or crashed. Read all three files.
* No ``-wal``, or one without frames: nobody is writing. Open the file as immutable.
  Discard the result if the file has changed meanwhile.
* A ``-wal`` with frames but no ``-shm``: only a writer can build the index. Fail.
"""

import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from exporter.errors import DatabaseError

MAGIC = b"SQLite format 3\x00"
HEADER_BYTES = 100
READ_VERSION = 19  # byte of the header that tells whether the file is in WAL mode
WAL_VERSION = 2  # 1 means rollback journal
CHANGE_COUNTER = slice(24, 28)
# A -wal has this many bytes before its first frame. If a crash left no more than these,
# SQLite without write access to the -shm retries for 10 s and cannot be interrupted.
WAL_HEADER_BYTES = 32
INDEX_BYTES = 136  # of the -shm: two headers of 48 bytes, then the checkpoint info


class UnsettledError(DatabaseError):
    """The file is being opened, closed or changed; retry in a moment."""


@dataclass(frozen=True)
class DatabaseFile:
    """A database file and its write-ahead log.

    ``path`` is the real path, beside which the side files are. ``version`` changes with
    every commit. ``is_immutable`` means WAL mode and no open connection. ``shm_inode``
    is the inode of the WAL index, None if it is not in use. A frame holds one page; the
    numbers are None while a writer updates the index.
    """

    path: str
    size_bytes: int
    version: tuple[object, ...]
    is_immutable: bool = False
    shm_inode: int | None = None
    wal_size_bytes: int = 0
    wal_frames: int | None = 0
    wal_checkpointed_frames: int | None = 0


def inspect(path: Path) -> DatabaseFile:
    """Return the state of a database file.

    Closing a file drops this process' locks on it. So only the thread that reads this
    database may call this, and only without an open connection.

    Raises:
        OSError: the file is missing or unreadable.
        DatabaseError: it is not a database, or cannot be read safely.
    """
    real = os.path.realpath(path)
    size, *_ = state = status(real)
    header = _head(real, HEADER_BYTES)
    if header and (len(header) < HEADER_BYTES or not header.startswith(MAGIC)):
        raise DatabaseError("the file is not a SQLite database; check the path")
    version = *state, header[CHANGE_COUNTER]
    if not header or header[READ_VERSION] != WAL_VERSION:
        return DatabaseFile(real, size, version)
    wal, shm = _side_file(real, "-wal"), _side_file(real, "-shm")
    wal_size = wal[0] if wal else 0
    if wal_size > WAL_HEADER_BYTES and not shm:
        raise UnsettledError(
            "its -wal has content but its -shm is missing, so it cannot be read without"
            " writing; if HAK/GAL is running, it has locked the file, otherwise start"
            f" it, or run as the file's owner: sqlite3 '{path}'"
            " 'PRAGMA wal_checkpoint(TRUNCATE)'"
        )
    if not (wal and shm) or 0 < wal_size <= WAL_HEADER_BYTES:
        return DatabaseFile(real, size, version, is_immutable=True)
    index = _head(real + "-shm", INDEX_BYTES)
    full_version = *version, wal_size, index[:48]
    frames = _frames(index)
    return DatabaseFile(real, size, full_version, False, shm[2], wal_size, *frames)


def status(path: str) -> tuple[int, int, int, int]:
    """Return size in bytes, device, inode and modification time in nanoseconds."""
    stat = os.stat(path)
    if not S_ISREG(stat.st_mode):  # opening a pipe would block
        raise DatabaseError("it is not a regular file; check the path")
    return stat.st_size, stat.st_dev, stat.st_ino, stat.st_mtime_ns


def count_connections(file: DatabaseFile) -> int | None:
    """Return how many connections other processes have: one open file for each.

    In WAL mode, every process with a connection holds a lock on the ``-shm`` file: only
    these are inspected. One whose descriptors this user may not see counts as one.
    None in a container with its own process namespace, where we are process 1.
    """
    if os.getpid() == 1:
        return None
    if file.is_immutable:
        return 0
    pids: Iterable[str] = filter(str.isdigit, os.listdir("/proc"))
    if file.shm_inode is not None:
        pids = _lockers(file.shm_inode)
    others = set(pids) - {str(os.getpid())}
    return sum(_descriptors(pid, file) for pid in others)


def _side_file(path: str, suffix: str) -> tuple[int, int, int, int] | None:
    try:
        return status(path + suffix)
    except FileNotFoundError:
        return None


def _head(path: str, length: int) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read(length)


def _frames(index: bytes) -> tuple[int | None, int | None]:
    """Return the frames in the log and how many are checkpointed, from a ``-shm`` head.

    See SQLite's "WAL-mode File Format", 2.1. The two copies of the header differ only
    while a writer updates them.
    """
    if len(index) < INDEX_BYTES or index[:48] != index[48:96] or not index[12]:
        return None, None
    (frames,), (checkpointed,) = (struct.unpack_from("=I", index, n) for n in (16, 96))
    return frames, checkpointed


def _lockers(inode: int) -> Iterable[str]:
    """Yield processes that lock an inode: ``1: POSIX … READ PID DEV:INODE …``."""
    with open("/proc/locks", encoding="ascii") as locks:
        for line in locks:
            if f":{inode} " in line:
                yield line.replace("->", "").split()[4]


def _descriptors(pid: str, file: DatabaseFile) -> int:
    """Return how often a process has the file open."""
    folder, count = f"/proc/{pid}/fd", 0
    try:
        names = os.listdir(folder)
    except OSError as error:  # hidden from us, or it has just ended
        return int(isinstance(error, PermissionError) and file.shm_inode is not None)
    for name in names:
        # Compare names: a stat of the target may hang on a dead mount.
        with suppress(OSError):  # just closed
            count += os.readlink(f"{folder}/{name}") == file.path
    return count
