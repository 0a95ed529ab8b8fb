"""Every row counts once, whatever becomes of the table and its file (promise 1)."""

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter import tail
from exporter.database import Look
from exporter.errors import DatabaseError
from exporter.fold import Table
from exporter.identity import WINDOW
from exporter.tail import SLICE_ROWS
from tests.databases import EPOCH, JOURNAL_MODES, Files
from tests.stories import CACHE, FACTS, QUERIES, TABLES, Story

SAME_INODE = pytest.mark.parametrize(
    "same_inode", [True, False], ids=["same-inode", "other-inode"]
)
# The old table has ten rows.
NEW_ROWS = pytest.mark.parametrize(
    "rows", [1, 9, 10, 11, 30], ids=["one", "shorter", "equal", "longer", "longest"]
)


# Facts may be updated, so that within a second one cannot be told from another.
KINDS = {
    "queries": (QUERIES, True),
    "cache-in-one-second": (CACHE, False),
    "facts": (FACTS, True),
}


@pytest.fixture(params=JOURNAL_MODES)
def files(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Files]:
    with Files(tmp_path, request.param) as files:
        yield files


@pytest.fixture(params=KINDS)
def story(files: Files, request: pytest.FixtureRequest) -> Story:
    """Return a story whose exporter has seen the empty table, then ten rows."""
    restarts = files.performance.journal_mode == "wal"
    table, spread = KINDS[request.param]
    story = Story(files, table, spread, restarts)
    story.scrape()
    story.write(10)
    story.check()
    return story


def test_reads_on(story: Story) -> None:
    for rows in (1, 5, 0, 3):
        story.write(rows)
        story.check()


def test_vacuum(story: Story) -> None:
    story.file.vacuum()
    story.check()
    story.write(3)
    story.check()


def test_vacuum_into_and_rename(story: Story) -> None:
    story.file.vacuum_into()
    story.check()
    story.write(3)
    story.file.vacuum_into()
    story.check()


def test_copy_on_a_new_disk(story: Story) -> None:
    story.file.move_to_copy()
    story.write(3)
    story.check()


def test_old_rows_pruned(story: Story) -> None:
    story.prune(keep=4)
    story.write(3)
    story.check()


@pytest.mark.parametrize("how", ["", "vacuum", "vacuum_into", "move_to_copy"])
def test_all_rows_pruned(story: Story, how: str) -> None:
    story.prune()
    getattr(story.file, how or "value")(*([] if how else ["SELECT 1"]))
    story.check()
    story.write(3)
    story.check()


def test_all_rows_pruned_again_and_again(story: Story) -> None:
    for rows in (1, 2, 3):
        story.prune()
        story.write(rows)
        story.file.vacuum_into()
        story.check()


@pytest.mark.parametrize("row", [1, 5, 9, 10])
def test_row_deleted_after_it_was_read(story: Story, row: int) -> None:
    story.delete(row)
    story.check()
    story.file.vacuum_into()
    story.write(2)
    story.check()


def test_rows_under_the_cursor_deleted_one_by_one(story: Story) -> None:
    for row in range(10, 0, -1):
        story.delete(row)
        story.check()
    story.write(2)
    story.check()


@NEW_ROWS
@SAME_INODE
def test_new_file_counts_on_top(story: Story, rows: int, same_inode: bool) -> None:
    story.file.replace(same_inode)
    story.write(rows)
    story.resets = {"table_recreated" if same_inode else "file_replaced": 1}
    story.check()
    story.write(2)
    story.check()


@SAME_INODE
def test_new_file_seen_while_it_is_empty(story: Story, same_inode: bool) -> None:
    story.file.replace(same_inode)
    story.resets = {"table_recreated" if same_inode else "file_replaced": 1}
    story.check()
    story.write(20)
    story.check()


@NEW_ROWS
def test_recreated_table_counts_on_top(story: Story, rows: int) -> None:
    story.file.recreate(story.table.name)
    story.write(rows)
    story.resets = {"table_recreated": 1}
    story.check()
    story.write(2)
    story.check()


