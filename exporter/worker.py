"""A thread that does one thing at a time, so that nobody else has to wait for it."""

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from exporter.isolation import isolate

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Worker:
    """Runs calls in order; between them, whatever ``idle`` has to do.

    ``idle`` returns the seconds until it wants to run again, None for not before the
    next call. The thread is a daemon: a read that hangs for ever must not keep the
    process from ending.
    """

    def __init__(
        self, name: str, idle: Callable[[], float | None] | None = None
    ) -> None:
        self._idle = idle
        self._queue: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = (
            queue.SimpleQueue()
        )
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Return the future result of ``call``; cancel it if nobody waits any more."""
        future: Future[T] = Future()
        self._queue.put((future, call))
        return future

    @property
    def is_wanted(self) -> bool:
        """Whether a call is waiting."""
        return not self._queue.empty()

    def _run(self) -> None:
        pause: float | None = None
        while True:
            with suppress(MemoryError):  # costs one call, not the thread
                pause = self._step(pause)

    def _step(self, pause: float | None) -> float | None:
        """Do one thing, and return how long to wait for the next."""
        try:
            future, call = self._queue.get(timeout=pause)
        except queue.Empty:
            return self._between()
        answer(future, call)
        return 0.0

    def _between(self) -> float | None:
        outcome = isolate(self._idle) if self._idle else None
        if outcome is None or outcome.error is None:
            return outcome.result if outcome else None
        logger.error("idle work failed", exc_info=outcome.error)
        return None


def answer(future: Future[T], call: Callable[[], T]) -> None:
    """Let the future have what ``call`` returns or raises."""
    if future.set_running_or_notify_cancel():
        try:
            result = call()
        except BaseException as error:  # handed on to whoever waits
            future.set_exception(error)
        else:
            future.set_result(result)
