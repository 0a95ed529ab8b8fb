"""Folding rows into counts: SQL and a plain reading of its rules agree on any row."""

import math
import sqlite3
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from exporter.collectors import TABLE_COLLECTORS
from exporter.commands.simulate import KNOWLEDGE_BASE_SCHEMA
from exporter.counting.fold import fold, time_sql
from exporter.counting.table import Counts, Table
from exporter.database.schema import Schema
from exporter.recorder import PERFORMANCE_SCHEMA
from tests.databases import EPOCH, at
from tests.exporters import make_config

SCHEMA = (KNOWLEDGE_BASE_SCHEMA + PERFORMANCE_SCHEMA).replace("NOT NULL", "")
BOUNDS = (0.005, 0.1, 0.5, 1.0, 10.0)
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
CONTROLS = dict.fromkeys((*range(32), 127), "\ufffd")
MARK = EPOCH + 10
TIMES = (None, "", "soon", at(0), at(10), at(11), "2026-01-01T00:00:05+00:00")


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


def make(name: str, rows: Iterable[Row] = ()) -> tuple[sqlite3.Connection, Table]:
    """Return a database with these rows, and what is read of them."""
    config = make_config(Path("/"), query_buckets=BOUNDS, label_limit=1000)
    db = sqlite3.connect(":memory:")
    db.text_factory = lambda raw: raw.decode("utf-8", "replace")
    db.executescript(SCHEMA)
    table = TABLE_COLLECTORS[name].table(config)
    table = table.bind(Schema(table.sources).find(db, table.sources))
    columns = (table.label, table.flag, table.value, table.time)
    for row in rows:
        values = {c: v for c, v in zip(columns, row, strict=True) if c}
        # Text that is no UTF-8 can be written only by casting a blob.
        texts = (
            "CAST(? AS TEXT)" if v in WRONG_UTF_8 else "?" for v in values.values()
        )
        sql = f"INSERT INTO {table.source} ({', '.join(values)}) VALUES"
        db.execute(f"{sql} ({', '.join(texts)})", (*values.values(),))
    return db, table


def meaning(table: Table, mark: float | None, row: list[Any]) -> object:
    """Return why a row is rejected, or its label, flag and bucket."""
    label, flag, value, seconds = row
    if mark is not None and seconds is not None and seconds <= mark:
        return "before_replacement"
    if table.value and not isinstance(value, int | float):
        if value is not None:
            return "not_a_number"
        if not table.value_optional:
            return "null"
    elif table.value and (value < 0 or value == math.inf):
        return "negative" if value < 0 else "infinite"
    if table.flag and not isinstance(flag, int | float):
        return "null" if flag is None else "not_a_boolean"
    buckets = table.buckets
    bucket = len(buckets) + 1 if value is None else bisect_left(buckets, value)
    return clean(label) if table.label else "", bool(table.flag and flag), bucket


def clean(label: Any) -> str:
    if isinstance(label, bytes):
        label = label.decode("utf-8", "replace")
    elif label is not None:
        label = str(label).split("\0")[0]
    return (label or "")[:128].translate(CONTROLS) or "unknown"


def fold_all(
    db: sqlite3.Connection, table: Table, step: int = 1, mark: float | None = None
) -> Counts:
    """Fold all rows, some ids at a time."""
    counts = Counts.zero(table)
    (last,) = db.execute(f"SELECT ifnull(MAX(rowid), 0) FROM {table.source}").fetchone()
    for first in range(1, last + 1, step):
        fold(db, table, counts, range(first, min(first + step, last + 1)), mark)
    return counts


# However slow the machine, and the same rows in each run.
@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
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
def test_any_rows_count_as_a_plain_reading_says(
    name: str, rows: list[Row], step: int, mark: float | None
) -> None:
    db, table = make(name, rows)
    columns = ("rowid", table.label, table.flag, table.value, time_sql(table.time))
    listed = ", ".join(column or "NULL" for column in columns)
    with closing(db):
        stored = db.execute(f"SELECT {listed} FROM {table.source}").fetchall()
        counts = fold_all(db, table, step, mark)
    meanings = {row: meaning(table, mark, values) for row, *values in stored}
    found, exemplars = Counter[object](counts.rejected), dict[object, int]()
    for key, series in counts.series.items():
        found.update({(*key, n): rows for n, rows in enumerate(series.counts)})
        exemplars |= {(*key, n): row for n, (row, _) in series.exemplars.items()}
    assert +found == Counter(meanings.values())
    assert set(+counts.rejected) <= set(table.reasons)
    newest = {one: row for row, one in meanings.items() if isinstance(one, tuple)}
    bound = len(table.buckets)
    assert exemplars == {one: row for one, row in newest.items() if one[2] <= bound}


@pytest.mark.parametrize(
    ("name", "column", "reason"),
    [("queries", "query_time", "not_a_number"), ("cache", "hit", "not_a_boolean")],
)
def test_column_made_for_text_holds_no_numbers(
    name: str, column: str, reason: str
) -> None:
    """Compared as text, 10.0 would be less than 5.0."""
    db, table = make(name)
    with closing(db):
        db.execute(f"ALTER TABLE {table.source} DROP COLUMN {column}")
        db.execute(f"ALTER TABLE {table.source} ADD COLUMN {column} TEXT")
        db.execute(f"INSERT INTO {table.source} ({column}) VALUES (10.0)")
        counts = fold_all(db, table)
    assert counts.rejected == {reason: 1}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-01 00:00:01.5", 1.5),
        ("2026-01-01T00:00:03Z", 3),
        ("2025-12-31T19:00:05.25-05:00", 5.25),
        ("2026-01-01", 0),
        *((odd, None) for odd in (None, "", "now", "2026", 1.7e9, "2026-13-45")),
    ],
)
def test_time_is_read_as_utc_unless_it_says_otherwise(
    text: object, seconds: float | None
) -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        (found,) = db.execute(f"SELECT {time_sql(':time')}", {"time": text}).fetchone()
    assert found == (None if seconds is None else EPOCH + seconds)
