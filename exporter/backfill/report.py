"""What became of the rows, counted: in constant memory, whatever they hold."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

# A clock that was not set says 1970 or 2000, and HAK/GAL is younger than this. One such
# row would stretch the history over decades: promtool reads all of it for each day.
EARLIEST = 1_577_836_800.0  # 2020-01-01
NAMES = 20  # told apart in a report; a hostile table could have millions


class Tally:
    """Rows by what they are called; beyond the first names, all the others as one."""

    def __init__(self) -> None:
        self._rows: Counter[str] = Counter()

    def add(self, name: str) -> None:
        """Count a row."""
        known = name in self._rows or len(self._rows) < NAMES
        self._rows[name if known else "others"] += 1

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self._rows.items())

    def __str__(self) -> str:
        return ", ".join(f"{number} {name}" for name, number in self._rows.items())


def utc(seconds: float) -> str:
    """Return a moment as ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: object) -> float | None:
    """Return a row's timestamp in seconds since the epoch, None if it is not one.

    SQLite's CURRENT_TIMESTAMP or ISO 8601; without a zone it is UTC.
    """
    try:
        moment = datetime.fromisoformat(str(text).strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
