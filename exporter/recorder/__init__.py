"""What HAK/GAL calls to record its queries and cache look-ups.

    recorder = Recorder("data/hakgal_performance.db")
    recorder.record_query(0.012, "search_knowledge")
    recorder.record_cache_event(hit=True)
    with recorder.query("search_knowledge"):
        ...

Recording appends to a buffer, in less than a microsecond; it never raises, and never
waits for the database. A thread commits the buffer every 100 ms. A process that is
killed loses what it recorded in its last 100 ms; with ``durable=True`` each call waits
for its commit instead. Both hold while the database can be written: else events wait in
memory. In WAL mode a power cut may cost the newest commits as well.

Standard library only, and nothing of what serves metrics.
"""

import atexit
import functools
import inspect
import os
import threading
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from time import monotonic, perf_counter, time
from typing import Any, Self, TypeVar
from weakref import WeakSet, finalize

from exporter.recorder.store import LOOKUP, QUERY, Store
from exporter.recorder.writer import CONFIRM_SECONDS, UNREAD_SECONDS, Writer

__all__ = ["Recorder", "Timing"]

F = TypeVar("F", bound=Callable[..., Any])

BUFFERED_EVENTS = 50_000  # some 10 MB; a minute at 800 events a second
LEAST_KEEP = timedelta(seconds=UNREAD_SECONDS)  # an exporter may be restarted meanwhile
CLOSE_SECONDS = 5.0

# All of this process: a fork and the end have to reach them, and a writer may outlive
# its recorder. What is added, and each fork, holds the lock.
_recorders: "WeakSet[Recorder]" = WeakSet()
_writers: "WeakSet[Writer]" = WeakSet()
_forking = threading.RLock()
_paused: list[Writer] = []


class Recorder:
    """Records into one performance database, from any number of threads.

    A forked child's recorder begins empty, with a thread and a connection of its own. A
    fork waits until the file is closed, some milliseconds; the application's own
    connections to it must not be open over a fork, because SQLite forbids that.
    The file and its tables are made if they are missing. A recorder that nobody holds
    any more closes by itself.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        keep: timedelta | None = None,
        durable: bool = False,
        buffered_events: int = BUFFERED_EVENTS,
    ) -> None:
        """Open nothing yet: that is left to the first event.

        Args:
            path: the performance database.
            keep: delete rows that are older, a few at a time; at least ten minutes.
                What the exporter has not read by then it reports as missed.
            durable: let each call return when its event is committed, or after a
                second if it cannot be.
            buffered_events: the most that wait while the database cannot be written.
                What comes then is dropped, and the exporter reports it as missed.

        Raises:
            ValueError: ``keep`` or ``buffered_events`` is too small.
        """
        if keep is not None and keep < LEAST_KEEP:
            raise ValueError(f"keep is {keep}, want at least {LEAST_KEEP}")
        if buffered_events < 1:
            raise ValueError(f"buffered_events is {buffered_events}, want at least 1")
        self._path = Path(path).absolute()
        self._keep = keep
        self._is_durable = durable
        self._limit = buffered_events
        with _forking:
            self._begin()
            _recorders.add(self)

    def record_query(
        self, seconds: float, query_type: str | None = None, success: bool = True
    ) -> None:
        """Record a query that took so long."""
        self._put((QUERY, time(), seconds, query_type, success))

    def record_cache_event(
        self, hit: bool = True, key: str | None = None, seconds: float | None = None
    ) -> None:
        """Record a look-up in the cache: whether it hit, and how long it took."""
        self._put((LOOKUP, time(), hit, key, seconds))

    def query(self, query_type: str | None = None) -> "Timing":
        """Return what times a query: for ``with``, ``async with``, or as a decorator.

        A query that ends by an exception is recorded as failed.
        """
        return Timing(self, query_type)

    def record_query_time(self, seconds: float) -> None:
        """Record a query without a type. Deprecated: use ``record_query``."""
        message = "use record_query(seconds, query_type) instead of record_query_time"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        self.record_query(seconds)

    @property
    def dropped(self) -> int:
        """How many events of this process did not fit into the buffer."""
        return self._writer.dropped

    def flush(self, timeout_seconds: float = CLOSE_SECONDS) -> bool:
        """Wait until all that was recorded is committed; tell whether it is."""
        return self._writer.flush(timeout_seconds)

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> bool:
        """Commit what is left and let go of the file; tell whether all is committed.

        What could not be committed in that time is tried for further on. Done at the
        end of the process as well, but not where that ends by ``os._exit``, as children
        of multiprocessing do. Who records afterwards opens the file anew.
        """
        return self._writer.close(timeout_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _begin(self) -> None:
        self._writer = Writer(Store(self._path, self._keep), self._limit)
        _writers.add(self._writer)
        self._end = finalize(self, self._writer.end)
        self._end.atexit = False
        # Bound once: a look-up less for every event.
        self._put = self._writer.put_durably if self._is_durable else self._writer.put


class Timing:
    """Times a query, with or without ``async``, and records it at its end."""

    __slots__ = ("_query_type", "_recorder", "_started")

    def __init__(self, recorder: Recorder, query_type: str | None) -> None:
        self._recorder = recorder
        self._query_type = query_type
        self._started = 0.0

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

    def __call__(self, function: F) -> F:
        """Return the function so that each of its calls is timed.

        Raises:
            TypeError: a generator, whose call only begins it; use ``with`` inside.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(
            function
        ):
            raise TypeError(
                f"cannot time the generator {function.__qualname__} by its call: "
                "put `with recorder.query(...)` around what it does"
            )
        recorder, query_type = self._recorder, self._query_type

        @functools.wraps(function)
        def timed(*args: Any, **named: Any) -> Any:
            with Timing(recorder, query_type):
                return function(*args, **named)

        @functools.wraps(function)
        async def timed_async(*args: Any, **named: Any) -> Any:
            with Timing(recorder, query_type):
                return await function(*args, **named)

        is_async = inspect.iscoroutinefunction(function)
        return timed_async if is_async else timed  # type: ignore[return-value]


def _before_fork() -> None:
    """Let go of the files, and let nobody be inside SQLite.

    A child that had one open would believe that it holds its parent's locks on it, and
    lose what it writes when the parent ends the log.
    """
    _forking.acquire()
    for writer in list(_writers):
        writer.pause()
        _paused.append(writer)


def _after_fork_in_parent() -> None:
    while _paused:
        _paused.pop().go_on()
    _forking.release()


def _after_fork_in_child() -> None:
    """Begin anew: what waits is the parent's, and its locks may be held by nobody."""
    _paused.clear()
    _writers.clear()
    for recorder in list(_recorders):
        recorder._end.detach()
        recorder._begin()
    _forking.release()


def _close_all() -> None:
    """Commit what is left at the end of the process, but not for long."""
    ends = monotonic() + CONFIRM_SECONDS
    with _forking:
        writers = list(_writers)
    for writer in writers:
        writer.end()
    for writer in writers:
        writer.close(max(0.0, ends - monotonic()))


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
# Here, and not at the first event: what the application registers later runs before.
atexit.register(_close_all)
