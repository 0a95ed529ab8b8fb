"""One database: its tails, its thread, and what is done between scrapes."""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from exporter.collectors import Storage, TableCollector
from exporter.collectors.storage import Measured
from exporter.database import Database, Look, limit, release
from exporter.errors import DatabaseError
from exporter.fold import Table
from exporter.isolation import Outcome, isolate
from exporter.layout import Layout, Layouts, choose
from exporter.tail import Ahead, Reading, State, Tail
from exporter.worker import Worker

T = TypeVar("T")

FOLD_SHARE = 0.5  # of a scrape's time; the rest of a backlog is folded after it
TABLE_SHARE = 0.75  # of the time left: a statement that never ends costs its table only
IDLE_READ_SECONDS = 0.25  # then the file is looked at anew
PARTNER_ROWS = 50_000  # a backlog that is worth a second connection
IDLE_SECONDS = 1.0  # limit for one step between scrapes; a scrape may wait for it

logger = logging.getLogger(__name__)


@dataclass
class Pass:
    """What one look at the database found, by collector name."""

    readings: dict[str, Outcome[Reading | None]] = field(default_factory=dict)
    storage: Outcome[Measured] | None = None


class Source:
    """A database that is read by one thread of its own.

    ``states`` holds the newest state of each table, by table name; those in it are
    never changed, only replaced by this thread.
    """

    def __init__(
        self,
        database: Database,
        collectors: Mapping[str, TableCollector],
        storage: Storage | None,
        states: dict[str, State],
    ) -> None:
        self.database = database
        self.collectors = collectors
        self.storage = storage
        self.states = states
        tables = (c.table for c in collectors.values())
        names = (name for table in tables for name in table.sources or (table.name,))
        self._layouts = Layouts(tuple(names))
        self._tails: dict[str, Tail] = {}
        self._told: dict[str, str] = {}
        self._last: dict[str, Reading] = {}
        self._caught_up: set[str] = set()
        self._quiet: Pass | None = None
        # Started now: later there might be no thread, or no memory, to be had.
        self._partner = Worker(f"read-ahead-{database.name}")
        self._worker = Worker(f"read-{database.name}", self._idle)

    def request(self, names: Iterable[str], deadline: float) -> Future[Pass]:
        """Return the future pass over the collectors with these names."""
        wanted = list(names)
        return self._worker.submit(lambda: self._pass(wanted, deadline))

    def serves(self, names: frozenset[str]) -> bool:
        """Say whether any of these collectors reads this database."""
        storage = self.storage is not None and "storage" in names
        return storage or not names.isdisjoint(self.collectors)

    def not_ready(self) -> str | None:
        """Return why not all rows have been read once, None if they have."""
        for name in self.collectors.keys() - self._caught_up:
            table = self.collectors[name].table.name
            if name not in self._last:
                return f"table {table} has not been read yet"
            return f"table {table} is being read: {self._last[name].backlog} rows to go"
        return None

    def _pass(self, names: list[str], deadline: float) -> Pass:
        """Read what is new, then the gauges.

        Raises:
            DatabaseError: the database as a whole could not be read.
        """
        again = self._again(names)
        if again:
            return again
        found = self.database.read(
            lambda db, look: self._read(db, look, names, deadline), deadline
        )
        for name, outcome in found.readings.items():
            if isinstance(outcome.result, Reading):
                self._adopt(name, outcome.result)
            else:  # not there, or it cannot be read: nobody waits for it
                self._caught_up.add(name)
        self._quiet = found if self._is_settled(found) else None
        return found

    def _is_settled(self, found: Pass) -> bool:
        """Say whether to read an unchanged file again would give the same."""
        readings = [outcome.result for outcome in found.readings.values()]
        is_whole = found.readings.keys() == self.collectors.keys() and any(readings)
        return (
            bool(is_whole)
            and not any(outcome.error for outcome in found.readings.values())
            and not any(reading and reading.backlog for reading in readings)
            and (not self.storage or bool(found.storage and found.storage.result))
        )

    def _again(self, names: list[str]) -> Pass | None:
        """Return what the last pass found if nothing has been written since."""
        quiet = self._quiet
        if not quiet:
            return None
        started = time.monotonic()
        (version,) = {o.result.version for o in quiet.readings.values() if o.result}
        look = self.database.unchanged(version)
        if not look:
            return None
        seconds = time.monotonic() - started
        readings: dict[str, Outcome[Reading | None]] = {
            name: Outcome(self._recounted(name, outcome.result), None, seconds)
            for name, outcome in quiet.readings.items()
            if name in names
        }
        storage, measured = self.storage, quiet.storage and quiet.storage.result
        if not (storage and measured and "storage" in names):
            return Pass(readings)
        free = measured.free_bytes
        return Pass(readings, isolate(lambda: storage.measure(look, free)))

    def _recounted(self, name: str, reading: Reading | None) -> Reading | None:
        """Return the reading with the rows of a count that was made meanwhile."""
        if reading is None:
            return None
        rows = self.collectors[name].counted(reading.state)
        return reading if reading.rows == rows else replace(reading, rows=rows)

    def _read(
        self, db: sqlite3.Connection, look: Look, names: list[str], deadline: float
    ) -> Pass:
        found = Pass()
        layouts = self._layouts.read(db)
        now = time.monotonic()
        until = now + FOLD_SHARE * (deadline - now)
        for name, collector in self.collectors.items():
            if name in names:
                state = self.states[collector.table.name]
                stop = until if state.complete else now
                enough = partial(_is_past, stop)
                work = partial(self._table, db, look, layouts, name, enough)
                started = time.monotonic()
                limit(db, started + TABLE_SHARE * (deadline - started))
                found.readings[name] = self._isolate(work)
        limit(db, deadline)
        if self.storage and "storage" in names:
            found.storage = self._isolate(partial(_measure, self.storage, db, look))
        return found

    def _isolate(self, call: Callable[[], T]) -> Outcome[T]:
        outcome = isolate(call)
        if isinstance(outcome.error, sqlite3.Error):
            return replace(outcome, error=self.database.explain(outcome.error))
        return outcome

    def _table(
        self,
        db: sqlite3.Connection,
        look: Look,
        layouts: Mapping[str, Layout],
        name: str,
        enough: Callable[[], bool],
    ) -> Reading | None:
        """Return the table as it is now, None if it has never been there."""
        collector = self.collectors[name]
        state = self.states[collector.table.name]
        tail = self._tail(db, layouts, name, collector.table)
        if tail is None:
            return None
        reading = self._last.get(name)
        if not (reading and reading.is_still(state, tail.table, look.version)):
            reading = tail.advance(db, look, state, enough)
        if tail.table.is_followed and not reading.state.complete:
            return reading
        return replace(reading, rows=collector.count(db, look, reading))

    def _tail(
        self,
        db: sqlite3.Connection,
        layouts: Mapping[str, Layout],
        name: str,
        table: Table,
    ) -> Tail | None:
        """Return the tail of the table that is there now, None if it never was.

        Raises:
            DatabaseError: it is gone, or not a table whose rows can be read.
        """
        layout = choose(db, layouts, table.sources or (table.name,))
        if layout is None:
            if name in self._tails or self.states[table.name].reason is None:
                text = f"table {table.name} is gone; it was there before"
                raise DatabaseError(f"{self._where()}: {text}")
            self._tell(name, f"no table {table.name}")
            return None
        if layout.objection:
            text = f"cannot read {layout.name}: {layout.objection}"
            raise DatabaseError(f"{self._where()}: {text}; give HAK/GAL its table back")
        bound = table.bind(layout)
        if name not in self._tails or self._tails[name].table != bound:
            self._tails[name] = Tail(bound)
        if bound.lacks:
            self._tell(name, f"{bound.source} has no {', no '.join(bound.lacks)}")
        return self._tails[name]

    def _where(self) -> str:
        return f"{self.database.name} database {self.database.path}"

    def _tell(self, name: str, lack: str) -> None:
        """Log once what a database cannot tell; that is no failure."""
        if self._told.get(name) != lack:
            fields = {"collector": name, "database": self.database.name, "lack": lack}
            logger.info("not all metrics can be had", extra={"fields": fields})
            self._told[name] = lack

    def _adopt(self, name: str, reading: Reading) -> None:
        table = self.collectors[name].table.name
        old, new = self.states[table], reading.state
        for reason, number in new.resets.items():
            if number != old.resets[reason]:
                fields = {"table": table, "reason": reason, "rows_counted": new.rows}
                level = logging.INFO if reason == "state_missing" else logging.WARNING
                logger.log(level, "counting anew", extra={"fields": fields})
        if new.missed > old.missed:
            fields = {"table": table, "rows": new.missed - old.missed}
            if not reading.table.burns_ids:
                logger.warning(
                    "rows pruned before they were read", extra={"fields": fields}
                )
        self.states[table] = new
        self._last[name] = reading
        if not reading.backlog:
            self._caught_up.add(name)

    def _idle(self) -> float | None:
        """Do a step of what is left over, and return the seconds to rest after it."""
        deadline = time.monotonic() + IDLE_SECONDS
        behind = [name for name, reading in self._last.items() if reading.backlog]
        caught_up = [self._catch_up(name, deadline) for name in behind]
        if any(caught_up):
            return 0.0
        for collector in self.collectors.values():
            if collector.counting:
                return self._try(collector.count_slice, deadline)
        return None

    def _catch_up(self, name: str, deadline: float) -> bool:
        """Read one table on, and say whether that was possible."""
        reading = self._try(partial(self._read_on, name), deadline)
        if reading:
            self._adopt(name, reading)
        return reading is not None

    def _try(
        self, work: Callable[[sqlite3.Connection, Look], T], deadline: float
    ) -> T | None:
        """Return None on an error; the next scrape runs into it and shows it."""
        try:
            return self.database.read(work, deadline)
        except DatabaseError as error:
            logger.debug("no catching up", extra={"fields": {"error": str(error)}})
            return None

    def _read_on(self, name: str, db: sqlite3.Connection, look: Look) -> Reading:
        """Read on until somebody asks; a large backlog with a second connection."""
        state = self.states[self.collectors[name].table.name]
        until = time.monotonic() + IDLE_READ_SECONDS
        enough = partial(self._is_enough, until)
        if self._last[name].backlog < PARTNER_ROWS:
            return self._tails[name].advance(db, look, state, enough)
        context = self.database.connection(look, until + IDLE_READ_SECONDS)
        other = self._partner.submit(context.__enter__).result()
        self._partner.submit(lambda: release(other)).result()
        partner = partial(_with, self._partner, other)
        try:
            return self._tails[name].advance(db, look, state, enough, partner)
        finally:
            self._partner.submit(lambda: context.__exit__(None, None, None)).result()

    def _is_enough(self, until: float) -> bool:
        return self._worker.is_wanted or time.monotonic() >= until


def _measure(storage: Storage, db: sqlite3.Connection, look: Look) -> Measured:
    return storage.measure(look, storage.free_bytes(db))


def _with(
    worker: Worker,
    db: sqlite3.Connection,
    work: Callable[[sqlite3.Connection], Ahead],
) -> Future[Ahead]:
    return worker.submit(lambda: work(db))


def _is_past(moment: float) -> bool:
    return time.monotonic() >= moment
