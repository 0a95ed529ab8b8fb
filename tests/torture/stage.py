"""Where scenes play: one exporter, HAK/GAL's databases, and the judge of each page."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from exporter.commands.simulate import KNOWLEDGE_BASE_SCHEMA
from exporter.recorder import PERFORMANCE_SCHEMA
from tests.databases import traces
from tests.exporters import read_state
from tests.torture.calls import Calls
from tests.torture.judge import Judge
from tests.torture.report import Found
from tests.torture.rows import AUDIT, CACHE, FACTS, QUERIES, read_tally, rows_in
from tests.torture.store import Clock, Store, write_time
from tests.torture.victim import (
    PROGRAM,
    Page,
    Scraping,
    Usage,
    Victim,
    draw_headers,
)

FEW_ROWS = 40
SETTLE_SECONDS = 20.0
LOOK_SECONDS = 2.0  # of a scrape's timeout, on a machine with more to do than it can
GRACE_SECONDS = 0.5  # for this process, which has to read the page, on a busy machine
TIMEOUTS = (None, 10.0, 1.0, 0.1, 0.02)
# While others attack.
LONGEST_WAIT_SECONDS = 2.0
REST_SECONDS = 2.0
MOST_WORK_SECONDS = 0.1  # of processor time in these
MOST_LINES = 12  # in the log
RELEASE_SECONDS = 15.0  # longer than the exporter waits for anything that began
SPARE = 4  # descriptors and threads of a read, or of somebody asking for health


class Unsettled(Exception):
    """The exporter does not come to show everything."""


class Stage:
    """What scenes are made with."""

    def __init__(
        self, folder: Path, rng: random.Random, program: tuple[str, ...] = PROGRAM
    ) -> None:
        self.folder, self.rng = folder, rng
        self.victim = Victim(folder, program)
        self.clock = Clock()
        paths = (self.victim.data / n for n in ("hexagonal_kb", "hakgal_performance"))
        kinds = (
            (KNOWLEDGE_BASE_SCHEMA, (FACTS, AUDIT)),
            (PERFORMANCE_SCHEMA, (QUERIES, CACHE)),
        )
        self.stores = [
            Store(Path(f"{path}.db"), *kind, self.clock, random.Random(rng.random()))
            for path, kind in zip(paths, kinds, strict=True)
        ]
        self.found = Found()
        self.judge = Judge(self.stores, self._note)
        self.story: list[str] = []
        self.excused: tuple[str, ...] = ()
        self.calls: Calls | None = None  # where they are watched
        self._trouble: Counter[str] = Counter()
        self._texts: list[str] = []
        self._errors_told = 0

    def __enter__(self) -> Self:
        for folder in (self.victim.data, self.victim.state.parent):
            folder.mkdir(parents=True, exist_ok=True)
        for store in self.stores:
            store.run("SELECT 1")
        return self

    def __exit__(self, *exception: object) -> None:
        self.victim.kill()
        for store in self.stores:
            store.close()

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Play one try, then compare all counters with all rows."""
        self.story = []
        self.clock.tick()  # it is no other try's second
        try:
            yield
            self.settle()
        except Unsettled as error:
            self.victim.crashes.append(f"shows not everything: {error}")
        self.collect()

    def finish(self) -> None:
        """Stop the exporter in order."""
        if self.victim.is_up:
            self.end(signal.SIGTERM)
        for store in self.stores:
            store.close()
        self.collect()

    def collect(self) -> None:
        """Enter what was found since the last time."""
        self.found.counts["left over"] += self._trouble.pop("left over", 0)
        for finding, number in self._trouble.items():
            self.found.note(finding, "; ".join(self._texts), number)
        self._trouble.clear()
        self._texts.clear()
        errors = self.victim.errors
        new, self._errors_told = errors[self._errors_told :], len(errors)
        told = [n[:600] for n in new if not any(word in n for word in self.excused)]
        harm = (store.harm for store in self.stores)
        lists = {"harmed": harm, "crashed": (self.victim.crashes, told)}
        for finding, all_texts in lists.items():
            for texts in all_texts:
                for text in texts:
                    self.found.note(finding, text)
                texts.clear()

    def _note(self, finding: str, number: int, text: str) -> None:
        if number:
            self._trouble[finding] += number
            self._texts += [text] if text and text not in self._texts else []
            self.tell(f"!!! {finding} {number}")

    # What HAK/GAL does

    def pick(self) -> tuple[Store, str]:
        """Return a database and one of its tables."""
        store = self.rng.choice(self.stores)
        return store, self.rng.choice(list(store.tables))

    def write(self, *stores: Store, most: int = FEW_ROWS) -> None:
        """Write some rows into each table of these databases, or of both."""
        for store in stores or self.stores:
            for name in store.tables:
                self.insert(store, name, store.rng.randint(1, most))

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
        store.delete(name, f"WHERE id <= {upto}", lambda row: row.id <= upto)

    def prune_all(self) -> None:
        """Delete rows of each table, old ones and perhaps all."""
        for store in self.stores:
            for name, table in store.tables.items():
                kept = self.rng.choice((0, 0, self.rng.randint(0, 60)))
                self.prune(store, name, max(1, table.last - kept))

    def tell(self, what: str) -> None:
        """Remember what is done, for the case that it goes wrong."""
        self.story.append(what)

    # What the exporter does

    def start(self) -> None:
        """Start the exporter; it begins to read at once."""
        self.tell("start")
        self._expose()
        self.victim.start()

    def end(self, number: signal.Signals) -> None:
        """Kill or stop the exporter."""
        self.tell(number.name)
        self.victim.end(number)
        self.note_end()

    def note_end(self) -> None:
        """Note that nobody reads any more."""
        for table in self.judge.tables:
            table.is_read = False

    def begin_scraping(self, *, again: bool = False) -> Scraping:
        """Scrape in a thread, while other things are done."""
        self._expose()
        headers = draw_headers(self.rng, self.rng.choice(TIMEOUTS))
        return Scraping(self.victim, headers, again=again)

    def end_scraping(self, *scrapings: Scraping) -> int:
        """Look at the pages that were received whole meanwhile; return how many."""
        pages = [page for scraping in scrapings for page in scraping.finish()]
        self.tell(f"{len(pages)} pages meanwhile")
        for page in sorted(pages, key=lambda page: page.ended):
            self.judge.compare(page, is_quiet=False)
        return len(pages)

    def scrape(
        self, timeout: float | None = None, *, is_quiet: bool = True
    ) -> Page | None:
        """Scrape; ``is_quiet`` while nothing is written and everything can be read."""
        self._expose()
        before = traces(self.victim.data).items()
        page = self.victim.scrape(draw_headers(self.rng, timeout))
        if changed := before ^ traces(self.victim.data).items():
            self.stores[0].harm.append(f"files are touched: {sorted(changed)}")
        self.tell(f"scrape {timeout or ''}")
        if page:
            self.judge.compare(page, is_quiet=is_quiet)
        return page

    def look(
        self, *failing: str, timeout: float = LOOK_SECONDS, strict: bool = True
    ) -> Page | None:
        """Scrape amid a fault: a page comes in time, and says which collectors fail.

        Not ``strict``: whether they fail is not known, nor what they can read.
        """
        page = self.scrape(timeout, is_quiet=strict)
        if page is None:
            self.victim.crashes.append("no page")
            self.victim.check()
        elif (seconds := page.ended - page.started) > timeout + GRACE_SECONDS:
            self.victim.crashes.append(f"a page after {seconds:.1f} s of {timeout}")
        if page and strict and (failed := page.failed - {"storage"}) != set(failing):
            self.victim.crashes.append(f"failing: {failed}, not {set(failing)}")
        return page

    def settle(self) -> Page:
        """Scrape until the page shows everything, compare it, and return it."""
        if not self.victim.is_up:
            self.start()
        self.victim.wait_until_up()
        until = time.monotonic() + SETTLE_SECONDS
        while not (page := self.scrape()) or not self.judge.is_whole(page):
            if time.monotonic() > until or not self.victim.is_up:
                raise Unsettled(page and f"failing {page.failed}, {self.story[-3:]}")
            self.victim.check()
        self.tell("settled")
        self.judge.settle(page)
        return page

    def check_durable(self, page: Page) -> None:
        """Note rows on a page that the state file does not cover."""
        state = read_state(self.victim.state.parent)
        for table in self.judge.tables:
            spec, saved = table.spec, state[table.spec.name]
            shown = rows_in(read_tally(spec, page))
            durable = saved["rows"] + saved["missed"]
            if spec.collector not in page.failed and shown > durable:
                text = f"{spec.name}: {shown} rows shown, {durable} durable"
                self._note("doubled", shown - durable, text)

    @contextmanager
    def beset(self) -> Iterator[None]:
        """Write and scrape meanwhile, as HAK/GAL and Prometheus go on to do.

        They are served at once, and afterwards nothing is held or worked on.
        """
        for _ in range(5):  # what is loaded and remembered on first use
            self.scrape()
        before, lines = self.victim.usage, len(self.victim.lines)
        stopping = threading.Event()
        thread = threading.Thread(target=self._go_on, args=[stopping])
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()
        if new := self.victim.lines[lines + MOST_LINES :]:
            self.victim.crashes.append(f"{len(new)} lines too many: {new[-1]}")
        self.check_growth(before)
        worked = -self.victim.work_seconds
        time.sleep(REST_SECONDS)
        worked += self.victim.work_seconds
        if worked > MOST_WORK_SECONDS:
            self.victim.crashes.append(f"worked {worked:.2f} s while nobody asked")

    def _go_on(self, stopping: threading.Event) -> None:
        while not stopping.wait(0.1):
            self.write(most=3)
            page = self.scrape()
            if page is None or page.failed:
                self.victim.crashes.append(f"not served: {page and page.failed}")
            elif (seconds := page.ended - page.started) > LONGEST_WAIT_SECONDS:
                self.victim.crashes.append(f"a page took {seconds:.1f} s")

    def check_growth(self, before: Usage, memory_bytes: int = 20 << 20) -> None:
        """Note what is not given back after a while: memory, descriptors, threads.

        The allocator keeps some; what leaks is more, or leaves none.
        """
        most = Usage(*map(sum, zip(before, (memory_bytes, SPARE, SPARE), strict=True)))
        until = time.monotonic() + RELEASE_SECONDS
        while time.monotonic() < until:
            now = self.victim.usage
            if all(a <= b for a, b in zip(now, most, strict=True)):
                return
            time.sleep(0.1)
        self.victim.crashes.append(f"has grown: {before} to {now}")

    def _expose(self) -> None:
        for table in self.judge.tables:
            table.expose()
