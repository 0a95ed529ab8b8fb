"""What the old monitor measured.

Source: table ``performance_metrics``, one row a number, nine rows a collection.
"""

import math
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import NamedTuple

from exporter.backfill.openmetrics import Family, Group, Values
from exporter.backfill.reader import TIME, Reader
from exporter.backfill.report import EARLIEST, Tally, parse_time, utc
from exporter.backfill.scratch import Sample, Scratch

TABLE = "performance_metrics"


class Measure(NamedTuple):
    """An old metric and the series that dashboards ask for instead.

    ``table`` is the one whose rows tell the same, exactly.
    """

    old: str
    name: str
    kind: str
    help: str
    divisor: int = 1
    table: str = ""


MEASURES = (
    Measure("facts_count", "hakgal_facts", "gauge", "Facts held."),
    Measure(
        "cache_hits",
        "hakgal_cache_hits",
        "counter",
        "Cache look-ups that found their entry.",
        table="cache_events",
    ),
    Measure(
        "cache_misses",
        "hakgal_cache_misses",
        "counter",
        "Cache look-ups that did not find their entry.",
        table="cache_events",
    ),
    Measure(
        "avg_query_time",
        "instance:hakgal_query_duration_seconds:mean5m",
        "gauge",
        "Mean duration of queries in seconds.",
        table="query_times",
    ),
    Measure(
        "system_cpu_percent",
        "instance:hakgal_cpu_utilisation:ratio_rate5m",
        "gauge",
        "Busy share of all processors, 0 to 1.",
        divisor=100,
    ),
    Measure(
        "system_memory_percent",
        "instance:hakgal_memory_utilisation:ratio",
        "gauge",
        "Share of memory that cannot be had without swapping, 0 to 1.",
        divisor=100,
    ),
)
LEFT_OUT = {
    "system_disk_percent": "it is of /, not of the disk that holds a database",
    "database_connections": "it was always 1, a constant and no measurement",
    "wal_size_bytes": "it was always 0, a constant and no measurement",
}
UNKNOWN = "the old monitor had no such metric"
# A counter that begins with all events of the table would seem to leap up from the old
# one: an increase that never was.
NOT_WITHOUT_EVENTS = "the exporter counts all rows of {}; add --backfill.events"

_COLUMNS = (
    "substr(metric_name, 1, 64), CASE WHEN typeof(metric_value) IN ('text', 'blob')"
    f" THEN 'text' ELSE metric_value END, {TIME}"
)

NAME_LENGTH = 40  # characters of an unknown name that are shown

_parse_time = lru_cache(maxsize=64)(parse_time)  # a collection's nine rows agree


class History:
    """Reads the table into a scratch file, and gives families of it."""

    def __init__(self, reader: Reader, scratch: Scratch, until: int, step: int) -> None:
        self._reader = reader
        self._scratch = scratch
        self._until = until
        self._step = step
        self._measures = {measure.old: measure for measure in MEASURES}
        self._numbers = {measure.old: scratch.new_series() for measure in MEASURES}
        self._ends: dict[str, float] = {}
        self._excluded: dict[str, str] = {}
        self._rows = 0
        self._taken = dict.fromkeys(self._measures, 0)
        self._left_out = Tally()
        self._rejected = Tally()

    def ends_with(self, table: str, start: float | None) -> None:
        """Leave out what a table tells exactly from ``start`` on."""
        if start is not None:
            self._ends.update((m.old, start) for m in MEASURES if m.table == table)

    def excludes(self, table: str) -> None:
        """Leave out counters that the exporter makes of all rows of a table."""
        reason = NOT_WITHOUT_EVENTS.format(table)
        counters = (m.old for m in MEASURES if m.table == table and m.kind == "counter")
        self._excluded.update(dict.fromkeys(counters, reason))

    def read(self) -> None:
        """Put all rows that count into the scratch file.

        Raises:
            DatabaseError: the table cannot be read.
        """
        for rows in self._reader.batches(TABLE, _COLUMNS):
            self._rows += len(rows)
            samples = (self._sample(*row[1:]) for row in rows)
            self._scratch.add_samples(sample for sample in samples if sample)

    def families(self) -> Iterator[Family]:
        """Yield a family for each old metric."""
        for measure in MEASURES:
            total = "_total" if measure.kind == "counter" else ""
            name = f"{measure.name}{total}"
            group = Group(((name, {}),), partial(self._values, measure))
            yield Family(measure.name, measure.kind, measure.help, (group,))

    def lines(self) -> Iterator[str]:
        """Yield what became of the rows, for people."""
        yield f"{TABLE}: {self._rows} rows"
        for old, taken in self._taken.items():
            if taken:
                yield f"  {old}: {taken} rows to {self._measures[old].name}"
        for name, number in self._left_out:
            yield f"  {name}: {number} rows left out, {self._reason(name)}"
        if rejected := str(self._rejected):
            yield f"  rejected: {rejected}"

    def _values(self, measure: Measure) -> Iterator[Values]:
        for moment, value in self._scratch.samples(self._numbers[measure.old]):
            yield moment, (value / measure.divisor,)

    def _reason(self, name: str) -> str:
        return {**LEFT_OUT, **self._excluded}.get(name, UNKNOWN)

    def _sample(self, name: object, value: object, time: object) -> Sample | None:
        """Return a row as a sample; count it if it is none."""
        measure = self._measures.get(str(name))
        if measure is None or measure.old in self._excluded:
            self._left_out.add(str(name)[:NAME_LENGTH])
            return None
        moment = _parse_time(time)
        if reason := self._objection(measure, value, moment):
            self._rejected.add(reason)
            return None
        assert moment is not None  # an objection otherwise
        assert isinstance(value, int | float)
        self._taken[measure.old] += 1
        slot = int(moment // self._step)
        return self._numbers[measure.old], slot, moment, float(value)

    def _objection(
        self, measure: Measure, value: object, moment: float | None
    ) -> str | None:
        if value is None:
            return "NULL or NaN"  # SQLite makes one of the other
        if not isinstance(value, int | float):
            return "not a number"
        if math.isinf(value) or value < 0:
            return "infinite" if math.isinf(value) else "negative"
        if moment is None:
            return "with a time that cannot be read"
        if moment < EARLIEST:
            return f"before {utc(EARLIEST)}, by a clock that was not set"
        if moment > self._until:
            return f"after {utc(self._until)}"
        if moment >= self._ends.get(measure.old, math.inf):
            return f"of what {measure.table} tells exactly"
        if measure.old == "avg_query_time" and value == 0:
            return "means of no query"
        return None
