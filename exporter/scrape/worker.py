"""Threads that do one thing at a time; a failure costs only what failed."""

import logging
import queue
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from exporter.errors import ExporterError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """A result or an error, and how long it took."""

    result: Any = None
    error: Exception | None = None
    seconds: float = 0.0


def isolate(call: Callable[..., object], *arguments: object) -> Outcome:
    """Return what a call returns or raises."""
    started = time.monotonic()
    try:
        return Outcome(call(*arguments), None, time.monotonic() - started)
    except Exception as error:  # a bug in one collector must not cost the others
        return Outcome(None, error, time.monotonic() - started)


class Failures:
    """What is failing at the moment, and why; logs when that changes, only then."""

    def __init__(self) -> None:
        self._causes: dict[str, str] = {}

    def note(self, name: str, error: Exception | None) -> None:
        """Log it if this is news."""
        # Without numbers: a message may tell how long something took.
        cause = re.sub(r"[0-9.]+", "", repr(error)) if error else ""
        if self._causes.get(name, "") == cause:
            return
        self._causes[name] = cause
        if error is None:
            logger.info("recovered", extra={"fields": {"what": name}})
        elif isinstance(error, ExporterError):
            fields = {"what": name, "error": str(error)}
            logger.warning("failing", extra={"fields": fields})
        else:
            logger.error("failing", exc_info=error, extra={"fields": {"what": name}})


class Worker:
    """A thread that runs calls in order; between them, whatever ``idle`` has to do.

    ``idle`` returns the seconds until it wants to run again, None for not before the
    next call. The thread is a daemon: a read that hangs must not keep the process.
    """

    def __init__(self, name: str, idle: Callable[[], float | None]) -> None:
        self._idle = idle
        self._queue = queue.SimpleQueue[tuple[Future[Outcome], Callable[[], object]]]()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, call: Callable[[], object]) -> Future[Outcome]:
        """Return how a call will fare; cancel it if nobody waits any more."""
        future = Future[Outcome]()
        self._queue.put((future, call))
        return future

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
            idle = isolate(self._idle)
            if idle.error:
                logger.error("idle work failed", exc_info=idle.error)
            return idle.result  # type: ignore[no-any-return]
        if future.set_running_or_notify_cancel():
            future.set_result(isolate(call))
        return 0.0


def wait(future: Future[Outcome], until: float) -> Outcome:
    """Return what comes until then; whoever is too slow is not waited for."""
    seconds = max(0.0, until - time.monotonic())
    try:
        return future.result(seconds)
    except TimeoutError:
        future.cancel()
        text = f"no answer within {seconds:.1f} s; the disk may hang"
        return Outcome(None, ExporterError(text), seconds)
