"""Record queries and cache look-ups in the performance database, from within HAK/GAL.

    recorder = Recorder("data/hakgal_performance.db")
    recorder.record_query(0.012, "search_knowledge")

Recording appends to a list; it never raises and never waits for the database. A thread
commits the list every 100 ms. A killed process loses its last 100 ms, or nothing with
``durable=True``: then each call waits for its commit. While the database cannot be
written, events wait in memory. In WAL mode, a power cut may lose the newest commits.

Signal handlers may record: only the thread uses the file. But the event that starts the
thread (the first, or the first after ten idle seconds) must not interrupt
``Thread.start`` itself. An event counts as missed if its values raise an exception or
SQLite rejects it. Standard library only; runs on Linux, macOS and Windows.
"""

import atexit
import inspect
import logging
import os
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from functools import wraps
from pathlib import Path
from threading import Lock, RLock, Thread, current_thread
from time import monotonic, perf_counter, sleep, time
from typing import Any, Self, TypeVar
from warnings import warn
from weakref import WeakSet

# The recorder fills the last two; the first belonged to the old monitor.
PERFORMANCE_SCHEMA = """
CREATE TABLE IF NOT EXISTS performance_metrics (
    id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT DEFAULT CURRENT_TIMESTAMP,
    metric_name TEXT NOT NULL, metric_value REAL NOT NULL,
    metric_type TEXT DEFAULT 'gauge', tags TEXT);
CREATE TABLE IF NOT EXISTS query_times (
    id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT DEFAULT CURRENT_TIMESTAMP,
    query_time REAL NOT NULL, query_type TEXT, success BOOLEAN DEFAULT TRUE);
CREATE TABLE IF NOT EXISTS cache_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT DEFAULT CURRENT_TIMESTAMP,
    hit BOOLEAN NOT NULL, cache_key TEXT, response_time REAL);
"""
QUERIES = "query_times(timestamp, query_time, query_type, success)"
LOOKUPS = "cache_events(timestamp, response_time, cache_key, hit)"
INSERT = "INSERT OR IGNORE INTO {} VALUES (datetime(?, 'unixepoch'), ?, ?, ?)"
SKIP_IDS = "UPDATE sqlite_sequence SET seq = seq + ? - 1 WHERE name = ?"
# Ids increase with time, so only the oldest rows are read.
PRUNE = """DELETE FROM {0} WHERE id <= (
    SELECT MAX(id) FROM (SELECT id, timestamp FROM {0} ORDER BY id LIMIT 500)
    WHERE datetime(timestamp) < datetime('now', ?))"""
LEAST_KEEP = timedelta(minutes=10)  # enough for a restart of the exporter
LONGEST_TEXT = 1_000_000  # characters; longer text is truncated
COMMIT_SECONDS = 0.1  # the interval between commits
PAUSE_SECONDS = 0.0002  # between checks while waiting for a commit
RETRY_SECONDS = 0.001  # after a failure; grows up to COMMIT_SECONDS
LASTING = 16  # failures in a row, within one or two seconds, before a log message
CONFIRM_SECONDS = 1.0  # the longest wait of a durable call, and at exit
IDLE_SECONDS = 10.0  # without events, before the thread ends and closes the file
F = TypeVar("F", bound=Callable[..., Any])
logger = logging.getLogger(__name__)


