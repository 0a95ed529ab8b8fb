"""Noticing that files have changed since they were read."""

import time
from pathlib import Path
from typing import NamedTuple


class _Stamp(NamedTuple):
    """What differs once a file was written, replaced or renamed over."""

    modified_ns: int
    size: int
    inode: int


class Watch:
    """A set of files, as they were when each was about to be read."""

    settle_ns = 1_000_000_000

    def __init__(self) -> None:
        self._stamps: dict[Path, _Stamp | None] = {}

    def add(self, path: Path) -> None:
        """Note how a file is before it is read, or that it is not there."""
        self._stamps.setdefault(path, _stamp(path))

    def has_news(self) -> bool:
        """Tell whether any file has changed, and none is being written just now.

        A file that is half written may well be valid, and ask for less protection
        than the whole one; a certificate is renewed a moment before its key.
        """
        stamps = {path: _stamp(path) for path in self._stamps}
        if stamps == self._stamps:
            return False
        now = time.time_ns()
        ages = (now - stamp.modified_ns for stamp in stamps.values() if stamp)
        return not any(0 <= age < self.settle_ns for age in ages)


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return _Stamp(status.st_mtime_ns, status.st_size, status.st_ino)
