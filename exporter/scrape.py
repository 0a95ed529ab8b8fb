"""One scrape: ask every part at once, make the checkpoint durable, then show.

The order is the promise: rows are folded, the checkpoint that covers them is written
and synced, and only then do the families show them. If it cannot be written, they go on
to show what the last one covers.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import Metric

from exporter.checkpoint import Checkpoint
from exporter.collectors import TABLE_COLLECTORS, Storage, System
from exporter.config import Config
from exporter.database import Database
from exporter.errors import ExporterError
from exporter.families import Families, Found, checked
from exporter.isolation import Failures, Outcome, isolate
from exporter.source import Pass, Source
from exporter.tail import State, Tail
from exporter.worker import Worker

T = TypeVar("T")

# Shares of a scrape's time by which each step must be done; the rest is for the text.
READ_SHARE = 0.8
ANSWER_SHARE = 0.85  # a read that is interrupted needs a moment to say so
SAVE_SHARE = 0.95
# Two threads that both want the interpreter are slower than one after the other. One
# that takes longer than this, on a slow disk, is waited for beside the other.
HEAD_START_SECONDS = 0.02
# With less, that something was not done in time says more about who asked than about
# us, and is on that page only: no log line, which anybody could have made by asking.
FAIR_SECONDS = 0.5
UNASKED_SECONDS = 10.0  # for a pass that no scrape asked for
LOOK_AGAIN_SECONDS = 1.0  # more often would hold up the reading that is waited for
CLOSE_SECONDS = 5.0


class Exporter:
    """Everything between the databases and the page."""

    def __init__(self, config: Config, checkpoint: Checkpoint | None) -> None:
        """Load the checkpoint and start the threads; reads no database.

        Raises:
            StateError: the checkpoint cannot be used.
        """
        others = config.collectors - TABLE_COLLECTORS.keys()
        self._checkpoint = checkpoint
        self._collectors = {
            name: create(config)
            for name, create in TABLE_COLLECTORS.items()
            if name in config.collectors and create.database in config.databases
        }
        self.collector_names = others | self._collectors.keys()
        self._tables = {c.table.name: c.table for c in self._collectors.values()}
        paths = config.databases
        self._storage = Storage()
        self._system = System(paths)
        states = self._load()
        self._shown = {t: state for t, state in states.items() if state.complete}
        self._sources = [
            self._source(Database(name, path), states) for name, path in paths.items()
        ]
        self._machine = Worker("read-machine")
        self._saver = Worker("write-checkpoint")
        self._one_at_a_time = threading.Lock()
        self._look_again = 0.0
        self._failures = Failures()
        self._families = Families(self._collectors, self._storage, self._failures)
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)
        GCCollector(registry=self._process)
        self._described = [*self._families.describe(), *self._process.collect()]

    def start(self) -> None:
        """Begin to read what is there, before the first scrape asks."""
        for source in self._sources:
            deadline = time.monotonic() + UNASKED_SECONDS
            future = source.request(self.collector_names, deadline)
            future.add_done_callback(partial(self._note_first, source.database.name))

    def registry(
        self, budget_seconds: float, collectors: frozenset[str]
    ) -> CollectorRegistry:
        """Return a registry for one scrape of some collectors within a time."""
        registry = CollectorRegistry()
        registry.register(_Scrape(self, budget_seconds, collectors))
        return registry

    def not_ready(self) -> str | None:
        """Return why the counters are not complete yet, None if they are."""
        behind = {source: source.not_ready() for source in self._sources}
        reasons = [reason for reason in behind.values() if reason]
        now = time.monotonic()
        if reasons and now >= self._look_again:
            self._look_again = now + LOOK_AGAIN_SECONDS
            for source, reason in behind.items():
                if reason:  # maybe nobody has scraped since the file appeared
                    source.request(self.collector_names, now + UNASKED_SECONDS)
        return "; ".join(reasons) or None

    def close(self) -> None:
        """Write the last checkpoint.

        Raises:
            StateError: it could not be written; the one before is still there.
        """
        until = time.monotonic() + CLOSE_SECONDS
        saved = _wait(self._saver.submit(self._save), until)
        if saved.error:
            raise saved.error

    def collect(self, budget_seconds: float, names: frozenset[str]) -> Iterator[Metric]:
        """Yield the families of a scrape; the last is ready before the first is out."""
        started = time.monotonic()
        if self._one_at_a_time.acquire(timeout=READ_SHARE * budget_seconds):
            try:
                found = self._read(started, budget_seconds, names)
            finally:
                self._one_at_a_time.release()
        else:
            found = self._nothing(budget_seconds, names)
        saved_at = self._checkpoint.saved_at if self._checkpoint else None
        yield from self._families.build(found, self._shown, saved_at)
        if names == self.collector_names:
            yield from self._process.collect()

    def describe(self) -> list[Metric]:
        """Return all families without samples."""
        return self._described

    def _note_first(self, database: str, done: Future[Pass]) -> None:
        error = done.exception()
        self._failures.note(database, error if isinstance(error, Exception) else None)

    def _load(self) -> dict[str, State]:
        """Return the state of each table, from the checkpoint where it has one."""
        states: dict[str, State] = {}
        reason = "state_missing"
        if self._checkpoint:
            states, reason = self._checkpoint.load(self._tables.values())
        fresh = {n: Tail(t).start(reason) for n, t in self._tables.items()}
        return fresh | states

    def _source(self, database: Database, states: dict[str, State]) -> Source:
        collectors = {
            name: collector
            for name, collector in self._collectors.items()
            if collector.database == database.name
        }
        storage = self._storage if "storage" in self.collector_names else None
        own = {c.table.name: states[c.table.name] for c in collectors.values()}
        return Source(database, collectors, storage, own)

    def _read(self, started: float, budget: float, names: frozenset[str]) -> Found:
        """Ask every part, wait for the answers, save the checkpoint."""
        read_by, answer_by, save_by = (
            started + budget * share for share in (READ_SHARE, ANSWER_SHARE, SAVE_SHARE)
        )
        asked = []
        for source in self._sources:
            if source.serves(names):
                future = source.request(names, read_by)
                asked.append((source, future))
                with suppress(TimeoutError):
                    future.exception(HEAD_START_SECONDS)
        found = Found(had_time=budget >= FAIR_SECONDS)
        if "system" in names:
            families = self._machine.submit(lambda: checked(self._system.families()))
            found.system = _wait(families, answer_by)
        for source, future in asked:
            self._add(found, source, names, _wait(future, answer_by))
        saved = _wait(self._saver.submit(self._save), save_by)
        if found.had_time or not saved.error:
            self._failures.note("checkpoint", saved.error)
        return found

    def _add(
        self, found: Found, source: Source, names: frozenset[str], seen: Outcome[Pass]
    ) -> None:
        """Add what a database's pass found, or its failure for each of its parts."""
        database = source.database.name
        found.up[database] = seen.result is not None
        if found.had_time or not seen.error:
            self._failures.note(database, seen.error)
        if seen.result is None:
            found.noted += [seen.error] if seen.error else []
            failed: Outcome[Any] = Outcome(None, seen.error, seen.seconds)
            found.readings |= dict.fromkeys(source.collectors.keys() & names, failed)
            if source.storage and "storage" in names:
                found.storage[database] = failed
            return
        found.readings |= seen.result.readings
        if seen.result.storage:
            found.storage[database] = seen.result.storage

    def _nothing(self, budget: float, names: frozenset[str]) -> Found:
        found = Found(had_time=budget >= FAIR_SECONDS)
        error = ExporterError("an earlier scrape is still being read")
        for source in self._sources:
            if source.serves(names):
                self._add(found, source, names, Outcome(None, error, 0.0))
        found.up.clear()  # nobody knows
        return found

    def _unsaved(self) -> dict[str, State]:
        """Return all states that could be shown, none if they are shown and durable.

        Whoever removes or damages the file under us must not cost what was shown.
        """
        states = {
            table: state
            for source in self._sources
            for table, state in source.states.items()
            if state.complete
        }
        is_kept = self._checkpoint is None or self._checkpoint.is_left_alone
        is_shown = all(self._shown.get(t) is s for t, s in states.items())
        return {} if is_kept and is_shown else states

    def _save(self) -> None:
        """Make what was folded durable, and let it be shown."""
        if states := self._unsaved():
            if self._checkpoint:
                self._checkpoint.save(self._tables, states)
            self._shown = states


class _Scrape:
    """The one collector of a scrape's registry."""

    def __init__(
        self, exporter: Exporter, budget_seconds: float, names: frozenset[str]
    ) -> None:
        self._exporter = exporter
        self._budget_seconds = budget_seconds
        self._names = names

    def describe(self) -> list[Metric]:
        return self._exporter.describe()

    def collect(self) -> Iterator[Metric]:
        return self._exporter.collect(self._budget_seconds, self._names)


def _wait(future: Future[T], until: float) -> Outcome[T]:
    """Return what comes until then; whoever is too slow is not waited for."""
    started = time.monotonic()
    outcome = isolate(lambda: future.result(max(0.0, until - started)))
    if isinstance(outcome.error, TimeoutError) and not future.done():
        future.cancel()
        error = ExporterError(
            f"no answer within {outcome.seconds:.1f} s; the disk may hang"
        )
        return replace(outcome, error=error)
    return outcome
