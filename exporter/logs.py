"""Log lines: one event a line, as logfmt or JSON.

A call passes a constant phrase and its facts:
``logger.info("listening", extra={"fields": {"address": ":8000"}})``.
"""

import json
import logging
import re
import select
import threading
from datetime import UTC, datetime
from typing import TextIO

from exporter.errors import ExporterError

_logger = logging.getLogger(__name__)

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
PIECE = 1024  # characters, of at most 4 bytes each: a page
_LEVEL_NAMES = {number: name for name, number in _LEVELS.items()}


def configure(level: str, format: str, stream: TextIO | None = None) -> None:
    """Send everything from a level up to a stream, stderr if none is given."""
    handler = _Handler(stream)
    handler.setFormatter(_Json() if format == "json" else _Logfmt())
    logging.basicConfig(level=_LEVELS[level], handlers=[handler], force=True)


class Failures:
    """What is failing at the moment, and why; logs when that changes, only then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._causes: dict[str, str | None] = {}

    def note(self, name: str, error: Exception | None) -> None:
        """Log it if this is news."""
        # Without numbers: a message may tell how long something took.
        text = f"{type(error).__name__} {error}"
        cause = re.sub(r"[0-9.]+", "", text) if error else None
        with self._lock:
            if self._causes.get(name) == cause:
                return
            self._causes[name] = cause
        fields = {"what": name, "error": str(error)}
        if error is None:
            _logger.info("recovered", extra={"fields": {"what": name}})
        elif isinstance(error, ExporterError):
            _logger.warning("failing", extra={"fields": fields})
        else:
            _logger.error("failing", exc_info=error, extra={"fields": fields})


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines, but never waits for whoever reads them.

    A pipe or terminal that nobody reads any more would hold up every scrape that has
    something to say. Such lines are lost, and told of as a number once there is room.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(stream)
        self._lost = 0
        self._before = ""  # a new line, after one of which only a part was written

    def emit(self, record: logging.LogRecord) -> None:
        if self._lost and self._write(_loss(self._lost)):
            self._lost = 0
        if self._lost or not self._write(record):
            self._lost += 1

    def _write(self, record: logging.LogRecord) -> bool:
        """Write a line piece by piece; say whether there was room for all of it."""
        try:
            line = self._before + self.format(record) + self.terminator
            for start in range(0, len(line), PIECE):
                if not self._has_room():
                    self._before = "\n" if start else self._before
                    return False
                self.stream.write(line[start : start + PIECE])
                self.flush()
            self._before = ""
        except Exception:  # logging itself never fails, as in the library's handlers
            self.handleError(record)
        return True

    def _has_room(self) -> bool:
        """Say whether a piece can be written; a pipe then has room for a page."""
        try:
            descriptor = self.stream.fileno()
        except (AttributeError, OSError, ValueError):
            return True  # closed, or in memory
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        return any(event & ~select.POLLNVAL for _, event in poll.poll(0))


def _loss(lines: int) -> logging.LogRecord:
    fields = {"levelno": logging.WARNING, "fields": {"lines": lines}}
    return logging.makeLogRecord({**fields, "name": __name__, "msg": "log lines lost"})


class _Formatter(logging.Formatter):
    def items(self, record: logging.LogRecord) -> dict[str, object]:
        moment = datetime.fromtimestamp(record.created, UTC)
        items: dict[str, object] = {
            "ts": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": _LEVEL_NAMES.get(record.levelno, record.levelname.lower()),
            "logger": record.name.removeprefix("exporter."),
            "msg": record.getMessage(),
        }
        failure: dict[str, object] = {}
        if record.exc_info and (error := record.exc_info[1]):
            failure["error"] = f"{type(error).__name__}: {error}"
            failure["traceback"] = self.formatException(record.exc_info)
        for name, value in getattr(record, "fields", {}).items():
            key = re.sub(r"[^\w.-]", "_", str(name)) or "_"
            while key in items or key in failure:
                key = f"field_{key}"
            items[key] = value
        return items | failure


class _Logfmt(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        items = self.items(record).items()
        return " ".join(f"{key}={_logfmt(value)}" for key, value in items)


class _Json(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        items = self.items(record).items()
        pairs = (f"{_json(key)}: {_json(value)}" for key, value in items)
        return "{" + ", ".join(pairs) + "}"


def _logfmt(value: object) -> str:
    is_constant = value is None or isinstance(value, bool)
    text = json.dumps(value) if is_constant else str(value)
    if text.isprintable() and re.fullmatch(r'[^\s="]+', text):
        return text
    # If anything does not print, all that is not ASCII is escaped with it.
    quoted = json.dumps(text, ensure_ascii=not text.isprintable())
    return quoted.replace("\x7f", "\\u007f")


def _json(value: object) -> str:
    try:
        return json.dumps(value, default=str, allow_nan=False)
    # A circular list, a key that is no text, or NaN, which JSON does not know.
    except (TypeError, ValueError, RecursionError):
        return json.dumps(str(value))
