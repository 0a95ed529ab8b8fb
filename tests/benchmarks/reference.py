"""The fastest known pass over query_times, as plain sqlite3 code without a product.

One integer key that encodes type, outcome and bucket, slices of ids, two threads on
halves of the table. It trusts every row: no NULL, no unknown label, no odd value, no
second look at the file. Run as a program, so that it starts an interpreter as well::

    python -m tests.benchmarks.reference PERFORMANCE [KNOWLEDGE_BASE] [--threads N]
"""

import argparse
import sqlite3
import threading
from collections import Counter
from contextlib import closing

SLICE_ROWS = 5000
DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5, 5, 10)
CONFIDENCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
TYPES = (
    "add_fact",
    "consistency_check",
    "get_system_status",
    "health_check",
    "search_knowledge",
)


def main() -> None:
    """Fold one table or two, and print the number of rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("performance")
    parser.add_argument("knowledge_base", nargs="?")
    parser.add_argument("--threads", type=int, default=2)
    words = parser.parse_args()
    kinds = " ".join(f"WHEN '{name}' THEN {32 * n}" for n, name in enumerate(TYPES))
    key = f"{_bucket('query_time', DURATIONS)} + success * 16"
    key += f" + CASE query_type {kinds} END"
    sql = _statement("query_times", key, "query_time")
    rows = _fold(words.performance, sql, "query_times", words.threads)
    if words.knowledge_base:
        key = _bucket("confidence", CONFIDENCES)
        sql = _statement("facts", key, "confidence")
        rows += _fold(words.knowledge_base, sql, "facts", words.threads)
    print(rows)


def _bucket(value: str, bounds: tuple[float, ...], low: int = 0) -> str:
    """Return a binary search for the number of the bucket."""
    if not bounds:
        return str(low)
    middle = len(bounds) // 2
    left = _bucket(value, bounds[:middle], low)
    right = _bucket(value, bounds[middle + 1 :], low + middle + 1)
    return f"CASE WHEN {value} <= {bounds[middle]} THEN {left} ELSE {right} END"


def _statement(table: str, key: str, value: str) -> str:
    return (
        f"SELECT {key}, COUNT(*), TOTAL({value}) FROM {table}"
        " WHERE id > ? AND id <= ? GROUP BY 1"
    )


def _fold(path: str, sql: str, table: str, number: int) -> int:
    with closing(_connect(path)) as db:
        (rows,) = db.execute(f"SELECT MAX(id) FROM {table}").fetchone()
    cuts = [rows * n // number for n in range(number + 1)]
    counts: list[Counter[int]] = [Counter() for _ in range(number)]
    threads = [
        threading.Thread(target=_fold_range, args=(path, sql, cuts[n : n + 2], count))
        for n, count in enumerate(counts)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(count.total() for count in counts)


def _fold_range(path: str, sql: str, cut: list[int], counts: Counter[int]) -> None:
    totals: dict[int, float] = {}
    with closing(_connect(path)) as db:
        for after in range(cut[0], cut[1], SLICE_ROWS):
            upto = min(after + SLICE_ROWS, cut[1])
            for key, number, total in db.execute(sql, (after, upto)).fetchall():
                counts[key] += number
                totals[key] = totals.get(key, 0.0) + total


def _connect(path: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)


if __name__ == "__main__":
    main()
