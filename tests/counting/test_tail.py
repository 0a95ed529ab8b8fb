"""Reading on: what is missed, the first start, and large backlogs in short slices."""

import math
import sqlite3
import time
from pathlib import Path

import pytest

import exporter.counting as tail
from exporter.collectors import queries
from exporter.counting.table import Counts, Reading, State
from exporter.database import Database
from tests.counting.story import Story
from tests.database.reading import find_layout
from tests.databases import EPOCH, App, Files
from tests.exporters import (
    make_config,
    scrape,
)

BACKLOG = "hakgal_exporter_backlog_rows"
LAST = "hakgal_last_event_timestamp_seconds"
COUNT = "hakgal_query_duration_seconds_count"


@pytest.fixture(params=["query_times", "facts"])
def story(files: Files, request: pytest.FixtureRequest) -> Story:
    """Return a story whose exporter has not read anything yet."""
    is_wal = files.performance.journal_mode == "wal"
    return Story(files, request.param, restarts=is_wal)


@pytest.fixture
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "SLICE_ROWS", 3)


def test_new_rows_count_in_the_next_scrape(story: Story) -> None:
    for rows in (0, 1, 5, 0, 3):
        story.write(rows)
        story.check()


def test_first_start_reads_what_is_there_and_is_no_reset(story: Story) -> None:
    story.write(10)
    story.check()


def test_state_file_that_is_lost_is_a_first_start(story: Story) -> None:
    story.write(10)
    story.check()
    assert story.config.state_file
    story.config.state_file.unlink()
    story.restarts = True
    story.check()


@pytest.mark.parametrize("keep", [0, 1, 9], ids=str)
def test_first_start_with_gaps_counts_from_now(story: Story, keep: int) -> None:
    story.write(10)
    story.prune(keep)
    story.forget(10)
    story.check()
    story.file.vacuum_into()
    story.write(4)
    story.check()
    story.file.move_to_copy()
    story.check()


def test_rows_that_did_not_count_do_not_come_back_with_a_backup(story: Story) -> None:
    story.write(10)
    backup = story.file.backup()
    story.prune(keep=7)
    story.forget(10)
    story.check()
    story.write(4)
    story.check()
    story.file.restore(backup)
    story.resets += 1
    story.write(2)
    story.check()


def test_rows_pruned_before_they_were_read_are_missed(story: Story) -> None:
    story.check()
    for move in (story.scrape, story.file.vacuum_into):
        ids = story.write(5)
        story.run("DELETE FROM {} WHERE id IN (?, ?)", *ids[1:3])
        del story.expected[-4:-2]
        story.missed += 2
        move()
        story.check()
        story.write(3)
        story.prune()
        story.forget(3)
        story.missed += 3
        story.check()


def test_rolled_back_rows_are_not_missed(story: Story) -> None:
    story.write(2)
    story.check()
    story.run("BEGIN")
    story.files.add_query()
    story.files.add_fact()
    story.run("ROLLBACK")
    story.write(2)
    story.check()


@pytest.mark.parametrize("row", [0, -1, -(2**63)], ids=str)
def test_ids_that_sqlite_never_gives_are_left_out(story: Story, row: int) -> None:
    story.write(2)
    story.check()
    story.write(1, id=row)
    story.forget(1)
    story.check()


@pytest.mark.usefixtures("short_slices")
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 30], ids=str)
def test_slices_lose_nothing_at_their_edges(story: Story, rows: int) -> None:
    for _ in range(2):
        story.write(rows)
        story.check()
    story.write(1, id=10**15)  # a gap is stepped over at once
    story.missed = 10**15 - 2 * rows - 1
    story.write(rows)
    story.check()


@pytest.mark.usefixtures("short_slices")
@pytest.mark.parametrize("how", ["nothing", "new rows", "recreated", "pruned"])
def test_counts_are_not_shown_before_all_was_read_once(
    files: Files, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.scrape.reader.FOLD_SECONDS", 0.0)
    story = Story(files, restarts=False)
    story.write(60)
    page = scrape(story.exporter)
    assert page(BACKLOG, table="query_times") == 60
    assert page(LAST, table="query_times") == EPOCH + 60
    assert not page.by("query_type", COUNT)
    assert "query_times" not in page.by("table", "hakgal_exporter_missed_rows_total")
    assert not page.failed
    if how == "new rows":
        story.write(5)
    elif how == "recreated":
        story.file.recreate("query_times")
        story.forget(60)
        story.write(5)
    elif how == "pruned":
        story.prune(keep=1)
        story.scrape()
        if not story.scrape().sum(COUNT):  # else it had been read by then
            story.forget(60)
        story.write(5)
    story.scrape()
    story.check_rows()


@pytest.mark.usefixtures("short_slices")
def test_writer_gets_its_turn_between_slices(tmp_path: Path) -> None:
    """In rollback mode whoever reads keeps a writer from committing."""
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
            bound = table.bind(find_layout(db, *table.sources))
            return tail.read_on(db, bound, State(Counts.zero(table)), math.inf)

        written: list[object] = []
        reading = Database("performance", path).read(work, time.monotonic() + 20)
    assert len(written) == 10
    assert reading.state
    assert reading.state.rows == 70


def test_last_event_is_the_newest_row_that_is_left(files: Files) -> None:
    story = Story(files)
    times = []
    story.write(3)
    for sql in ("SELECT 1", "DELETE FROM {} WHERE id = 3", "DELETE FROM {}"):
        story.run(sql)
        times.append(story.scrape()(LAST, table="query_times"))
    assert times == [EPOCH + 3, EPOCH + 2, None]
