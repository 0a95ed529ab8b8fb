"""A run of the fault test: both databases, the exporter, and a judge of each page."""

import random
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from exporter.commands.simulate import KNOWLEDGE_BASE_SCHEMA
from exporter.counting.row_count import INLINE_ROWS
from exporter.recorder import PERFORMANCE_SCHEMA
from tests.faults.rows import (
    AUDIT,
    CACHE,
    FACTS,
    PASSED_OVER,
    QUERIES,
    Tally,
    is_told,
    read_tally,
    rows_in,
)
from tests.faults.store import Backup, Clock, Store, TableModel, write_time
from tests.faults.target import Asking, Page, Scraping, Target

MOST_ROWS = 20_000
MOST_KEPT = 4  # backups of each database
SETTLE_SECONDS = 20.0
TIMEOUTS = (None, 10.0, 1.0, 0.1, 0.02)


class Unsettled(Exception):
    """The exporter does not come to show everything."""


class Trial:
    """What the faults are made with."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.rng = rng
        self.clock = Clock()
        self.folder = folder
        places = (
            (folder / "hexagonal_kb.db", KNOWLEDGE_BASE_SCHEMA, (FACTS, AUDIT)),
            (folder / "hakgal_performance.db", PERFORMANCE_SCHEMA, (QUERIES, CACHE)),
        )
        self.stores = [Store(*place, rng, self.clock) for place in places]
        for store in self.stores:
            store.run("SELECT 1")
        self.knowledge_base, self.performance = self.stores
        self.target = Target(folder, *(store.path for store in self.stores))
        self.tally: Counter[str] = Counter()
        self.trouble: list[str] = []
        self.story: list[str] = []
        self._added_before = 0  # facts, when counting began anew
        self._resets: dict[str, float] = {}  # of each table, when last settled
        self.may_misread = False  # damage may look like another table
        # All counters as the pages showed them that were there by then, oldest first.
        self._seen: list[tuple[float, dict[tuple[str, ...], float]]] = [(0.0, {})]

    # What HAK/GAL does

    def pick(self) -> tuple[Store, str]:
        """Return a database and one of its tables."""
        store = self.rng.choice(self.stores)
        return store, self.rng.choice(list(store.tables))

    def size(self, most: int = MOST_ROWS) -> int:
        """Return a number of rows: small more often than large, 0 among them."""
        return int((most + 1) ** self.rng.random()) - self.rng.randint(0, 1)

    def write(self, *stores: Store, most: int = MOST_ROWS) -> None:
        """Write some rows into some tables of these databases, or of both."""
        for store in stores or self.stores:
            for name in store.tables:
                if self.rng.random() < 0.6:
                    self.insert(store, name, self.size(most))

    def insert(
        self, store: Store, name: str, count: int, *, age: int | None = 0
    ) -> None:
        """Write rows that are so many seconds old, or have no time."""
        at = write_time(None if age is None else self.clock.seconds - age)
        first = store.tables[name].last + 1
        self.tell(f"insert {count} into {name}, from {first}, at {at}")
        store.insert(name, count, age=age)

    def prune(self, store: Store, name: str, upto: int) -> None:
        self.tell(f"prune {name} up to {upto}")
        store.prune(name, upto)

    def restore(
        self, store: Store, backup: Backup, *, same_inode: bool = False
    ) -> None:
        """Put a backup in place."""
        self.maybe_tick()
        self.tell(f"restore {backup.last}")
        store.restore(backup, same_inode=same_inode)

    def keep(self, store: Store) -> None:
        """Keep a backup for later rounds, perhaps in the place of another."""
        self.rng.shuffle(store.kept)
        for old in store.kept[MOST_KEPT - 1 :]:
            old.path.unlink()
        store.kept[MOST_KEPT - 1 :] = [store.backup()]

    def maybe_tick(self) -> None:
        """Let it be another second, before a swap, unless it is the very same."""
        if self.rng.random() < 0.8:
            self.clock.tick()

    def tell(self, what: str) -> None:
        """Note what is done, for the case that it goes wrong."""
        self.story.append(what)

    # What the exporter does

    def start(self) -> None:
        """Start the exporter; it begins to read at once."""
        self.tell("start")
        self._expose()
        self.target.start()

    def end(self, number: signal.Signals) -> None:
        """Kill or stop the exporter."""
        self.tell(number.name)
        self.target.end(number)
        self.note_end()

    def note_end(self) -> None:
        """Note that nobody reads any more."""
        for table in self.tables():
            table.ledger.is_read = False

    @property
    def is_read(self) -> bool:
        """Whether the exporter may read at this moment."""
        return any(table.ledger.is_read for table in self.tables())

    def tables(self) -> Iterator[TableModel]:
        """Yield all tables."""
        for store in self.stores:
            yield from store.tables.values()

    def ask(self, *, patiently: bool = False) -> Asking:
        """Return some way to ask for a page."""
        return Asking(
            self.rng.random() < 0.4,
            self.rng.random() < 0.3,
            None if patiently else self.rng.choice(TIMEOUTS),
        )

    def begin_scraping(self, *, again: bool = False) -> Scraping:
        """Scrape in a thread, while other things are done."""
        self._expose()
        self.tell("begin scraping")
        return Scraping(self.target, self.ask(), again=again)

    def end_scraping(self, *scrapings: Scraping) -> None:
        """Look at the pages that were received whole meanwhile."""
        pages = [page for scraping in scrapings for page in scraping.finish()]
        self.tell(f"end scraping, {len(pages)} pages")
        self.tally["cut off"] += not pages
        for page in sorted(pages, key=lambda page: page.ended):
            self._judge(page, is_quiet=False)

    def scrape(
        self,
        *,
        patiently: bool = False,
        asking: Asking | None = None,
        is_quiet: bool = True,
    ) -> Page | None:
        """Scrape; ``is_quiet`` while nothing is written and everything can be read."""
        self._expose()
        asking = asking or self.ask(patiently=patiently)
        page = self.target.scrape(asking)
        self.tell(f"scrape {asking.timeout_seconds}")
        if page:
            self._judge(page, is_quiet=is_quiet)
        return page

    def settle(self) -> None:
        """Scrape until the page shows everything, and compare it."""
        if not self.target.is_up:
            self.start()
        self.target.wait_until_up()
        until = time.monotonic() + SETTLE_SECONDS
        while not (page := self.scrape(patiently=True)) or not self.is_whole(page):
            self.target.check()
            if time.monotonic() > until or not self.target.is_up:
                raise Unsettled(self._failing(page))
            time.sleep(0.005)
        self.tell("settled")
        self._settle(page)

    # What is compared

    def forget_pages(self) -> None:
        """Let counters fall once; what they have to be, the ledgers say."""
        self._seen = [(0.0, {})]
        self._resets.clear()

    def begin_anew(self) -> Page:
        """Start it, and take the first page that is whole for right, as at first."""
        self.target.start()
        self.target.wait_until_up()
        while not (page := self.target.scrape(Asking())) or not self.is_whole(page):
            self.target.check()
        for table in self.tables():
            table.ledger.begin_anew(read_tally(table.spec, page.samples))
            table.ledger.mark = -1
        self._seen = [(page.ended, page.counters)]
        self._resets.clear()
        added = page.gauge("hakgal_facts_added_total") or 0
        ledger = self.knowledge_base.tables[FACTS.name].ledger
        self._added_before = int(added) - facts_in(ledger.confirmed)
        return page

    def start_over(self) -> None:
        """Start it without its state file, as at first."""
        self.end(signal.SIGKILL)
        self.target.state.unlink()
        self.begin_anew()

    def _seen_at(self, moment: float) -> dict[tuple[str, ...], float]:
        """Return the counters as pages had shown them by a moment."""
        pages = (seen for seen in self._seen if seen[0] <= moment)
        return max(pages, key=lambda seen: seen[0])[1]

    def _expose(self) -> None:
        for table in self.tables():
            table.ledger.expose()

    def is_whole(self, page: Page) -> bool:
        """Say whether a page shows all rows of every table."""
        return page.succeeded("storage") and all(
            page.succeeded(table.spec.collector) and self._backlog(page, table) == 0
            for table in self.tables()
        )

    def _backlog(self, page: Page, table: TableModel) -> float | None:
        return page.gauge("hakgal_exporter_backlog_rows", table.spec.name)

    def _judge(self, page: Page, *, is_quiet: bool) -> None:
        """Compare a page that may show a part with the pages before it."""
        self.tally["pages"] += 1
        before = self._seen_at(page.started)
        for key, value in page.counters.items():
            if value < before.get(key, 0.0):
                self._note("fell", 1, f"{key}: {before[key]} to {value}")
        largest = dict(self._seen_at(page.ended))
        for key, value in page.counters.items():
            largest[key] = max(value, largest.get(key, 0.0))
        self._seen.append((page.ended, largest))
        for table in self.tables():
            if page.succeeded(table.spec.collector) and is_told(
                table.spec, page.samples
            ):
                self._check_resets(page, table)
                backlog = self._backlog(page, table) if is_quiet else None
                tally = read_tally(table.spec, page.samples)
                text = table.ledger.check(tally, backlog).text
                self._note("misread", int(bool(text)), f"{table.spec.name}: {text}")

    def _settle(self, page: Page) -> None:
        for key in self._seen_at(page.ended).keys() - page.counters.keys():
            self._note("fell", 1, f"{key}: no longer on the page")
        self._seen = [(page.ended, page.counters)]
        for table in self.tables():
            tally = read_tally(table.spec, page.samples)
            before = rows_in(table.ledger.confirmed)
            self.tally["observed"] += rows_in(tally) - before
            self._resets[table.spec.name] = resets(page, table)
            difference = table.ledger.settle(tally)
            text = f"{table.spec.name}, at last: {difference.text}"
            self._note("lost", difference.lost, text)
            self._note("doubled", difference.doubled, text)
            self.tally["left over"] += difference.left_over
        self._check_facts(page)

    def _check_resets(self, page: Page, table: TableModel) -> None:
        """Counting begins anew only where a table has come in another's place."""
        name, found = table.spec.name, resets(page, table)
        if not table.ledger.is_swapped and found > self._resets.get(name, found):
            if self.may_misread:
                table.ledger.swap(table.last)
            else:
                self._note("misread", 1, f"{name}: a reset for nothing")

    def _check_facts(self, page: Page) -> None:
        facts = self.knowledge_base.tables[FACTS.name]
        if not self.knowledge_base.is_open:
            return
        held = self.knowledge_base.value("SELECT COUNT(*) FROM facts")
        if page.gauge("hakgal_facts") != held:  # read on since: a scrape late
            page = self.target.scrape(Asking()) or page
        ever = facts_in(facts.ledger.confirmed) + self._added_before
        for name, right in (("hakgal_facts", held), ("hakgal_facts_added_total", ever)):
            found = page.gauge(name)
            if found != right and held <= INLINE_ROWS:
                self._note("misread", 1, f"{name}: {found}, not {right}")

    def _note(self, what: str, count: int, text: str) -> None:
        self.tally[what] += count
        if count and text not in self.trouble:
            self.trouble.append(text)
            self.tell(f"!!! {what} {count}")

    def _failing(self, page: Page | None) -> str:
        if page is None:
            return "no page"
        success = page.samples["hakgal_exporter_collector_success"]
        failing = [name for (name,), value in success.items() if not value]
        return f"failing {failing}, backlogs {self._backlogs(page)}"

    def _backlogs(self, page: Page) -> Iterable[float | None]:
        return [self._backlog(page, table) for table in self.tables()]


def facts_in(tally: Tally) -> int:
    """Return how many facts were seen added."""
    return rows_in(tally) - int(tally.get(PASSED_OVER, 0))


def resets(page: Page, table: TableModel) -> float:
    """Return how often counting has begun anew in a table."""
    found = page.samples["hakgal_exporter_resets_total"]
    return sum(number for labels, number in found.items() if table.spec.name in labels)
