"""Folding rows into counts: SQL and a plain reading of its rules agree on any row."""

import math
import sqlite3
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.collectors import TABLE_COLLECTORS
from exporter.commands.simulate import KNOWLEDGE_BASE_SCHEMA
from exporter.counting.fold import fold, time_sql
from exporter.counting.table import OTHER, Counts, Table
from exporter.recorder import PERFORMANCE_SCHEMA
from tests.database.reading import find_layout
from tests.databases import EPOCH, at
from tests.exporters import make_config

BOUNDS = (0.005, 0.1, 0.5, 1.0, 10.0)
LIMIT = 7
LARGEST = 1.7976931348623157e308
NUMBERS = (
    *(math.nextafter(b, way) for b in BOUNDS for way in (0.0, b, math.inf)),
    *(0, 0.0, -0.0, 1, 2, 5e-324, -5e-324, -1, -0.5, 2**53 + 1, 2**63 - 1, -(2**63)),
    *(1e300, LARGEST, -LARGEST, math.inf, -math.inf, math.nan, None),
)
ODD = ("", "0.05", "1e400", "abc", "true", "0x10", " 1 ", "\0", b"", b"0.05", b"\xff\0")
LABELS = (
    *("add_fact", "add_fact ", "ADD_FACT", "x", "y", "z", "ä€𝄞", "other", "unknown"),
    *("a\0b", "a\0", "a", "a\nb", 'a"b\\', "\x7f", "l" * 128, "l" * 129, None, 5, 1.5),
    *ODD,
)
WRONG_UTF_8 = (b"a\xc3", b"\xed\xa0\x80", b"add_fact\xfe")
MARK = 10
TIMES = (None, "", "soon", at(0), at(MARK), at(MARK + 1), "2026-01-01T00:00:05+00:00")


class Row(NamedTuple):
    """What somebody inserts."""

    label: Any = "add_fact"
    flag: Any = 1
    value: Any = 0.05
    timestamp: Any = None


any_rows = st.lists(
    st.builds(
        Row,
        st.sampled_from((*LABELS, *WRONG_UTF_8)) | st.text(max_size=3),
        st.sampled_from((0, 1, 0.0, 1.0, 2, -1, 0.5, None, True, "true", "1", b"\1")),
        st.sampled_from((*NUMBERS, *ODD)) | st.floats() | st.integers(-9, 2**62),
        st.sampled_from(TIMES),
    ),
    max_size=40,
)


@cache
def schema() -> str:
    return (KNOWLEDGE_BASE_SCHEMA + PERFORMANCE_SCHEMA).replace("NOT NULL", "")


def make(name: str, rows: Iterable[Row] = ()) -> tuple[sqlite3.Connection, Table]:
    """Return a database with these rows, and what is read of them."""
    config = make_config(Path("/"), query_buckets=BOUNDS, label_limit=LIMIT)
    db = sqlite3.connect(":memory:")
    db.text_factory = lambda raw: raw.decode("utf-8", "replace")
    db.executescript(schema())
    table = TABLE_COLLECTORS[name].table(config)
    table = table.bind(find_layout(db, *table.sources))
    columns = (table.label, table.flag, table.value, table.time)
    for row in rows:
        values = {c: v for c, v in zip(columns, row, strict=True) if c}
        # Text that is no UTF-8 can be written only by casting a blob.
        marks = [
            "CAST(? AS TEXT)" if v in WRONG_UTF_8 else "?" for v in values.values()
        ]
        sql = f"INSERT INTO {table.source} ({', '.join(values)})"
        db.execute(f"{sql} VALUES ({', '.join(marks)})", (*values.values(),))
    return db, table


class Reference:
    """What folding means, row by row, from what SQLite has stored."""

    def __init__(self, db: sqlite3.Connection, table: Table, mark: int | None) -> None:
        self.table = table
        self.counts = Counter[tuple[str, bool, int]]()
        self.values: dict[tuple[str, bool], list[float]] = {}
        self.newest: dict[tuple[str, bool, int], tuple[int, float]] = {}
        self.rejected = Counter[str]()
        columns = (table.label, table.flag, table.value, time_sql("timestamp"))
        listed = ", ".join(column or "NULL" for column in columns)
        for row in db.execute(f"SELECT rowid, {listed} FROM {table.source}"):
            self._add(mark, *row)

    def _add(self, mark: int | None, row: int, *stored: Any) -> None:
        label, flag, value, seconds = stored
        if mark is not None and seconds is not None and seconds <= EPOCH + mark:
            self.rejected["before_replacement"] += 1
            return
        if reason := self._objection(value) or self._flag_objection(flag):
            self.rejected[reason] += 1
            return
        series = self._label(label), bool(self.table.flag and flag)
        if self.table.value is None or value is None:
            self.counts[*series, len(self.table.buckets) + 1] += 1
            return
        bucket = bisect_left(self.table.buckets, value)
        self.counts[*series, bucket] += 1
        self.values.setdefault(series, []).append(value)
        self.newest[*series, bucket] = row, value

    def _objection(self, value: Any) -> str | None:
        if self.table.value is None:
            return None
        if value is None:
            return None if self.table.value_optional else "null"
        if not isinstance(value, int | float):
            return "not_a_number"
        return "negative" if value < 0 else "infinite" if value == math.inf else None

    def _flag_objection(self, flag: Any) -> str | None:
        if not self.table.flag or isinstance(flag, int | float):
            return None
        return "null" if flag is None else "not_a_boolean"

    def _label(self, value: Any) -> str:
        if not self.table.label:
            return ""
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif value is not None:
            value = str(value).split("\0")[0]
        odd = (chr(c) for c in (*range(32), 127))
        return (value or "")[:128].translate(
            {ord(c): "\ufffd" for c in odd}
        ) or "unknown"


