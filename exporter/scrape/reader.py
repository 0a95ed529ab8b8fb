"""Read one database: its tables, its thread, and its work between scrapes."""

import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from sqlite3 import Connection
from typing import Any

from exporter.collectors import storage, system
from exporter.counting import read_on
from exporter.counting.row_count import RowCount
from exporter.counting.table import Reading, State, Table
from exporter.database import Database, limit
from exporter.database.file import DatabaseFile, count_connections
from exporter.database.schema import Schema
from exporter.errors import DatabaseError
from exporter.scrape.worker import Outcome, Worker, isolate

FOLD_SECONDS = 0.1  # per table and pass; the rest is folded between scrapes
TABLE_SHARE = 0.75  # of the time left: a stuck statement costs only its table
IDLE_SECONDS = 2.0  # limit for one step between scrapes
LOOK_AGAIN_SECONDS = 1.0  # before another try at an unreadable database
CONNECTIONS_SECONDS = 300.0  # how long a count of connections stays valid

logger = logging.getLogger(__name__)

# Results of one pass by collector; ``UP`` is whether the database could be read.
Found = dict[str, Outcome]
UP = "up"


class Reader:
    """Reads a database in its own thread.

    ``states`` holds the newest state of each table, by table name. Only this thread
    replaces the states of its own tables. A state itself never changes.
    """

    def __init__(
        self, database: Database, tables: Mapping[str, Table], states: dict[str, State]
    ) -> None:
        self._database, self._states = database, states
        self._tables = tables  # by collector
        self._schema = Schema(name for t in tables.values() for name in t.sources)
        self._last: dict[str, Reading] = {}  # by table
        self._row_count = RowCount()
        self._is_opened = False
        self._file: DatabaseFile | None = None  # the file whose connections to count
        self._connections: tuple[float, int | None] = 0.0, None
        self._worker = Worker(f"read-{database.name}", self._idle)

    def request(self, names: frozenset[str], deadline: float) -> Future[Outcome]:
        """Schedule a pass for the collectors with these names; return its future."""
        return self._worker.submit(partial(self._pass, names, deadline))

    def count_connections(self) -> None:
        """Count the connections of other processes, for the next page."""
        if self._file:
            file, self._file = self._file, None
            connections = isolate(count_connections, file).result
            self._connections = time.monotonic(), connections

    def not_ready(self) -> str | None:
        """Return why the first read is incomplete, None if it is complete."""
        if not self._is_opened:
            return f"the {self._database.name} database has not been read yet"
        for table, reading in [*self._last.items()]:
            if reading.state and not reading.state.complete:
                return f"table {table} is being read: {reading.backlog} rows left"
        return None

    def _pass(self, names: frozenset[str], deadline: float) -> Found:
        """Read new rows, then the gauges."""
        disk = isolate(system.measure, self._database.path)
        work = partial(self._read, names, deadline)
        read = isolate(self._database.read, work, deadline)
        found: Found = {UP: read, "system": disk, **(read.result or {})}
        for outcome in found.values():
            if isinstance(outcome.result, Reading):
                self._adopt(outcome.result)
        self._is_opened |= not read.error and names >= self._tables.keys()
        return found

    def _read(
        self, names: frozenset[str], deadline: float, db: Connection, file: DatabaseFile
    ) -> Found:
        found: Found = {}
        for name, table in self._tables.items():
            if name in names:
                now = time.monotonic()
                limit(db, now + TABLE_SHARE * (deadline - now))
                found[name] = self._isolate(self._read_table, db, file, table)
        limit(db, deadline)
        if "storage" in names:
            self._file = file
            counted_at, connections = self._connections
            if time.monotonic() - counted_at > CONNECTIONS_SECONDS:
                connections = None
            found["storage"] = self._isolate(storage.measure, db, file, connections)
        return found

    def _isolate(self, work: Callable[..., Any], *arguments: Any) -> Outcome:
        outcome = isolate(work, *arguments)
        if isinstance(outcome.error, sqlite3.Error | DatabaseError):
            return replace(outcome, error=self._database.explain(outcome.error))
        return outcome

    def _read_table(self, db: Connection, file: DatabaseFile, table: Table) -> Reading:
        """Read the new rows of a table, and count its rows if some may be deleted."""
        bound = self._bind(db, table)
        until = time.monotonic() + FOLD_SECONDS
        reading = read_on(db, bound, self._states[table.name], until)
        is_first_read = reading.state and not reading.state.complete
        if table.is_log or is_first_read or not bound.source:
            return reading
        return replace(reading, rows=self._row_count.measure(db, file, reading))

    def _bind(self, db: Connection, table: Table) -> Table:
        """Return the table with what it has in this file; log once what it lacks.

        Raises:
            DatabaseError: the table has disappeared, or its rows cannot be read.
        """
        # If several sources have rows, keep to the one read before.
        last = self._last.get(table.name)
        before = last.table.source if last else self._states[table.name].source
        layout = self._schema.find(db, (before, *table.sources))
        if before and not layout:
            raise DatabaseError(f"table {before} is gone; restore it or check the path")
        if layout and layout.objection:
            raise DatabaseError(f"cannot read {layout.name}: {layout.objection}")
        bound = table.bind(layout)
        if bound.lacks and not (last and last.table == bound):
            fields = {"table": table.name, "lacks": ", ".join(bound.lacks)}
            logger.info("some metrics are unavailable", extra={"fields": fields})
        return bound

    def _adopt(self, reading: Reading) -> None:
        """Keep a reading, and log missed rows and resets."""
        table, new = reading.table, reading.state
        self._last[table.name] = reading
        if new is None:
            return
        old, self._states[table.name] = self._states[table.name], new
        fields = {"table": table.name, "rows": new.missed - old.missed}
        if new.missed > old.missed and table.is_log:
            logger.warning("rows deleted before being read", extra={"fields": fields})
        for reason, number in new.resets.items():
            if number != old.resets[reason]:
                fields = {"table": table.name, "reason": reason}
                logger.warning("table reset", extra={"fields": fields})

    def _idle(self) -> float | None:
        """Do one step of leftover work, and return the seconds to pause after it."""
        now = time.monotonic()
        behind = {table for table, last in self._last.items() if last.backlog}
        names = frozenset(n for n, t in self._tables.items() if t.name in behind)
        if names or not self._is_opened:
            found = self._pass(names or frozenset(self._tables), now + IDLE_SECONDS)
            is_failing = any(outcome.error for outcome in found.values())
            return LOOK_AGAIN_SECONDS if is_failing else 0.0
        if not self._row_count.running:
            return None
        count, until = self._row_count.count_slice, now + IDLE_SECONDS
        return isolate(self._database.read, count, until).result or LOOK_AGAIN_SECONDS