def test_recreated_table_seen_while_it_is_empty(story: Story) -> None:
    story.file.recreate(story.table.name)
    story.resets = {"table_recreated": 1}
    story.check()
    story.write(20)
    story.check()


def test_new_file_again_and_again(story: Story) -> None:
    for replaced in (1, 2, 3):
        story.file.replace()
        story.write(7)
        story.resets = {"file_replaced": replaced}
        story.check()


@pytest.mark.parametrize("rows", [0, 1, 4, 5, 6, 30], ids=str)
@SAME_INODE
def test_restored_backup_counts_only_what_comes_after(
    story: Story, rows: int, same_inode: bool
) -> None:
    backup = story.file.backup()
    story.write(5)
    story.check()
    story.file.restore(backup, same_inode)
    story.write(rows)
    story.resets = {"backup_restored": 1}
    story.check()
    story.write(2)
    story.check()


@SAME_INODE
def test_backup_that_misses_nothing_is_no_reset(story: Story, same_inode: bool) -> None:
    backup = story.file.backup()
    story.file.restore(backup, same_inode)
    story.write(3)
    story.check()


def test_backup_restored_twice(story: Story) -> None:
    backup = story.file.backup()
    for restored in (1, 2, 3):
        story.write(3)
        story.check()
        story.file.restore(backup)
        story.resets = {"backup_restored": restored}
        story.check()


def test_backup_restored_and_what_was_replaced_put_back(story: Story) -> None:
    backup = story.file.backup()
    story.write(5)
    newer = story.file.backup("newer.db")
    story.check()
    story.file.restore(backup)
    story.resets = {"backup_restored": 1}
    story.check()
    story.file.restore(newer)  # rows that have been counted
    story.resets = {"backup_restored": 2}
    story.check()


@SAME_INODE
def test_old_file_put_back_after_a_new_one(story: Story, same_inode: bool) -> None:
    old = story.file.backup()
    story.file.replace()
    story.resets = {"file_replaced": 1}
    story.check()
    story.file.restore(old, same_inode)
    story.scrape()
    assert story.found["rows"] == 10  # each has been counted before


@pytest.mark.parametrize("rows", [0, 2, 30], ids=str)
def test_backup_of_the_old_file_restored_after_a_new_one(
    story: Story, rows: int
) -> None:
    backup = story.file.backup()
    story.write(5)
    story.check()
    story.file.replace()
    story.write(3)
    story.resets = {"file_replaced": 1}
    story.check()
    story.file.restore(backup)
    story.write(rows)
    story.scrape()
    assert story.found["rows"] == 18 + rows


def test_backup_of_the_empty_table(story: Story) -> None:
    story.file.recreate(story.table.name)
    empty = story.file.backup()
    story.write(3)
    story.resets = {"table_recreated": 1}
    story.check()
    story.file.restore(empty)
    story.write(2)
    story.resets = {"table_recreated": 2}
    story.check()


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@pytest.mark.parametrize("rows", [0, 1, 300, 5000], ids=str)
@pytest.mark.parametrize("pruned", [False, True], ids=["whole", "pruned"])
@SAME_INODE
def test_backup_older_than_the_fingerprints(
    tmp_path: Path, table: Table, rows: int, pruned: bool, same_inode: bool
) -> None:
    """Rows are told apart by their time, so they must not share a second."""
    with Files(tmp_path) as files:
        story = Story(files, table)
        story.scrape()
        story.write(500)
        story.check()
        if pruned:
            story.prune(keep=100)
        backup = story.file.backup()
        story.write(2 * WINDOW)
        story.check()
        story.file.restore(backup, same_inode)
        story.write(rows)
        story.resets = {"backup_restored": 1}
        story.check()


