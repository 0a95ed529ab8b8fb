"""Who compares pages: with the pages before them, and with what was committed."""

from collections.abc import Callable, Iterator, Sequence

from tests.torture.ledger import Ledger
from tests.torture.rows import is_told, read_tally
from tests.torture.store import Store
from tests.torture.victim import Page

Note = Callable[[str, int, str], None]
Series = tuple[object, ...]  # name and labels


class Judge:
    """What the pages have shown so far, and what has to be on the next one."""

    def __init__(self, stores: Sequence[Store], note: Note) -> None:
        self._stores = stores
        self._note = note
        self._resets: dict[str, float] = {}  # of each table, when last settled
        # All counters as the pages showed them that were there by then, oldest first.
        self._seen: list[tuple[float, dict[Series, float]]] = [(0.0, {})]

    @property
    def tables(self) -> Iterator[Ledger]:
        """All tables of both databases."""
        for store in self._stores:
            yield from store.tables.values()

    def is_whole(self, page: Page) -> bool:
        """Say whether a page shows all rows of every table."""
        return "storage" not in page.failed and all(
            table.spec.collector not in page.failed
            and is_told(table.spec, page)
            and self._backlog(page, table) == 0
            for table in self.tables
        )

    def compare(self, page: Page, *, is_quiet: bool) -> None:
        """Compare a page that may show a part; not quiet: others write meanwhile."""
        self._compare_counters(page)
        for table in self.tables:
            spec = table.spec
            if spec.collector in page.failed or not is_told(spec, page):
                continue
            self._check_resets(page, table)
            backlog = self._backlog(page, table) if is_quiet else None
            text = table.check(read_tally(spec, page), backlog).text
            self._note("misread", int(bool(text)), f"{spec.name}: {text}")

    def settle(self, page: Page) -> None:
        """Compare a page that shows all rows, and start again from it."""
        for key in self._seen_at(page.ended).keys() - page.counters.keys():
            self._note("fell", 1, f"{key}: no longer on the page")
        self._seen = [(page.ended, page.counters)]
        for table in self.tables:
            name = table.spec.name
            self._resets[name] = page.resets(name)
            found = table.settle(read_tally(table.spec, page))
            text = f"{name}, at last: {found.text}"
            self._note("lost", found.lost, text)
            self._note("doubled", found.doubled, text)
            self._note("left over", found.left_over, "")

    def begin_anew(self) -> None:
        """Expect counters at 0, whatever was counted before."""
        for table in self.tables:
            table.begin_anew({})
            table.mark = -1
        self.forget_pages()

    def forget_pages(self) -> None:
        """Let counters fall once; what they have to be, the ledgers say."""
        self._seen = [(0.0, {})]
        self._resets.clear()

    def _compare_counters(self, page: Page) -> None:
        """Compare with the pages that were there when this one was asked for."""
        before = self._seen_at(page.started)
        for key, value in page.counters.items():
            if value < before.get(key, 0.0):
                self._note("fell", 1, f"{key}: {before[key]} to {value}")
        largest = dict(self._seen_at(page.ended))
        for key, value in page.counters.items():
            largest[key] = max(value, largest.get(key, 0.0))
        self._seen.append((page.ended, largest))

    def _seen_at(self, moment: float) -> dict[Series, float]:
        pages = (seen for seen in self._seen if seen[0] <= moment)
        return max(pages, key=lambda seen: seen[0])[1]

    def _check_resets(self, page: Page, table: Ledger) -> None:
        """Counting begins anew only where a table has come in another's place."""
        name, found = table.spec.name, page.resets(table.spec.name)
        if not table.is_swapped and found > self._resets.get(name, found):
            self._note("misread", 1, f"{name}: a reset for nothing")

    def _backlog(self, page: Page, table: Ledger) -> float | None:
        return page("hakgal_exporter_backlog_rows", table=table.spec.name)
