"""What the system says about a database, before SQLite opens it.

How a file in WAL mode may be opened depends on what lies beside it. SQLite must be kept
from making a ``-wal`` or ``-shm``: it would belong to *our* user, and HAK/GAL could not
write any more.

* ``-wal`` and ``-shm``: somebody uses the file, or crashed. They are read as they are.
* No ``-wal``, or one without frames: nobody is writing. The file is read as immutable,
  and what was read is dropped if the file has changed meanwhile.
* A ``-wal`` with frames but no ``-shm``: only a writer can build the index.
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
READ_VERSION = 19  # the byte of the header that says whether there is a log
WAL_VERSION = 2  # its value in WAL mode; 1 is a rollback journal
CHANGE_COUNTER = slice(24, 28)
# Bytes of a -wal before its first frame. Where a crash left just these, SQLite without
# write access to the -shm tries for 10 s to make sense of them, and nothing stops it.
WAL_HEADER_BYTES = 32
INDEX_BYTES = 136  # of the -shm: twice a header of 48, then what is checkpointed


class UnsettledError(DatabaseError):
    """The file is just being opened, closed or changed; a moment later it is not."""


@dataclass(frozen=True)
class DatabaseFile:
    """A database file and its write-ahead log.

    ``path`` is where it really is, beside its side files; ``version`` changes whenever
    anybody commits; ``is_immutable``: it is in WAL mode, and nobody has it open;
    ``shm_inode`` is that of the WAL index, None unless it is in use; frames are pages,
    None while the index is unsettled.
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

    Closing a file drops this process' locks on it: to be called only by the one thread
    that reads this database, while it has no connection.

    Raises:
        OSError: missing, or not readable.
        DatabaseError: not a database, or not readable safely.
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
            "its -wal has content but its -shm is missing, so that it cannot be read"
            " without writing; if HAK/GAL runs, it has locked the file, else start it,"
            f" or run as the file's owner: sqlite3 '{path}'"
            " 'PRAGMA wal_checkpoint(TRUNCATE)'"
        )
    if not (wal and shm) or 0 < wal_size <= WAL_HEADER_BYTES:
        return DatabaseFile(real, size, version, is_immutable=True)
    index = _head(real + "-shm", INDEX_BYTES)
    full_version = *version, wal_size, index[:48]
    frames = _frames(index)
    return DatabaseFile(real, size, full_version, False, shm[2], wal_size, *frames)


def status(path: str) -> tuple[int, int, int, int]:
    """Return size in bytes, device, inode and time of the last change in ns."""
    stat = os.stat(path)
    if not S_ISREG(stat.st_mode):  # to open a pipe would never end
        raise DatabaseError("it is not a regular file; check the path")
    return stat.st_size, stat.st_dev, stat.st_ino, stat.st_mtime_ns


def count_connections(file: DatabaseFile) -> int | None:
    """Return how many connections other processes have: SQLite opens a file for each.

    In WAL mode each process holds a lock on the ``-shm`` file: only those are looked
    at, and count as one if this user may not see their descriptors. None in a container
    of its own, where we are process 1.
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
    """Return the frames in a log and those checkpointed, from the head of a ``-shm``.

    See SQLite's "WAL-mode File Format", 2.1. The two copies of the header agree unless
    a writer is between them.
    """
    if len(index) < INDEX_BYTES or index[:48] != index[48:96] or not index[12]:
        return None, None
    (frames,), (checkpointed,) = (struct.unpack_from("=I", index, n) for n in (16, 96))
    return frames, checkpointed


def _lockers(inode: int) -> Iterable[str]:
    """Yield processes with a lock on an inode: ``1: POSIX … READ PID DEV:INODE …``."""
    with open("/proc/locks", encoding="ascii") as locks:
        for line in locks:
            if f":{inode} " in line:
                yield line.replace("->", "").split()[4]


def _descriptors(pid: str, file: DatabaseFile) -> int:
    """Return how often a process has the file open."""
    folder, count = f"/proc/{pid}/fd", 0
    try:
        names = os.listdir(folder)
    except OSError as error:  # not for us to see, or it has just ended
        return int(isinstance(error, PermissionError) and file.shm_inode is not None)
    for name in names:
        # By name: to look at what a descriptor points to may hang on a dead mount.
        with suppress(OSError):  # just closed
            count += os.readlink(f"{folder}/{name}") == file.path
    return count