def test_rows_deleted_before_they_were_read_are_missed(story: Story) -> None:
    ids = story.write(5)
    story.delete(ids[1])
    story.delete(ids[2])
    del story.expected[-4:-2]
    story.missed = 2
    story.check()


def test_rows_pruned_before_they_were_read_are_missed(story: Story) -> None:
    story.write(5)
    story.prune()
    story.forget(5)
    story.missed = 5
    story.check()
    story.write(2)
    story.check()


def test_rows_pruned_before_a_vacuum_into_are_missed(story: Story) -> None:
    story.write(5)
    story.prune(keep=1)
    story.expected[-5:-1] = []
    story.missed = 4
    story.file.vacuum_into()
    story.check()


def test_row_put_in_by_hand_below_the_cursor_does_no_harm(story: Story) -> None:
    story.delete(5)
    story.check()
    story.write(1, id=5)
    story.forget(1)
    story.check()
    story.write(3)
    story.check()


def test_row_put_back_under_the_cursor_does_not_count_again(story: Story) -> None:
    (row,) = story.file.run(f"SELECT * FROM {story.table.name} WHERE id = 10")
    story.delete(10)
    story.check()
    marks = ", ".join("?" * len(row))
    story.file.run(f"INSERT INTO {story.table.name} VALUES ({marks})", *row)
    story.check()


@pytest.mark.parametrize("row", [100, 2**31, 2**53 + 1, 2**63 - 3], ids=str)
def test_huge_ids_put_in_by_hand(story: Story, row: int) -> None:
    story.write(1, id=row)
    story.missed = row - 11
    story.check()
    story.write(2)
    story.check()
    story.file.vacuum_into()
    story.check()


def test_largest_id_of_all(story: Story) -> None:
    story.write(1, id=2**63 - 1)
    story.missed = 2**63 - 1 - 11
    story.check()
    story.file.move_to_copy()
    story.check()
    story.delete(2**63 - 1)
    story.check()


@pytest.mark.parametrize("seq", ["'text'", "NULL", "x'ff'", "1.5", "-3"])
def test_sequence_edited_by_hand(story: Story, seq: str) -> None:
    name = story.table.name
    story.file.run(f"UPDATE sqlite_sequence SET seq = {seq} WHERE name = '{name}'")
    story.check()
    story.write(3)
    story.check()


def test_backup_restored_after_the_largest_id(files: Files) -> None:
    story = Story(files, spread=True)
    story.scrape()
    story.write(10)
    backup = story.file.backup()
    story.write(1, id=2**63 - 1)
    story.missed = 2**63 - 1 - 11
    story.check()
    story.file.restore(backup)
    story.write(3)
    story.resets = {"backup_restored": 1}
    story.check()


@pytest.mark.parametrize("row", [0, -1, -(2**63)], ids=str)
def test_ids_that_autoincrement_never_gives_are_left_out(
    story: Story, row: int
) -> None:
    story.write(1, id=row)
    story.forget(1)
    story.check()


@pytest.mark.parametrize(
    "timestamp",
    [None, "", "yesterday", "2026-13-45 99:99:99", b"\xff", 5, "9999-12-31T23:59:59Z"],
    ids=ascii,
)
def test_unreadable_timestamps_do_not_matter(story: Story, timestamp: object) -> None:
    story.write(5, timestamp=timestamp)
    story.check()
    story.file.vacuum_into()
    story.write(5, timestamp=timestamp)
    story.check()
    story.file.replace()
    story.write(12, timestamp=timestamp)
    story.resets = {"file_replaced": 1}
    story.check()


@pytest.mark.parametrize("rows", [0, 3, 20], ids=str)
def test_checkpoint_lost_and_nothing_pruned(story: Story, rows: int) -> None:
    story.write(rows)
    story.lose_checkpoint()
    story.resets = {"state_missing": 1}
    story.check()


