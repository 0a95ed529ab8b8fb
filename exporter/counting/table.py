"""A table: which columns are counted, and what is kept between two reads."""

import math
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from exporter.database.schema import SYNONYMS, Layout
from exporter.errors import DatabaseError

BEFORE_REPLACEMENT = "before_replacement"
OTHER = "other"  # label value of the rows beyond the limit
UNKNOWN = "unknown"  # label value for NULL
CLOCK_SECONDS = 60.0  # tolerated difference between clocks
NO_RESETS = dict.fromkeys(("replaced", "state_lost", "buckets_changed"), 0)
Fingerprint = dict[str, int]  # checksums of a row's values, by column


@dataclass(frozen=True)
class Table:
    """One of HAK/GAL's tables, and the columns to read.

    Args:
        name, database: the values of the labels ``table`` and ``database``.
        sources: names in the file; the first table that has rows is read.
        label: text column; its values become a label, limited in number and length.
        flag: boolean column.
        value: number column, folded into ``buckets`` (upper bounds, inclusive).
        value_optional: count a NULL, but observe it in no bucket.
        required: columns without which nothing is counted.
        is_log: rows are never updated and every id has had a row. Not so for facts:
            INSERT OR IGNORE leaves gaps in the ids.
        metric: the family whose label values are limited.
        source: the name in the file, "" if it is missing. ``bind`` sets this and the
            following: the time column, whether there may be an AUTOINCREMENT, whether
            rows can be followed by id, and what is missing for the other metrics.
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
        """Return the reasons for which a row of this table may be rejected."""
        number = ("not_a_number", "negative", "infinite") if self.value else ()
        boolean = ("not_a_boolean",) if self.flag else ()
        may_be_null = self.flag or (self.value and not self.value_optional)
        null = ("null",) if may_be_null else ()
        return (*null, *number, *boolean, BEFORE_REPLACEMENT)

    def bind(self, layout: Layout | None) -> "Table":
        """Return the table with what it has in this file."""
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
    """The counts of one label value and flag.

    ``counts``: rows by bucket, then above the last bound, then without a value.
    ``exemplars``: id and value of the newest row by bucket.
    """

    counts: list[int]
    total: float = 0.0
    exemplars: dict[int, tuple[int, float]] = field(default_factory=dict)


@dataclass
class Counts:
    """The counts of one table.

    ``series`` by label value and flag, ``rejected`` rows by reason, ``overflowed`` rows
    whose label value became ``other``.
    """

    series: dict[tuple[str, bool], Series] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)
    overflowed: int = 0

    @classmethod
    def zero(cls, table: Table) -> "Counts":
        """Return counts with all known label values at zero."""
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
        """Count rows in a bucket, and return their series."""
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
        """Add the series of a label value at zero, unless they exist."""
        for flag in (False, True) if table.flag else (False,):
            empty = Series([0] * (len(table.buckets) + 2))
            self.series.setdefault((label, flag), empty)


@dataclass(frozen=True)
class State:
    """What was counted in a table, up to which row, and how to recognise the table.

    Args:
        source: the table's name in the file, "" before the first read.
        cursor: the last id that was read.
        rows: rows read, counted or rejected, without those skipped.
        missed: ids up to the cursor that had no row any more.
        newest: the newest time ever counted, in seconds since the epoch.
        mark: rows up to this time were counted before the table was replaced.
        known: fingerprints of rows by id.
        complete: False during the first read; the counts are not shown until it ends.
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
        """Return the state with one more reset for this reason."""
        resets = {**self.resets, reason: self.resets[reason] + 1}
        return replace(self, resets=resets)


@dataclass(frozen=True)
class Reading:
    """A table as one pass found it.

    ``state`` is None if the rows cannot be followed. ``backlog`` rows are committed but
    not read yet. ``last_event`` is the time of the newest row in seconds since the
    epoch, NaN if it cannot be read. ``rows`` is the number of rows, if counted.
    """

    table: Table
    state: State | None
    backlog: int = 0
    last_event: float | None = None
    rows: int | None = None

    @property
    def time_error(self) -> DatabaseError | None:
        """Return what is wrong with the time of the newest row, None if it is valid."""
        if self.last_event is None or self.last_event <= time.time() + CLOCK_SECONDS:
            return None
        is_readable = not math.isnan(self.last_event)
        problem = "is in the future" if is_readable else "cannot be read"
        return DatabaseError(
            f"the time of the newest row in {self.table.source} {problem}; column"
            f" {self.table.time} must be in UTC, like 2026-01-31 12:00:00"
        )

    def show(self, state: State | None) -> "Reading":
        """Return the reading with a state that may be shown, or with None."""
        if self.state is None:
            return self
        # Negative if rows read since, between scrapes, are shown already.
        unseen = self.state.rows - (state.rows if state else 0)
        return replace(self, state=state, backlog=max(0, self.backlog + unseen))


def _clean(value: object) -> str:
    """Return a column's value as a label value that any Prometheus can parse."""
    if value is None:
        return UNKNOWN
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    if not text.isprintable():
        # Some control characters break a parser.
        text = "".join(c if c >= " " and c != "\x7f" else "\ufffd" for c in text)
    return text or UNKNOWN
