"""A table: which of its columns are counted, and what is known between two reads."""

import math
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from exporter.database.schema import SYNONYMS, Layout
from exporter.errors import DatabaseError

BEFORE_REPLACEMENT = "before_replacement"
OTHER = "other"  # takes the rows of label values above the limit
UNKNOWN = "unknown"  # the label value of NULL
CLOCK_SECONDS = 60.0  # by which clocks may differ
NO_RESETS = dict.fromkeys(("replaced", "state_lost", "buckets_changed"), 0)
Fingerprint = dict[str, int]  # of a row: checksums of its values, by column


@dataclass(frozen=True)
class Table:
    """What HAK/GAL calls a table, and what is read of it.

    Args:
        name, database: the values of the labels ``table`` and ``database``.
        sources: names in the file; the first table that has rows is read.
        label: text column; its values become a label, capped in number and length.
        flag: boolean column.
        value: number column, folded into ``buckets`` (upper bounds, inclusive).
        value_optional: NULL counts, but is observed in no bucket.
        required: columns without which nothing is counted.
        is_log: whether rows are never updated, and each id has had a row. Of facts,
            INSERT OR IGNORE burns ids.
        metric: the family whose label values are capped.
        source: the name in the file, if it is there; set by ``bind``, as what follows:
            the column of a row's time, whether there may be an AUTOINCREMENT, whether
            rows can be read on by their ids, and what would be needed to tell the rest.
    """

    name: str
    database: str
    sources: tuple[str, ...]
    label: str | None = None
    flag: str | None = None
    value: str | None = None
    value_optional: bool = False
    required: tuple[str, ...] = ()
    is_log: bool = True
    buckets: tuple[float, ...] = ()
    known_labels: tuple[str, ...] = ("",)
    label_limit: int = 100
    metric: str = ""
    source: str = ""
    time: str | None = "timestamp"
    has_sequences: bool = False
    is_followed: bool = True
    lacks: tuple[str, ...] = ()

    @property
    def counted(self) -> tuple[str, ...]:
        """Return the columns that are counted."""
        return tuple(c for c in (self.label, self.flag, self.value) if c)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Return why a row of this table may be rejected."""
        number = ("not_a_number", "negative", "infinite") if self.value else ()
        boolean = ("not_a_boolean",) if self.flag else ()
        may_be_null = self.flag or (self.value and not self.value_optional)
        null = ("null",) if may_be_null else ()
        return (*null, *number, *boolean, BEFORE_REPLACEMENT)

    def bind(self, layout: Layout | None) -> "Table":
        """Return the table with what it has there."""
        if layout is None:
            lacks = (f"table {' or '.join(self.sources)}",)
            return replace(self, is_followed=False, lacks=lacks)
        wanted = (*self.counted, "timestamp")
        missing = [column for column in wanted if not layout.column(column)]
        names = [" or ".join(SYNONYMS.get(column, (column,))) for column in missing]
        key = () if layout.has_key else ("INTEGER PRIMARY KEY",)
        value = layout.column(self.value)
        return replace(
            self,
            label=layout.column(self.label),
            value=value,
            value_optional=self.value_optional or value is None,
            source=layout.name,
            time=layout.column("timestamp"),
            has_sequences=layout.has_sequences,
            is_followed=layout.has_key and all(map(layout.column, self.required)),
            lacks=(*key, *names),
        )


@dataclass
class Series:
    """What has been counted for one label value and flag.

    ``counts`` by bucket, that above the last bound, and the rows without a value;
    ``exemplars``: id and value of the newest row by bucket.
    """

    counts: list[int]
    total: float = 0.0
    exemplars: dict[int, tuple[int, float]] = field(default_factory=dict)


@dataclass
class Counts:
    """All that has been counted in one table.

    ``series`` by label value and flag, ``rejected`` rows by reason, and ``overflowed``:
    the rows whose label value became ``other``.
    """

    series: dict[tuple[str, bool], Series] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)
    overflowed: int = 0

    @classmethod
    def zero(cls, table: Table) -> "Counts":
        """Return counts with the known label values at zero."""
        counts = cls()
        for label in table.known_labels:
            counts._open(table, label)
        return counts

    def copy(self) -> "Counts":
        series = {
            key: Series(one.counts[:], one.total, one.exemplars.copy())
            for key, one in self.series.items()
        }
        return Counts(series, self.rejected.copy(), self.overflowed)

    def add(
        self, table: Table, label: Any, flag: Any, bucket: int, rows: int
    ) -> Series:
        """Count rows in a bucket, and return the series that they belong to."""
        name = _clean(label) if table.label else ""
        if (name, False) not in self.series:
            labels = {known for known, _ in self.series}
            if len(labels) >= table.label_limit and name != OTHER:
                self.overflowed += rows
                name = OTHER
            self._open(table, name)
        series = self.series[name, bool(table.flag and flag)]
        series.counts[bucket] += rows
        return series

    def _open(self, table: Table, label: str) -> None:
        """Add the series of a label value, at zero, if they are not there."""
        for flag in (False, True) if table.flag else (False,):
            empty = Series([0] * (len(table.buckets) + 2))
            self.series.setdefault((label, flag), empty)


@dataclass(frozen=True)
class State:
    """What was counted in a table, how far, and how the table is recognised.

    Args:
        source: the table's name in the file, empty before it was read.
        cursor: the last id that was read.
        rows: rows read, counted or rejected, but for those passed over.
        missed: ids passed that had no row any more.
        newest: the newest time ever counted, in seconds since the epoch.
        mark: rows that are not newer have been counted before a replacement.
        known: fingerprints of rows by id.
        complete: False while a table is first read; its counts are not shown yet.
    """

    counts: Counts
    source: str = ""
    cursor: int = 0
    rows: int = 0
    missed: int = 0
    newest: float | None = None
    mark: float | None = None
    known: dict[int, Fingerprint] = field(default_factory=dict)
    resets: dict[str, int] = field(default_factory=NO_RESETS.copy)
    complete: bool = False

    def reset(self, reason: str) -> "State":
        """Return the state with one more reset."""
        resets = {**self.resets, reason: self.resets[reason] + 1}
        return replace(self, resets=resets)


@dataclass(frozen=True)
class Reading:
    """A table as one pass found it.

    ``state`` is None if its rows cannot be followed; ``backlog`` rows are committed but
    not read yet; ``last_event`` is the time of the newest row, in seconds since the
    epoch, NaN if it cannot be read; ``rows`` is how many there are, where counted.
    """

    table: Table
    state: State | None
    backlog: int = 0
    last_event: float | None = None
    rows: int | None = None

    @property
    def time_error(self) -> DatabaseError | None:
        """What is wrong with the time of the newest row, None if nothing is."""
        if self.last_event is None or self.last_event <= time.time() + CLOCK_SECONDS:
            return None
        is_readable = not math.isnan(self.last_event)
        problem = "lies in the future" if is_readable else "cannot be read"
        return DatabaseError(
            f"the time of the newest row in {self.table.source} {problem}; column"
            f" {self.table.time} must be UTC, like 2026-01-31 12:00:00"
        )

    def show(self, state: State | None) -> "Reading":
        """Return the reading with a state that may be shown, if there is one."""
        if self.state is None:
            return self
        # Negative where what was read since, between scrapes, is shown already.
        unseen = self.state.rows - (state.rows if state else 0)
        return replace(self, state=state, backlog=max(0, self.backlog + unseen))


def _clean(value: object) -> str:
    """Return a table's value as a label value that any Prometheus can read."""
    if value is None:
        return UNKNOWN
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    if not text.isprintable():
        # Control characters help nobody, and some end the page for a parser.
        text = "".join(c if c >= " " and c != "\x7f" else "\ufffd" for c in text)
    return text or UNKNOWN
