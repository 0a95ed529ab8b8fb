"""Keep the states in one file: durable before anyone sees the counts.

The file has two lines: the states as JSON, and the CRC-32 of that line. Each save
replaces the file atomically, so a crash leaves either the old states or the new ones.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

from exporter.counting.table import Counts, Series, State, Table
from exporter.errors import StateError

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

VERSION = 2

logger = logging.getLogger(__name__)


class Checkpoint:
    """The state file; only one process at a time may use it.

    Without a path, nothing is kept. ``saved_at`` is in seconds since the epoch.
    """

    def __init__(self, path: Path | None) -> None:
        self.saved_at: float | None = None
        self._path = path and Path(os.path.realpath(path))  # keeps a symbolic link
        self._kept: dict[str, Any] = {}
        self._lock: int | None = None

    def claim(self) -> None:
        """Lock the file for this process, or raise StateError."""
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT
            self._lock = os.open(f"{self._path}.lock", flags, 0o644)
            if fcntl:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._error("another exporter uses it; choose another file") from None
        except OSError as error:
            hint = "make it and its folder writable for this user, or choose another"
            raise self._error(f"{error}; {hint}") from error

    def load(self, tables: Collection[Table]) -> dict[str, State]:
        """Return a state for each table: from the file, or a new one.

        A file that is damaged or of another version is renamed to ``….damaged``.

        Raises:
            StateError: the file cannot be read, but may be intact.
        """
        new = {table.name: State(Counts.zero(table)) for table in tables}
        try:
            kept = self.read()
            found = {t.name: _decode(t, kept[t.name]) for t in tables if t.name in kept}
        except FileNotFoundError:
            return new
        except OSError as error:
            raise self._error(f"{error}; make it readable for this user") from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            fields = {"file": str(self._path), "error": str(error)}
            logger.warning("state lost, all tables reset", extra={"fields": fields})
            with suppress(OSError):  # otherwise the next save replaces it
                os.replace(str(self._path), f"{self._path}.damaged")
            self.saved_at = None
            return {name: state.reset("state_lost") for name, state in new.items()}
        self._kept = kept
        return new | found

    def read(self) -> dict[str, Any]:
        """Return the content of the file, by table.

        Raises:
            OSError: the file is missing or unreadable.
            ValueError: it is damaged, or of another version.
        """
        if self._path is None:
            return {}
        line, _, check = self._path.read_bytes().partition(b"\n")
        if check.strip() != b"%08x" % crc32(line):
            raise ValueError("it is damaged: the checksum differs")
        document = json.loads(line)
        if document["version"] != VERSION:
            raise ValueError(f"it has version {document['version']}, not {VERSION}")
        self.saved_at = self._path.stat().st_mtime
        return dict(document["tables"])

    def save(self, tables: Mapping[str, Table], states: Mapping[str, State]) -> None:
        """Replace the file; keep what it holds about other tables.

        Raises:
            StateError: the file could not be written; the old one is still there.
        """
        if self._path is None:
            return
        encoded = {name: _encode(tables[name], one) for name, one in states.items()}
        document = {"version": VERSION, "tables": self._kept | encoded}
        line = json.dumps(document, separators=(",", ":")).encode()
        try:
            _replace_durably(self._path, b"%s\n%08x\n" % (line, crc32(line)))
            self.saved_at = self._path.stat().st_mtime
        except OSError as error:
            raise self._error(f"{error}; counters stop until it is writable") from error

    def _error(self, reason: str) -> StateError:
        return StateError(f"cannot use the state file {self._path}: {reason}")


def _replace_durably(path: Path, content: bytes) -> None:
    with open(f"{path}.tmp", "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)
    if hasattr(os, "O_DIRECTORY"):  # Windows cannot open a folder
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _encode(table: Table, state: State) -> dict[str, Any]:
    counts = state.counts
    series = [(*key, one.counts, one.total) for key, one in counts.series.items()]
    counted = series, counts.rejected, counts.overflowed
    return vars(state) | {"counts": counted, "buckets": table.buckets}


def _decode(table: Table, saved: dict[str, Any]) -> State:
    fields = dict(saved)
    buckets, (series, rejected, overflowed) = fields.pop("buckets"), fields["counts"]
    counts = Counts.zero(table)
    counts.rejected, counts.overflowed = Counter(rejected), overflowed
    known = {int(row): fingerprint for row, fingerprint in fields["known"].items()}
    state = State(**fields | {"counts": counts, "known": known})
    if tuple(buckets) != table.buckets:
        return state.reset("buckets_changed")
    for label, flag, numbers, total in series:
        counts.series[label, flag] = Series(numbers, total)
    return state
