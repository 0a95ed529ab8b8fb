"""Fold rows of a table into counts: SQLite adds up groups, Python sees the sums."""

from functools import lru_cache
from operator import itemgetter
from sqlite3 import Connection

from exporter.counting.state import Counts
from exporter.counting.table import BEFORE_REPLACEMENT, Table

LABEL_LENGTH = 128  # characters; a longer label value is cut
LARGEST = 1.7976931348623157e308
_ROW = itemgetter(5)  # labels come in the order of their rows


def fold(
    db: Connection, table: Table, counts: Counts, span: range, mark: float | None
) -> tuple[int, int]:
    """Add the rows whose ids are in the span.

    Returns how many there were, and how many of them were passed over because their
    time is not above ``mark``.
    """
    all_rows = passed_over = 0
    bound = {"first": span.start, "last": span[-1], "mark": mark}
    found = db.execute(_grouped_sql(table, mark is not None), bound).fetchall()
    for label, flag, bucket, rows, total, row, value in sorted(found, key=_ROW):
        all_rows += rows
        is_odd = table.flag and not isinstance(flag, int | float)
        if is_odd and not isinstance(bucket, str):
            bucket = "null" if flag is None else "not_a_boolean"
        if isinstance(bucket, str):
            counts.rejected[bucket] += rows
            passed_over += rows if bucket == BEFORE_REPLACEMENT else 0
            continue
        series = counts.add(table, label, flag, bucket, rows)
        if bucket <= len(table.buckets):
            series.total += total
            series.exemplars[bucket] = row, value
    return all_rows, passed_over


@lru_cache(maxsize=16)
def _grouped_sql(table: Table, has_mark: bool) -> str:
    """Return the statement that adds up the rows of each label, flag and bucket.

    A bucket of text is why rows cannot count. Beside a MAX, SQLite takes other columns
    from the row that has it.
    """
    bucket = _bucket_sql(table, 0, len(table.buckets))
    if has_mark:
        is_old = f"{time_sql(table.time)} <= :mark"
        bucket = f"CASE WHEN {is_old} THEN '{BEFORE_REPLACEMENT}' ELSE {bucket} END"
    label = f"substr({table.label}, 1, {LABEL_LENGTH})" if table.label else "NULL"
    value = table.value or "NULL"
    return (
        f"SELECT {label}, +{table.flag or 'NULL'}, {bucket}, COUNT(*), TOTAL({value}),"
        f" MAX(rowid), {value} FROM {table.source}"
        f" WHERE rowid BETWEEN :first AND :last GROUP BY {table.label or 1}, 2, 3"
    )


def _bucket_sql(table: Table, low: int, high: int) -> str:
    """Return a binary search over the bounds; only its two ends meet odd values.

    The plus takes the column's affinity away: no number is compared as text.
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
    if low < last:
        return (
            f"CASE WHEN {value} >= 0 THEN 0 ELSE 'negative' END"
            if low == 0
            else str(low)
        )
    absent = str(last + 1) if table.value_optional else "'null'"
    return (
        f"CASE WHEN {value} <= {LARGEST!r} THEN {last}"
        f" WHEN {value} IS NULL THEN {absent}"
        f" WHEN typeof({value}) = 'real' THEN 'infinite' ELSE 'not_a_number' END"
    )


def time_sql(expression: str | None) -> str:
    """Return the seconds since the epoch of a row's time, NULL if it is not one.

    SQLite's CURRENT_TIMESTAMP or ISO 8601; without a zone it is UTC.
    """
    if expression is None:
        return "NULL"
    return (
        f"CASE WHEN {expression} GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'"
        f" THEN ROUND((julianday({expression}) - 2440587.5) * 86400.0, 3) END"
    )
