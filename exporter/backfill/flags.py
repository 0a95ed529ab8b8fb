"""The flags of the command ``backfill``, and what they must not be."""

import argparse
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from exporter.backfill import Request
from exporter.backfill.counted import BEAT_SECONDS
from exporter.backfill.report import parse_time
from exporter.errors import ConfigError

EPILOG = """\
Two commands bring the old history into Prometheus:

  hakgal-exporter backfill --output=history.om
  promtool tsdb create-blocks-from openmetrics history.om PROMETHEUS_DATA_FOLDER

Before its first start, or with samples that all are three hours old: docs/migration.md
says why, and in which order to move."""
UNTIL = (
    "the moment of the exporter's first start, as 2026-11-25T12:00:00Z: what is newer"
    " it counts itself, and Prometheus would count it twice"
)
_ON, _OFF = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_FLAGS = (
    ("job", "NAME", "hakgal", "Label the series with this job."),
    ("instance", "NAME", "localhost:8000", "Label the series with this instance."),
    ("step", "SECONDS", "15", "Keep the newest sample of so many seconds."),
    ("until", "TIME", "", "Leave out what is newer than this. Default: now."),
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that only this command has."""
    for name, metavar, default, help_text in _FLAGS:
        shown = f" Default: {default}." if default else ""
        parser.add_argument(
            f"--backfill.{name}",
            dest=f"backfill.{name}",
            metavar=metavar,
            help=help_text + shown,
        )
    parser.add_argument(
        "--backfill.events",
        dest="backfill.events",
        action="store_const",
        const="true",
        help="Count the rows of query_times and cache_events as well;"
        " --backfill.until must say when the exporter was first started.",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="Write into this file, whole or not at all. Default: standard output.",
    )


def read_flags(flags: argparse.Namespace, environment: Mapping[str, str]) -> Request:
    """Return what is asked for.

    Raises:
        ConfigError: with one line for each mistake, all at once.
    """
    problems: list[str] = []

    def given(name: str, default: str) -> tuple[str, str]:
        variable = f"HAKGAL_BACKFILL_{name.upper()}"
        flag = getattr(flags, f"backfill.{name}")
        if flag is None and environment.get(variable):
            return environment[variable], f"environment variable {variable}"
        return default if flag is None else flag, f"flag --backfill.{name}"

    words = {name: given(name, default) for name, _, default, _ in _FLAGS}
    events = _switch(*given("events", "false"), problems)
    for name in ("job", "instance"):
        text, where = words[name]
        if not (text.strip() and text.isprintable()):
            got = repr(text) if text.strip() else "''"
            problems.append(f"{where}: got {got}, want a name")
    request = Request(
        job=words["job"][0],
        instance=words["instance"][0],
        until=_until(*words["until"], events, problems),
        step=_step(*words["step"], problems),
        events=events,
        output=flags.output,
    )
    if problems:
        raise ConfigError(problems)
    return request


def _switch(text: str, where: str, problems: list[str]) -> bool:
    if text.lower() not in (*_ON, *_OFF):
        problems.append(f"{where}: got {text!r}, want true or false")
    return text.lower() in _ON


def _step(text: str, where: str, problems: list[str]) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) <= BEAT_SECONDS:
        return int(text)
    wanted = f"a whole number of seconds from 1 to {BEAT_SECONDS}"
    problems.append(f"{where}: got {text!r}, want {wanted}")
    return 1


def _until(text: str, where: str, events: bool, problems: list[str]) -> int:
    now = time.time()
    if not text:
        if events:
            problems.append(f"flag --backfill.events: got no {where[5:]}, want {UNTIL}")
        return int(now)
    moment = parse_time(text)
    if moment is None:
        problems.append(f"{where}: got {text!r}, want a time as 2026-11-25T12:00:00Z")
    elif not 0 < moment <= now:
        shown = datetime.fromtimestamp(now, UTC).strftime("%FT%TZ")
        problems.append(f"{where}: got {text!r}, want a time before now ({shown})")
    return int(moment or now)
