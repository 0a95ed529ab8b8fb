"""What the application records: in the file, in time, whatever happens around it."""

import asyncio
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from exporter.recorder import Recorder
from exporter.recorder.store import LONGEST_TEXT, PRUNED_ROWS
from tests.exporters import make_config, make_exporter, scrape
from tests.servers import ROOT, wait_until

PATIENCE_SECONDS = 20.0
QUERIES = "SELECT query_type, success FROM query_times ORDER BY id"
KILLED = """
import os, signal, sys, time
from exporter.recorder import Recorder
recorder = Recorder(sys.argv[1], durable=sys.argv[2] == "durable")
for number in range(100):
    recorder.record_query(number, "before")
if sys.argv[2] == "buffered":
    time.sleep(2)
recorder.record_query(1, "last")
os.kill(os.getpid(), signal.SIGKILL)
"""
ENDING = """
import sys
from exporter.recorder import Recorder
Recorder(sys.argv[1]).record_query(1, "last words")
"""
AT_EXIT = """
import atexit, sys
from exporter.recorder import Recorder
recorder = Recorder(sys.argv[1])
atexit.register(lambda: recorder.record_query(1, "at exit"))
recorder.record_query(1, "before")
"""
SIGNALLED = """
import signal, sys, time
from exporter.recorder import Recorder
recorder, handled, stalls = Recorder(sys.argv[1], durable=True), 0, 0
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
MODULES = """
import sys
import exporter.recorder
print(*(name for name in sys.modules if "." not in name or name.startswith("exporter")))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hakgal_performance.db"


@pytest.fixture
def recorder(path: Path) -> Iterator[Recorder]:
    with Recorder(path) as made:
        yield made


def rows(path: Path, query: str = QUERIES) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


def run(program: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *words]
    # Not measured: a signal within what measures coverage waits for its lock for ever.
    own = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
    environment = own | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def locked(path: Path, recorder: Recorder) -> Iterator[sqlite3.Connection]:
    """Yield a connection that has the file for itself."""
    recorder.record_query(0.1, "before")
    assert recorder.flush()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        yield db


def test_events_are_rows_of_hakgals_tables(path: Path, recorder: Recorder) -> None:
    before = int(time.time())
    recorder.record_query(0.25, "search_knowledge")
    recorder.record_query(0.5, "add_fact", success=False)
    recorder.record_query(0.75)
    recorder.record_cache_event(True)
    recorder.record_cache_event(hit=False, key="k", seconds=0.125)
    assert recorder.flush()
    columns = "query_time, query_type, success"
    assert rows(path, f"SELECT {columns} FROM query_times") == [
        (0.25, "search_knowledge", 1),
        (0.5, "add_fact", 0),
        (0.75, None, 1),
    ]
    lookups = rows(path, "SELECT hit, cache_key, response_time FROM cache_events")
    assert lookups == [(1, None, None), (0, "k", 0.125)]
    ((first, last),) = rows(
        path,
        "SELECT strftime('%s', MIN(timestamp)), strftime('%s', MAX(timestamp))"
        " FROM query_times",
    )
    assert before <= int(first) <= int(last) <= time.time()


def test_events_arrive_without_being_asked_for(path: Path, recorder: Recorder) -> None:
    recorder.record_query(0.1, "alone")
    wait_until(path.exists, PATIENCE_SECONDS)
    tables = "SELECT name FROM sqlite_schema WHERE name = 'query_times'"
    wait_until(lambda: rows(path, tables), PATIENCE_SECONDS)
    wait_until(lambda: rows(path) == [("alone", 1)], PATIENCE_SECONDS)


def test_a_query_is_timed_and_fails_by_an_exception(
    path: Path, recorder: Recorder
) -> None:
    with recorder.query("good"):
        time.sleep(0.01)
    with pytest.raises(KeyError), recorder.query("bad"):
        raise KeyError
    assert recorder.flush()
    assert rows(path) == [("good", 1), ("bad", 0)]
    assert rows(path, "SELECT query_time >= 0.01 FROM query_times WHERE id = 1") == [
        (1,)
    ]


def test_functions_are_timed_and_stay_what_they_are(
    path: Path, recorder: Recorder
) -> None:
    @recorder.query("plain")
    def double(number: int) -> int:
        """Return twice a number."""
        return 2 * number

    assert [double(n) for n in range(3)] == [0, 2, 4]
    assert (double.__name__, double.__doc__) == ("double", "Return twice a number.")
    assert recorder.flush()
    assert rows(path) == [("plain", 1)] * 3


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
    assert rows(path, "SELECT query_time >= 0.02 FROM query_times LIMIT 1") == [(1,)]


