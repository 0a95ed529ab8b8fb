"""Through real files: whatever becomes of a table, each of its rows counts once.

Each row that is written carries a number of its own as its value. The count and the sum
of these on the page then tell which rows are counted.
"""

import math
import random
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from exporter import counting
from exporter.collectors import queries
from exporter.counting.table import Counts, Reading, State
from exporter.database import Database
from exporter.database.schema import Schema
from tests.databases import App, File, Files, at
from tests.exporters import Page, make_config, make_exporter, scrape

HISTOGRAMS = {
    "query_times": "hakgal_query_duration_seconds",
    "cache_events": "hakgal_cache_response_seconds",
    "facts": "hakgal_fact_confidence",
}


@dataclass
class Story:
    """One table, its writer, and a new exporter for each page.

    ``expected`` are the numbers of the rows to be counted, ``missed`` and ``rejected``
    how many rows are to be reported, ``resets`` how often the table is to be taken for
    another. Rows are written a second apart.
    """

    files: Files
    table: str = "query_times"
    expected: list[int] = field(default_factory=list)
    missed: int = 0
    rejected: int = 0
    resets: int = 0
    written: int = 0

    def __post_init__(self) -> None:
        files = self.files
        is_facts = self.table == "facts"
        self.file: File = files.knowledge_base if is_facts else files.performance
        self.config = make_config(self.file.path.parent)

    def write(self, rows: int = 1, **columns: Any) -> list[int]:
        """Write rows that are to be counted, and return their ids."""
        self.file.run("BEGIN")
        ids = [self._write_row(columns) for _ in range(rows)]
        self.file.run("COMMIT")
        return ids

    def _write_row(self, columns: dict[str, Any]) -> int:
        self.written += 1
        self.expected.append(self.written)
        columns = {"timestamp": at(self.written)} | columns
        if self.table == "facts":
            return self.files.add_fact("Is(Fact).", self.written, **columns)
        if self.table == "cache_events":
            return self.files.add_cache(1, self.written, **columns)
        return self.files.add_query(self.written, **columns)

    def forget(self, rows: int) -> None:
        """Take the newest rows back from what is to be counted."""
        del self.expected[len(self.expected) - rows :]

    def run(self, sql: str, *parameters: object) -> None:
        """Execute a statement; ``{}`` is the table."""
        self.file.run(sql.format(self.table), *parameters)

    def prune(self, keep: int = 0) -> None:
        self.file.prune(self.table, keep)

    def scrape(self) -> Page:
        """Return a page on which nothing is left to be read."""
        exporter = make_exporter(self.config)
        page = scrape(exporter)
        while page("hakgal_exporter_backlog_rows", table=self.table):
            page = scrape(exporter)
        return page

    def check(self) -> Page:
        """Compare the rows that are counted with those written, and what is said."""
        page, table = self.scrape(), {"table": self.table}
        name = HISTOGRAMS[self.table]
        rejected = table | {"reason": "before_replacement"}
        found = {
            "count": page.sum(f"{name}_count"),
            "sum": page.sum(f"{name}_sum"),
            "missed": page("hakgal_exporter_missed_rows_total", **table),
            "rejected": page("hakgal_exporter_rejected_rows_total", **rejected),
            "resets": page.sum("hakgal_exporter_resets_total", **table),
            "failed": page.failed,
        }
        assert found == {
            "count": len(self.expected),
            "sum": sum(self.expected),
            "missed": float(self.missed if self.table != "facts" else 0),
            "rejected": self.rejected,
            "resets": self.resets,
            "failed": set(),
        }
        return page


MOVES: dict[str, Callable[[Story], None]] = {
    "vacuum": lambda story: story.file.vacuum(),
    "vacuum-into": lambda story: story.file.vacuum_into(),
    "copy": lambda story: story.file.move_to_copy(),
    "restored-at-once": lambda story: story.file.restore(story.file.backup()),
}

ASIDE, BACK = "ALTER TABLE {} RENAME TO aside", "ALTER TABLE aside RENAME TO {}"
# What is in a table's place for a while, and what is said of it.
STAND_INS = {
    "nothing": ("", "table query_times is gone"),
    "view": ("CREATE VIEW {} AS SELECT * FROM aside", "it is a view, not a table"),
    "virtual": ("CREATE VIRTUAL TABLE {} USING fts5(x)", "it is a virtual table"),
    "keyed": (
        "CREATE TABLE {} (id INTEGER PRIMARY KEY, query_time) WITHOUT ROWID",
        "it is a WITHOUT ROWID table",
    ),
}
ADDITIONS = (
    "ALTER TABLE {} ADD COLUMN more TEXT DEFAULT 'x'",
    "CREATE INDEX one ON {}(timestamp, id)",
    "CREATE TRIGGER two AFTER INSERT ON {} BEGIN SELECT 1; END",
)


@pytest.fixture(params=["query_times", "facts"])
def empty(files: Files, request: pytest.FixtureRequest) -> Story:
    """Return a story whose exporter has not read anything yet."""
    return Story(files, request.param)


