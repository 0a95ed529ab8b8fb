"""What HAK/GAL feels of the exporter: its own commits, with and without it."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from statistics import fmean

from tests.benchmarks.bench import Bench, say
from tests.benchmarks.client import Client
from tests.benchmarks.data import Files, set_journal_mode
from tests.benchmarks.programs import Program, exporter
from tests.benchmarks.report import Line, Pairs, compare, none_of

RATE = 500
MODES = {"wal": ("WAL", 1.05), "delete": ("rollback", 1.2)}
INTERVALS = (15.0, 1.0)  # between scrapes; the first is Prometheus', and has the goal
QUERY = """
INSERT INTO query_times(query_time, query_type, success) VALUES (0.08, 'search', 1)
"""
FACT = "INSERT INTO facts(statement, source) VALUES ('Is(A, B).', 'simulator')"
FACTS_EVERY = 10


class Writer(threading.Thread):
    """HAK/GAL's part: commits a row each at a rate, with all defaults."""

    def __init__(self, files: Files) -> None:
        super().__init__()
        self.taken: list[float] = []  # seconds of each commit
        self.busy = 0  # that failed with SQLITE_BUSY
        self._files, self._ended = files, threading.Event()

    def run(self) -> None:
        knowledge_base, performance = self._files.both
        due = time.monotonic()
        with (
            closing(sqlite3.connect(knowledge_base)) as facts,
            closing(sqlite3.connect(performance)) as events,
        ):
            while not self._ended.wait(max(0.0, due - time.monotonic())):
                began = time.monotonic()
                is_fact = len(self.taken) % FACTS_EVERY == 0
                db, statement = (facts, FACT) if is_fact else (events, QUERY)
                try:
                    db.execute(statement)
                    db.commit()
                except sqlite3.OperationalError:
                    self.busy += 1
                    db.rollback()
                self.taken.append(time.monotonic() - began)
                due = max(due + 1 / RATE, began)

    def stop(self) -> None:
        """Stop after the commit that is being made."""
        self._ended.set()
        self.join()


def commits(bench: Bench) -> Iterator[Line]:
    """Yield the writer's commit latency with an exporter against without."""
    for mode, (name, goal) in MODES.items():
        say(f"HAK/GAL's commits, {name}")
        set_journal_mode(bench.large, mode)
        writer = Writer(bench.large)
        writer.start()
        try:
            yield from _measure(bench, writer, name, goal)
        finally:
            writer.stop()
        what = f"SQLITE_BUSY in a commit, {name}"
        yield none_of(what, writer.busy, f"of {len(writer.taken)}")
    set_journal_mode(bench.large, "wal")


def _measure(bench: Bench, writer: Writer, name: str, goal: float) -> Iterator[Line]:
    pairs = {interval: Pairs() for interval in INTERVALS}
    used: dict[float, list[float]] = {interval: [] for interval in INTERVALS}
    for _ in range(bench.effort.slow_rounds):
        bench.settle()
        without = _segment(bench, writer)
        with exporter(bench.large) as program:
            bench.settle()
            for interval, pair in pairs.items():
                before = program.cpu_seconds()
                pair.ours.append(_segment(bench, writer, program, interval))
                pair.theirs.append(without)
                used[interval].append(program.cpu_seconds() - before)
    for interval, pair in pairs.items():
        busy = 100 * fmean(used[interval]) / bench.effort.commit_seconds
        note = f"the exporter takes {busy:.2g} % of a core"
        for percent, most in {50: None, 99: goal}.items():
            what = f"commit p{percent}, {RATE}/s, {name}, scraped each {interval:g} s"
            most = most if interval == INTERVALS[0] else None
            share = percent / 100
            yield compare(what, pair, "without exporter", most, note, share)


def _segment(
    bench: Bench, writer: Writer, program: Program | None = None, interval: float = 0.0
) -> list[float]:
    """Return the commits of some time, in which an exporter may be scraped."""
    began, scrape_at = len(writer.taken), time.monotonic()
    ends = scrape_at + bench.effort.commit_seconds
    while program and scrape_at < ends:
        time.sleep(max(0.0, scrape_at - time.monotonic()))
        with Client(program.port) as client:
            client.page()
        scrape_at += interval
    time.sleep(max(0.0, ends - time.monotonic()))
    return writer.taken[began:]
