"""Threads that run one call at a time; a failure affects only that call."""

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
    """A result or an error, and the duration."""

    result: Any = None
    error: Exception | None = None
    seconds: float = 0.0


def isolate(call: Callable[..., object], *arguments: object) -> Outcome:
    """Run a call and return its result or its error."""
    started = time.monotonic()
    try:
        return Outcome(call(*arguments), None, time.monotonic() - started)
    except Exception as error:  # a bug in one collector must not affect the others
        return Outcome(None, error, time.monotonic() - started)


class Failures:
    """Tracks what is failing and why; logs only changes."""

    def __init__(self) -> None:
        self._causes: dict[str, str] = {}

    def note(self, name: str, error: Exception | None) -> None:
        """Log the error, or the recovery, if it is new."""
        # Ignore numbers: a message may contain a duration.
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
    """A thread that runs calls in order, and ``idle`` between them.

    ``idle`` returns the seconds until it wants to run again, or None to wait for the
    next call. The thread is a daemon: a read that hangs must not block the exit.
    """

    def __init__(self, name: str, idle: Callable[[], float | None]) -> None:
        self._idle = idle
        self._queue = queue.SimpleQueue[tuple[Future[Outcome], Callable[[], object]]]()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, call: Callable[[], object]) -> Future[Outcome]:
        """Queue a call and return its future; cancel that to skip the call."""
        future = Future[Outcome]()
        self._queue.put((future, call))
        return future

    def _run(self) -> None:
        pause: float | None = None
        while True:
            with suppress(MemoryError):  # lose one call, not the thread
                pause = self._step(pause)

    def _step(self, pause: float | None) -> float | None:
        """Do one thing, and return the seconds to wait for the next call."""
        try:
            future, call = self._queue.get(timeout=pause)
        except queue.Empty:
            idle = isolate(self._idle)
            if idle.error:
                logger.error("work between scrapes failed", exc_info=idle.error)
            return idle.result  # type: ignore[no-any-return]
        if future.set_running_or_notify_cancel():
            future.set_result(isolate(call))
        return 0.0


def wait(future: Future[Outcome], until: float) -> Outcome:
    """Return the outcome of a call, or an error if it is not done by then."""
    seconds = max(0.0, until - time.monotonic())
    try:
        return future.result(seconds)
    except TimeoutError:
        future.cancel()
        text = f"no answer within {seconds:.1f} s; check the disk"
        return Outcome(None, ExporterError(text), seconds)