def fold_all(
    db: sqlite3.Connection, table: Table, step: int, mark: int | None
) -> Counts:
    """Fold all rows, some ids at a time."""
    counts = Counts.zero(table)
    (last,) = db.execute(f"SELECT ifnull(MAX(rowid), 0) FROM {table.source}").fetchone()
    for first in range(1, last + 1, step):
        moment = None if mark is None else float(EPOCH + mark)
        fold(db, table, counts, range(first, min(first + step, last + 1)), moment)
    return counts


def numbers(counts: Counts) -> Counter[tuple[str, bool, int]]:
    found = Counter[tuple[str, bool, int]]()
    for key, series in counts.series.items():
        found += Counter({(*key, n): rows for n, rows in enumerate(series.counts)})
    return found


def by_label(counts: Counts) -> dict[str, int]:
    found = Counter[str]()
    for (label, _, _), rows in numbers(counts).items():
        found[label] += rows
    return dict(found)


def same_sum(total: float, values: list[float]) -> bool:
    """Compare sums, which depend on the order; one that overflows is infinite."""
    try:
        return math.isclose(total, math.fsum(values), rel_tol=1e-9)
    except OverflowError:
        return total >= LARGEST / 2


@given(
    name=st.sampled_from([*TABLE_COLLECTORS]),
    rows=any_rows,
    step=st.sampled_from((1, 3, 100)),
    mark=st.sampled_from((None, MARK)),
)
@example("queries", [Row(value=value) for value in (*NUMBERS, *ODD)], 100, None)
@example("cache", [Row(value=value) for value in (*NUMBERS, *ODD)], 100, None)
@example("audit", [Row(label) for label in (*LABELS, *WRONG_UTF_8)], 100, None)
@example("facts", [Row(timestamp=time) for time in TIMES], 100, MARK)
def test_any_rows_count_as_the_reference_says(
    name: str, rows: list[Row], step: int, mark: int | None
) -> None:
    db, table = make(name, rows)
    with closing(db):
        unlimited = replace(table, label_limit=1000)
        reference = Reference(db, table, mark)
        counts = fold_all(db, unlimited, step, mark)
        limited = fold_all(db, table, step, mark)
    assert numbers(counts) == reference.counts
    assert +counts.rejected == +limited.rejected == reference.rejected
    assert set(reference.rejected) <= set(table.reasons)
    for key, series in counts.series.items():
        assert same_sum(series.total, reference.values.get(key, []))
        found = {(*key, n): newest for n, newest in series.exemplars.items()}
        assert found == {k: v for k, v in reference.newest.items() if k[:2] == key}
    check_limit(table, limited, counts)


def check_limit(table: Table, limited: Counts, counts: Counts) -> None:
    """Compare counts with those without a limit of labels."""
    assert counts.overflowed == 0
    found, unlimited = by_label(limited), by_label(counts)
    assert sum(found.values()) == sum(unlimited.values())
    assert len({*found, *table.known_labels} - {OTHER}) <= table.label_limit
    others = found.pop(OTHER, 0)
    assert others == limited.overflowed + unlimited.get(OTHER, 0)
    assert found.items() <= unlimited.items()


def test_known_labels_are_there_at_zero() -> None:
    db, table = make("audit")
    db.close()
    zero = {(label, False) for label in ("add_fact", "delete_fact", "update_fact")}
    assert Counts.zero(table).series.keys() == zero


def test_labels_above_the_limit_become_other() -> None:
    names = ["a", "b", "c", "d", "e", "f", "a", OTHER, "e"]
    db, table = make("audit", map(Row, names))
    with closing(db):
        counts = fold_all(db, table, 1, None)
    kept = {"a": 2, "b": 1, "c": 1, "d": 1}
    assert {k: n for k, n in by_label(counts).items() if n} == {**kept, OTHER: 4}
    assert counts.overflowed == 3  # not the row that is called so


@pytest.mark.parametrize(
    ("name", "column", "reason"),
    [("queries", "query_time", "not_a_number"), ("cache", "hit", "not_a_boolean")],
)
def test_column_made_for_text_holds_no_numbers(
    name: str, column: str, reason: str
) -> None:
    """Compared as text, 10.0 would be less than 5.0."""
    db, table = make(name)
    columns = ", ".join(c for c in table.counted if c != column)
    with closing(db):
        db.execute(f"DROP TABLE {table.source}")
        db.execute(
            f"CREATE TABLE {table.source} (id INTEGER PRIMARY KEY, timestamp TEXT,"
            f" {columns}, {column} TEXT)"
        )
        db.execute(f"INSERT INTO {table.source} ({column}) VALUES (10.0)")
        counts = fold_all(db, table, 1, None)
    assert counts.rejected == {reason: 1}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-01 00:00:00", 0),
        ("2026-01-01 00:00:01.5", 1.5),
        ("2026-01-01T00:00:02", 2),
        ("2026-01-01T00:00:03Z", 3),
        ("2026-01-01T02:00:04+02:00", 4),
        ("2025-12-31T19:00:05.25-05:00", 5.25),
        ("2026-01-01", 0),
        *(
            (odd, None)
            for odd in (None, "", "now", "2026-01-01 25:00:00", "2026", 1.7e9)
        ),
        *((odd, None) for odd in (5, b"\xff", "2026-13-45", "-1", "noon")),
    ],
)
def test_time_is_read_as_utc_unless_it_says_otherwise(
    text: object, seconds: float | None
) -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        (found,) = db.execute(f"SELECT {time_sql(':time')}", {"time": text}).fetchone()
    assert found == (None if seconds is None else EPOCH + seconds)
