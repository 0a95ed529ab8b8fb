"""Keep the tails' states in one file: durable before anybody sees what they counted.

Two lines: the states as JSON, and the CRC-32 of that line. The file is replaced as a
whole (write beside it, fsync, rename, fsync of the folder), so that after a crash it
holds either the old states or the new ones.
"""

import fcntl
import json
import logging
import os
import struct
from collections.abc import Iterable, Mapping
from errno import EACCES, EISDIR
from pathlib import Path
from typing import Any
from zlib import crc32

from exporter.errors import StateError
from exporter.fold import REASONS, Counts, Series, Table
from exporter.identity import Fingerprints, Life
from exporter.tail import RESET_REASONS, State

VERSION = 1

_DAMAGE = (ValueError, LookupError, TypeError, struct.error)

logger = logging.getLogger(__name__)


class Checkpoint:
    """The state file; only one process at a time may have it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.saved_at: float | None = None
        self._kept: dict[str, Any] = {}
        self._left: tuple[int, ...] | None = None
        self._lock: int | None = None

    def claim(self) -> None:
        """Make sure that the file can be written and is nobody else's.

        Raises:
            StateError: folder missing or not writable, or another exporter has it.
        """
        lock = self.path.with_name(self.path.name + ".lock")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self.path.is_dir():
                raise IsADirectoryError(EISDIR, "it is a folder")
            if self.path.exists() and not os.access(self.path, os.R_OK | os.W_OK):
                raise PermissionError(EACCES, "Permission denied")
        except BlockingIOError:
            raise self._error(
                "another exporter uses it; give each its own --state.file"
            ) from None
        except OSError as error:
            raise self._error(
                f"{error.strerror}; make the folder writable for this user, or choose"
                " another --state.file"
            ) from error

    def load(self, tables: Iterable[Table]) -> tuple[dict[str, State], str]:
        """Return the states by table, and the reason why the others have none.

        A damaged file is kept beside, with ``.damaged`` added to its name.

        Raises:
            StateError: not readable; what is in it may be whole.
        """
        try:
            self._kept = self._read()
            self._note()
            found = (table for table in tables if table.name in self._kept)
            states = {t.name: _decode(t, self._kept[t.name]) for t in found}
        except FileNotFoundError:
            return {}, "state_missing"
        except OSError as error:
            raise self._error(f"{error.strerror}; make it readable") from error
        except _DAMAGE as error:
            self._put_aside(error)
            return {}, "state_damaged"
        return states, "state_missing"

    def verify(self) -> str | None:
        """Return what is wrong with the file, None if nothing is; changes nothing."""
        try:
            self._read()
        except FileNotFoundError:
            return None
        except (OSError, *_DAMAGE) as error:
            return (
                f"state file {self.path}: {error}; restore it, or counting starts anew"
            )
        return None

    @property
    def is_left_alone(self) -> bool:
        """Whether the file is as this process read or wrote it last."""
        try:
            return self._left == _identity(self.path.stat())
        except FileNotFoundError:
            return self._left is None
        except OSError:
            return False

    def _note(self) -> None:
        stat = self.path.stat()
        self._left, self.saved_at = _identity(stat), stat.st_mtime

    def _read(self) -> dict[str, Any]:
        line, _, check = self.path.read_bytes().partition(b"\n")
        if check.strip() != _check(line):
            raise ValueError("damaged, its checksum differs")
        document = json.loads(line)
        if document["version"] != VERSION:
            raise ValueError(f"has version {document['version']}, not {VERSION}")
        return dict(document["tables"])

    def save(self, tables: Mapping[str, Table], states: Mapping[str, State]) -> None:
        """Replace the file; what it holds of other tables stays.

        Raises:
            StateError: not written, the old file is still there.
        """
        encoded = {name: _encode(tables[name], state) for name, state in states.items()}
        document = {"version": VERSION, "tables": {**self._kept, **encoded}}
        line = json.dumps(document, separators=(",", ":")).encode()
        try:
            _replace_durably(self.path, line + b"\n" + _check(line) + b"\n")
            self._note()
        except OSError as error:
            raise self._error(f"{error.strerror}; counters stand still") from error

    def _put_aside(self, error: Exception) -> None:
        self._kept, self._left, self.saved_at = {}, None, None
        aside = self.path.with_name(self.path.name + ".damaged")
        fields = {"file": str(self.path), "kept_as": str(aside), "error": str(error)}
        logger.warning("state file damaged, counting anew", extra={"fields": fields})
        try:
            os.replace(self.path, aside)
        except OSError as failure:
            raise self._error(f"damaged, and {failure.strerror}") from failure

    def _error(self, reason: str) -> StateError:
        return StateError(f"cannot use the state file {self.path}: {reason}")


def _replace_durably(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _identity(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _check(line: bytes) -> bytes:
    return b"%08x" % crc32(line)


def _encode(table: Table, state: State) -> dict[str, Any]:
    return {
        "cursor": state.cursor,
        "passed": state.passed,
        "rows": state.rows,
        "missed": state.missed,
        "newest": state.newest,
        "file": state.file,
        "resets": state.resets,
        "rejected": state.counts.rejected,
        "overflowed": state.counts.overflowed,
        "buckets": table.buckets,
        "series": [
            [label, flag, series.counts, series.total]
            for (label, flag), series in state.counts.series.items()
        ],
        "known": _encode_known(state.known),
        "past": [
            {"cursor": p.cursor, "known": _encode_known(p.known), "newest": p.newest}
            for p in state.past
        ],
    }


def _encode_known(known: Fingerprints) -> dict[str, Any]:
    return {
        "first": known.first,
        "window": struct.pack(f"<{len(known.window)}I", *known.window).hex(),
        "older": known.older,
    }


def _decode_known(saved: Mapping[str, Any]) -> Fingerprints:
    window = bytes.fromhex(saved["window"])
    return Fingerprints(
        saved["first"],
        struct.unpack(f"<{len(window) // 4}I", window),
        tuple((row, fingerprint) for row, fingerprint in saved["older"]),
    )


def _decode(table: Table, saved: Mapping[str, Any]) -> State:
    counts = Counts.zero(table)
    counts.rejected = dict.fromkeys(REASONS, 0) | saved["rejected"]
    counts.overflowed = saved["overflowed"]
    state = State(
        counts,
        cursor=saved["cursor"],
        passed=saved["passed"],
        rows=saved["rows"],
        missed=saved["missed"],
        newest=saved["newest"],
        file=tuple(saved["file"]),
        resets=dict.fromkeys(RESET_REASONS, 0) | saved["resets"],
        known=_decode_known(saved["known"]),
        past=tuple(
            Life(past["cursor"], _decode_known(past["known"]), past["newest"])
            for past in saved["past"]
        ),
    )
    if tuple(saved["buckets"]) != table.buckets:
        return state.reset("buckets_changed")
    for label, flag, numbers, total in saved["series"]:
        counts.series[label, flag] = Series(numbers, total)
    return state