@pytest.fixture
def story(empty: Story) -> Story:
    """Return one whose exporter has seen the empty table, then some rows."""
    return begin(empty)


def begin(story: Story) -> Story:
    story.check()
    story.write(10)
    story.check()
    return story


def now(days: float = 0.0) -> str:
    moment = datetime.fromtimestamp(time.time() + 86_400 * days, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S")


@pytest.mark.parametrize("move", MOVES)
def test_moved_file_is_read_on(story: Story, move: str) -> None:
    story.prune(keep=4)
    for rows in (0, 3):
        story.write(rows)
        MOVES[move](story)
        story.check()


def test_time_far_in_the_future_does_not_stop_counting_for_ever(story: Story) -> None:
    story.write(1, timestamp="2999-12-31 23:59:59")
    story.check()
    story.file.replace()
    story.resets += 1
    story.write(2, timestamp=now())
    story.forget(2)
    story.check()
    story.write(3, timestamp=now())  # the mark is a day ahead of the clock
    story.forget(3)
    story.rejected = 3
    story.check()
    story.write(3, timestamp=now(days=1.1))
    story.check()


@pytest.mark.parametrize("column", ["cache_key", "response_time", "timestamp"])
def test_column_that_goes_and_comes_back_counts_nothing_twice(
    files: Files, column: str
) -> None:
    story, hits = begin(Story(files, "cache_events")), []
    for old, new in ((column, "renamed"), ("renamed", column)):
        story.run(f"ALTER TABLE {{}} RENAME {old} TO {new}")
        hits.append(story.scrape()("hakgal_cache_hits_total"))
        story.run("INSERT INTO {} (hit) VALUES (1)")
        page = story.scrape()
        hits.append(page("hakgal_cache_hits_total"))
    assert hits == [10, 11, 11, 12]
    assert page.sum("hakgal_exporter_resets_total") == 0


@pytest.mark.parametrize("stand_in", STAND_INS)
def test_table_that_is_away_for_a_while_is_read_on(
    files: Files, stand_in: str, caplog: pytest.LogCaptureFixture
) -> None:
    story, (create, message) = begin(Story(files)), STAND_INS[stand_in]
    kind = "VIEW" if stand_in == "view" else "TABLE"
    story.run(ASIDE)
    story.run(create)
    assert story.scrape().failed == {"queries"}
    assert message in str(vars(caplog.records[0])["fields"])
    story.run(f"DROP {kind} IF EXISTS {{}}")
    story.run(BACK)
    story.write(3)
    story.check()


def test_file_that_is_damaged_for_a_while_is_read_on(files: Files) -> None:
    story, path = begin(Story(files)), files.performance.path
    files.performance.close()
    good, noise = path.read_bytes(), random.Random(1).randbytes(1 << 16)
    pages = range(0, len(good), 4096)
    for page in pages[1:]:
        for bad in (good[:page], noise[:page] + good[page:], noise[:page]):
            path.write_bytes(bad)
            assert story.scrape().failed == {"queries", "cache", "storage"}
    path.write_bytes(good)
    files.performance.open()
    story.write(3)
    story.check()


def test_columns_indexes_and_triggers_of_others_do_not_matter(story: Story) -> None:
    for addition in ADDITIONS:
        story.run(addition)
        story.write(3)
        story.check()


@pytest.mark.parametrize("row", [2**53 + 1, 2**63 - 1], ids=str)
def test_backup_counts_on_after_a_huge_id(files: Files, row: int) -> None:
    story = begin(Story(files))
    backup = story.file.backup()
    story.write(1, id=row)
    story.missed = row - 11
    story.check()
    story.file.restore(backup)
    story.write(3)
    story.resets += 1
    story.check()


def test_first_start_with_gaps_counts_from_now(empty: Story) -> None:
    empty.write(10)
    backup = empty.file.backup()
    empty.prune(keep=7)
    empty.forget(10)
    empty.check()
    empty.write(4)
    empty.check()
    empty.file.restore(backup)  # whose rows did not count, and do not now
    empty.resets += 1
    empty.write(2)
    empty.check()


def test_writer_gets_its_turn_between_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In rollback mode whoever reads keeps a writer from committing."""
    monkeypatch.setattr(counting, "SLICE_ROWS", 3)
    with Files(tmp_path, "delete") as files:
        Story(files).write(60)
    path, table = files.performance.path, queries.table(make_config(tmp_path))
    insert = "INSERT INTO query_times (query_time, success) VALUES (1, 1)"
    with App(path, timeout=0) as app:

        def take_a_turn(statement: str) -> None:
            if statement == "BEGIN" and len(written) < 10:
                written.append(app.run(insert))

        def work(db: sqlite3.Connection, file: object) -> Reading:
            db.set_trace_callback(take_a_turn)
            bound = table.bind(Schema(table.sources).find(db, table.sources))
            return counting.read_on(db, bound, State(Counts.zero(table)), math.inf)

        written: list[object] = []
        reading = Database("performance", path).read(work, time.monotonic() + 60)
    assert len(written) == 10
    assert reading.state
    assert reading.state.rows == 70
