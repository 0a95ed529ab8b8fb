"""Through real files: whatever becomes of a table, each of its rows counts once."""

import math
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from exporter import counting
from exporter.collectors import queries
from exporter.counting.table import Counts, Reading, State
from exporter.database import Database
from exporter.database.schema import Schema
from tests.counting.story import Story
from tests.databases import App, Files
from tests.exporters import make_config

OTHER_TABLES: dict[str, Callable[[Story], None]] = {
    "overwritten": lambda story: story.file.replace(same_inode=True),
    "renamed": lambda story: story.file.replace(),
    "recreated": lambda story: story.file.recreate(story.table),
}
MOVES: dict[str, Callable[[Story], None]] = {
    "vacuum": lambda story: story.file.vacuum(),
    "vacuum-into": lambda story: story.file.vacuum_into(),
    "copy": lambda story: story.file.move_to_copy(),
    "restored-at-once": lambda story: story.file.restore(story.file.backup()),
}


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


@pytest.mark.parametrize("how", OTHER_TABLES)
def test_new_table_counts_on_top(story: Story, how: str) -> None:
    for rows in (1, 30):
        OTHER_TABLES[how](story)
        story.write(rows)
        story.resets += 1
        story.check()
    story.write(20)
    story.check()


@pytest.mark.parametrize("same_inode", [True, False], ids=["same", "other"])
def test_restored_backup_counts_only_what_comes_after(
    story: Story, same_inode: bool
) -> None:
    backup = story.file.backup()
    for rows in (3, 9):
        story.write(5)
        story.check()
        story.file.restore(backup, same_inode)
        story.write(rows)
        story.resets += 1
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
