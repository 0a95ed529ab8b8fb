"""The one place where any exception is caught: a failure costs what failed, no more."""

import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from exporter.errors import ExporterError

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """A result or an error, and how long it took."""

    result: T | None
    error: Exception | None
    seconds: float


def isolate(call: Callable[[], T]) -> Outcome[T]:
    """Return what ``call`` returns or raises."""
    started = time.monotonic()
    try:
        result, error = call(), None
    except Exception as failure:  # a bug in one collector must not cost the others
        result, error = None, failure
    return Outcome(result, error, time.monotonic() - started)


class Failures:
    """What is failing at the moment, and why; logs when that changes, only then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._causes: dict[str, str] = {}

    def note(self, name: str, error: Exception | None) -> None:
        """Log it if this is news."""
        # Without numbers: a message may tell how long something took.
        cause = re.sub(r"[0-9.]+", "", f"{type(error).__name__} {error}")
        with self._lock:
            if error is None:
                if self._causes.pop(name, None) is None:
                    return
            elif self._causes.get(name) == cause:
                return
            else:
                self._causes[name] = cause
        fields = {"what": name, "error": str(error)}
        if error is None:
            logger.info("recovered", extra={"fields": {"what": name}})
        elif isinstance(error, ExporterError):
            logger.warning("failing", extra={"fields": fields})
        else:
            logger.error("failing", exc_info=error, extra={"fields": {"what": name}})
