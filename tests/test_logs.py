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

from exporter.errors import DatabaseError
from exporter.logs import LONGEST, configure
from exporter.scrape.worker import Failures

MOMENT = 1_767_225_599.0009  # 2025-12-31 23:59:59.0009 UTC
PAIR = re.compile(r'([^\s="]+)=("(?:[^"\\]|\\.)*"|[^\s="]*)(?: |\Z)')

logger = logging.getLogger("exporter.server")


@pytest.fixture(autouse=True)
def root_logger_as_before() -> Iterator[None]:
    """Give the root logger back its handlers, which pytest reads."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    # Taken away first, because configure() closes the handlers that it finds.
    root.handlers[:] = []
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def parse_logfmt(line: str) -> dict[str, str]:
    """Read a line strictly: whatever is not a pair fails."""
    pairs = list(PAIR.finditer(line))
    assert "".join(pair[0] for pair in pairs) == line
    names = [pair[1] for pair in pairs]
    assert len(set(names)) == len(names)
    return {
        pair[1]: json.loads(pair[2]) if pair[2].startswith('"') else pair[2]
        for pair in pairs
    }


def written(format: str, fields: object, exc_info: object = None) -> dict[str, Any]:
    """Log one event and read its only line back."""
    stream = io.StringIO()
    configure("debug", format, stream)
    logger.info("an event", exc_info=exc_info, extra={"fields": fields})  # type: ignore[arg-type]
    (line,) = stream.getvalue().splitlines()
    return json.loads(line) if format == "json" else parse_logfmt(line)


def text_of(format: str, value: object) -> Any:
    return written(format, {"value": value})["value"]


both_formats = pytest.mark.parametrize("format", ["logfmt", "json"])


@pytest.mark.parametrize(
    ("format", "line"),
    [
        (
            "logfmt",
            "ts=2025-12-31T23:59:59.000Z level=warn logger=server"
            ' msg="not served" rows=3 ok=true reason=null path="/a b"\n',
        ),
        (
            "json",
            '{"ts": "2025-12-31T23:59:59.000Z", "level": "warn", "logger": "server",'
            ' "msg": "not served", "rows": 3, "ok": true, "reason": null,'
            ' "path": "/a b"}\n',
        ),
    ],
)
def test_line_looks_so(format: str, line: str) -> None:
    stream = io.StringIO()
    configure("info", format, stream)
    fields = {"rows": 3, "ok": True, "reason": None, "path": Path("/a b")}
    record = logger.makeRecord(
        logger.name, logging.WARNING, "", 0, "not %s", ("served",), None
    )
    record.created, record.fields = MOMENT, fields
    logger.handle(record)
    assert stream.getvalue() == line


@both_formats
@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warn", "error", "critical"]),
        ("info", ["info", "warn", "error", "critical"]),
        ("warn", ["warn", "error", "critical"]),
        ("error", ["error", "critical"]),
    ],
)
def test_level_and_above_are_written(
    level: str, expected: list[str], format: str
) -> None:
    stream = io.StringIO()
    configure(level, format, stream)
    for number in (10, 20, 30, 40, 50):
        logger.log(number, "an event")
    parse = json.loads if format == "json" else parse_logfmt
    lines = stream.getvalue().splitlines()
    assert [parse(line)["level"] for line in lines] == expected


VALUES = [
    *("word", "", " ", "a b", "a=b", 'say "hi"', "back\\slash", "back\\ slash", "'"),
    *("two\nlines", "\r", "\t", "\x00", "\x1b[31m", "\x7f", "\x85", "\u2028", "\xa0"),
    *("Müller", "Müller & Söhne", "a\nü", "日本", "😀 x", "null", "=", "\\", '"'),
    *("\ud800", "https://x/?a=b&c"),
]


@both_formats
@pytest.mark.parametrize("value", VALUES, ids=[ascii(value)[:20] for value in VALUES])
def test_any_text_is_read_back_unchanged(value: str, format: str) -> None:
    assert text_of(format, value) == value


@both_formats
@pytest.mark.parametrize("value", VALUES, ids=[ascii(value)[:20] for value in VALUES])
def test_lines_hold_no_control_characters(value: str, format: str) -> None:
    stream = io.StringIO()
    configure("info", format, stream)
    logger.info(value, extra={"fields": {"value": value}})
    assert stream.getvalue().removesuffix("\n").isprintable()


@pytest.mark.parametrize("value", ["Müller", "Müller & Söhne"])
def test_logfmt_leaves_printable_text_readable(
    value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("info", "logfmt")
    logger.info(value)
    assert value in capsys.readouterr().err


@both_formats
@pytest.mark.parametrize(
    ("value", "in_logfmt", "in_json"),
    [
        (False, "false", False),
        (None, "null", None),
        (0.1, "0.1", 0.1),
        (b"a\xff", "b'a\\xff'", "b'a\\xff'"),
        (Path("/a b"), "/a b", "/a b"),
        (ValueError("no"), "no", "no"),
        ([1, 2], "[1, 2]", "[1, 2]"),
    ],
    ids=str,
)
def test_any_value_can_be_written(
    value: object, in_logfmt: str, in_json: object, format: str
) -> None:
    expected = in_json if format == "json" else in_logfmt
    assert text_of(format, value) == expected


@both_formats
def test_of_a_long_value_the_end_is_written(format: str) -> None:
    assert text_of(format, "x" * 9999 + "end") == "x" * (LONGEST - 3) + "end"


@both_formats
def test_exception_is_two_fields_of_the_same_line(format: str) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        line = written(format, {"table": "facts"}, exc_info=error)
    assert line["error"] == "ValueError: two\nlines"
    assert line["traceback"].startswith("Traceback (most recent call last):\n")
    assert line["traceback"].endswith("ValueError: two\nlines")
    assert list(line)[4:] == ["table", "error", "traceback"]


@both_formats
def test_event_without_fields_is_written(format: str) -> None:
    assert len(written(format, {})) == 4


def test_loggers_outside_the_package_keep_their_names() -> None:
    stream = io.StringIO()
    configure("info", "logfmt", stream)
    for name in ("exporter.collectors.facts", "exporter_x", "urllib3.pool"):
        logging.getLogger(name).info("event")
    names = [parse_logfmt(line)["logger"] for line in stream.getvalue().splitlines()]
    assert names == ["collectors.facts", "exporter_x", "urllib3.pool"]


def test_last_call_of_configure_wins() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure("debug", "json", first)
    configure("info", "logfmt", second)
    logger.info("event")
    assert (first.getvalue(), len(second.getvalue().splitlines())) == ("", 1)


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


def test_closed_stream_costs_lines_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    configure("info", "logfmt")
    logger.info("event")


def test_failure_is_logged_when_it_or_its_cause_changes() -> None:
    configure("info", "logfmt", stream := io.StringIO())
    failures, locked = Failures(), "the file is locked"
    failures.note("another", DatabaseError(locked))
    for text in (None, locked, locked, "7.9 s", "8.0 s", None, None, locked):
        failures.note("performance", DatabaseError(text) if text else None)
    failures.note("another", ValueError("a bug"))
    lines = map(parse_logfmt, stream.getvalue().splitlines())
    assert [(x["level"], x["msg"], x["what"], x.get("error")) for x in lines] == [
        ("warn", "failing", "another", locked),
        ("warn", "failing", "performance", locked),
        ("warn", "failing", "performance", "7.9 s"),
        ("info", "recovered", "performance", None),
        ("warn", "failing", "performance", locked),
        ("error", "failing", "another", "ValueError: a bug"),
    ]
