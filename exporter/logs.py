"""Log lines: one event a line, as logfmt or JSON.

``logger.info("listening", extra={"fields": {"address": ":8000"}})``: phrase and facts.
"""

import json
import logging
import re
import select
from datetime import UTC, datetime
from typing import TextIO

LONGEST = 1500  # characters of a value; more than two of them fit into a pipe's page


def configure(level: str, format: str, stream: TextIO | None = None) -> None:
    """Send everything from a level up to a stream, stderr if none is given."""
    handler = _Handler(stream)
    handler.setFormatter(_Lines(is_json=format == "json"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # What clients send that is no HTTP; it is their business.
    logging.getLogger("tornado.general").setLevel(logging.ERROR)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines, but never waits for whoever reads them.

    A pipe or terminal that nobody reads would hold up every scrape that has something
    to say. Such lines are lost; the next one says how many.
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

    def _has_room(self) -> bool:  # for a page
        try:
            return bool(select.select([], [self.stream], [], 0)[1])
        except (TypeError, ValueError, OSError):
            return True  # in memory, closed, or a system that can tell of sockets only


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
    # If anything does not print, all that is not ASCII is escaped with it.
    return json.dumps(text, ensure_ascii=not text.isprintable())
