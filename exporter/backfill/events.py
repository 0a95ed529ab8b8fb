"""Queries and cache look-ups from before the exporter, counted as it counts them."""

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, Protocol

from exporter.backfill.reader import BATCH_ROWS, TIME, Reader
from exporter.backfill.report import EARLIEST, parse_time, utc
from exporter.backfill.scratch import Point, Scratch
from exporter.counting.fold import fold
from exporter.counting.state import Counts, Series
from exporter.counting.table import Table
from exporter.database.reader import release

SLICE_SECONDS = 0.005  # what a writer in rollback mode may have to wait

Key = tuple[str, bool]  # label value and flag


class Span(Protocol):
    """The time that is wanted, in seconds."""

    @property
    def until(self) -> int: ...
    @property
    def step(self) -> int: ...


class Run(NamedTuple):
    """Rows up to an id that go into the sample of one moment."""

    upto: int
    moment: int


@dataclass
class Batch:
    """What some rows have added: the counts now, and those series that changed."""

    counts: Counts
    runs: list[Run]
    untimed: int
    rows: int = 0
    changed: list[tuple[Key, int, list[int], float]] = field(default_factory=list)


class Events:
    """Folds one table, and notes in a scratch file what was counted by when.

    ``numbers`` are those of the series there; ``start`` is where all of them are 0.
    """

    def __init__(
        self, reader: Reader, scratch: Scratch, table: Table, span: Span
    ) -> None:
        self.table = replace(table, source=table.name)
        self.start: int | None = None
        self.numbers: dict[Key, int] = {}
        self._reader = reader
        self._scratch = scratch
        self._span = span
        self._counts = Counts.zero(table)
        self._rows = self._untimed = 0

    def holds_rows(self) -> bool:
        """Tell whether there is something to count."""
        return self._reader.largest_id(self.table.name) > 0

    def read(self) -> None:
        """Fold the rows up to the last one that is not after the end of the span.

        Raises:
            DatabaseError: the table cannot be read.
        """
        last, moment = self._last_id(), self._first_moment()
        if last is None or moment is None:
            return
        self.start = moment - self._span.step
        for label, _ in self._counts.series:
            self._begin_series(label, self.start)
        after = 0
        while after < last:
            work = partial(self._fold_batch, self._counts, after, last, moment)
            batch = self._reader.read(work)
            if not batch.runs:
                break
            self._counts = batch.counts
            self._scratch.add_points(self._points(batch))
            self._rows += batch.rows
            self._untimed += batch.untimed
            after, moment = batch.runs[-1]

    def lines(self) -> Iterator[str]:
        """Yield what became of the rows, for people."""
        yield f"{self.table.name}: {self._rows} rows up to {utc(self._span.until)}"
        rejected = [f"{n} {why}" for why, n in self._counts.rejected.items() if n]
        if rejected:
            yield f"  rejected, as by the exporter: {', '.join(rejected)}"
        if self._untimed:
            yield f"  {self._untimed} with no time of theirs, counted at the one before"
        if self._counts.overflowed:
            yield f"  {self._counts.overflowed} became other (--label.limit)"

    def _last_id(self) -> int | None:
        """Return the newest row of the span; those after it are the exporter's."""
        for row, text in self._reader.newest_first(self.table.name, TIME):
            if self._time(text) is not None:
                return int(row)
        return None

    def _first_moment(self) -> int | None:
        for rows in self._reader.batches(self.table.name, TIME):
            for _, text in rows:
                if (seconds := self._time(text)) is not None:
                    return self._sample_after(seconds)
        return None

    def _time(self, text: object) -> float | None:
        seconds = parse_time(text)
        in_span = seconds is not None and EARLIEST <= seconds <= self._span.until
        return seconds if in_span else None

    def _sample_after(self, seconds: float) -> int:
        """Return when the next scrape would have been."""
        step = self._span.step
        return min((int(seconds // step) + 1) * step, self._span.until)

    def _fold_batch(
        self, counts: Counts, after: int, last: int, moment: int, db: sqlite3.Connection
    ) -> Batch:
        """Fold some rows; this may be run again, so it changes nothing."""
        sql = (
            f"SELECT id, {TIME} FROM {self.table.name} WHERE id > ? AND id <= ?"
            f" ORDER BY id LIMIT {BATCH_ROWS}"
        )
        rows = db.execute(sql, (after, last)).fetchall()
        batch = Batch(counts.copy(), *self._runs(rows, moment))
        slice_end = time.monotonic() + SLICE_SECONDS
        for run in batch.runs:
            before = {k: (s.counts[:], s.total) for k, s in batch.counts.series.items()}
            span = range(after + 1, run.upto + 1)
            batch.rows += fold(db, self.table, batch.counts, span, None)[0]
            after = run.upto
            for key, series in batch.counts.series.items():
                if before.get(key) != (series.counts, series.total):
                    changed = (key, run.moment, series.counts[:], series.total)
                    batch.changed.append(changed)
            if time.monotonic() > slice_end:
                release(db)
                slice_end = time.monotonic() + SLICE_SECONDS
        return batch

    def _runs(
        self, rows: list[tuple[int, object]], moment: int
    ) -> tuple[list[Run], int]:
        """Return which rows go into which sample, and how many have no time.

        Ids rise in the order of commits, clocks are set back: a row is never counted
        before those that a scrape had already seen.
        """
        runs: list[Run] = []
        untimed = 0
        for row, text in rows:
            seconds = self._time(text)
            untimed += seconds is None
            if seconds is not None:
                moment = max(moment, self._sample_after(seconds))
            if runs and runs[-1].moment == moment:
                runs.pop()
            runs.append(Run(row, moment))
        return runs, untimed

    def _points(self, batch: Batch) -> Iterator[Point]:
        for key, moment, counts, total in batch.changed:
            if key not in self.numbers:
                self._begin_series(key[0], moment - self._span.step)
            yield self.numbers[key], moment, counts, total

    def _begin_series(self, label: str, moment: int) -> None:
        """Let the series of a label value begin at 0: what first shows at 7 has not
        increased.
        """
        empty = Series([0] * (len(self.table.buckets) + 2))
        for flag in (False, True):
            number = self.numbers.setdefault((label, flag), self._scratch.new_series())
            self._scratch.add_points([(number, moment, empty.counts, empty.total)])