@pytest.mark.parametrize("keep", [0, 1, 9], ids=str)
def test_checkpoint_lost_and_rows_pruned(story: Story, keep: int) -> None:
    story.prune(keep)
    story.lose_checkpoint()
    story.lost_count()
    story.scrape()
    assert story.found == story.wanted
    assert story.state.passed == 10
    story.write(3)
    story.scrape()
    assert story.found == story.wanted


@pytest.mark.parametrize("how", ["vacuum_into", "move_to_copy"])
def test_counting_begun_anew_survives_a_move(story: Story, how: str) -> None:
    story.prune(keep=3)
    story.lose_checkpoint()
    story.scrape()
    story.lost_count()
    getattr(story.file, how)()
    story.write(3)
    story.scrape()
    assert story.found == story.wanted


def test_first_look_at_an_empty_table_is_no_reset(files: Files) -> None:
    story = Story(files)
    reading = story.scrape()
    assert (reading.backlog, reading.last_event) == (0, None)
    assert story.state.complete
    story.check()


@pytest.mark.parametrize(
    ("reason", "rows", "resets"),
    [
        ("state_missing", 0, {}),
        ("state_missing", 3, {"state_missing": 1}),
        ("state_damaged", 0, {"state_damaged": 1}),
        ("state_damaged", 3, {"state_damaged": 1}),
    ],
)
def test_first_look_without_a_checkpoint_says_why(
    files: Files, reason: str, rows: int, resets: dict[str, int]
) -> None:
    story = Story(files)
    story.write(rows)
    story.state = story.tail.start(reason)
    story.resets = resets
    story.check()


def test_table_that_was_pruned_before_the_first_look_counts_from_then(
    files: Files,
) -> None:
    story = Story(files)
    story.write(10)
    story.prune(keep=7)
    story.lost_count()
    story.scrape()
    assert story.found == story.wanted
    assert (story.state.cursor, story.state.passed) == (10, 10)
    story.write(4)
    story.scrape()
    assert story.found == story.wanted


def test_table_that_was_emptied_before_the_first_look_counts_from_then(
    files: Files,
) -> None:
    story = Story(files)
    story.write(10)
    story.prune()
    story.lost_count()
    story.scrape()
    story.write(4)
    story.scrape()
    assert story.found == story.wanted
    assert story.state.passed == 14


def test_rows_that_do_not_count_again_are_no_exemplars(files: Files) -> None:
    story = Story(files)
    story.write(10)
    story.prune(keep=7)
    story.scrape()
    series = story.state.counts.series.values()
    assert [one.exemplars for one in series if not any(one.counts)] == [{}, {}]


def test_counts_are_not_shown_before_all_is_read_once(files: Files) -> None:
    story = Story(files)
    story.write(3 * SLICE_ROWS)
    backlogs = []
    while not story.state.complete:
        backlogs.append(story.read(seconds=0).backlog)
    assert backlogs == [2 * SLICE_ROWS, SLICE_ROWS, 0]
    story.resets = {"state_missing": 1}
    story.check()


@pytest.mark.parametrize("how", ["replace", "recreate"])
def test_table_replaced_while_it_is_first_read(files: Files, how: str) -> None:
    story = Story(files)
    story.write(2 * SLICE_ROWS)
    story.read(seconds=0)
    assert not story.state.complete
    if how == "replace":
        story.file.replace()
    else:
        story.file.recreate(story.table.name)
    story.forget(2 * SLICE_ROWS)
    story.write(5)
    story.resets = {"state_missing": 1}
    story.check()


def test_pruned_while_it_is_first_read(files: Files) -> None:
    story = Story(files)
    story.write(3 * SLICE_ROWS)
    story.read(seconds=0)
    story.prune(keep=SLICE_ROWS)
    story.lost_count()
    story.scrape()
    assert story.found == story.wanted


@pytest.mark.parametrize("rows", [1, SLICE_ROWS, SLICE_ROWS + 1, 12345], ids=str)
def test_slices_lose_nothing_at_their_edges(files: Files, rows: int) -> None:
    story = Story(files, FACTS)
    story.scrape()
    for _ in range(2):
        story.write(rows)
        story.check()


