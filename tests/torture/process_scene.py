"""An exporter's process over both databases, what is done to it, and what comes of it.

The truth is that of ``tests.faults``: a ledger of all rows that were committed, with
which each page is compared. Beside that, no page may show a row that the state file
does not cover at that moment.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from tests.faults.rows import read_tally, rows_in
from tests.faults.store import Store
from tests.faults.target import Asking, Page
from tests.faults.trial import Trial, Unsettled
from tests.torture.calls import Calls
from tests.torture.report import Effort, Found

FEW_ROWS = 40


class Scene:
    """A trial, and the findings of one fault."""

    def __init__(self, effort: Effort, *, watched: bool = False) -> None:
        self.rng = effort.rng
        self.found = Found()
        self.trial = Trial(effort.folder, effort.rng)
        self.target = self.trial.target
        self.watched = watched
        if watched:
            self.calls = Calls(effort.folder)
            self.target.environment |= self.calls.environment
        self._told = 0  # errors in the log that have been noted

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.target.kill()
        for store in self.trial.stores:
            store.close()

    @contextmanager
    def one_try(self, what: str, *, excused: Iterable[str] = ()) -> Iterator[None]:
        """Count a try; what was found in it is noted under its name.

        ``excused`` are words of errors in the log that are the fault's own.
        """
        trial = self.trial
        trial.story = [what]
        self.found.tried += 1
        try:
            yield
        except Unsettled as error:
            self.target.crashes.append(f"shows not everything: {error}")
        self.note_trial(what)
        self.note_process(what, excused)

    def note_process(self, what: str, excused: Iterable[str] = ()) -> None:
        """Note what was harmed, and what the exporter suffered."""
        for store in self.trial.stores:
            self._note_all("harmed", what, store.harm)
        self._note_all("crashed", what, self.target.crashes)
        self._note_all("crashed", what, self._new_errors(excused))

    def note_trial(self, what: str) -> None:
        """Note what was lost or doubled."""
        trial = self.trial
        text = "; ".join((what, *trial.trouble, *trial.story[1:]))
        for finding, names in _FINDINGS.items():
            if number := sum(trial.tally.pop(name, 0) for name in names):
                self.found.note(finding, text, number)
        trial.trouble.clear()

    def write(self, most: int = FEW_ROWS) -> None:
        """Write some rows into each table."""
        for store in self.trial.stores:
            for name in store.tables:
                self.trial.insert(store, name, self.rng.randint(1, most))

    def prune(self, *stores: Store) -> None:
        """Delete rows of each table, old ones and perhaps all."""
        for store in stores or self.trial.stores:
            for name, table in store.tables.items():
                kept = self.rng.choice((0, 0, self.rng.randint(0, 60)))
                upto = max(1, table.last - kept)  # else nothing would be missing
                self.trial.prune(store, name, upto)

    def scrape(self, asking: Asking | None = None) -> Page | None:
        """Return a page if one was received; it is compared."""
        page = self.trial.scrape(asking=asking or self.asking())
        if page:
            self.check_durable(page)
        return page

    def asking(self) -> Asking:
        """Return a way to ask, with time enough for everything."""
        return Asking(self.rng.random() < 0.5, self.rng.random() < 0.5)

    def settle(self) -> None:
        """Compare what is shown with the truth, once all is shown."""
        if self.watched:
            self.calls.rest()
        self.trial.settle()

    def check_durable(self, page: Page) -> None:
        """Note rows on a page that the state file does not cover."""
        state = self.state
        for table in self.trial.tables():
            if not page.succeeded(table.spec.collector):
                continue
            shown = rows_in(read_tally(table.spec, page.samples))
            saved = state.get(table.spec.name, {"rows": 0, "missed": 0})
            durable = saved["rows"] + saved["missed"]
            if shown > durable:
                text = f"{table.spec.name}: {shown} rows shown, {durable} durable"
                self.found.note("doubled", f"{self.trial.story[0]}: {text}")

    @property
    def state(self) -> dict[str, Any]:
        """The tables in the state file."""
        if not self.target.state.exists():
            return {}
        line = self.target.state.read_bytes().partition(b"\n")[0]
        try:
            tables: dict[str, Any] = json.loads(line)["tables"]
        except ValueError:
            return {}
        return tables

    def _note_all(self, finding: str, what: str, texts: list[str]) -> None:
        for text in texts:
            self.found.note(finding, f"{what}: {text}")
        texts.clear()

    def _new_errors(self, excused: Iterable[str]) -> list[str]:
        errors = list(self.target.errors()) if self.target.log.exists() else []
        new, self._told = errors[self._told :], len(errors)
        return [x[:600] for x in new if not any(word in x for word in excused)]


_FINDINGS = {"lost": ("lost", "fell", "misread"), "doubled": ("doubled",)}
