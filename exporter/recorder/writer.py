"""A buffer of events, and the thread that commits it."""

import atexit
import logging
import math
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

from exporter.recorder.store import Event, Store

COMMIT_SECONDS = 0.1  # events are gathered that long
BATCH_EVENTS = 5_000  # in one transaction, so that others are let in
PRUNE_SECONDS = 10.0  # from one look for old rows to the next, if there were none
SHORTEST_PAUSE, LONGEST_PAUSE = 0.01, 2.0  # seconds, while writing fails
CONFIRM_SECONDS = 1.0  # the longest that a durable call waits

logger = logging.getLogger("exporter.recorder")


class Writer:
    """Takes events at once, and commits them when it can, in their order."""

    def __init__(self, store: Store, limit: int) -> None:
        """Hold at most ``limit`` events; the thread is started by the first one."""
        self.dropped = 0
        self._store = store
        self._limit = limit
        # What waits in it: events, and whoever waits for those before him.
        self._buffer: deque[Event | threading.Event] = deque()
        # Guards the next two, and ``dropped``; a signal's handler may record as well.
        self._lock = threading.RLock()
        self._untold = [0, 0]  # dropped of each kind, not in the file yet
        self._thread: threading.Thread | None = None
        self._writing = threading.Lock()  # while the file is in use
        self._woken, self._hurry = threading.Event(), threading.Event()
        self._is_awake = False
        self._closes_by = math.inf
        self._is_failing = False
        self._fails_since: float | None = None

    def put(self, event: Event) -> None:
        """Take an event; never waits and never raises."""
        if len(self._buffer) >= self._limit:
            self._drop(event)
        else:
            self._buffer.append(event)
        if not self._is_awake:
            self._wake()

    def put_durably(self, event: Event) -> None:
        """Take an event and wait until it is committed, but not for long."""
        self.put(event)
        if not self._is_failing:
            self.flush(CONFIRM_SECONDS)

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until what was put before is committed; tell whether it is."""
        done = threading.Event()
        self._buffer.append(done)
        self._hurry.set()
        self._wake()
        return done.wait(timeout_seconds)

    def close(self, timeout_seconds: float) -> bool:
        """Commit what there is, end the thread; tell whether all is committed."""
        self._closes_by = monotonic() + timeout_seconds
        if self._thread is not None or self._buffer:
            self._hurry.set()
            self._wake()
        if (thread := self._thread) is not None:
            thread.join(timeout_seconds)
        self._closes_by = math.inf  # what could not be written is tried for further on
        atexit.unregister(self._close_at_exit)
        return not self._buffer

    def pause(self) -> None:
        """Keep off the file until told to go on; returns when it is not in use."""
        self._writing.acquire()

    def go_on(self) -> None:
        """Use the file again."""
        self._writing.release()

    def abandon(self) -> None:
        """Do nothing any more: the file and the thread are a parent's."""
        atexit.unregister(self._close_at_exit)

    def _drop(self, event: Event) -> None:
        with self._lock:
            self._untold[event[0]] += 1
            self.dropped += 1

    def _wake(self) -> None:
        """Let the thread look at the buffer; start it if there is none."""
        with self._lock:
            self._is_awake = True
            self._woken.set()
            if self._thread is not None:
                return
            self._thread = threading.Thread(
                target=self._run, name="hakgal-recorder", daemon=True
            )
            try:
                self._thread.start()
            except RuntimeError:  # no more threads: the next event tries again
                self._thread, self._is_awake = None, False
                return
        atexit.register(self._close_at_exit)

    def _close_at_exit(self) -> None:
        self.close(CONFIRM_SECONDS)

    def _run(self) -> None:
        prune_at = monotonic() if self._store.keeps_not_all else math.inf
        while True:
            self._woken.wait(None if prune_at == math.inf else prune_at - monotonic())
            self._hurry.wait(COMMIT_SECONDS)
            self._hurry.clear()
            # Before the buffer is read: whoever comes from now on wakes us again.
            self._woken.clear()
            self._is_awake = False
            self._commit_all()
            if self._has_ended():
                return
            if monotonic() >= prune_at:
                has_more = self._attempt(self._store.prune)
                prune_at = monotonic() + (0.0 if has_more else PRUNE_SECONDS)

    def _has_ended(self) -> bool:
        """Let go of the file if that was asked for; the next event starts anew."""
        with self._lock:
            is_late = monotonic() >= self._closes_by
            if self._closes_by == math.inf or (self._buffer and not is_late):
                return False
            self._attempt(self._store.close)
            self._thread, self._closes_by = None, math.inf
            return True

    def _commit_all(self) -> None:
        pause = SHORTEST_PAUSE
        while self._buffer or any(self._untold):
            if self._attempt(self._commit_some):
                pause = SHORTEST_PAUSE
            elif monotonic() >= self._closes_by:
                return
            else:
                self._hurry.wait(pause)
                self._hurry.clear()
                pause = min(2 * pause, LONGEST_PAUSE)

    def _commit_some(self) -> bool:
        """Commit the oldest events; until then they stay in the buffer."""
        count = min(len(self._buffer), BATCH_EVENTS)
        batch = [self._buffer[place] for place in range(count)]
        with self._lock:
            untold = tuple(self._untold)
        self._store.write([e for e in batch if isinstance(e, tuple)], untold)
        with self._lock:
            for kind, number in enumerate(untold):
                self._untold[kind] -= number
        for waiting in batch:
            self._buffer.popleft()
            if isinstance(waiting, threading.Event):
                waiting.set()
        return True

    def _attempt(self, work: Callable[[], bool]) -> bool:
        """Return what the work returns, False if it fails; say so when that changes."""
        try:
            with self._writing:
                result = work()
        # Whatever it is, the application must not feel it, and the events are kept.
        except Exception as error:
            self._fails_since = self._fails_since or monotonic()
            lasts = monotonic() - self._fails_since > CONFIRM_SECONDS
            if not self._is_failing and (lasts or not _is_locked(error)):
                self._is_failing = True
                logger.warning("cannot record, events wait in memory: %s", error)
            return False
        if self._is_failing:
            logger.info("recording again; dropped so far: %d", self.dropped)
        self._fails_since, self._is_failing = None, False
        return result


def _is_locked(error: Exception) -> bool:
    """Tell whether somebody else just has the file, as happens all the time."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
