"""Folding rows into counts: SQL, Python and a plain model agree on any row."""

import math
import sqlite3
import tracemalloc
from bisect import bisect_left
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.fold import (
    FAST_LABELS,
    LABEL_LENGTH,
    LARGEST,
    OTHER,
    UNKNOWN,
    Counts,
    Exemplar,
    Fold,
    Table,
    clean_label,
)

BUCKETS = (0.005, 0.1, 0.5, 1.0, 10.0)
QUERIES = Table(
    "query_times",
    lasting=("timestamp",),
    label="query_type",
    flag="success",
    value="query_time",
    buckets=BUCKETS,
    known_labels=("add_fact", "search_knowledge"),
    label_limit=6,
    exemplars=True,
)
CACHE = Table(
    "cache_events",
    lasting=("timestamp",),
    flag="hit",
    value="response_time",
    value_optional=True,
    buckets=BUCKETS,
)
AUDIT = Table(
    "audit_log",
    lasting=("timestamp",),
    label="operation",
    known_labels=("add_fact",),
    label_limit=3,
)
FACTS = Table("facts", lasting=("timestamp",), value="confidence", buckets=(0.5,))
TABLES = (QUERIES, CACHE, AUDIT, FACTS)
# As in HAK/GAL's schema, whose types decide what SQLite stores.
TYPES = {"query_type": "TEXT", "operation": "TEXT", "success": "BOOLEAN"}
TYPES |= {"hit": "BOOLEAN", "query_time": "REAL", "response_time": "REAL"}
TYPES |= {"confidence": "REAL"}

NUMBERS = (
    *(math.nextafter(b, way) for b in BUCKETS for way in (0.0, b, math.inf)),
    *BUCKETS,
    *(0, 0.0, -0.0, 1, 2, 10, 5e-324, -5e-324, -1, -0.5),
    *(2**31, 2**53 + 1, 2**63 - 1, -(2**63)),
    *(1e300, LARGEST, -LARGEST, math.inf, -math.inf, math.nan),
)
TEXTS = ("", "0.05", "1e400", "abc", "true", "NULL", "0x10", " 1 ", "\0", "inf", "nan")
BLOBS = (b"", b"0.05", b"\xff\x00", b"1")
LABELS = (
    *("add_fact", "search_knowledge", "ADD_FACT", "add_fact ", "x", "y", "z", "ä€𝄞"),
    *("", "other", "unknown", "NULL", "a\0b", "a\nb", 'a"b\\', "\t", "\x7f", "\u0085"),
    *("l" * 128, "l" * 129, "l" * 130, "0", "1.5"),
)
WRONG_UTF_8 = (b"\xff", b"a\xc3", b"\xed\xa0\x80", b"add_fact\xff")

values = st.one_of(
    st.sampled_from(NUMBERS),
    st.floats(),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from((None, *TEXTS, *BLOBS)),
)
flags = st.sampled_from(
    (0, 1, 0.0, 1.0, 2, -1, 0.5, None, "true", "false", "x", "", "0", "1", b"\x01")
)
labels = st.one_of(
    st.sampled_from((None, *LABELS, *BLOBS, 5, 1.5)),
    st.text(max_size=5),
    st.sampled_from(WRONG_UTF_8),
)


class Row(NamedTuple):
    """What somebody inserts."""

    label: Any = "add_fact"
    flag: Any = 1
    value: Any = 0.05


rows_of_any_kind = st.lists(st.builds(Row, labels, flags, values), max_size=40)