def test_generators_are_not_timed_by_their_call(recorder: Recorder) -> None:
    def numbers() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="numbers by its call: put `with recorder"):
        recorder.query("generator")(numbers)


def test_old_names_still_record(path: Path, recorder: Recorder) -> None:
    with pytest.warns(DeprecationWarning, match=r"use record_query\("):
        recorder.record_query_time(0.5)
    recorder.record_cache_event(hit=True)
    assert recorder.flush()
    assert rows(path) == [(None, 1)]


class Hostile:
    """Raises when it is asked for its value."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    def __bool__(self) -> bool:
        raise RuntimeError("no")


def test_what_cannot_be_counted_is_seen_by_the_exporter(tmp_path: Path) -> None:
    config = make_config(tmp_path, collectors=frozenset({"queries", "cache"}))
    exporter = make_exporter(config)
    assert config.performance
    with Recorder(config.performance) as recorder:
        recorder.record_query(1, "search_knowledge")
        assert recorder.flush()
        scrape(exporter)
        for odd in ("soon", float("nan"), None, [1]):
            recorder.record_query(odd, "\ud800")  # type: ignore[arg-type]
        recorder.record_cache_event(Hostile())  # type: ignore[arg-type]
        recorder.record_cache_event(False)
        assert recorder.flush()
    page = scrape(exporter)
    rejected = page.by(
        "reason", "hakgal_exporter_rejected_rows_total", table="query_times"
    )
    assert rejected["not_a_number"] == 4
    assert page("hakgal_cache_misses_total") == 1
    assert page("hakgal_exporter_missed_rows_total", table="cache_events") == 1


@pytest.mark.usefixtures("locked")
def test_a_locked_database_does_not_hold_up_the_application(
    recorder: Recorder,
) -> None:
    for _ in range(1000):
        recorder.record_query(0.1, "meanwhile")
    # In the time of a thousand events, nobody has let go of the lock.
    assert not recorder.flush(0.3)


def test_what_was_recorded_behind_a_lock_is_written_after_it(
    path: Path,
    recorder: Recorder,
    locked: sqlite3.Connection,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "exporter.recorder")
    recorder.record_query(0.1, "behind")
    wait_until(lambda: caplog.messages, PATIENCE_SECONDS)
    locked.execute("ROLLBACK")
    assert recorder.flush()
    assert rows(path) == [("before", 1), ("behind", 1)]
    wait_until(lambda: len(caplog.messages) == 2, PATIENCE_SECONDS)
    assert caplog.messages == [
        "cannot record, events wait in memory: database is locked",
        "recording again; dropped so far: 0",
    ]


def test_dropped_events_are_counted_and_reported_as_missed(tmp_path: Path) -> None:
    config = make_config(tmp_path, collectors=frozenset({"queries", "cache"}))
    exporter = make_exporter(config)
    assert config.performance
    with Recorder(config.performance, buffered_events=10) as recorder:
        recorder.record_query(1)
        assert recorder.flush()
        scrape(exporter)
        with closing(sqlite3.connect(config.performance, isolation_level=None)) as db:
            db.execute("BEGIN EXCLUSIVE")
            for _ in range(25):
                recorder.record_query(1)
            recorder.record_cache_event(True)
        assert recorder.flush()
        assert recorder.dropped == 16
    page = scrape(exporter)
    assert page.sum("hakgal_query_duration_seconds_count") == 11
    missed = page.by("table", "hakgal_exporter_missed_rows_total")
    assert missed == {"query_times": 15, "cache_events": 1}


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM query_times",
        "DELETE FROM sqlite_sequence",
        "UPDATE sqlite_sequence SET seq = NULL",
        "SELECT 1",
    ],
    ids=["pruned", "no_sequence", "null_sequence", "untouched"],
)
def test_what_several_processes_drop_is_missed_exactly(
    tmp_path: Path, change: str
) -> None:
    config = make_config(tmp_path, collectors=frozenset({"queries", "cache"}))
    exporter = make_exporter(config)
    path = config.performance
    assert path
    with (
        Recorder(path, buffered_events=5) as one,
        Recorder(path, buffered_events=7) as other,
    ):
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
        one.record_query(1)
    page = scrape(exporter)
    assert page.sum("hakgal_query_duration_seconds_count") == 4 + 5 + 7 + 1
    missed = page.by("table", "hakgal_exporter_missed_rows_total")
    assert missed == {"query_times": 15 + 13, "cache_events": 2}


def test_a_missing_folder_costs_nothing_until_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "later" / "performance.db"
    with Recorder(path) as recorder:
        recorder.record_query(0.1, "early")
        assert not recorder.flush(0.3)
        path.parent.mkdir()
        assert recorder.flush(PATIENCE_SECONDS)
    assert rows(path) == [("early", 1)]


def test_a_replaced_file_is_written_to_and_not_the_old_one(
    path: Path, recorder: Recorder
) -> None:
    recorder.record_query(0.1, "old")
    assert recorder.flush()
    rows(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    old = path.rename(path.with_name("old.db"))
    recorder.record_query(0.1, "new")
    assert recorder.flush()
    assert rows(path) == [("new", 1)]
    assert rows(old) == [("old", 1)]


def test_an_existing_file_keeps_its_journal_mode(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE other(x)")
    with Recorder(path) as recorder:
        recorder.record_query(0.1, "here")
        assert recorder.flush()
        assert rows(path, "PRAGMA journal_mode") == [("delete",)]


def test_an_empty_file_is_made_like_a_new_one(path: Path, recorder: Recorder) -> None:
    path.touch()
    recorder.record_query(0.1, "here")
    assert recorder.flush()
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]


def test_a_file_replaced_while_it_is_opened_is_opened_again(
    path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder.record_query(0.1, "before")
    assert recorder.close()
    connect = sqlite3.connect

    def replace(*args: Any, **named: Any) -> object:
        monkeypatch.undo()
        db = connect(*args, **named)
        db.execute("SELECT * FROM query_times")
        copy = path.with_name("copy.db")
        copy.write_bytes(path.read_bytes())
        copy.replace(path)
        return db

    monkeypatch.setattr("exporter.recorder.store.sqlite3.connect", replace)
    recorder.record_query(0.1, "after")
    assert recorder.flush()
    assert recorder.close()
    assert rows(path) == [("before", 1), ("after", 1)]


def test_a_text_that_sqlite_cannot_take_does_not_stop_the_rest(
    path: Path, recorder: Recorder
) -> None:
    recorder.record_query(0.1, "x" * (LONGEST_TEXT + 1))
    recorder.record_query(0.1, "next")
    assert recorder.flush()
    assert rows(path, "SELECT id, query_type FROM query_times") == [(2, "next")]


def test_a_failed_commit_is_tried_again_and_writes_once(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE other(x)")
    with Recorder(path) as recorder, closing(sqlite3.connect(path)) as reader:
        recorder.record_query(0.1, "before")
        assert recorder.flush()
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM query_times").fetchall()
        recorder.record_query(0.1, "behind a reader")
        assert not recorder.flush(0.3)
        reader.execute("COMMIT")
        assert recorder.flush()
    assert rows(path) == [("before", 1), ("behind a reader", 1)]


def test_threads_record_side_by_side(path: Path, recorder: Recorder) -> None:
    def record(name: str) -> None:
        for _ in range(2000):
            recorder.record_query(0.1, name)

    threads = [threading.Thread(target=record, args=[name]) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorder.flush()
    counted = "SELECT query_type, COUNT(*) FROM query_times GROUP BY 1 ORDER BY 1"
    assert rows(path, counted) == [(name, 2000) for name in "abcd"]


def test_a_forked_child_records_its_own_events_only(
    path: Path, recorder: Recorder
) -> None:
    recorder.record_query(0.1, "first")
    assert recorder.flush()
    recorder.record_query(0.1, "of the parent")
    child = os.fork()
    if child == 0:
        recorder.record_query(0.1, "of the child")
        os._exit(not recorder.flush())
    assert os.waitpid(child, 0)[1] == 0
    recorder.record_query(0.1, "of the parent, later")
    assert recorder.flush()
    assert {name for name, _ in rows(path)} == {
        "first",
        "of the parent",
        "of the child",
        "of the parent, later",
    }
    assert len(rows(path)) == 4


def test_a_forked_child_writes_on_when_its_parent_lets_go(
    path: Path, recorder: Recorder
) -> None:
    recorder.record_query(0.1, "parent")
    assert recorder.flush()
    child_reads, parent_writes = os.pipe()
    parent_reads, child_writes = os.pipe()
    child = os.fork()
    if child == 0:
        recorder.record_query(0.1, "child")
        recorder.flush()
        os.write(child_writes, b"x")
        os.read(child_reads, 1)
        recorder.record_query(0.1, "child, later")
        os._exit(not recorder.flush())
    os.read(parent_reads, 1)
    assert recorder.close()
    with closing(sqlite3.connect(path)) as other:
        names = "SELECT query_type FROM query_times ORDER BY id"
        assert other.execute(names).fetchall() == [("parent",), ("child",)]
        os.write(parent_writes, b"x")
        assert os.waitpid(child, 0)[1] == 0
    for end in (child_reads, parent_writes, parent_reads, child_writes):
        os.close(end)
    assert [name for name, _ in rows(path)] == ["parent", "child", "child, later"]


def test_forks_while_others_record_lose_nothing(path: Path) -> None:
    with Recorder(path) as recorder:
        ended = threading.Event()

        def record() -> None:
            while not ended.wait(0.0005):
                recorder.record_query(0.1, "thread")

        thread = threading.Thread(target=record)
        thread.start()
        for _ in range(20):
            child = os.fork()
            if child == 0:
                recorder.record_query(0.1, "child")
                os._exit(not recorder.flush(PATIENCE_SECONDS))
            assert os.waitpid(child, 0)[1] == 0
        ended.set()
        thread.join()
        assert recorder.flush()
    assert [name for name, _ in rows(path)].count("child") == 20
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_handlers_of_signals_record_while_their_thread_does() -> None:
    # In memory, where no disk is waited for.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / "hakgal_performance.db"
        done = run(SIGNALLED, path)
        assert (done.returncode, done.stderr) == (0, "")
        handled, stalls = map(int, done.stdout.split())
        assert [name for name, _ in rows(path)].count("handler") == handled
    # Who waits for himself does so for a second, again and again.
    assert handled > 4
    assert stalls < 2


def test_a_recorder_that_nobody_holds_ends_its_thread(path: Path) -> None:
    recorder = Recorder(path)
    recorder.record_query(0.1, "last words")
    thread = recorder._writer._thread
    assert thread is not None
    del recorder
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert rows(path) == [("last words", 1)]


@pytest.mark.usefixtures("locked")
def test_flushing_again_and_again_takes_no_room(recorder: Recorder) -> None:
    for _ in range(100):
        assert not recorder.flush(0)
    assert len(recorder._writer._buffer) <= 2


def test_handlers_of_the_log_that_raise_do_not_end_recording(
    path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no log")

    monkeypatch.setattr("exporter.recorder.writer.logger.log", refuse)
    path.mkdir()
    recorder.record_query(0.1, "early")
    assert not recorder.flush(0.3)
    path.rmdir()
    assert recorder.flush(PATIENCE_SECONDS)
    assert rows(path) == [("early", 1)]


def test_many_processes_lose_nothing(path: Path) -> None:
    program = """
