"""Logging: one event per line, as logfmt or JSON.

Use: ``logger.info("listening", extra={"fields": {"address": ":8000"}})``.
"""

import json
import logging
import re
import select
from datetime import UTC, datetime
from typing import TextIO

LONGEST = 1500  # characters of a value; two such values fit into one page of a pipe


def configure(level: str, format: str, stream: TextIO | None = None) -> None:
    """Log messages of at least this level to a stream, by default stderr."""
    handler = _Handler(stream)
    handler.setFormatter(_Lines(is_json=format == "json"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Tornado warns of clients that send malformed HTTP; we do not need that.
    logging.getLogger("tornado.general").setLevel(logging.ERROR)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines, but never waits for the reader.

    A pipe or terminal that nobody reads would block every scrape that logs something.
    Such lines are lost; the next line that is written says how many.
    """

    _lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        if not self._has_room():
            self._lost += 1
            return
        if self._lost:
            record.fields = {**getattr(record, "fields", {}), "lost_lines": self._lost}
        self._lost = 0
        super().emit(record)

    def _has_room(self) -> bool:  # for one page
        try:
            return bool(select.select([], [self.stream], [], 0)[1])
        except (TypeError, ValueError, OSError):
            return True  # in memory, closed, or on Windows, which polls only sockets


class _Lines(logging.Formatter):
    def __init__(self, is_json: bool) -> None:
        super().__init__()
        self._is_json = is_json

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None)
        items: dict[str, object] = {
            "ts": moment.isoformat(timespec="milliseconds") + "Z",
            "level": record.levelname.lower().replace("warning", "warn"),
            "logger": record.name.removeprefix("exporter."),
            "msg": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and (error := record.exc_info[1]):
            items["error"] = f"{type(error).__name__}: {error}"
            items["traceback"] = self.formatException(record.exc_info)
        for key, value in items.items():
            if not isinstance(value, int | float | None):
                items[key] = str(value)[-LONGEST:]
        if self._is_json:
            return json.dumps(items)
        return " ".join(f"{key}={_logfmt(value)}" for key, value in items.items())


def _logfmt(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    if text.isprintable() and re.fullmatch(r'[^\s="]+', text):
        return text
    # If any character is not printable, all non-ASCII ones are escaped.
    return json.dumps(text, ensure_ascii=not text.isprintable())