def test_pass_ends_after_a_slice_when_its_time_is_up(files: Files) -> None:
    story = Story(files)
    story.scrape()
    story.write(2 * SLICE_ROWS + 1)
    assert story.read(seconds=0).backlog == SLICE_ROWS + 1
    assert story.read(seconds=0).backlog == 1
    assert story.read(seconds=0).backlog == 0
    story.check()


def test_gap_is_stepped_over_at_once(files: Files) -> None:
    story = Story(files)
    story.scrape()
    story.write(1, id=10**15)
    assert story.read(seconds=0).backlog == 0
    assert story.state.missed == 10**15 - 1


def test_state_that_was_handed_out_does_not_change(files: Files) -> None:
    story = Story(files)
    story.write(3)
    story.scrape()
    state, kept = story.state, repr(story.state)
    story.write(3)
    story.scrape()
    story.file.replace()
    story.write(3)
    story.scrape()
    assert repr(state) == kept


def test_last_event_is_the_newest_row_that_is_left(files: Files) -> None:
    story = Story(files)
    story.write(3)
    assert story.scrape().last_event == EPOCH + 3
    story.delete(3)
    assert story.scrape().last_event == EPOCH + 2
    story.prune()
    assert story.scrape().last_event is None


def test_last_event_is_known_while_there_is_a_backlog(files: Files) -> None:
    story = Story(files)
    story.write(SLICE_ROWS + 1)
    reading = story.read(seconds=0)
    assert (reading.backlog, reading.last_event) == (1, EPOCH + SLICE_ROWS + 1)


@pytest.mark.parametrize("timestamp", [None, "soon"], ids=str)
def test_unreadable_time_is_no_last_event(files: Files, timestamp: object) -> None:
    story = Story(files)
    story.write(2)
    story.write(1, timestamp=timestamp)
    assert story.scrape().last_event is None
    assert story.state.complete


def test_exemplars_are_the_newest_rows(files: Files) -> None:
    story = Story(files)
    story.write(12)
    story.scrape()
    series = story.state.counts.series["search_knowledge", 1]
    assert series.exemplars == {0: (10, 10.0), 1: (12, 12.0)}
    story.write(1)
    story.scrape()
    series = story.state.counts.series["search_knowledge", 1]
    assert series.exemplars == {0: (10, 10.0), 1: (13, 13.0)}


def test_table_that_comes_back_is_read_on(files: Files) -> None:
    story = Story(files)
    story.scrape()
    story.write(3)
    story.check()
    story.file.run("ALTER TABLE query_times RENAME TO away")
    with pytest.raises(DatabaseError):
        story.scrape()
    story.file.run("ALTER TABLE away RENAME TO query_times")
    story.write(2)
    story.check()


def test_rolled_back_rows_are_not_missed(files: Files) -> None:
    story = Story(files)
    story.scrape()
    story.file.run("BEGIN")
    story.files.add_query()
    story.file.run("ROLLBACK")
    story.write(2)
    story.check()


@pytest.mark.parametrize("slices", [1, 2, 4])
def test_writer_gets_its_turn_between_slices(
    files: Files, monkeypatch: pytest.MonkeyPatch, slices: int
) -> None:
    monkeypatch.setattr(tail, "SLICE_ROWS", 3)
    story = Story(files)
    story.write(3 * slices)
    statements: list[str] = []

    def advance(db: sqlite3.Connection, look: Look) -> None:
        db.set_trace_callback(statements.append)
        story.tail.advance(db, look, story.state, lambda: False)

    story.database.read(advance, time.monotonic() + 60)
    steps = ["fold" if "COUNT(*), TOTAL" in s else s for s in statements]
    order = [s for s in steps if s in ("fold", "BEGIN", "ROLLBACK")]
    assert order == ["fold", "ROLLBACK", "BEGIN"] * slices