import sys
from exporter.recorder import Recorder
with Recorder(sys.argv[1]) as recorder:
    for _ in range(500):
        recorder.record_query(0.1, sys.argv[2])
    assert recorder.flush(60)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, str(path)]
    processes = [subprocess.Popen([*command, name], env=environment) for name in "abcd"]
    assert [process.wait() for process in processes] == [0] * 4
    counted = "SELECT query_type, COUNT(*) FROM query_times GROUP BY 1 ORDER BY 1"
    assert rows(path, counted) == [(name, 500) for name in "abcd"]


@pytest.mark.parametrize(
    ("mode", "last"), [("durable", "last"), ("buffered", "before")]
)
def test_a_killed_process_loses_what_its_mode_says(
    path: Path, mode: str, last: str
) -> None:
    assert run(KILLED, path, mode).returncode == -signal.SIGKILL
    found = [name for name, _ in rows(path)]
    assert found.count("before") == 100
    assert found[-1] == last


def test_durable_calls_do_not_wait_for_ever(path: Path) -> None:
    with Recorder(path, durable=True) as recorder:
        recorder.record_query(0.1, "before")
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("BEGIN EXCLUSIVE")
            started = time.monotonic()
            for _ in range(50):
                recorder.record_query(0.1, "behind")
            assert time.monotonic() - started < 10  # not 50 times a second
        assert recorder.flush()
    assert len(rows(path)) == 51


