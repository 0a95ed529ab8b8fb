"""Fold rows of a table into counts: SQLite aggregates, Python sees only the sums."""

from functools import lru_cache
from operator import itemgetter
from sqlite3 import Connection

from exporter.counting.table import BEFORE_REPLACEMENT, Counts, Table

LABEL_LENGTH = 128  # characters; longer label values are truncated
# Why a row is rejected. SQL returns a negative bucket: the index from the end.
_REASONS = ("infinite", "negative", "not_a_number", "null", BEFORE_REPLACEMENT)
_CODES = {reason: n - len(_REASONS) for n, reason in enumerate(_REASONS)}
_FLAG_REASONS = (None, None, "null", "not_a_boolean")  # 0 and 1 are valid
_ROW = itemgetter(4)  # the newest row: labels appear in the order of rows


def fold(
    db: Connection, table: Table, counts: Counts, span: range, mark: float | None
) -> tuple[int, int]:
    """Add the rows whose ids are in the span.

    Return the number of rows, and how many of them were skipped because their time is
    not above ``mark``.
    """
    all_rows = passed_over = 0
    bound = {"first": span.start, "last": span[-1], "mark": mark}
    found = db.execute(_grouped_sql(table, mark is not None), bound).fetchall()
    for label, key, rows, total, row, value in sorted(found, key=_ROW):
        bucket, flag = divmod(key, len(_FLAG_REASONS))
        reason = _REASONS[bucket] if bucket < 0 else _FLAG_REASONS[flag]
        all_rows += rows
        passed_over += rows if reason == BEFORE_REPLACEMENT else 0
        if reason:
            counts.rejected[reason] += rows
            continue
        series = counts.add(table, label, flag == 1, bucket, rows)
        if bucket <= len(table.buckets):
            series.total += total
            series.exemplars[bucket] = row, value
    return all_rows, passed_over


@lru_cache(maxsize=16)
def _grouped_sql(table: Table, has_mark: bool) -> str:
    """Return the statement that aggregates the rows by label, bucket and flag.

    Bucket and flag share one integer, which SQLite sorts fastest. With a MAX, SQLite
    takes bare columns from the row that has the maximum.
    """
    bucket = _bucket_sql(table, 0, len(table.buckets))
    if has_mark:
        old = f"{time_sql(table.time)} <= :mark THEN {_CODES[BEFORE_REPLACEMENT]}"
        bucket = f"CASE WHEN {old} ELSE {bucket} END"
    label = f"substr({table.label}, 1, {LABEL_LENGTH})" if table.label else "NULL"
    value, flag = table.value or "NULL", table.flag or "0"
    is_true = f"WHEN 'integer' THEN {flag} <> 0 WHEN 'real' THEN {flag} <> 0"
    flag = f"CASE typeof({flag}) {is_true} WHEN 'null' THEN 2 ELSE 3 END"
    return (
        f"SELECT {label}, {bucket} * {len(_FLAG_REASONS)} + {flag}, COUNT(*),"
        f" TOTAL({value}), MAX(rowid), {value} FROM {table.source}"
        f" WHERE rowid BETWEEN :first AND :last GROUP BY {table.label or 1}, 2"
    )


def _bucket_sql(table: Table, low: int, high: int) -> str:
    """Return a binary search over the bounds; odd values end up at its two ends.

    The plus removes the column's affinity, so that no number is compared as text.
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
    if low == 0:
        return f"CASE WHEN {value} >= 0 THEN 0 ELSE {_CODES['negative']} END"
    if low < last:
        return str(low)
    absent = last + 1 if table.value_optional else _CODES["null"]
    return (
        f"CASE WHEN {value} < 9e999 THEN {last}"
        f" WHEN {value} IS NULL THEN {absent}"
        f" WHEN typeof({value}) = 'real' THEN {_CODES['infinite']}"
        f" ELSE {_CODES['not_a_number']} END"
    )


def time_sql(expression: str | None) -> str:
    """Return SQL for a time in seconds since the epoch, NULL if it is not a time.

    It reads SQLite's CURRENT_TIMESTAMP and ISO 8601, as UTC if there is no zone.
    """
    if expression is None:
        return "NULL"
    return (
        f"CASE WHEN {expression} GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'"
        f" THEN ROUND((julianday({expression}) - 2440587.5) * 86400.0, 3) END"
    )
