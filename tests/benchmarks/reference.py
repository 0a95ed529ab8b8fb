"""The fastest known pass over query_times, as plain sqlite3 code without a product.

One integer key that encodes type, outcome and bucket, slices of ids, two threads on
halves of the table. It trusts every row: no NULL, no unknown label, no odd value, no
second look at the file. Run as a program, so that it starts an interpreter as well::

    python -m tests.benchmarks.reference PERFORMANCE [KNOWLEDGE_BASE]
"""

import sqlite3
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

SLICE_ROWS = 5000
DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5, 5, 10)
CONFIDENCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
KIND = """success * 16 + CASE query_type WHEN 'add_fact' THEN 0
WHEN 'consistency_check' THEN 32 WHEN 'get_system_status' THEN 64
WHEN 'health_check' THEN 96 WHEN 'search_knowledge' THEN 128 END"""


def main(performance: str, knowledge_base: str = "") -> None:
    """Fold one table or two, and print the number of rows."""
    key = f"{_bucket('query_time', DURATIONS)} + {KIND}"
    rows = _fold(performance, "query_times", key, "query_time")
    if knowledge_base:
        key = _bucket("confidence", CONFIDENCES)
        rows += _fold(knowledge_base, "facts", key, "confidence")
    print(rows)


def _bucket(value: str, bounds: tuple[float, ...], low: int = 0) -> str:
    """Return a binary search for the number of the bucket."""
    if not bounds:
        return str(low)
    middle = len(bounds) // 2
    left = _bucket(value, bounds[:middle], low)
    right = _bucket(value, bounds[middle + 1 :], low + middle + 1)
    return f"CASE WHEN {value} <= {bounds[middle]} THEN {left} ELSE {right} END"


def _fold(path: str, table: str, key: str, value: str) -> int:
    sql = f"SELECT {key}, COUNT(*), TOTAL({value}) FROM {table}"
    sql += " WHERE id > ? AND id <= ? GROUP BY 1"
    with closing(sqlite3.connect(path)) as db:
        (rows,) = db.execute(f"SELECT MAX(id) FROM {table}").fetchone()
    ranges = [(0, rows // 2), (rows // 2, rows)]
    with ThreadPoolExecutor(len(ranges)) as pool:
        return sum(pool.map(lambda ends: _fold_range(path, sql, *ends), ranges))


def _fold_range(path: str, sql: str, begin: int, end: int) -> int:
    counts: Counter[int] = Counter()
    totals: dict[int, float] = {}
    with closing(sqlite3.connect(path)) as db:
        for after in range(begin, end, SLICE_ROWS):
            upto = min(after + SLICE_ROWS, end)
            for key, number, total in db.execute(sql, (after, upto)).fetchall():
                counts[key] += number
                totals[key] = totals.get(key, 0.0) + total
    return counts.total()


if __name__ == "__main__":
    main(*sys.argv[1:])
