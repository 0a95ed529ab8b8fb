"""Callers that wait for the same thing share one result."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from exporter.worker import answer

T = TypeVar("T")

TURN_SHARE = 0.5  # of a caller's time, to wait until what is being made is done
# Of a caller's time, what the one next in line must have left: whoever asks in a great
# hurry gets what could be made in that time, and must not hand it on.
LEAST_SHARE = 0.4


class SingleFlight(Generic[T]):
    """Makes one result at a time; whoever asks meanwhile shares the next one.

    So a caller's result was begun after it asked, never before.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._lock = threading.Lock()  # guards the next two
        self._next: Future[T] | None = None
        self._deadline = 0.0

    def get(self, make: Callable[[], T], deadline: float) -> T:
        """Return what ``make`` returns or raises, made by this caller or another.

        ``deadline``, on the monotonic clock, is when ``make`` will be done; who must be
        done earlier than the one next in line, or has far more time, makes its own.
        """
        mine: Future[T] = Future()
        now = time.monotonic()
        with self._lock:
            flight = self._next
            earliest = now + LEAST_SHARE * (deadline - now)
            fits = earliest <= self._deadline <= deadline
            if flight is None:
                self._next, self._deadline = mine, deadline
        if flight is not None and not fits:
            return make()
        if flight is not None:
            return flight.result()
        patience = TURN_SHARE * (deadline - time.monotonic())
        has_turn = self._turn.acquire(timeout=max(0.0, patience))
        with self._lock:
            self._next = None
        try:
            answer(mine, make)
        finally:
            if has_turn:
                self._turn.release()
        return mine.result()
