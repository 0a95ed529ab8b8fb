"""HAK/GAL's part in the measurement of commits: a process that commits at a rate.

Each commit is one row, most of them queries, some facts. It uses SQLite as an
application does that sets nothing: Python's ``sqlite3`` with its default lock timeout
and SQLite's default ``synchronous``. Ended by SIGTERM, it writes its commits to a file.
"""

import argparse
import signal
import sqlite3
import time
from array import array
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

ADD_QUERY = "INSERT INTO query_times(query_time, query_type, success) VALUES (?, ?, ?)"
ADD_FACT = "INSERT INTO facts(statement, source, confidence) VALUES (?, ?, ?)"
QUERY = (0.08, "search_knowledge", True)
FACT = ("HasPart(Computer1, CPU).", "simulator", 0.9)
FACTS_EVERY = 10


class Commit(NamedTuple):
    """One commit.

    ``began`` is on the monotonic clock, which all processes share; the rest says how
    many seconds it took, whether it was a fact (else a query), and whether it failed
    with SQLITE_BUSY.
    """

    began: float
    seconds: float
    is_fact: bool
    is_busy: bool


def main() -> None:
    """Commit until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("knowledge_base")
    parser.add_argument("performance")
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--output", type=Path, required=True)
    words = parser.parse_args()
    stopped: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    numbers = array("d")
    with (
        closing(sqlite3.connect(words.knowledge_base)) as facts,
        closing(sqlite3.connect(words.performance)) as events,
    ):
        due = time.monotonic()
        while not stopped:
            is_fact = len(numbers) // 4 % FACTS_EVERY == 0
            numbers.extend(_commit(facts if is_fact else events, is_fact))
            due = max(due + 1 / words.rate, numbers[-4])
            time.sleep(max(0.0, due - time.monotonic()))
    words.output.write_bytes(numbers.tobytes())


def read(path: Path) -> list[Commit]:
    """Return what a writer has measured."""
    numbers = array("d", path.read_bytes())
    columns = zip(*(numbers[n::4] for n in range(4)), strict=True)
    return [Commit(a, b, bool(fact), bool(busy)) for a, b, fact, busy in columns]


def _commit(db: sqlite3.Connection, is_fact: bool) -> Commit:
    began, is_busy = time.monotonic(), False
    try:
        db.execute(ADD_FACT if is_fact else ADD_QUERY, FACT if is_fact else QUERY)
        db.commit()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        is_busy = True
        db.rollback()
    return Commit(began, time.monotonic() - began, is_fact, is_busy)


if __name__ == "__main__":
    main()
