"""The simulated activity of HAK/GAL, drawn at random, and its faults.

The queries and their durations are those of the old system's simulator. Bursts of slow
queries are rarer, so that all stays within HAK/GAL's own limits.
"""

import random
from collections import Counter
from sqlite3 import Connection

FAULTS = {
    "slow-queries": "Queries take ten times as long.",
    "failures": "Every second query fails.",
    "cache-misses": "Only one look-up in ten hits.",
    "no-writes": "Nothing is written; the files stay open.",
    "lock": "Nothing is written; the files are locked.",
    "facts-lost": "Every round removes a fact; none adds one.",
    "wal-growth": "A read transaction never ends; the logs grow with --rate.",
    "prune-unread": "Events are deleted as soon as they are written.",
    "broken-rows": "Every second query has a bad time: negative, infinite or text.",
    "query-types": "Queries have 150 different types.",
}
IDLE = {"no-writes", "lock"}  # they would hide any other fault
# These show within minutes, and their traces disappear afterwards.
INCIDENTS = [f for f in FAULTS if f not in ("no-writes", "wal-growth", "query-types")]

Limits = tuple[float, float]
# The shortest and the longest duration of a query in seconds, by type.
OPERATIONS: dict[str, Limits] = {
    "search_knowledge": (0.050, 0.150),
    "add_fact": (0.020, 0.080),
    "get_system_status": (0.010, 0.030),
    "health_check": (0.010, 0.020),
    "consistency_check": (0.100, 0.300),
}
MANY_OPERATIONS = {f"type_{number}": (0.010, 0.030) for number in range(150)}
BURST_SECONDS = (0.200, 0.500)
HIT_SECONDS = (0.0005, 0.005)
NO_TIMES = (-1.0, float("inf"), "soon")

ADD_QUERY = "INSERT INTO query_times(query_time, query_type, success) VALUES (?, ?, ?)"
ADD_LOOKUP = "INSERT INTO cache_events(hit, cache_key, response_time) VALUES (?, ?, ?)"
ADD_FACT = """
INSERT INTO facts(statement, source, tags, confidence)
VALUES (:statement, 'simulator', 'simulated', :confidence)
"""
OLDEST = "WHERE id = (SELECT MIN(id) FROM facts) RETURNING statement"
CHANGE_FACT = {
    "add_fact": f"{ADD_FACT} RETURNING statement",
    "delete_fact": f"DELETE FROM facts {OLDEST}",
    "update_fact": f"UPDATE facts SET confidence = :confidence {OLDEST}",
}
ADD_AUDIT_ROW = """
INSERT INTO audit_log(operation, details, user_id, session_id) VALUES (?, ?, ?, ?)
"""
PRUNE = "DELETE FROM {0} WHERE id < (SELECT MAX(id) FROM {0})"
COMMIT_ROWS = 5000  # about the most per commit, for which a stop has to wait


class Activity:
    """Writes rounds: each is an operation and what may come with it."""

    def __init__(self, db: Connection, faults: set[str], seed: int | None) -> None:
        self._db, self._random, self._faults = db, random.Random(seed), faults
        operations = MANY_OPERATIONS if "query-types" in faults else OPERATIONS
        left_out = "add_fact" if "facts-lost" in faults else ""
        self._operations = [o for o in operations.items() if o[0] != left_out]
        self._slowness = 10.0 if "slow-queries" in faults else 1.0
        self._failure_share = 0.5 if "failures" in faults else 0.02
        # 88 % overall: the queries of a burst all miss.
        self._hit_share = 0.1 if "cache-misses" in faults else 0.9
        self._removal_share = 1.0 if "facts-lost" in faults else 0.02
        self._broken_share = 0.5 if "broken-rows" in faults else 0.0

    def write(self, rows: float) -> Counter[str]:
        """Commit rounds with this many rows, and count the rows by kind."""
        self._counts = Counter[str]()
        with self._db:
            while self._counts["rows"] < min(rows, COMMIT_ROWS):
                self._write_round()
        if "prune-unread" in self._faults:
            with self._db:
                self._db.execute(PRUNE.format("query_times"))
                self._db.execute(PRUNE.format("cache_events"))
        return self._counts

    def _write_round(self) -> None:
        query_type, limits = self._random.choice(self._operations)
        has_succeeded = self._write_query(query_type, limits, self._hit_share)
        if has_succeeded and query_type == "add_fact":
            self._change_fact("add_fact")
        if self._happens(self._removal_share):
            self._change_fact("delete_fact")
        if self._happens(0.02):
            self._change_fact("update_fact")
        if self._happens(0.005):
            for _ in range(5):
                self._write_query("search_knowledge", BURST_SECONDS, hit_share=0.0)

    def _write_query(self, query_type: str, limits: Limits, hit_share: float) -> bool:
        seconds = self._random.uniform(*limits) * self._slowness
        succeeded = not self._happens(self._failure_share)
        is_broken = self._happens(self._broken_share)
        noted = self._random.choice(NO_TIMES) if is_broken else seconds
        self._db.execute(ADD_QUERY, (noted, query_type, succeeded))
        hit = self._happens(hit_share)
        key = f"{query_type} {self._random.randrange(1000)}"
        response_seconds = self._random.uniform(*HIT_SECONDS) if hit else seconds
        self._db.execute(ADD_LOOKUP, (hit, key, response_seconds))
        outcomes = {"failed": not succeeded, "hits": hit, "misses": not hit}
        self._counts.update(rows=2, queries=1, **outcomes)
        return succeeded

    def _change_fact(self, operation: str) -> None:
        user = self._random.randint(1, 9)
        change = self._db.execute(CHANGE_FACT[operation], draw_fact(self._random))
        for (statement,) in change.fetchall():  # empty if no fact is left
            audit_row = (operation, statement, f"user-{user}", f"session-{user}")
            self._db.execute(ADD_AUDIT_ROW, audit_row)
            is_added = operation == "add_fact"
            self._counts.update({operation: 1, "audit_rows": 1, "rows": 1 + is_added})

    def _happens(self, share: float) -> bool:
        return self._random.random() < share


def incident(seconds: float) -> str | None:
    """Return the fault at this time after the start, None if there is none."""
    quarter, minute = divmod(seconds / 60, 15)
    return INCIDENTS[int(quarter) % len(INCIDENTS)] if 5 <= minute < 12 else None


def draw_fact(generator: random.Random) -> dict[str, object]:
    """Draw a statement, with a number so that few are duplicates."""
    statement = f"HasPart(Computer{generator.randrange(10_000_000)}, CPU)."
    return {"statement": statement, "confidence": round(generator.uniform(0.5, 1), 2)}
