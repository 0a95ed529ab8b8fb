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
from exporter.logs import Failures, configure

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


def parse_json(line: str) -> dict[str, Any]:
    """Read a line strictly: JSON has no NaN, and no name twice."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    parsed: dict[str, Any] = json.loads(
        line, parse_constant=refuse, object_pairs_hook=once
    )
    return parsed


def written(format: str, fields: object, exc_info: object = None) -> dict[str, Any]:
    """Log one event and read its only line back."""
    stream = io.StringIO()
    configure("debug", format, stream)
    logger.info("an event", exc_info=exc_info, extra={"fields": fields})  # type: ignore[arg-type]
    (line,) = stream.getvalue().splitlines()
    return parse_json(line) if format == "json" else parse_logfmt(line)


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
    parse = parse_json if format == "json" else parse_logfmt
    lines = stream.getvalue().splitlines()
    assert [parse(line)["level"] for line in lines] == expected


VALUES = [
    *("word", "", " ", "a b", "a=b", 'say "hi"', "back\\slash", "back\\ slash", "'"),
    *("two\nlines", "\r", "\t", "\x00", "\x1b[31m", "\x7f", "\x85", "\u2028", "\xa0"),
    *("Müller", "Müller & Söhne", "a\nü", "日本", "😀 x", "null", "=", "\\", '"'),
    *("\ud800", "https://x/?a=b&c", "x" * 10_000),
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


CIRCULAR: list[object] = []
CIRCULAR.append(CIRCULAR)


@both_formats
@pytest.mark.parametrize(
    ("value", "in_logfmt", "in_json"),
    [
        pytest.param(False, "false", False, id="boolean"),
        pytest.param(None, "null", None, id="none"),
        pytest.param(0.1, "0.1", 0.1, id="float"),
        pytest.param(float("nan"), "nan", "nan", id="nan"),
        pytest.param(float("-inf"), "-inf", "-inf", id="infinite"),
        pytest.param(2**70, str(2**70), 2**70, id="large number"),
        pytest.param(b"a\xff", "b'a\\xff'", "b'a\\xff'", id="bytes"),
        pytest.param(Path("/a b"), "/a b", "/a b", id="path"),
        pytest.param(ValueError("no"), "no", "no", id="exception"),
        pytest.param([1, Path("x")], "[1, PosixPath('x')]", [1, "x"], id="list"),
        pytest.param({(1, 2): 3}, "{(1, 2): 3}", "{(1, 2): 3}", id="odd key"),
        pytest.param({"a": float("nan")}, "{'a': nan}", "{'a': nan}", id="inner nan"),
        pytest.param(CIRCULAR, "[[...]]", "[[...]]", id="circular"),
    ],
)
def test_any_value_can_be_written(
    value: object, in_logfmt: str, in_json: object, format: str
) -> None:
    expected = in_json if format == "json" else in_logfmt
    assert text_of(format, value) == expected


@both_formats
def test_fields_never_replace_the_fixed_ones(format: str) -> None:
    names = ("ts", "level", "logger", "msg", "field_msg")
    line = written(format, {name: f"my {name}" for name in names})
    assert list(line)[:4] == ["ts", "level", "logger", "msg"]
    assert line["msg"] == "an event"
    assert line["field_ts"] == "my ts"
    assert line["field_msg"] == "my msg"
    assert line["field_field_msg"] == "my field_msg"


@both_formats
def test_names_of_fields_become_words(format: str) -> None:
    line = written(format, {"a b": 1, "a=b": 2, "": 3, 'x"\n': 4, 5: 6, "web.x-y": 7})
    assert list(line)[4:] == ["a_b", "field_a_b", "_", "x__", "5", "web.x-y"]


@both_formats
def test_error_is_a_field_like_others_without_an_exception(format: str) -> None:
    assert written(format, {"error": "no disk"})["error"] == "no disk"
    assert "traceback" not in written(format, {}, exc_info=True)


@both_formats
def test_exception_is_two_fields_of_the_same_line(format: str) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        line = written(format, {"error": "mine", "table": "facts"}, exc_info=error)
    assert line["error"] == "ValueError: two\nlines"
    assert line["traceback"].startswith("Traceback (most recent call last):\n")
    assert line["traceback"].endswith("ValueError: two\nlines")
    assert line["field_error"] == "mine"
    assert list(line)[4:] == ["field_error", "table", "error", "traceback"]


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
    assert (
        f'level=warn logger=logs msg="log lines lost" lines={2000 - kept}' in lines[0]
    )
    assert lines[1].endswith('msg="read again"')
    assert len(lines) == 2


def test_long_line_waits_for_nobody_either() -> None:
    read, write = os.pipe()
    with open(read, "rb") as reader, open(write, "w") as stream:
        os.set_blocking(read, False)
        configure("info", "json", stream)
        for _ in range(20):
            logger.info("ä" * 3000)
        reader.read()
        logger.info("read again")
        torn, lost, again = reader.read().decode().splitlines()
    assert torn == ""
    assert "log lines lost" in lost
    assert json.loads(again)["msg"] == "read again"


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
