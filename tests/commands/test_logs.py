"""Log lines: what they hold, and that no value can break them."""

import io
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.commands.logs import LONGEST, configure

PAIR = re.compile(r'([^\s="]+)=("(?:[^"\\]|\\.)*"|[^\s="]*)(?: |\Z)')
TEXTS = [
    *("word", "", " ", "a b", "a=b", 'say "hi"', "back\\slash", "back\\ slash", "'"),
    *("two\nlines", "\r", "\t", "\x00", "\x1b[31m", "\x7f", "\x85", "\u2028", "\xa0"),
    *("Müller & Söhne", "a\nü", "日本", "😀 x", "null", "=", '"', "\ud800"),
]
LINES = {
    "logfmt": "ts=2025-12-31T23:59:59.000Z level=warn logger=server"
    ' msg="not served" rows=3 ok=true reason=null path="/Müller b"',
    "json": '{"ts": "2025-12-31T23:59:59.000Z", "level": "warn", "logger": "server",'
    ' "msg": "not served", "rows": 3, "ok": true, "reason": null,'
    ' "path": "/M\\u00fcller b"}',
}
logger = logging.getLogger("exporter.server")
each_format = pytest.mark.parametrize("format", LINES)


@pytest.fixture(autouse=True)
def root_logger_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the root logger back its handlers, which pytest reads."""
    root, level = logging.getLogger(), logging.getLogger().level
    monkeypatch.setattr(root, "handlers", [])
    yield
    root.setLevel(level)


def parse(line: str) -> dict[str, Any]:
    """Read a line strictly: whatever is not a pair fails."""
    if line.startswith("{"):
        return dict(json.loads(line))
    assert "".join(pair[0] for pair in PAIR.finditer(line)) == line
    pairs = PAIR.findall(line)
    return {k: json.loads(v) if v.startswith('"') else v for k, v in pairs}


@each_format
def test_line_looks_so(format: str) -> None:
    configure("info", format, stream := io.StringIO())
    record = logger.makeRecord(logger.name, 30, "", 0, "not %s", ("served",), None)
    record.created = 1_767_225_599.0009  # 2025-12-31 23:59:59.0009 UTC
    fields = {"rows": 3, "ok": True, "reason": None, "path": Path("/Müller b")}
    record.fields = fields
    logger.handle(record)
    assert stream.getvalue() == f"{LINES[format]}\n"


@pytest.mark.parametrize("level", ["debug", "info", "warn", "error"])
def test_level_and_above_are_written(level: str) -> None:
    configure(level, "logfmt", stream := io.StringIO())
    for number in (10, 20, 30, 40, 50):
        logger.log(number, "an event")
    levels = ["debug", "info", "warn", "error", "critical"]
    written = [parse(line)["level"] for line in stream.getvalue().splitlines()]
    assert written == levels[levels.index(level) :]


@each_format
def test_any_text_is_read_back_unchanged_and_breaks_no_line(format: str) -> None:
    for text in TEXTS:
        configure("info", format, stream := io.StringIO())
        logger.info(text, extra={"fields": {"value": text}})
        line = stream.getvalue().removesuffix("\n")
        assert line.isprintable()
        assert parse(line)["msg"] == parse(line)["value"] == text


@each_format
def test_exception_is_two_fields_of_the_same_line(format: str) -> None:
    configure("info", format, stream := io.StringIO())
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.info("event", exc_info=True, extra={"fields": {"table": "x" * 9999}})
    line = parse(stream.getvalue().removesuffix("\n"))
    assert list(line)[4:] == ["table", "error", "traceback"]
    assert line["table"] == "x" * LONGEST
    assert line["error"] == "ValueError: two\nlines"
    assert line["traceback"].startswith("Traceback (most recent call last):\n")


def test_pipe_that_nobody_reads_costs_lines_and_no_time() -> None:
    read, write = os.pipe()
    with open(read, "rb") as reader, open(write, "w") as stream:
        os.set_blocking(read, False)
        configure("info", "logfmt", stream)
        for _ in range(2000):
            logger.info("x" * 100)
        kept = len(reader.read().splitlines())
        logger.info("read again")
        lines = reader.read().decode().splitlines()
    assert 0 < kept < 2000
    assert lines[0].endswith(f'msg="read again" lost_lines={2000 - kept}')
    assert len(lines) == 1
