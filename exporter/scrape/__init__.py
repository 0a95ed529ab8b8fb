"""One scrape: read all databases at once, save the checkpoint, then show the counts.

The order matters: fold the rows, write and sync the checkpoint that covers them, and
only then show them. If the checkpoint cannot be written, the page keeps showing what
the last one covers.
"""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import prometheus_client as client
from prometheus_client.core import Metric

from exporter.collectors import TABLE_COLLECTORS, exporter, storage
from exporter.collectors.system import System
from exporter.config import COLLECTORS, Config
from exporter.counting.checkpoint import Checkpoint
from exporter.counting.table import Reading, State
from exporter.database import Database
from exporter.scrape.reader import IDLE_SECONDS, UP, Found, Reader
from exporter.scrape.worker import Failures, Outcome, Worker, isolate, wait

# Shares of the scrape's time after which reads are interrupted, their answers are no
# longer awaited, and neither is the checkpoint. The rest is for writing the page.
SHARES = 0.8, 0.85, 0.95


class Exporter:
    """Turns the databases into metric families."""

    def __init__(self, config: Config, checkpoint: Checkpoint) -> None:
        """Load the checkpoint and start the threads; read no database yet.

        Raises:
            StateError: the checkpoint cannot be used.
        """
        tables = {name: one.table(config) for name, one in TABLE_COLLECTORS.items()}
        off = {n for n, one in tables.items() if one.database not in config.databases}
        self.collector_names = config.collectors - off
        self._by_name = {n: t for n, t in tables.items() if n in self.collector_names}
        self._tables = {table.name: table for table in self._by_name.values()}
        self._checkpoint = checkpoint
        self._states = checkpoint.load(self._tables.values())
        self._shown = self._complete()
        self._readers = dict[str, Reader]()
        for name, path in config.databases.items():
            own = {n: t for n, t in self._by_name.items() if t.database == name}
            self._readers[name] = Reader(Database(name, path), own, self._states)
        self._saver = Worker("write-checkpoint", self._count_connections)
        self._system = System()
        self._failures = Failures()
        self._build_info = exporter.build_info()
        self._process = client.CollectorRegistry()
        client.ProcessCollector(registry=self._process)
        client.PlatformCollector(registry=self._process)
        client.GCCollector(registry=self._process)

    def start(self) -> None:
        """Start reading the databases, and log which cannot be read."""
        for name, reader in self._readers.items():
            until = time.monotonic() + IDLE_SECONDS
            first = reader.request(self.collector_names, until)
            first.add_done_callback(partial(self._note_first, name))

    def _note_first(self, name: str, first: Future[Outcome]) -> None:
        if found := first.result().result:
            self._failures.note(name, found[UP].error)

    def not_ready(self) -> str | None:
        """Return why the counters are incomplete, None if they are complete."""
        reasons = [reader.not_ready() for reader in self._readers.values()]
        return "; ".join(reason for reason in reasons if reason) or None

    def collect(self, budget_seconds: float, names: frozenset[str]) -> list[Metric]:
        """Return the families of some collectors within a time budget."""
        now = time.monotonic()
        read_by, answer_by, save_by = (now + budget_seconds * s for s in SHARES)
        asked = {n: one.request(names, read_by) for n, one in self._readers.items()}
        answers = {name: wait(future, answer_by) for name, future in asked.items()}
        saved = wait(self._saver.submit(self._save), save_by)
        shown = self._shown
        found = {n: _show(one.result or {UP: one}, shown) for n, one in answers.items()}
        built = {name: self._build(name, found) for name in COLLECTORS if name in names}
        up = {database: one[UP] for database, one in found.items()}
        outcomes = chain.from_iterable(one.values() for one in found.values())
        readings = [o.result for o in outcomes if isinstance(o.result, Reading)]
        self._note(up, built, saved)
        for one in readings:
            self._failures.note(f"time of {one.table.name}", one.time_error)
        return [
            exporter.up(up),
            *(family for one in built.values() for family in one.result or ()),
            self._build_info,
            *exporter.outcomes(built),
            *exporter.progress(readings, self._checkpoint.saved_at),
            *exporter.trouble(self._tables, shown),
            *(self._process.collect() if names == self.collector_names else ()),
        ]

    def _complete(self) -> dict[str, State]:
        return {table: state for table, state in self._states.items() if state.complete}

    def _save(self) -> None:
        """Save the checkpoint, then let the counts be shown."""
        states = self._complete()
        if any(self._shown.get(table) is not state for table, state in states.items()):
            self._checkpoint.save(self._tables, states)
            self._shown = states

    def _count_connections(self) -> None:
        # After a scrape, for all at once: only the first read of /proc/locks is slow.
        for reader in self._readers.values():
            reader.count_connections()

    def _build(self, name: str, passes: Mapping[str, Found]) -> Outcome:
        """Return the families of a collector, from its results of each database."""
        table = self._by_name.get(name)
        databases = [table.database] if table else passes
        parts = {n: passes[n].get(name, passes[n][UP]) for n in databases}
        found = {n: part.result for n, part in parts.items() if part.result}
        made = isolate(lambda: [*self._families(name, found)])
        outcomes = [*parts.values(), made]
        error = next((one.error for one in outcomes if one.error), None)
        return Outcome(made.result, error, sum(one.seconds for one in outcomes))

    def _families(self, name: str, found: Mapping[str, Any]) -> Iterator[Metric]:
        if name == "storage":
            return storage.families(found)
        if name == "system":
            return self._system.families(found)
        return chain.from_iterable(map(TABLE_COLLECTORS[name].families, found.values()))

    def _note(self, up: Found, built: Found, saved: Outcome) -> None:
        """Log which parts started or stopped failing; a whole database counts once."""
        whole = [one.error for one in up.values() if one.error]
        own = {name: one for name, one in built.items() if one.error not in whole}
        for name, outcome in {**up, **own, "checkpoint": saved}.items():
            self._failures.note(name, outcome.error)


def _show(found: Found, shown: Mapping[str, State]) -> Found:
    """Return the results, with only the counts that may be shown."""
    for name, one in found.items():
        if isinstance(reading := one.result, Reading):
            state = shown.get(reading.table.name)
            found[name] = replace(one, result=reading.show(state))
    return found
