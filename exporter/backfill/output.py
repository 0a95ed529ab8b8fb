"""Where the text goes: standard output, or a file that is whole or not there."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from exporter.errors import OutputError


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
        else:
            with _replacing(path) as file:
                yield file
    except BrokenPipeError as error:
        message = "cannot write to standard output: its reader has gone"
        raise OutputError(message) from error
    except OSError as error:
        where = path or "standard output"
        raise OutputError(f"cannot write to {where}: {error.strerror}") from error


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
