"""What the application records: in the file, in time, whatever happens around it."""

import asyncio
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from exporter.recorder import PERFORMANCE_SCHEMA, Recorder
from exporter.scrape import Exporter
from tests.exporters import make_config, make_exporter, scrape
from tests.servers import ROOT, wait_until

PATIENCE_SECONDS = 20.0
QUERIES = "SELECT query_type, success FROM query_times ORDER BY id"
COUNTS = "SELECT query_type, COUNT(*) FROM query_times GROUP BY 1 ORDER BY 1"
CHANGES = ("SELECT 1", "DELETE FROM query_times", "DELETE FROM sqlite_sequence")
# Begins the programs that follow; sys.argv has the file, and one more word.
START = """
import atexit, os, signal, sys, threading, time
if sys.argv[2] == "without fork":
    del os.fork, os.register_at_fork
from exporter.recorder import Recorder
recorder = Recorder(sys.argv[1], durable=sys.argv[2] == "durable")
"""
KILLED = """
for _ in range(100):
    recorder.record_query(1, "before")
if sys.argv[2] == "buffered":
    time.sleep(2)
recorder.record_query(1, "last")
os.kill(os.getpid(), signal.SIGKILL)
"""
ENDING = """
thread = threading.Thread(target=recorder.record_query, args=(1, "thread"))
thread.start()
thread.join()
assert recorder.close()
atexit.register(lambda: recorder.record_query(1, "at exit"))
recorder.record_query(1, "last")
"""
SIGNALLED = """
handled = stalls = 0
def handle(*_):
    global handled
    handled += 1
    recorder.record_query(1, "handler")
    # Not an interval: where commits take longer than that, handlers would only nest.
    signal.setitimer(signal.ITIMER_REAL, 0.02)
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.02)
ends = time.monotonic() + 4
while (started := time.monotonic()) < ends:
    recorder.record_query(1, "main")
    stalls += time.monotonic() - started > 0.9
signal.signal(signal.SIGALRM, signal.SIG_IGN)
assert recorder.flush()
print(handled, stalls)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hakgal_performance.db"


@pytest.fixture
def recorder(path: Path) -> Iterator[Recorder]:
    with Recorder(path) as made:
        yield made


@pytest.fixture(params=["BEGIN EXCLUSIVE", "BEGIN"], ids=["exclusive", "reader"])
def locked(
    path: Path, recorder: Recorder, request: pytest.FixtureRequest
) -> Iterator[sqlite3.Connection]:
    """Yield a connection that has the file, or reads it while there is no WAL."""
    if request.param == "BEGIN":
        rows(path, "CREATE TABLE other(x)")
    recorder.record_query(0.1, "before")
    assert recorder.flush()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(request.param)
        db.execute(QUERIES).fetchall()
        yield db


def rows(path: Path, query: str = QUERIES) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


def run(program: str, *words: str | Path) -> tuple[int, str]:
    """Run a program; return its exit code and all its output."""
    # Not measured: a signal within what measures coverage waits for its lock for ever.
    own = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        env=own | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


@pytest.fixture
def exporter(tmp_path: Path) -> Exporter:
    """Return an exporter that reads the file."""
    collectors = frozenset({"queries", "cache"})
    return make_exporter(make_config(tmp_path, collectors=collectors))


def test_events_are_rows_of_hakgals_tables(path: Path, recorder: Recorder) -> None:
    before = int(time.time())
    recorder.record_query(0.25, "a", success=False)
    with pytest.warns(DeprecationWarning, match=r"use record_query\("):
        recorder.record_query_time(0.75)
    recorder.record_cache_event(True)
    recorder.record_cache_event(hit=False, key="k", seconds=0.125)
    assert recorder.flush()
    queries = rows(path, "SELECT query_time, query_type, success FROM query_times")
    assert queries == [(0.25, "a", 0), (0.75, None, 1)]
    lookups = rows(path, "SELECT hit, cache_key, response_time FROM cache_events")
    assert lookups == [(1, None, None), (0, "k", 0.125)]
    moments = rows(path, "SELECT strftime('%s', timestamp) FROM query_times")
    assert all(before <= int(moment) <= time.time() for (moment,) in moments)
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]


def test_functions_are_timed_and_stay_themselves(
    path: Path, recorder: Recorder
) -> None:
    @recorder.query("plain")
    def double(number: int) -> int:
        """Return twice a number."""
        time.sleep(0.01)
        return 2 * number

    def numbers() -> Iterator[int]:
        yield 1

    assert [double(n) for n in range(3)] == [0, 2, 4]
    assert (double.__name__, double.__doc__) == ("double", "Return twice a number.")
    with pytest.raises(KeyError), recorder.query("bad"):
        raise KeyError
    with pytest.raises(TypeError, match="numbers: use `with recorder"):
        recorder.query("generator")(numbers)
    assert recorder.flush()
    assert rows(path) == [("plain", 1)] * 3 + [("bad", 0)]
    assert rows(path, "SELECT query_time FROM query_times LIMIT 1") >= [(0.01,)]


def test_coroutines_are_timed_until_they_end(path: Path, recorder: Recorder) -> None:
    @recorder.query("decorated")
    async def wait(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    async def work() -> None:
        assert await wait(0.02) == "done"
        async with recorder.query("within"):
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wait(60), 0.01)

    asyncio.run(work())
    assert recorder.flush()
    assert rows(path) == [("decorated", 1), ("within", 1), ("decorated", 0)]
    assert rows(path, "SELECT query_time FROM query_times LIMIT 1") >= [(0.02,)]


def test_what_makes_no_sense_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="keep is 0:09:00, want at least 0:10:00"):
        Recorder(path, keep=timedelta(minutes=9))
    with pytest.raises(ValueError, match="buffered_events is 0, want at least 1"):
        Recorder(path, buffered_events=0)


def test_what_makes_no_row_is_missed_and_stops_nothing(
    exporter: Exporter, path: Path
) -> None:
    with Recorder(path) as recorder:
        recorder.record_query(1, "search_knowledge")
        assert recorder.flush()
        scrape(exporter)
        for odd in ("soon", float("nan"), None, 10**400):
            recorder.record_query(odd)  # type: ignore[arg-type]
        recorder.record_query(1, "\ud800" * (10**6 + 1))
        recorder.record_cache_event(seconds=10**400)
        recorder.record_cache_event(False, seconds=float("nan"))
        assert recorder.flush()
    assert rows(path, "SELECT MAX(LENGTH(query_type)) FROM query_times") == [(10**6,)]
    page = scrape(exporter)
    assert page.sum("hakgal_query_duration_seconds_count") == 2
    assert page("hakgal_cache_misses_total") == 1
    missed = page.by("table", "hakgal_exporter_missed_rows_total")
    assert missed == {"query_times": 4, "cache_events": 1}


@pytest.mark.parametrize("change", CHANGES)
def test_what_several_recorders_drop_is_missed_exactly(
    exporter: Exporter, path: Path, change: str
) -> None:
    one, other = (Recorder(path, buffered_events=n) for n in (5, 7))
    with one, other:
        for _ in range(4):
            one.record_query(1)
            assert one.flush()
        scrape(exporter)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute(change)
            db.execute("BEGIN EXCLUSIVE")
            for recorder in (one, other):
                for _ in range(20):
                    recorder.record_query(1)
                recorder.record_cache_event(True)
        assert one.flush()
        assert other.flush()
        assert (one.dropped, other.dropped) == (16, 14)
        one.record_query(1)
    page = scrape(exporter)
    assert page.sum("hakgal_query_duration_seconds_count") == 4 + 5 + 7 + 1
    missed = page.by("table", "hakgal_exporter_missed_rows_total")
    assert missed == {"query_times": 15 + 13, "cache_events": 2}


def test_a_locked_database_does_not_hold_up_the_application(
    path: Path, locked: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "exporter.recorder")
    recorder = Recorder(path)
    for _ in range(1000):
        recorder.record_query(0.1, "meanwhile")
    # In the time of a thousand events, nobody has let go of the lock.
    assert not recorder.close(0.3)
    wait_until(lambda: caplog.messages, PATIENCE_SECONDS)
    locked.execute("ROLLBACK")
    wait_until(lambda: len(caplog.messages) == 2, PATIENCE_SECONDS)
    assert rows(path) == [("before", 1)] + [("meanwhile", 1)] * 1000
    assert caplog.messages == [
        "cannot record, events wait in memory: database is locked",
        "recording again; dropped so far: 0",
    ]


def test_the_file_is_the_one_at_the_path(path: Path, recorder: Recorder) -> None:
    recorder.record_query(0.1, "old")
    assert recorder.flush()
    rows(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    old = path.rename(path.with_name("old.db"))
    for name in ("new", "newer"):
        recorder.record_query(0.1, name)
        assert recorder.flush()
        assert rows(path) == [(name, 1)]
        path.unlink()
    assert rows(old) == [("old", 1)]


def test_a_forked_child_writes_on_when_its_parent_lets_go(
    path: Path, recorder: Recorder
) -> None:
    recorder.record_query(0.1, "parent")
    assert recorder.flush()
    recorder.record_query(0.1, "parent, later")
    if (child := os.fork()) == 0:
        for _ in range(100):
            recorder.record_query(0.1, "child")
            time.sleep(0.01)
        os._exit(not recorder.flush())
    wait_until(lambda: len(rows(path)) > 10, PATIENCE_SECONDS)
    assert recorder.close()
    with closing(sqlite3.connect(path)) as other:
        assert len(other.execute(QUERIES).fetchall()) < 90
        assert os.waitpid(child, 0)[1] == 0
    assert rows(path, COUNTS) == [("child", 100), ("parent", 1), ("parent, later", 1)]


def test_threads_and_processes_at_the_same_time_lose_nothing(path: Path) -> None:
    def record(recorder: Recorder, name: str) -> None:
        for _ in range(500):
            time.sleep(0.001)
            recorder.record_query(0.1, name)

    with Recorder(path) as made, ThreadPoolExecutor(4) as pool:
        threads = [pool.submit(record, made, name) for name in "abcd"]
        children = []
        for _ in range(5):
            if (child := os.fork()) == 0:
                record(made, "child")
                os._exit(not made.flush(PATIENCE_SECONDS))
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 5
        assert [thread.result() for thread in threads] == [None] * 4
    assert dict(rows(path, COUNTS)) == {**dict.fromkeys("abcd", 500), "child": 2500}
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_handlers_of_signals_record_while_their_thread_does() -> None:
    # In memory, where no disk is waited for.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / "hakgal_performance.db"
        code, output = run(START + SIGNALLED, path, "durable")
        assert code == 0, output
        handled, stalls = map(int, output.split())
        assert [name for name, _ in rows(path)].count("handler") == handled
    # Who waits for himself does so for a second, again and again.
    assert handled > 4
    assert stalls < 2


@pytest.mark.parametrize("mode", ["durable", "buffered"])
def test_a_killed_process_loses_what_its_mode_says(path: Path, mode: str) -> None:
    code, _ = run(START + KILLED, path, mode)
    assert code == -signal.SIGKILL
    found = [name for name, _ in rows(path)]
    assert found.count("before") == 100
    assert found[-1] == ("last" if mode == "durable" else "before")


def test_durable_calls_wait_a_second(path: Path, locked: sqlite3.Connection) -> None:
    with Recorder(path, durable=True) as recorder:
        started = time.monotonic()
        for _ in range(50):
            recorder.record_query(0.1, "behind")
        assert time.monotonic() - started < 10  # not 50 times a second
        locked.execute("ROLLBACK")
    assert len(rows(path)) == 51


@pytest.mark.parametrize("platform", ["with fork", "without fork"])
def test_the_end_of_a_process_loses_nothing(path: Path, platform: str) -> None:
    assert run(START + ENDING, path, platform) == (0, "")
    assert [name for name, _ in rows(path)] == ["thread", "last", "at exit"]


def test_a_recorder_that_nobody_holds_commits_and_ends(path: Path) -> None:
    with patch("exporter.recorder.IDLE_SECONDS", 0.2):
        recorder = Recorder(path)
        recorder.record_query(0.1, "last words")
        held = weakref.ref(recorder)
        del recorder
        wait_until(lambda: held() is None, PATIENCE_SECONDS)
    assert rows(path) == [("last words", 1)]


def test_old_rows_are_pruned_and_newer_ones_kept(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(PERFORMANCE_SCHEMA)
        add = "INSERT INTO query_times(timestamp, query_time, query_type)"
        ages = [("-2 hours",)] * 1200 + [("-30 minutes",)] * 5
        db.executemany(f"{add} VALUES (datetime('now', ?1), 1, ?1)", ages)
    with Recorder(path, keep=timedelta(hours=1)) as recorder:
        for left in (700, 200, 0):
            recorder.record_query(0.1, "now")
            assert recorder.flush()
            assert [name for name, _ in rows(path)].count("-2 hours") == left
    assert rows(path, COUNTS) == [("-30 minutes", 5), ("now", 3)]
    assert rows(path, "PRAGMA journal_mode") == [("delete",)]  # as it was
