"""What must be counted of one table: kept by the writer, compared with the page.

A row is *fresh* until the exporter may have read it, then *exposed* until a page shows
all rows. A fresh row that is pruned is missed for certain; an exposed one is
*doubtful*: it was counted or missed, but not both and not neither.

A *swap* puts another table in this one's place, all of whose rows were there before.
The rule: none of them counts again, the mark becomes the newest time of all, and
reading goes on behind the newest row whose time is not above it. *Left over* are the
rows up to that one, which may be passed over, and rows without a time, which may also
count once more at each swap.
"""

from collections.abc import Callable, Iterable
from math import isclose
from typing import NamedTuple

from tests.torture.rows import MISSED, PASSED_OVER, Key, Spec, Tally, rows_in

MOST_LINES = 6


class Row(NamedTuple):
    """A committed row; its time in seconds, None without one."""

    time: int | None
    id: int
    key: Key
    value: float


class Difference(NamedTuple):
    """Rows that the page has too few and too many, and which they are.

    ``left_over`` rows were lost or doubled where the promise does not reach.
    """

    lost: int
    doubled: int
    text: str
    left_over: int = 0


class Ledger:
    """The rows of one table since the last page that showed everything.

    ``last`` is the last id given out. Where ids may go to rows that are never written,
    a row that is pruned unread is not missed: it leaves an id that only the backlog
    counts.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.last = 0
        self.newest = self.mark = -1
        self._untimed: list[Row] = []
        self.begin_anew({})

    def begin_anew(self, page: Tally) -> None:
        """Take what a page shows for right; all rows until then are no matter."""
        self.confirmed = dict(page)
        self.is_read = False  # the exporter may read at this moment
        self.is_swapped = False
        self.fresh: list[Row] = []
        self.exposed: list[Row] = []
        self.doubtful: list[Row] = []
        self._gone: list[Row] = []  # with a table that was perhaps read before it went
        self._again: list[Row] = []
        self._missing = 0  # ids without a row; after a swap, at most so many are missed
        self._swapped_ids = 0

    def commit(self, rows: list[Row]) -> None:
        """Add committed rows, all of the same time."""
        (self.exposed if self.is_read else self.fresh).extend(rows)
        self.last += len(rows)
        if rows and rows[0].time is None:
            self._untimed += rows
        elif rows:
            self.newest = max(self.newest, rows[0].time or 0)

    def expose(self) -> None:
        """Note that the exporter may be reading from now on."""
        self.is_read = True
        self.exposed += self.fresh
        self.fresh = []

    def prune(self, is_gone: Callable[[Row], bool]) -> None:
        """Note that rows were deleted."""
        self._missing += sum(map(is_gone, self.fresh))
        self.fresh = [row for row in self.fresh if not is_gone(row)]
        self.doubtful += filter(is_gone, self.exposed)
        self.exposed = [row for row in self.exposed if not is_gone(row)]

    def swap(self, ids: int) -> None:
        """Note a table in which so many ids were given out, in this one's place."""
        self.last = ids
        self._missing += ids + len(self.doubtful)
        self._swapped_ids += ids
        self._gone += self.exposed + self.doubtful
        self._again += self._untimed
        self.fresh, self.exposed, self.doubtful = [], [], []
        self.is_swapped, self.mark = True, self.newest

    def settle(self, page: Tally) -> Difference:
        """Compare with a page that shows all rows, and start again from it."""
        rows = self.fresh + self.exposed
        low = _tally(self._sure(rows), self.confirmed)
        if not (self.is_swapped or self.spec.burns_ids):
            low[MISSED] = low.get(MISSED, 0) + self._missing
        found = self._compare(page, low, 0)
        least = _tally(rows, self.confirmed)
        most = _tally(self.doubtful + self._gone, least)
        odd = sum(
            max(0, least.get(key, 0) - page.get(key, 0), page.get(key, 0) - number)
            for key, number in most.items()
            if key[0] != "sum" and key not in (MISSED, PASSED_OVER)
        )
        self.begin_anew(page)
        left_over = max(0, int(odd) - found.lost - found.doubled)
        return found._replace(left_over=left_over)

    def check(self, page: Tally, backlog: float | None) -> Difference:
        """Compare with a page that may show a part; no backlog: no matter how many."""
        return self._compare(page, self.confirmed, backlog)

    def _sure(self, rows: list[Row]) -> list[Row]:
        """Return the rows that have to count."""
        sure = [row for row in rows if not self._is_old(row)]
        if self.is_swapped:
            old = max((row.id for row in rows if self._is_old(row)), default=0)
            sure = [row for row in sure if row.id > old and row.time is not None]
        return sure

    def _is_old(self, row: Row) -> bool:
        return row.time is not None and row.time <= self.mark

    def _compare(self, page: Tally, low: Tally, backlog: float | None) -> Difference:
        high = self._high()
        lost = doubled = 0
        lines = []
        for key in sorted({*page, *low, *high}):
            found, least, most = (t.get(key, 0.0) for t in (page, low, high))
            if not _is_within(key, least, found, most):
                lines.append(f"{key}: {found}, not {least} to {most}")
                lost += int(max(0, least - found)) if key[0] != "sum" else 0
                doubled += int(max(0, found - most)) if key[0] != "sum" else 0
        if backlog is not None and not self.is_swapped:
            surplus, most_surplus = self._surplus(page, int(backlog))
            if not 0 <= surplus <= most_surplus:
                lines.append(f"{surplus:+d} rows, backlog {backlog}")
                lost, doubled = max(lost, -surplus), max(doubled, surplus)
        if lines and not (lost or doubled):
            lost = 1  # a sum alone: a value that is not its row's
        return Difference(lost, doubled, "; ".join(lines[-MOST_LINES:]))

    def _high(self) -> Tally:
        """Return what a page may show at most."""
        rows = self.fresh + self.exposed + self.doubtful + self._gone
        old = sum(map(self._is_old, rows))
        high = _tally(rows + self._again, self.confirmed)
        high[PASSED_OVER] = high.get(PASSED_OVER, 0) + old + self._swapped_ids
        if not self.spec.burns_ids:
            missing = self._missing + len(self.doubtful)
            high[MISSED] = high.get(MISSED, 0) + missing
        return high

    def _surplus(self, page: Tally, backlog: int) -> tuple[int, int]:
        """Return how many rows page and backlog have too many, and may have so."""
        rows = len(self.fresh) + len(self.exposed)
        ids = len(self.doubtful) + self._missing
        expected = rows_in(self.confirmed) + rows + (0 if self.spec.burns_ids else ids)
        return rows_in(page) + backlog - expected, ids if self.spec.burns_ids else 0


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