def test_the_end_of_a_process_loses_nothing(path: Path) -> None:
    done = run(ENDING, path)
    assert (done.returncode, done.stderr) == (0, "")
    assert rows(path) == [("last words", 1)]


def test_what_is_recorded_at_the_end_of_a_process_is_kept(path: Path) -> None:
    assert run(AT_EXIT, path).stderr == ""
    assert rows(path) == [("before", 1), ("at exit", 1)]


def test_close_lets_go_of_the_file_and_recording_opens_it_anew(path: Path) -> None:
    recorder = Recorder(path)
    recorder.record_query(0.1, "before")
    assert recorder.close()
    assert {file.name for file in path.parent.iterdir()} == {path.name}
    assert recorder.close()
    recorder.record_query(0.1, "after")
    assert recorder.close()
    assert rows(path) == [("before", 1), ("after", 1)]


def test_close_tells_what_it_could_not_write(
    recorder: Recorder, locked: sqlite3.Connection
) -> None:
    recorder.record_query(0.1, "behind")
    assert not recorder.close(0.5)
    locked.execute("ROLLBACK")
    assert recorder.close()


def test_what_close_could_not_write_is_written_later(
    path: Path,
    recorder: Recorder,
    locked: sqlite3.Connection,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "exporter.recorder")
    recorder.record_query(0.1, "behind")
    wait_until(lambda: caplog.messages, PATIENCE_SECONDS)
    recorder.record_query(0.1, "behind, too")
    assert not recorder.close(0.1)
    time.sleep(0.3)
    assert len(caplog.messages) == 1  # nothing of recording again
    locked.execute("ROLLBACK")
    names = ["before", "behind", "behind, too"]
    wait_until(lambda: [name for name, _ in rows(path)] == names, PATIENCE_SECONDS)
    recorder.record_query(0.1, "after")
    wait_until(lambda: rows(path)[-1] == ("after", 1), PATIENCE_SECONDS)