class Model:
    """What folding means, row by row, from what SQLite has stored."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.counts: dict[tuple[str, int], list[int]] = {}
        self.totals: dict[tuple[str, int], list[float]] = {}
        self.rejected = dict.fromkeys(Counts().rejected, 0)
        self.overflowed = 0
        self.labels = list(table.known_labels)

    def add(self, label: Any, flag: Any, value: Any) -> None:
        reason = self.objection(flag, value)
        if reason:
            self.rejected[reason] += 1
            return
        key = (self.label(label), int(bool(flag)) if self.table.flag else 0)
        slots = len(self.table.buckets) + 2
        slot = slots - 1
        if self.table.value and value is not None:
            slot = bisect_left(self.table.buckets, value)
            self.totals.setdefault(key, []).append(value)
        self.counts.setdefault(key, [0] * slots)[slot] += 1

    def objection(self, flag: Any, value: Any) -> str | None:
        if self.table.flag and not isinstance(flag, int | float):
            return "null" if flag is None else "not_a_boolean"
        if not self.table.value or (value is None and self.table.value_optional):
            return None
        if not isinstance(value, int | float):
            return "null" if value is None else "not_a_number"
        if math.isinf(value):
            return "infinite"
        return "negative" if value < 0 else None

    def label(self, raw: Any) -> str:
        if not self.table.label:
            return ""
        label = clean_label(raw)
        if label not in self.labels:
            if len(self.labels) >= self.table.label_limit and label != OTHER:
                self.overflowed += 1
                label = OTHER
            if label not in self.labels:
                self.labels.append(label)
        return label


def database(table: Table, rows: list[Row]) -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.text_factory = lambda raw: raw.decode("utf-8", "replace")
    columns = [c for c in (table.label, table.flag, table.value) if c]
    types = "".join(f", {column} {TYPES[column]}" for column in columns)
    db.execute(f"CREATE TABLE {table.name} (id INTEGER PRIMARY KEY{types})")
    for row in rows:
        insert(db, table, row)
    return db


def insert(db: sqlite3.Connection, table: Table, row: Row) -> None:
    pairs = zip((table.label, table.flag, table.value), row, strict=True)
    used = {column: value for column, value in pairs if column}
    # Text that is no UTF-8 can be written only by casting a blob.
    marks = ", ".join(
        "CAST(? AS TEXT)" if value in WRONG_UTF_8 else "?" for value in used.values()
    )
    db.execute(
        f"INSERT INTO {table.name} ({', '.join(used)}) VALUES ({marks})",
        tuple(used.values()),
    )


def stored(db: sqlite3.Connection, table: Table) -> list[tuple[int, Any, Any, Any]]:
    columns = (table.label, table.flag, table.value)
    listed = ", ".join(column or "NULL" for column in columns)
    return db.execute(f"SELECT id, {listed} FROM {table.name} ORDER BY id").fetchall()


def same_total(total: float, values: list[float]) -> bool:
    """Compare sums, which depend on the order; one that overflows is infinite."""
    try:
        return math.isclose(total, math.fsum(values), rel_tol=1e-9)
    except OverflowError:
        return math.isinf(total) or total >= LARGEST / 2


def check(table: Table, counts: Counts, model: Model) -> None:
    found = {key: series.counts for key, series in counts.series.items()}
    assert {k: c for k, c in found.items() if any(c)} == model.counts
    assert counts.rejected == model.rejected
    assert counts.overflowed == model.overflowed
    assert set(counts.labels) == set(model.labels or [""])
    for key, series in counts.series.items():
        assert same_total(series.total, model.totals.get(key, []))


def check_exemplars(counts: Counts, rows: list[tuple[int, Any, Any, Any]]) -> None:
    """Each exemplar is a row of its bucket, and the newest that SQL could key."""
    newest: dict[tuple[str, int, int], Exemplar] = {}
    for row, label, flag, value in rows:
        if isinstance(value, int | float) and 0 <= value < math.inf:
            bucket = bisect_left(QUERIES.buckets, value)
            newest[label, flag, bucket] = Exemplar(row, value)
    for (label, flag), series in counts.series.items():
        if "\ufffd" not in label:  # it may come from other bytes than it stands for
            for bucket in range(len(QUERIES.buckets) + 1):
                found = series.exemplars.get(bucket)
                assert found == newest.get((label, flag, bucket))


@given(
    table=st.sampled_from(TABLES),
    batches=st.lists(rows_of_any_kind, min_size=1, max_size=3),
)
@example(table=QUERIES, batches=[[Row(value=value) for value in NUMBERS]])
@example(table=CACHE, batches=[[Row(value=v) for v in (None, *TEXTS, *BLOBS)]])
@example(table=AUDIT, batches=[[Row(label=label) for label in LABELS]])
@example(table=FACTS, batches=[[Row(value=value) for value in NUMBERS]])
def test_any_rows_count_as_the_model_says(
    table: Table, batches: list[list[Row]]
) -> None:
    counts, model, fold, after = Counts.zero(table), Model(table), Fold(table), 0
    with closing(database(table, [])) as db:
        for batch in batches:
            for row in batch:
                insert(db, table, row)
            upto = after + len(batch)
            assert fold.fold(db, counts, after, upto) == len(batch)
            fold.exemplars(db, counts, after, upto)
            for _, *row_stored in stored(db, table)[after:]:
                model.add(*row_stored)
            after = upto
        check(table, counts, model)
        if table.exemplars:
            check_exemplars(counts, stored(db, table))
        counted = sum(sum(series.counts) for series in counts.series.values())
        assert counted + sum(counts.rejected.values()) == after


@given(rows=rows_of_any_kind, table=st.sampled_from(TABLES))
def test_row_by_row_gives_the_same_as_in_sql(table: Table, rows: list[Row]) -> None:
    fold, one_by_one = Fold(table), Counts.zero(table)
    with closing(database(table, rows)) as db:
        in_sql = Counts.zero(table)
        fold.fold(db, in_sql, 0, len(rows))
        for _, *row in stored(db, table):
            fold._add(one_by_one, *row)
    assert one_by_one.rejected == in_sql.rejected
    assert one_by_one.overflowed == in_sql.overflowed
    assert one_by_one.series.keys() == in_sql.series.keys()
    for key, series in one_by_one.series.items():
        assert series.counts == in_sql.series[key].counts


@given(rows=rows_of_any_kind, table=st.sampled_from(TABLES))
def test_two_halves_merged_give_the_same_as_the_whole(
    table: Table, rows: list[Row]
) -> None:
    middle = len(rows) // 2
    with closing(database(table, rows)) as db:
        whole, first, second = (Counts.zero(table) for _ in range(3))
        Fold(table).fold(db, whole, 0, len(rows))
        Fold(table).fold(db, first, 0, middle)
        Fold(table).fold(db, second, middle, len(rows))
    first.merge(table, second)
    assert first.rejected == whole.rejected
    assert sum(totals(first).values()) == sum(totals(whole).values())
    assert len(first.labels) <= table.label_limit + 1
    if not (first.overflowed or whole.overflowed):
        assert totals(first) == totals(whole)


def fold_rows(table: Table, rows: list[Row]) -> Counts:
    counts, fold = Counts.zero(table), Fold(table)
    with closing(database(table, rows)) as db:
        fold.fold(db, counts, 0, len(rows))
        fold.exemplars(db, counts, 0, len(rows))
    return counts


def totals(counts: Counts) -> dict[str, int]:
    """Return the number of rows by label value."""
    found = dict.fromkeys(counts.labels, 0)
    for (label, _), series in counts.series.items():
        found[label] += sum(series.counts)
    return found


def test_known_labels_are_there_at_zero() -> None:
    zero = {key: s.counts for key, s in Counts.zero(QUERIES).series.items()}
    names = ("add_fact", "search_knowledge")
    assert zero == {(name, flag): [0] * 7 for name in names for flag in (0, 1)}


def test_bounds_are_inclusive() -> None:
    counts = fold_rows(CACHE, [Row(value=value) for value in BUCKETS])
    assert counts.series["", 1].counts == [1, 1, 1, 1, 1, 0, 0]


def test_value_above_the_last_bound_has_a_place_of_its_own() -> None:
    counts = fold_rows(CACHE, [Row(value=10.1), Row(value=LARGEST)])
    assert counts.series["", 1].counts == [0, 0, 0, 0, 0, 2, 0]


def test_missing_value_counts_in_no_bucket_where_it_may_be_missing() -> None:
    counts = fold_rows(CACHE, [Row(value=None), Row(value=1)])
    assert counts.series["", 1].counts == [0, 0, 0, 1, 0, 0, 1]
    assert counts.series["", 1].total == 1


def test_column_made_for_text_holds_no_numbers() -> None:
    """Compared as text, 10.0 would be less than 5.0."""
    columns = "id INTEGER PRIMARY KEY, query_type, query_time TEXT, success"
    counts = Counts.zero(QUERIES)
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute(f"CREATE TABLE query_times({columns})")
        db.execute("INSERT INTO query_times VALUES (1, 'add_fact', 10.0, 1)")
        db.execute("INSERT INTO query_times VALUES (2, 'add_fact', 0.05, 1)")
        Fold(QUERIES).fold(db, counts, 0, 2)
    assert counts.rejected["not_a_number"] == 2
    assert sum(totals(counts).values()) == 0


def test_flag_in_a_column_made_for_text_is_no_boolean() -> None:
    columns = "id INTEGER PRIMARY KEY, hit TEXT, response_time REAL"
    counts = Counts.zero(CACHE)
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute(f"CREATE TABLE cache_events({columns})")
        db.execute("INSERT INTO cache_events VALUES (1, 1, 0.05)")
        Fold(CACHE).fold(db, counts, 0, 1)
    assert counts.rejected["not_a_boolean"] == 1


def test_long_labels_are_held_one_at_a_time() -> None:
    rows = [Row(label=f"{n}{'x' * 1_000_000}") for n in range(30)]
    counts = Counts.zero(QUERIES)
    with closing(database(QUERIES, rows)) as db:
        tracemalloc.start()
        Fold(QUERIES).fold(db, counts, 0, 30)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert sum(totals(counts).values()) == 30
    assert peak < 10_000_000


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (Row(value=None), "null"),
        (Row(value=math.nan), "null"),  # SQLite stores NULL
        (Row(value="fast"), "not_a_number"),
        (Row(value=b"0.1"), "not_a_number"),
        (Row(value=-1e-300), "negative"),
        (Row(value=math.inf), "infinite"),
        (Row(value=-math.inf), "infinite"),
        (Row(flag=None), "null"),
        (Row(flag="true"), "not_a_boolean"),
        (Row(flag=b"\x01"), "not_a_boolean"),
        (Row(flag=None, value=-1), "null"),
    ],
    ids=str,
)
def test_row_that_cannot_count_is_rejected_by_reason(row: Row, reason: str) -> None:
    counts = fold_rows(QUERIES, [row])
    assert {r: n for r, n in counts.rejected.items() if n} == {reason: 1}
    assert sum(totals(counts).values()) == 0
    assert reason in QUERIES.reasons


@pytest.mark.parametrize("value", [0, -0.0, 5e-324, 3, "0.05", LARGEST], ids=repr)
def test_unusual_number_counts(value: object) -> None:
    assert sum(totals(fold_rows(QUERIES, [Row(value=value)])).values()) == 1


def test_flag_is_true_unless_zero() -> None:
    flags: list[object] = [0, 0.0, 1, 2, -1, 0.5, "1", True, False]
    counts = fold_rows(QUERIES, [Row(flag=flag) for flag in flags])
    assert sum(counts.series["add_fact", 0].counts) == 3
    assert sum(counts.series["add_fact", 1].counts) == 6


@pytest.mark.parametrize(
    ("table", "reasons"),
    [
        (
            QUERIES,
            {"null", "not_a_number", "negative", "infinite", "not_a_boolean"},
        ),
        (CACHE, {"null", "not_a_number", "negative", "infinite", "not_a_boolean"}),
        (FACTS, {"null", "not_a_number", "negative", "infinite"}),
        (AUDIT, set()),
    ],
    ids=lambda value: value.name if isinstance(value, Table) else "",
)
@given(rows=rows_of_any_kind)
def test_reasons_are_those_that_can_happen(
    table: Table, reasons: set[str], rows: list[Row]
) -> None:
    assert set(table.reasons) == reasons
    rejected = fold_rows(table, rows).rejected
    assert {reason for reason, number in rejected.items() if number} <= reasons


def test_labels_above_the_limit_become_other() -> None:
    names = ["add_fact", "a", "b", "c", "d", "c", "a"]
    counts = fold_rows(AUDIT, [Row(label=name) for name in names])
    assert totals(counts) == {"add_fact": 1, "a": 2, "b": 1, OTHER: 3}
    assert counts.overflowed == 3


def test_label_called_other_is_one_like_any() -> None:
    counts = fold_rows(AUDIT, [Row(label=name) for name in (OTHER, "a", "b", "c")])
    assert totals(counts) == {"add_fact": 0, OTHER: 3, "a": 1}
    assert counts.overflowed == 2


def test_label_called_other_never_overflows() -> None:
    """It counts the same whether or not another value has overflowed before."""
    names = ["a", "b", OTHER, OTHER, "c", OTHER]
    counts = fold_rows(AUDIT, [Row(label=name) for name in names])
    assert totals(counts) == {"add_fact": 0, "a": 1, "b": 1, OTHER: 4}
    assert counts.overflowed == 1  # "c"; the limit made nothing of the others


def test_missing_and_empty_labels_are_unknown() -> None:
    rows = [Row(label=label) for label in (None, "", b"", UNKNOWN)]
    assert totals(fold_rows(AUDIT, rows)) == {"add_fact": 0, UNKNOWN: 4}


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (None, UNKNOWN),
        ("", UNKNOWN),
        (b"", UNKNOWN),
        ("plain", "plain"),
        (b"bytes", "bytes"),
        (b"\xff", "\ufffd"),
        (5, "5"),
        (1.5, "1.5"),
        ("ä€𝄞", "ä€𝄞"),
        ('"\\', '"\\'),
        ("a\0b\nc\td\x7f", "a\ufffdb\ufffdc\ufffdd\ufffd"),
        ("x" * 500, "x" * LABEL_LENGTH),
        (" ", " "),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_label_is_made_readable(value: object, label: str) -> None:
    assert clean_label(value) == label


def test_long_labels_that_begin_alike_are_one() -> None:
    rows = [Row(label="x" * LABEL_LENGTH + end) for end in ("", "a", "b")]
    assert totals(fold_rows(AUDIT, rows)) == {"add_fact": 0, "x" * LABEL_LENGTH: 3}


def test_more_labels_than_sql_tells_apart_count_all_the_same() -> None:
    table = replace(AUDIT, label_limit=100)
    names = [f"l{n}" for n in range(2 * FAST_LABELS)]
    counts, fold = Counts.zero(table), Fold(table)
    with closing(database(table, [Row(label=name) for name in names * 3])) as db:
        for after in range(0, 192, 16):
            fold.fold(db, counts, after, after + 16)
    assert totals(counts) == {"add_fact": 0, **dict.fromkeys(names, 3)}
    assert counts.overflowed == 0


def test_slices_count_as_the_whole() -> None:
    rows = [Row(label=f"l{n % 9}", value=n / 7) for n in range(100)]
    counts, fold = Counts.zero(QUERIES), Fold(QUERIES)
    with closing(database(QUERIES, rows)) as db:
        for after in range(-10, 120, 7):
            fold.fold(db, counts, after, after + 7)
    whole = fold_rows(QUERIES, rows)
    assert totals(counts) == totals(whole)
    assert [s.counts for s in counts.series.values()] == [
        s.counts for s in whole.series.values()
    ]


def test_only_rows_in_the_range_count() -> None:
    counts, fold = Counts.zero(AUDIT), Fold(AUDIT)
    with closing(database(AUDIT, [Row()] * 10)) as db:
        assert fold.fold(db, counts, 3, 7) == 4
        assert fold.fold(db, counts, 10, 2**63 - 1) == 0
        assert fold.fold(db, counts, 2**63 - 1, 2**63 - 1) == 0
    assert totals(counts) == {"add_fact": 4}


def test_exemplar_is_the_newest_row_of_its_bucket() -> None:
    rows = [Row(value=0.01), Row(value=0.02), Row(value=7), Row(value=0.03)]
    series = fold_rows(QUERIES, rows).series["add_fact", 1]
    assert series.exemplars == {1: Exemplar(4, 0.03), 4: Exemplar(3, 7.0)}


def test_rejected_row_is_no_exemplar() -> None:
    counts = fold_rows(QUERIES, [Row(value=0.01), Row(value=-1), Row(value=math.inf)])
    assert counts.series["add_fact", 1].exemplars == {1: Exemplar(1, 0.01)}


def test_copy_is_not_changed_by_more_rows() -> None:
    fold = Fold(QUERIES)
    with closing(database(QUERIES, [Row(), Row(value=-1), Row(label="x")])) as db:
        first = Counts.zero(QUERIES)
        fold.fold(db, first, 0, 1)
        kept, copy = repr(first), first.copy()
        fold.fold(db, copy, 1, 3)
        fold.exemplars(db, copy, 1, 3)
    assert repr(first) == kept
    assert repr(copy) != kept


@pytest.mark.parametrize("column", ["query_type", "success", "query_time"])
def test_missing_column_is_named(column: str) -> None:
    with closing(database(QUERIES, [Row()])) as db:
        db.execute(f"ALTER TABLE query_times RENAME COLUMN {column} TO moved")
        with pytest.raises(sqlite3.OperationalError, match=f"no such column: {column}"):
            Fold(QUERIES).fold(db, Counts.zero(QUERIES), 0, 1)
