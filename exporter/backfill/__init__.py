"""The command ``backfill``: what was before the exporter, as OpenMetrics text.

``promtool tsdb create-blocks-from openmetrics`` makes Prometheus' own storage of it.

HAK/GAL may run: each batch of rows is a read of its own, some milliseconds long. Rows
come in any order and number, samples must go out by series and time; in between they
are in a private file, so that memory does not grow with the history.
"""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from exporter.backfill.counted import families
from exporter.backfill.events import Events
from exporter.backfill.history import History
from exporter.backfill.openmetrics import Family, write
from exporter.backfill.output import opened
from exporter.backfill.reader import Reader
from exporter.backfill.report import utc
from exporter.backfill.scratch import Scratch
from exporter.collectors import cache, queries
from exporter.config import Config
from exporter.errors import ConfigError, OutputError

__all__ = ["Request", "backfill"]


@dataclass(frozen=True)
class Request:
    """What of the past is wanted, and how it is to be labelled.

    Args:
        until: seconds since the epoch; what is newer is left to the exporter.
        step: seconds; of those that fall into one, the newest sample is kept.
        events: whether query_times and cache_events are wanted as well.
        output: None is standard output.
    """

    job: str
    instance: str
    until: int
    step: int
    events: bool
    output: Path | None = None


def backfill(config: Config, request: Request) -> int:
    """Write the history, and on standard error what became of which rows.

    Raises:
        DatabaseError: the performance database cannot be read.
        OutputError: the text, or what is kept meanwhile, cannot be written, or not all
            of it, because SIGINT or SIGTERM came.
    """
    started = time.monotonic()
    if config.performance is None:
        raise ConfigError(["database.performance: got none, want the file to read"])
    reader = Reader(config.performance)
    with (
        _stoppable(),
        closing(Scratch()) as scratch,
        opened(request.output) as output,
    ):
        found = _families(config, request, reader, scratch)
        target = {"instance": request.instance, "job": request.job}
        samples = write(found, target, output)
    span = ""
    if samples.number:
        span = f" from {utc(samples.first)} to {utc(samples.last)}"
    seconds = time.monotonic() - started
    print(f"{samples.number} samples{span} in {seconds:.1f} s", file=sys.stderr)
    return 0


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM end it as SIGINT does, so that no half file stays anywhere.

    Process 1 of a container would not even notice that signal otherwise.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt as error:
        raise OutputError("stopped by a signal: the text is not complete") from error
    finally:
        signal.signal(signal.SIGTERM, before)


def _families(
    config: Config, request: Request, reader: Reader, scratch: Scratch
) -> list[Family]:
    """Read everything, say what was found, and return what is to be written."""
    history = History(reader, scratch, request.until, request.step)
    counted: list[Family] = []
    lines: list[str] = []
    for collector in (queries, cache):
        events = Events(reader, scratch, collector.table(config), request)
        if request.events:
            events.read()
            history.ends_with(events.table.name, events.start)
            counted += families(collector, events, scratch, request)
            lines += events.lines()
        elif events.holds_rows():
            history.excludes(events.table.name)
    history.read()
    for line in (*history.lines(), *lines):
        print(line, file=sys.stderr)
    merged = {family.name: family for family in history.families()}
    for family in counted:
        before = merged.get(family.name)
        merged[family.name] = before.then(family) if before else family
    return list(merged.values())
