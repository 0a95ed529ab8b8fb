"""A private file in which samples are put in order; it is gone when it is closed."""

import sqlite3
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from exporter.errors import OutputError

_SCHEMA = """
PRAGMA temp_store = FILE;
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE samples (
    series INTEGER, slot INTEGER, moment REAL, value REAL, PRIMARY KEY (series, slot)
) WITHOUT ROWID;
CREATE TABLE points (
    series INTEGER, moment INTEGER, counts BLOB, total REAL,
    PRIMARY KEY (series, moment)
) WITHOUT ROWID;
"""
# What is written later is what was read later, and wins.
_ADD_SAMPLE = "INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?)"
_ADD_POINT = "INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?)"
_SAMPLES = "SELECT moment, value FROM samples WHERE series = ? ORDER BY slot"
_POINTS = "SELECT moment, counts, total FROM points WHERE series = ? ORDER BY moment"

Sample = tuple[int, int, float, float]  # series, slot, moment, value
Point = tuple[int, int, list[int], float]  # series, moment, counts, total


class Scratch:
    """Samples by series and time, as many as the disk holds.

    SQLite puts it where temporary files go (``SQLITE_TMPDIR``, ``TMPDIR``, /var/tmp).
    """

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(_SCHEMA)
        self._db.execute("BEGIN")
        self._series = 0

    def new_series(self) -> int:
        """Return a number for one more series."""
        self._series += 1
        return self._series

    def add_samples(self, samples: Iterable[Sample]) -> None:
        """Keep one value for each series and slot: the last."""
        self._add(_ADD_SAMPLE, samples)

    def add_points(self, points: Iterable[Point]) -> None:
        """Keep what was counted for a series up to a moment."""
        packed = ((s, m, array("q", counts).tobytes(), t) for s, m, counts, t in points)
        self._add(_ADD_POINT, packed)

    def samples(self, series: int) -> Iterator[tuple[float, float]]:
        """Yield moment and value, oldest first."""
        with _saying_what_to_do():
            yield from self._db.execute(_SAMPLES, (series,))

    def points(self, series: int) -> Iterator[tuple[int, list[int], float]]:
        """Yield moment, counts and total, oldest first."""
        with _saying_what_to_do():
            for moment, packed, total in self._db.execute(_POINTS, (series,)):
                yield moment, array("q", packed).tolist(), total

    def close(self) -> None:
        """Remove the file."""
        self._db.close()

    def _add(self, sql: str, rows: Iterable[tuple[object, ...]]) -> None:
        with _saying_what_to_do():
            self._db.executemany(sql, rows)


@contextmanager
def _saying_what_to_do() -> Iterator[None]:
    """Explain an error; reading may write too, what is still in memory."""
    try:
        yield
    except sqlite3.Error as error:
        raise OutputError(
            f"cannot keep samples in a temporary file: {error}; make room, or name"
            " a folder with room in the environment variable SQLITE_TMPDIR"
        ) from error