def test_old_rows_are_pruned_and_newer_ones_kept(path: Path) -> None:
    with Recorder(path) as recorder:
        recorder.record_query(0.1, "makes the tables")
    old, young = "datetime('now', '-2 hours')", "datetime('now', '-30 minutes')"
    count = 3 * PRUNED_ROWS + 7
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM query_times")
        for moment, number in ((old, count), (young, 5)):
            db.executemany(
                "INSERT INTO query_times(timestamp, query_time, query_type)"
                f" VALUES ({moment}, 0.1, ?)",
                [(str(number),)] * number,
            )
        db.execute(f"INSERT INTO cache_events(timestamp, hit) VALUES ({old}, 1)")
    with Recorder(path, keep=timedelta(hours=1)) as recorder:
        recorder.record_query(0.1, "now")
        wait_until(lambda: len(rows(path)) == 6, PATIENCE_SECONDS)
        wait_until(lambda: not rows(path, "SELECT * FROM cache_events"), 5)
    assert [name for name, _ in rows(path)] == ["5"] * 5 + ["now"]


def test_what_was_written_late_is_not_pruned_unread(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.recorder.writer.PRUNE_SECONDS", 0.1)
    with Recorder(path, keep=timedelta(minutes=10)) as recorder:
        recorder.record_query(0.1, "before")
        assert recorder.flush()
        monkeypatch.setattr("exporter.recorder.time", lambda: time.time() - 3600)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("BEGIN EXCLUSIVE")
            recorder.record_query(0.1, "an hour ago")
            assert not recorder.flush(0.5)
        assert recorder.flush()
        time.sleep(0.5)
    assert [name for name, _ in rows(path)] == ["before", "an hour ago"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": timedelta(minutes=9)}, "keep is 0:09:00, want at least 0:10:00"),
        ({"buffered_events": 0}, "buffered_events is 0, want at least 1"),
    ],
    ids=["keep", "buffered_events"],
)
def test_what_makes_no_sense_is_refused(
    path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Recorder(path, **options)


def test_without_a_thread_to_be_had_events_wait(
    path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        recorder.record_query(0.1, "waits")
        assert not recorder.flush(0.05)
    recorder.record_query(0.1, "brings a thread")
    assert recorder.flush()
    assert rows(path) == [("waits", 1), ("brings a thread", 1)]


def test_without_a_thread_to_be_had_close_commits_itself(
    path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    recorder.record_query(0.1, "at the end")
    assert recorder.close()
    assert rows(path) == [("at the end", 1)]


def test_it_needs_nothing_of_what_serves_metrics() -> None:
    loaded = set(run(MODULES).stdout.split())
    ours = {name for name in loaded if name.startswith("exporter")}
    assert ours == {
        "exporter",
        "exporter.schema",
        "exporter.recorder",
        "exporter.recorder.store",
        "exporter.recorder.writer",
    }
    assert not loaded & {"prometheus_client", "psutil", "yaml", "argparse", "http"}
