"""A buffer of events, and the thread that commits it."""

import logging
import math
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from exporter.recorder.store import Event, Store

COMMIT_SECONDS = 0.1  # events are gathered that long
BATCH_EVENTS = 5_000  # in one transaction, so that others are let in
PRUNE_SECONDS = 10.0  # from one look for old rows to the next, if there were none
UNREAD_SECONDS = 600.0  # what was written late stays so long, however old it is
SHORTEST_PAUSE, LONGEST_PAUSE = 0.01, 2.0  # seconds, while writing fails
CONFIRM_SECONDS = 1.0  # the longest that a durable call waits

logger = logging.getLogger("exporter.recorder")


class Bell:
    """What wakes a thread; it stays rung until one has waited for it.

    A ``threading.Event`` would not do: while a thread is in its methods, the handler of
    a signal that comes there waits for the thread, in vain.
    """

    def __init__(self) -> None:
        self._silence = threading.Lock()
        self._silence.acquire()

    def wait(self, seconds: float) -> bool:
        """Wait until it is rung, but not longer than this; tell whether it is."""
        return self._silence.acquire(
            timeout=max(0.0, min(seconds, threading.TIMEOUT_MAX))
        )

    def ring(self) -> None:
        """Wake who waits, or who will."""
        with suppress(RuntimeError):  # rung already
            self._silence.release()


class Writer:
    """Takes events at once, and commits them when it can, in their order."""

    def __init__(self, store: Store, limit: int) -> None:
        """Hold at most ``limit`` events; the thread is started by the first one."""
        self.dropped = 0
        self._store = store
        self._limit = limit
        # What waits in it: events, and whoever waits for those before him.
        self._buffer: deque[Event | Bell] = deque()
        # Guards the thread and what is dropped. A signal's handler may come here while
        # its thread is here already, and nothing else is waited for meanwhile.
        self._lock = threading.RLock()
        self._untold = [0, 0]  # dropped of each kind, not in the file yet
        self._thread: threading.Thread | None = None
        self._writing = threading.Lock()  # while the file is in use
        self._woken, self._hurry = Bell(), Bell()
        self._is_awake = self._is_ending = False
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
        if self._thread is threading.current_thread():  # its logging, a destructor
            return False
        try:
            newest = self._buffer[-1]
        except IndexError:
            newest = None
        # Where nothing is new, one waits with whoever came before: else who asks again
        # and again would fill the buffer.
        done = newest if isinstance(newest, Bell) else Bell()
        if done is not newest:
            self._buffer.append(done)
        self._hurry.ring()
        self._wake()
        is_done = done.wait(timeout_seconds)
        if is_done:
            done.ring()  # for the next
        return is_done

    def end(self) -> None:
        """Ask the thread to end when it has committed what there is."""
        if self._thread is not None or self._has_more():
            self._is_ending = True
            self._hurry.ring()
            self._wake()

    def close(self, timeout_seconds: float) -> bool:
        """Commit what there is, end the thread; tell whether all is committed.

        What could not be written in this time is tried for further on.
        """
        ends = monotonic() + timeout_seconds
        self.end()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_seconds)
        # No thread can be started while the interpreter ends: then it is done here.
        while self._thread is None and self._has_more():
            if not self._attempt(self._commit_some):
                if monotonic() >= ends:
                    break
                self._hurry.wait(SHORTEST_PAUSE)
        return not self._has_more()

    def pause(self) -> None:
        """Let go of the file until told to go on."""
        self._writing.acquire()
        self._store.close()

    def go_on(self) -> None:
        """Use the file again."""
        self._writing.release()

    def _has_more(self) -> bool:
        return bool(self._buffer) or any(self._untold)

    def _drop(self, event: Event) -> None:
        with self._lock:
            self._untold[event[0]] += 1
            self.dropped += 1

    def _wake(self) -> None:
        """Let the thread look at the buffer; start it if there is none."""
        try:
            self._is_awake = True
            self._woken.ring()
            if self._thread is None:
                with self._lock:
                    self._start()
        except BaseException:  # of a signal's handler: the next event wakes
            self._is_awake = False
            raise

    def _start(self) -> None:
        """Start the thread, unless somebody else has; needs the lock."""
        if self._thread is not None:
            return
        try:
            self._thread = threading.Thread(
                target=self._run, name="hakgal-recorder", daemon=True
            )
            self._thread.start()
        except Exception:  # no more threads or memory: the next event tries again
            self._thread, self._is_awake = None, False
        except BaseException:  # one that came, but not in time, sees it and ends
            self._thread = None
            raise

    def _run(self) -> None:
        with self._lock:  # while it was started a signal's handler may have done so too
            if self._thread is not threading.current_thread():
                return
        prune_at = monotonic() if self._store.keeps_not_all else math.inf
        while True:
            self._woken.wait(prune_at - monotonic())
            self._hurry.wait(COMMIT_SECONDS)
            # Before the buffer is read: whoever comes from now on wakes us again.
            self._is_awake = False
            began = monotonic()
            self._commit_all()
            if monotonic() - began > PRUNE_SECONDS:  # behind a lock events grow old
                prune_at = max(prune_at, monotonic() + UNREAD_SECONDS)
            if self._is_ending and self._has_ended():
                return
            if monotonic() >= prune_at:
                has_more = self._attempt(self._store.prune)
                prune_at = monotonic() + (0.0 if has_more else PRUNE_SECONDS)

    def _has_ended(self) -> bool:
        """Let go of the file and end, unless something has come meanwhile."""
        with self._writing:
            self._store.close()
        with self._lock:
            if self._has_more():
                return False
            self._is_ending, self._thread = False, None
            # Whoever comes from now on starts another thread, we for who just came.
            self._is_awake = False
            if self._has_more():
                self._wake()
            return True

    def _commit_all(self) -> None:
        pause = SHORTEST_PAUSE
        while self._has_more():
            if self._attempt(self._commit_some):
                pause = SHORTEST_PAUSE
            else:
                self._hurry.wait(pause)
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
            if isinstance(waiting, Bell):
                waiting.ring()
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
                _say(logging.WARNING, "cannot record, events wait in memory: %s", error)
            return False
        was_failing, self._is_failing, self._fails_since = self._is_failing, False, None
        if was_failing:
            _say(logging.INFO, "recording again; dropped so far: %d", self.dropped)
        return result


def _say(level: int, message: str, fact: object) -> None:
    # Whatever the application's handlers raise: it must not end the thread.
    with suppress(Exception):
        logger.log(level, message, fact)


def _is_locked(error: Exception) -> bool:
    """Tell whether somebody else just has the file, as happens all the time."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