class Recorder(AbstractContextManager["Recorder"]):
    """Records into one performance database, from any number of threads.

    The file and its tables are created if they are missing. In a forked child, the
    recorder starts empty. A fork waits a few milliseconds until the file is closed. The
    application must not keep its own connections open over a fork: SQLite forbids it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        keep: timedelta | None = None,
        durable: bool = False,
        buffered_events: int = 50_000,
    ) -> None:
        """Create the recorder; the first event opens the file.

        Args:
            keep: delete older rows, a few with each commit; at least ten minutes. The
                exporter reports rows that it has not read by then as missed.
            durable: make each call wait for its commit, but at most one second.
            buffered_events: the most events that wait, at about 200 bytes each, while
                the database cannot be written. The exporter reports others as missed.

        Raises:
            ValueError: ``keep`` or ``buffered_events`` is too small.
        """
        if keep is not None and keep < LEAST_KEEP:
            raise ValueError(f"keep is {keep}, want at least {LEAST_KEEP}")
        if buffered_events < 1:
            raise ValueError(f"buffered_events is {buffered_events}, want at least 1")
        self._path = Path(path).absolute()
        self._age = f"-{keep.total_seconds()} seconds" if keep else None
        self._is_durable, self._limit = durable, buffered_events
        with _in_use:
            self._begin()
            _recorders.add(self)

    def record_query(
        self, seconds: float, query_type: str | None = None, success: bool = True
    ) -> None:
        """Record a query of this duration."""
        self._put((QUERIES, time(), seconds, query_type, success))

    def record_cache_event(
        self, hit: bool = True, key: str | None = None, seconds: float | None = None
    ) -> None:
        """Record a cache look-up: whether it hit, its key and its duration."""
        self._put((LOOKUPS, time(), seconds, key, hit))

    def query(self, query_type: str | None = None) -> "Timing":
        """Return a timer for a query: for ``with``, ``async with``, or as a decorator.

        A query that raises an exception is recorded as failed.
        """
        return Timing(self, query_type)

    def record_query_time(self, seconds: float) -> None:
        """Record a query without a type. Deprecated: use ``record_query``."""
        message = "use record_query(seconds, query_type) instead of record_query_time"
        warn(message, DeprecationWarning, stacklevel=2)
        self.record_query(seconds)

    @property
    def dropped(self) -> int:
        """Return how many events of this process did not fit into the buffer."""
        return self._dropped.total()

    def flush(self, timeout_seconds: float = 5.0) -> bool:
        """Wait until all events are committed; return whether they are."""
        ends = monotonic() + timeout_seconds
        wanted = self._commits + 2  # one may be in progress
        while self._has_more() and self._commits < wanted:
            # The thread itself cannot wait: in a destructor, or while it logs.
            if monotonic() >= ends or self._thread is current_thread():
                return False
            self._start()
            if self._thread is None:  # no new thread while the interpreter exits
                self._commit()
            with suppress(RuntimeError):  # already released
                self._unhurried.release()
            sleep(PAUSE_SECONDS)
        return True

    def close(self, timeout_seconds: float = 5.0) -> bool:
        """Commit what is left and close the file; return whether all is committed.

        The thread keeps trying to commit what is left. Runs at exit as well, but not at
        ``os._exit``, with which multiprocessing's children end. An event recorded after
        this opens the file again.
        """
        is_done = self.flush(timeout_seconds)
        self._let_go()
        return is_done

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _begin(self) -> None:
        self._events: list[tuple[Any, ...]] = []
        self._dropped = Counter({QUERIES: 0, LOOKUPS: 0})  # events that did not fit
        self._reported = self._dropped.copy()  # those reported, by ids without a row
        self._commits = self._failures = self._inode = 0
        self._db: sqlite3.Connection | None = None
        self._thread: Thread | None = None
        self._lock = RLock()  # a signal handler may interrupt its holder
        self._unhurried = Lock()  # released to commit at once
        self._unhurried.acquire()

    def _put(self, event: tuple[Any, ...]) -> None:
        if len(self._events) < self._limit:
            self._events.append(event)
        else:
            with self._lock:
                self._dropped[event[0]] += 1
        if self._thread is None:
            self._start()
        if self._is_durable and self._failures < LASTING:
            self.flush(CONFIRM_SECONDS)

    def _has_more(self) -> bool:
        return bool(self._events) or self._dropped != self._reported

    def _start(self) -> None:
        with self._lock, suppress(RuntimeError):  # no thread: the next event tries
            if self._thread is None:
                thread = Thread(target=self._run, name="hakgal-recorder", daemon=True)
                thread.start()  # a second one, from a handler, is harmless
                self._thread = thread

    def _run(self) -> None:
        quiet_at = monotonic() + IDLE_SECONDS
        while monotonic() < quiet_at:
            self._unhurried.acquire(timeout=COMMIT_SECONDS)
            if self._has_more():
                with suppress(Exception):  # raised by the application's log handlers
                    self._commit()
                quiet_at = monotonic() + IDLE_SECONDS
        self._let_go()
        with self._lock:  # not before _start is done
            self._thread = None
        if self._has_more():  # recorded before that
            self._start()

    def _commit(self) -> None:
        """Try to write all events; log when that starts or stops failing."""
        try:
            with _in_use:
                self._write(self._open())
        except Exception as error:  # must not affect the application
            self._let_go()  # rolls back, whatever state the error left
            self._failures += 1
            if self._failures == LASTING:
                logger.warning("cannot record, events wait in memory: %s", error)
            sleep(min(RETRY_SECONDS * self._failures**2, COMMIT_SECONDS))
        else:
            failures, self._failures = self._failures, 0
            if failures >= LASTING:
                logger.info("recording again; dropped so far: %d", self.dropped)

    def _write(self, db: sqlite3.Connection) -> None:
        """Commit all events, then remove them from the list."""
        batch, dropped = self._events.copy(), self._dropped.copy()
        rows: dict[str, list[Any]] = {QUERIES: [], LOOKUPS: []}
        for target, *values in batch:
            with suppress(Exception):  # raised by the value of an event
                rows[target].append(_row(*values))
        came = Counter(event[0] for event in batch) + dropped - self._reported
        db.execute("BEGIN IMMEDIATE")
        for target in rows:
            table, insert = target.partition("(")[0], INSERT.format(target)
            db.executemany(insert, rows[target])  # a rejected row uses up its id
            if missed := came[target] - len(rows[target]):  # reported as gaps
                db.execute(insert, (0.0, 0.0, None, False))
                db.execute(SKIP_IDS, (missed, table))
                db.execute(f"DELETE FROM {table} WHERE id = last_insert_rowid()")
            if self._age:
                db.execute(PRUNE.format(table), (self._age,))
        db.execute("COMMIT")
        self._commits += 1
        self._reported = dropped
        del self._events[: len(batch)]

    def _open(self) -> sqlite3.Connection:
        """Return a connection to the file that is now at the path."""
        while True:  # again if the file is new or was replaced meanwhile
            inode = self._path.stat().st_ino if self._path.exists() else 0
            if self._db is not None and self._inode == inode:
                return self._db
            self._let_go()
            # Do not wait for locks: a fork would have to wait too.
            self._db = db = sqlite3.connect(
                self._path, timeout=0.0, isolation_level=None, check_same_thread=False
            )
            if not self._path.stat().st_size:
                db.execute("PRAGMA journal_mode = WAL")
            db.executescript(PERFORMANCE_SCHEMA)
            if db.execute("PRAGMA journal_mode").fetchall() == [("wal",)]:
                db.execute("PRAGMA synchronous = NORMAL")  # safe in WAL mode
            self._inode = inode

    def _let_go(self) -> None:
        with _in_use, suppress(sqlite3.Error):
            db, self._db = self._db, None
            if db is not None:
                db.close()


class Timing:
    """Times a query, with or without ``async``, and records it when it ends."""

    def __init__(self, recorder: Recorder, query_type: str | None) -> None:
        self._recorder, self._query_type = recorder, query_type

    def __enter__(self) -> Self:
        self._started = perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        seconds = perf_counter() - self._started
        self._recorder.record_query(seconds, self._query_type, kind is None)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.__exit__(kind)

    def __call__(self, query: F) -> F:
        """Time each call. TypeError for a generator: calling it does not run it."""
        if inspect.isgeneratorfunction(query) or inspect.isasyncgenfunction(query):
            what = f"calls of the generator {query.__qualname__}"
            advice = "use `with recorder.query(...)` in its body"
            raise TypeError(f"cannot time {what}: {advice}")

        def timed(*args: Any, **named: Any) -> Any:
            with Timing(self._recorder, self._query_type):
                return query(*args, **named)

        async def timed_async(*args: Any, **named: Any) -> Any:
            with Timing(self._recorder, self._query_type):
                return await query(*args, **named)

        is_async = inspect.iscoroutinefunction(query)
        return wraps(query)(timed_async if is_async else timed)  # type: ignore


def _row(moment: float, seconds: Any, text: Any, flag: Any) -> tuple[Any, ...]:
    seconds = None if seconds is None else float(seconds)
    if text is not None:
        text = str(text)[:LONGEST_TEXT].encode("utf-8", "replace").decode()
    return moment, seconds, text, bool(flag)


_recorders: "WeakSet[Recorder]" = WeakSet()  # a recorder's thread keeps it alive
_in_use = RLock()  # held to use a file, add a recorder or fork


def _before_fork() -> None:
    """Close all files: a child would inherit them, but not the locks on them."""
    _in_use.acquire()
    for recorder in list(_recorders):
        recorder._let_go()


def _in_child() -> None:
    """Start empty: the events are the parent's, and its locks may be held for ever."""
    for recorder in list(_recorders):
        recorder._begin()
    _in_use.release()


@atexit.register  # now, so that handlers registered later run before it
def _close_all() -> None:
    for recorder in list(_recorders):
        recorder.close(CONFIRM_SECONDS)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_before_fork, after_in_parent=_in_use.release, after_in_child=_in_child
    )
