"""Fold rows of a table into counts: clean ones in SQL, the others one by one.

SQLite groups by one integer that encodes label, flag and bucket; measured, this is
the fastest way that leaves the interpreter free for scrapes. What that key cannot
express (an unknown label, a value that does not count) comes to Python row by row.
"""

import sqlite3
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field, replace
from math import isinf
from typing import NamedTuple

from exporter.layout import KEY, Layout, wanted

OTHER = "other"  # takes the rows of label values above the limit
UNKNOWN = "unknown"  # the label value of NULL
LABEL_LENGTH = 128  # characters; a longer label value is cut
FAST_LABELS = 32  # label values told apart in SQL: each costs a comparison a row
REASONS = ("null", "not_a_number", "not_a_boolean", "negative", "infinite")
LARGEST = 1.7976931348623157e308


@dataclass(frozen=True)
class Table:
    """A table that only grows, and which of its columns are counted.

    Args:
        label: text column; its values become a label, capped in number and length.
        flag: boolean column.
        value: number column, folded into ``buckets`` (upper bounds, inclusive).
        value_optional: NULL counts, but is observed in no bucket.
        exemplars: whether the newest row of each bucket is noted.
        metric: the family whose label values are capped.
        lasting: columns that never change once a row is written.
        mutable: columns that tell tables apart, but may be updated.
        required: columns without which nothing is counted.
        sources: names under which it is looked for; the first that has rows is taken.
        source: the table that is read.
        time: column of a row's time.
        lacks: what would be needed to tell the rest.
        is_followed: whether its rows can be read on by their ids.
        burns_ids: whether ids go to rows that are never written (INSERT OR IGNORE), so
            that an id without a row says nothing.
    """

    name: str
    lasting: tuple[str, ...]
    label: str | None = None
    flag: str | None = None
    value: str | None = None
    value_optional: bool = False
    mutable: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    known_labels: tuple[str, ...] = ("",)
    label_limit: int = 100
    exemplars: bool = False
    metric: str = ""
    required: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    source: str = ""
    time: str | None = None
    lacks: tuple[str, ...] = ()
    is_followed: bool = True
    burns_ids: bool = False

    def bind(self, layout: Layout) -> "Table":
        """Return the table with the columns that it has there."""

        def found(*columns: str | None) -> tuple[str, ...]:
            names = (layout.column(column) for column in columns if column)
            return tuple(name for name in names if name)

        counted = [c for c in (self.label, self.flag, self.value) if c]
        lacks = [wanted(c) for c in (*counted, "timestamp") if not layout.column(c)]
        is_whole = all(layout.column(column) for column in self.required)
        return replace(
            self,
            lasting=found(*self.lasting),
            mutable=found(*self.mutable),
            label=next(iter(found(self.label)), None),
            value=next(iter(found(self.value)), None),
            value_optional=self.value_optional or not layout.column(self.value or ""),
            source=layout.name,
            time=layout.column("timestamp"),
            lacks=tuple([] if layout.has_key else [KEY]) + tuple(lacks),
            is_followed=layout.has_key and is_whole,
        )

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why a row of this table may be rejected."""
        number = ("not_a_number", "negative", "infinite") if self.value else ()
        boolean = ("not_a_boolean",) if self.flag else ()
        may_be_null = self.flag or (self.value and not self.value_optional)
        return (*(("null",) if may_be_null else ()), *number, *boolean)


class Exemplar(NamedTuple):
    """The newest row in a bucket."""

    row: int
    value: float


@dataclass
class Series:
    """What has been counted for one label value and flag.

    ``counts`` has one number a bucket, the one above the last bound, and the rows
    without a value.
    """

    counts: list[int]
    total: float = 0.0
    exemplars: dict[int, Exemplar] = field(default_factory=dict)

    def copy(self) -> "Series":
        return Series(self.counts[:], self.total, self.exemplars.copy())


@dataclass
class Counts:
    """All that has been counted in one table.

    ``series`` by label value and flag, ``rejected`` rows by reason, and ``overflowed``:
    the rows whose label value became ``other``.
    """

    series: dict[tuple[str, int], Series] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    overflowed: int = 0

    @classmethod
    def zero(cls, table: Table) -> "Counts":
        """Return counts with the known label values at zero."""
        counts = cls()
        for label in table.known_labels:
            counts.add_label(table, label)
        return counts

    def add_label(self, table: Table, label: str) -> None:
        """Add the series of a label value, at zero, if they are not there."""
        for flag in (0, 1) if table.flag else (0,):
            empty = Series([0] * (len(table.buckets) + 2))
            self.series.setdefault((label, flag), empty)

    def place(self, table: Table, label: str, rows: int = 1) -> str:
        """Return the label value for some rows; above the limit it is ``other``."""
        if (label, 0) in self.series:
            return label
        if len(self.labels) >= table.label_limit and label != OTHER:
            self.overflowed += rows
            label = OTHER
        self.add_label(table, label)
        return label

    def merge(self, table: Table, other: "Counts") -> None:
        """Add what was counted of other rows of the same table."""
        rows: Counter[str] = Counter()
        for (label, _), series in other.series.items():
            rows[label] += sum(series.counts)
        names = {label: self.place(table, label, n) for label, n in rows.items()}
        for (label, flag), series in other.series.items():
            own = self.series[names[label], flag]
            own.counts = [a + b for a, b in zip(own.counts, series.counts, strict=True)]
            own.total += series.total
        for reason, number in other.rejected.items():
            self.rejected[reason] += number
        self.overflowed += other.overflowed

    def copy(self) -> "Counts":
        series = {key: series.copy() for key, series in self.series.items()}
        return Counts(series, self.rejected.copy(), self.overflowed)

    @property
    def labels(self) -> list[str]:
        """Label values seen, known ones first."""
        return [label for label, flag in self.series if flag == 0]


class Fold:
    """The statements that fold one table."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._labels: list[str] | None = None
        self._bounds = len(table.buckets) + 2

    def fold(
        self, db: sqlite3.Connection, counts: Counts, after: int, upto: int
    ) -> int:
        """Add the rows with ``after`` < id <= ``upto`` and return how many there were.

        Raises:
            sqlite3.Error: table or column missing, locked, or out of time.
        """
        rows = slow = 0
        bound = self._prepare(counts, after, upto)
        for key, number, total in db.execute(self._grouped, bound).fetchall():
            rows += number
            if key is None:
                slow = number
                continue
            series = counts.series[self._decode(key)]
            series.counts[key % self._bounds] += number
            series.total += total
        if slow:
            # One at a time: they are few, or each may be a megabyte long.
            for row in db.execute(self._others, bound):
                self._add(counts, *row)
        return rows

    def exemplars(
        self, db: sqlite3.Connection, counts: Counts, after: int, upto: int
    ) -> None:
        """Note the newest row of each bucket among ``after`` < id <= ``upto``."""
        bound = self._prepare(counts, after, upto)
        for key, row, value in db.execute(self._newest, bound).fetchall():
            if key is not None and key % self._bounds <= len(self.table.buckets):
                exemplar = Exemplar(row, value)
                series = counts.series[self._decode(key)]
                series.exemplars[key % self._bounds] = exemplar

    def _decode(self, key: int) -> tuple[str, int]:
        assert self._labels is not None  # the statement that made the key needs them
        label, flag = divmod(key // self._bounds, 2)
        return self._labels[label], flag

    def _prepare(self, counts: Counts, after: int, upto: int) -> dict[str, object]:
        """Write the statements anew if labels have come; return what they bind."""
        labels = counts.labels[:FAST_LABELS]
        if labels != self._labels:
            self._write(labels)
        # By name: Python 3.12.0 to 3.12.3 warn of numbers (?1), see gh-117995.
        named = {f"label{n}": label for n, label in enumerate(labels)}
        return {"after": after, "upto": upto, **named}

    def _write(self, labels: list[str]) -> None:
        self._labels = labels
        table = self.table
        key = _key_sql(table, len(labels), self._bounds)
        source = (
            f"FROM {table.source or table.name} WHERE rowid > :after AND rowid <= :upto"
        )
        value = table.value or "NULL"
        self._grouped = f"SELECT {key}, COUNT(*), TOTAL({value}) {source} GROUP BY 1"
        self._newest = f"SELECT {key}, MAX(rowid), {value} {source} GROUP BY 1"
        columns = ", ".join(c or "NULL" for c in (table.label, table.flag, table.value))
        self._others = f"SELECT {columns} {source} AND ({key}) IS NULL"

    def _add(self, counts: Counts, label: object, flag: object, value: object) -> None:
        reason = _objection(self.table, flag, value)
        if reason:
            counts.rejected[reason] += 1
            return
        name = clean_label(label) if self.table.label else self.table.known_labels[0]
        flag = 1 if self.table.flag and flag else 0
        series = counts.series[counts.place(self.table, name), flag]
        if value is None:
            series.counts[-1] += 1
            return
        assert isinstance(value, int | float)  # an objection otherwise
        series.counts[bisect_left(self.table.buckets, value)] += 1
        series.total += value


def clean_label(value: object) -> str:
    """Return a table's value as a label value that any Prometheus can read."""
    if value is None:
        return UNKNOWN
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    text = text[:LABEL_LENGTH]
    # A NUL ends the page for Prometheus' parser; other controls help nobody.
    printable = "".join(c if c >= " " and c != "\x7f" else "\ufffd" for c in text)
    return printable or UNKNOWN


def _objection(table: Table, flag: object, value: object) -> str | None:
    """Return why a row cannot count, None if it can."""
    if table.flag and flag is None:
        return "null"
    if table.flag and not isinstance(flag, int | float):
        return "not_a_boolean"
    if table.value is None or (value is None and table.value_optional):
        return None
    if value is None:
        return "null"
    if not isinstance(value, int | float):
        return "not_a_number"
    if isinf(value):
        return "infinite"
    return "negative" if value < 0 else None


def _key_sql(table: Table, labels: int, bounds: int) -> str:
    """Return the expression for (label * 2 + flag) * bounds + bucket, else NULL."""
    parts = [_bucket_sql(table, 0, len(table.buckets))]
    if table.flag:
        parts.append(f"CASE +{table.flag} WHEN 0 THEN 0 WHEN 1 THEN {bounds} END")
    if table.label:
        cases = " ".join(f"WHEN :label{n} THEN {n * 2 * bounds}" for n in range(labels))
        parts.append(f"CASE {table.label} {cases} END")
    return " + ".join(parts)


def _bucket_sql(table: Table, low: int, high: int) -> str:
    """Return a binary search over the bounds; only its two ends meet odd values.

    The plus takes the column's affinity away: text is not compared with numbers as if
    these were text, should the column have been made for text.
    """
    value, last = f"+{table.value}", len(table.buckets)
    if table.value is None:
        return str(last + 1)
    if low < high:
        middle = (low + high) // 2
        left = _bucket_sql(table, low, middle)
        right = _bucket_sql(table, middle + 1, high)
        bound = table.buckets[middle]
        return f"CASE WHEN {value} <= {bound!r} THEN {left} ELSE {right} END"
    absent = f"WHEN {value} IS NULL THEN {last + 1} " if table.value_optional else ""
    if low == last:
        return f"CASE WHEN {value} <= {LARGEST!r} THEN {last} {absent}END"
    return f"CASE WHEN {value} >= 0 THEN 0 END" if low == 0 else str(low)
