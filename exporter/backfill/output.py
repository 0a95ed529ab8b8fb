"""Where the text goes: standard output, or a file that is whole or not there."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from exporter.database.file import MAGIC
from exporter.errors import OutputError

_BESIDE_A_DATABASE = ("", "-wal", "-shm", "-journal")


@contextmanager
def opened(path: Path | None) -> Iterator[TextIO]:
    """Yield the stream to write to.

    Raises:
        OutputError: it cannot be written, or its reader has gone.
    """
    try:
        if path is None:
            # In UTF-8, whatever the terminal's encoding is.
            number = sys.stdout.fileno()
            with open(number, "w", encoding="utf-8", closefd=False) as file:
                yield file
        elif path.exists() and not (path.is_file() or path.is_dir()):
            # A pipe or /dev/null, which must not become a file.
            with open(path, "w", encoding="utf-8") as file:
                yield file
        else:
            with _replacing(_replaceable(path)) as file:
                yield file
    except BrokenPipeError as error:
        message = "cannot write to standard output: its reader has gone"
        raise OutputError(message) from error
    except OSError as error:
        where = path or "standard output"
        raise OutputError(f"cannot write to {where}: {error.strerror}") from error


def _replaceable(path: Path) -> Path:
    """Return the file that a path leads to, if nothing is lost with it."""
    found = Path(os.path.realpath(path))
    if found.is_dir():
        raise OutputError(f"cannot write to {path}: it is a folder; name a file in it")
    for suffix in _BESIDE_A_DATABASE:
        if _is_database(found.with_name(found.name.removesuffix(suffix) or "-")):
            reason = "it is of a SQLite database; choose another file"
            raise OutputError(f"cannot write to {path}: {reason}")
    return found


def _is_database(path: Path) -> bool:
    with suppress(OSError), open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC
    return False


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    """Write beside the file, and put it in its place when all is on the disk."""
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(number, "w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
