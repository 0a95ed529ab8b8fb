"""What may befall a table, and whether its rows are counted once all the same.

Each row that is written carries a number of its own as its value. The exporter's count
and sum of these numbers then tell which rows it has counted.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exporter.checkpoint import Checkpoint
from exporter.database import Database
from exporter.fold import Table
from exporter.tail import Reading, State, Tail
from tests.databases import File, Files, at

QUERIES = Table(
    "query_times",
    source="query_times",
    time="timestamp",
    lasting=("timestamp", "query_time", "query_type", "success"),
    label="query_type",
    flag="success",
    value="query_time",
    buckets=(10.0, 1000.0),
    known_labels=("search_knowledge",),
    exemplars=True,
)
CACHE = Table(
    "cache_events",
    source="cache_events",
    time="timestamp",
    lasting=("timestamp", "hit", "cache_key", "response_time"),
    flag="hit",
    value="response_time",
    value_optional=True,
    buckets=(10.0, 1000.0),
)
FACTS = Table(
    "facts",
    source="facts",
    time="timestamp",
    lasting=("timestamp",),
    mutable=("statement",),
    value="confidence",
    buckets=(10.0, 1000.0),
)
TABLES = (QUERIES, CACHE, FACTS)


@dataclass
class Story:
    """One table, its writer and its exporter.

    ``expected`` are the numbers of the rows to be counted, ``missed`` how many rows
    are to be reported as missed, ``resets`` the reasons for which to count anew.
    ``spread`` rows are written a second apart, others all in the same second;
    ``restarts`` puts the exporter's state through its state file after each scrape.
    """

    files: Files
    table: Table = QUERIES
    spread: bool = True
    restarts: bool = False
    expected: list[int] = field(default_factory=list)
    missed: int = 0
    resets: dict[str, int] = field(default_factory=dict)
    written: int = 0

    def __post_init__(self) -> None:
        in_knowledge_base = self.table.name == "facts"
        self.file: File = (
            self.files.knowledge_base if in_knowledge_base else self.files.performance
        )
        self.state_file = Path(f"{self.file.path}.state")
        self.database = Database("test", self.file.path)
        self.tail = Tail(self.table)
        self.state: State
        self.lose_checkpoint()

    def write(self, rows: int = 1, **columns: Any) -> list[int]:
        """Write rows that are to be counted, and return their ids."""
        self.file.run("BEGIN")
        ids = [self._write_row(columns) for _ in range(rows)]
        self.file.run("COMMIT")
        return ids

    def _write_row(self, columns: dict[str, Any]) -> int:
        self.written += 1
        self.expected.append(self.written)
        columns = {"timestamp": at(self.written if self.spread else 0)} | columns
        if self.table.name == "facts":
            statement = f"Is(Fact, {self.written})."
            return self.files.add_fact(statement, self.written, **columns)
        if self.table.name == "cache_events":
            return self.files.add_cache(1, self.written, **columns)
        return self.files.add_query(self.written, **columns)

    def forget(self, rows: int) -> None:
        """Take the newest rows back from what is to be counted."""
        del self.expected[len(self.expected) - rows :]

    def prune(self, keep: int = 0) -> None:
        """Delete all rows but the newest ones."""
        self.file.prune(self.table.name, keep)

    def delete(self, row: int) -> None:
        """Delete one row."""
        self.file.run(f"DELETE FROM {self.table.name} WHERE id = ?", row)

    def scrape(self) -> Reading:
        """Read on to the end, as scrapes and what is done between them do."""
        while (reading := self.read()).backlog:
            pass
        return reading

    def read(self, seconds: float = 60.0) -> Reading:
        """Read on for some time and keep the state."""
        until = time.monotonic() + seconds

        def enough() -> bool:
            return time.monotonic() >= until

        reading = self.database.read(
            lambda db, look: self.tail.advance(db, look, self.state, enough),
            time.monotonic() + 60,
        )
        self.state = reading.state
        if self.restarts and self.state.complete:
            self.save()
            self.restart()
        return reading

    def save(self) -> None:
        """Make the state durable."""
        states = {self.table.name: self.state}
        Checkpoint(self.state_file).save({self.table.name: self.table}, states)

    def restart(self) -> None:
        """Go on with what was made durable, as after a crash."""
        states, reason = Checkpoint(self.state_file).load([self.table])
        fresh = {self.table.name: self.tail.start(reason)}
        self.state = (fresh | states)[self.table.name]

    def lose_checkpoint(self) -> None:
        """Go on without a checkpoint."""
        self.state_file.unlink(missing_ok=True)
        self.state = self.tail.start("state_missing")

    def lost_count(self) -> None:
        """Expect that counting has begun anew with the rows written from now on."""
        self.expected, self.missed, self.resets = [], 0, {"state_missing": 1}

    @property
    def found(self) -> dict[str, Any]:
        """Return what the exporter has counted."""
        series = self.state.counts.series.values()
        return {
            "rows": sum(sum(one.counts) for one in series),
            "sum": sum(one.total for one in series),
            "missed": self.state.missed,
            "resets": {r: n for r, n in self.state.resets.items() if n},
        }

    @property
    def wanted(self) -> dict[str, Any]:
        """Return what the exporter is to have counted."""
        return {
            "rows": len(self.expected),
            "sum": sum(self.expected),
            "missed": self.missed,
            "resets": self.resets,
        }

    def check(self) -> None:
        """Scrape twice; the second finds nothing new."""
        for _ in range(2):
            self.scrape()
            assert self.found == self.wanted, f"{self.found} is not {self.wanted}"
        assert self.state.cursor <= self.state.passed
        assert self.state.passed == self.state.rows + self.state.missed
