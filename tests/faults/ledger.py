"""What must be counted of one table: kept by the writer, compared with the page.

A row is *fresh* until the exporter may have read it, then *exposed* until a page shows
all rows. A fresh row that is pruned is missed for certain; an exposed one may have been
counted or missed, but not both and not neither.
"""

from collections.abc import Callable, Iterable
from math import isclose
from typing import NamedTuple

from tests.faults.rows import MISSED, Key, Tally, rows_in

MOST_LINES = 6


class Row(NamedTuple):
    """A committed row; ``number`` counts all rows ever committed to the table."""

    number: int
    id: int
    key: Key
    value: float


class Difference(NamedTuple):
    """Rows that the page has too few and too many, and which they are."""

    lost: int
    doubled: int
    text: str


class Ledger:
    """The rows of one table since the last page that showed everything.

    Where ids may go to rows that are never written, a row that is pruned unread is not
    missed but passed over: it leaves an id that only the backlog counts.
    """

    def __init__(self, *, burns_ids: bool = False) -> None:
        self.burns_ids = burns_ids
        self.passed_over = 0
        self.confirmed: Tally = {}
        self.fresh: list[Row] = []
        self.exposed: list[Row] = []
        self.doubtful: list[Row] = []
        self.missed = 0
        self.unseen = 0  # pruned in a file that nobody has seen: missed, or unknown
        self.is_read = False  # the exporter may read at this moment

    def commit(self, rows: list[Row]) -> None:
        """Add committed rows."""
        (self.exposed if self.is_read else self.fresh).extend(rows)

    def expose(self) -> None:
        """Note that the exporter may be reading from now on."""
        self.is_read = True
        self.exposed += self.fresh
        self.fresh = []

    def prune(self, is_gone: Callable[[Row], bool]) -> None:
        """Note that rows were deleted."""
        fresh = [row for row in self.fresh if not is_gone(row)]
        self.pass_over(len(self.fresh) - len(fresh))
        self.fresh = fresh
        self.doubtful += filter(is_gone, self.exposed)
        self.exposed = [row for row in self.exposed if not is_gone(row)]

    def pass_over(self, ids: int) -> None:
        """Note ids without a row that can be read."""
        if self.burns_ids:
            self.passed_over += ids
        else:
            self.missed += ids

    def prune_unseen(self, is_gone: Callable[[Row], bool]) -> int:
        """Note that rows were deleted from a table that nobody has seen before."""
        missed, fresh = self.missed, len(self.fresh)
        self.prune(is_gone)
        gone, self.missed = fresh - len(self.fresh), missed
        if not self.burns_ids:
            self.unseen += gone
        return gone

    def forget(self, after: int) -> int:
        """Note that rows with a larger number are gone without a trace in the file."""
        assert not any(row.number > after for row in self.exposed), "settle first"
        kept = [row for row in self.fresh if row.number <= after]
        gone, self.fresh = len(self.fresh) - len(kept), kept
        return gone

    def settle(self, page: Tally) -> Difference:
        """Compare with a page that shows all rows, and start again from it."""
        low = _tally(self.exposed + self.fresh, self.confirmed)
        low[MISSED] = low.get(MISSED, 0) + self.missed
        difference = self._compare(page, low, self._high(low), 0)
        self.begin_anew(page)
        return difference

    def begin_anew(self, page: Tally) -> None:
        """Take what a page shows for right; all rows until then are no matter."""
        self.confirmed, self.is_read = dict(page), False
        self.fresh, self.exposed, self.doubtful = [], [], []
        self.missed = self.unseen = self.passed_over = 0

    def check(self, page: Tally, backlog: float | None) -> Difference:
        """Compare with a page that may show a part; no backlog: no matter how many."""
        committed = _tally(self.exposed + self.fresh, self.confirmed)
        committed[MISSED] = committed.get(MISSED, 0) + self.missed
        return self._compare(page, self.confirmed, self._high(committed), backlog)

    def _high(self, committed: Tally) -> Tally:
        high = _tally(self.doubtful, committed)
        if not self.burns_ids:
            high[MISSED] = high.get(MISSED, 0) + len(self.doubtful) + self.unseen
        return high

    def _compare(
        self, page: Tally, low: Tally, high: Tally, backlog: float | None
    ) -> Difference:
        lost = doubled = 0
        lines = []
        for key in sorted({*page, *low, *high}):
            found, least, most = (t.get(key, 0.0) for t in (page, low, high))
            if not _is_within(key, least, found, most):
                lines.append(f"{key}: {found}, not {least} to {most}")
                lost += int(max(0, least - found)) if key[0] != "sum" else 0
                doubled += int(max(0, found - most)) if key[0] != "sum" else 0
        if backlog is not None:
            rows = rows_in(high) - len(self.doubtful)
            surplus = rows_in(page) + int(backlog) - rows
            ids = len(self.doubtful) + self.passed_over if self.burns_ids else 0
            if -self.unseen <= surplus <= ids:
                surplus = 0
            if surplus:
                lines.append(f"{surplus:+d} of {rows} rows, backlog {backlog}")
            lost, doubled = max(lost, -surplus), max(doubled, surplus)
        if lines and not (lost or doubled):
            lost = 1  # a sum alone: a value that is not its row's
        return Difference(lost, doubled, "; ".join(lines[-MOST_LINES:]))


def _tally(rows: Iterable[Row], start: Tally) -> Tally:
    tally = dict(start)
    for _, _, key, value in rows:
        tally[key] = tally.get(key, 0) + 1
        if value:
            total = ("sum", key[1], key[2])
            tally[total] = tally.get(total, 0) + value
    return tally


def _is_within(key: Key, least: float, found: float, most: float) -> bool:
    if key[0] != "sum":
        return least <= found <= most
    return least <= found <= most or any(
        isclose(found, bound, rel_tol=1e-9, abs_tol=1e-9) for bound in (least, most)
    )
