"""Whatever becomes of a table and its file, each of its rows counts once."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tests.counting.story import Story
from tests.databases import Files, at

# In one second, rows are told apart by what is counted; facts may be updated.
KINDS = {"query_times": True, "cache_events": False, "facts": True}
NEW_ROWS = pytest.mark.parametrize("rows", [0, 1, 9, 10, 11, 30], ids=str)
SAME_INODE = pytest.mark.parametrize("same_inode", [True, False], ids=["same", "other"])
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
COLUMNS: dict[str, tuple[str, ...]] = {
    "added": ("ALTER TABLE {} ADD COLUMN added TEXT DEFAULT 'x'",),
    "dropped": ("ALTER TABLE {} DROP COLUMN cache_key",),
    "renamed": ("ALTER TABLE {} RENAME cache_key TO renamed",),
    "response-time": (
        "ALTER TABLE {} RENAME response_time TO renamed",
        "ALTER TABLE {} RENAME renamed TO response_time",
    ),
    "timestamp": (
        "ALTER TABLE {} RENAME timestamp TO renamed",
        "ALTER TABLE {} RENAME renamed TO timestamp",
    ),
}


def begin(files: Files, table: str = "query_times", rows: int = 10) -> Story:
    """Return a story whose exporter has seen the empty table, then some rows."""
    is_wal = files.performance.journal_mode == "wal"
    story = Story(files, table, spread=KINDS[table], restarts=is_wal)
    story.check()
    story.write(rows)
    story.check()
    return story


@pytest.fixture(params=KINDS)
def story(files: Files, request: pytest.FixtureRequest) -> Story:
    return begin(files, request.param)


@pytest.fixture(params=["query_times", "facts"])
def spread(files: Files, request: pytest.FixtureRequest) -> Story:
    """Return one of rows a second apart: those of a swap's second are passed over."""
    return begin(files, request.param)


def now(days: float = 0.0) -> str:
    moment = datetime.fromtimestamp(time.time() + 86_400 * days, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S")


@pytest.mark.parametrize("move", MOVES)
def test_moved_file_is_read_on(story: Story, move: str) -> None:
    MOVES[move](story)
    story.check()
    story.write(3)
    MOVES[move](story)
    story.check()


@pytest.mark.parametrize("keep", [0, 1, 4], ids=str)
@pytest.mark.parametrize("move", [None, *MOVES])
def test_rows_pruned_after_they_were_read_change_nothing(
    story: Story, keep: int, move: str | None
) -> None:
    for rows in (1, 3):
        story.prune(keep)
        MOVES.get(move or "", Story.check)(story)
        story.check()
        story.write(rows)
        story.check()


def test_rows_deleted_one_by_one_change_nothing(story: Story) -> None:
    for row in (5, 10, 1, 9, 8, 7, 6, 4, 3, 2):
        story.run("DELETE FROM {} WHERE id = ?", row)
        story.check()
    story.write(2)
    story.check()


@NEW_ROWS
@pytest.mark.parametrize("how", OTHER_TABLES)
def test_new_table_counts_on_top(spread: Story, rows: int, how: str) -> None:
    for _ in range(2):
        OTHER_TABLES[how](spread)
        spread.write(rows)
        spread.resets += 1 if rows or not spread.resets else 0
        spread.check()
    spread.write(20)
    spread.check()


@NEW_ROWS
@SAME_INODE
def test_restored_backup_counts_only_what_comes_after(
    spread: Story, rows: int, same_inode: bool
) -> None:
    backup = spread.file.backup()
    for _ in range(2):
        spread.write(5)
        spread.check()
        spread.file.restore(backup, same_inode)
        spread.write(rows)
        spread.resets += 1
        spread.check()


@pytest.mark.parametrize("keep", [None, 0, 5], ids=["whole", "emptied", "pruned"])
def test_two_files_swapped_back_and_forth_count_once(
    spread: Story, keep: int | None
) -> None:
    if keep is not None:
        spread.prune(keep)
    one = spread.file.backup("one.db")
    spread.file.replace()
    for _ in range(4):
        spread.write(4)
        page = spread.check_rows()
        two = spread.file.backup("two.db")
        spread.file.restore(one)
        one = two.rename(one)
        spread.check_rows()
    resets = page.sum("hakgal_exporter_resets_total", table=spread.table)
    assert 1 < resets <= 5


@pytest.mark.parametrize("rows", [0, 1, 300, 5000], ids=str)
def test_backup_of_long_ago_counts_once(files: Files, rows: int) -> None:
    story = begin(files, rows=500)
    story.prune(keep=100)
    backup = story.file.backup()
    story.write(3000)
    story.check()
    story.file.restore(backup)
    story.write(rows)
    story.resets += 1
    story.check()


def test_rows_that_were_missed_do_not_count_when_a_backup_brings_them(
    files: Files,
) -> None:
    story = begin(files)
    story.write(5)
    backup = story.file.backup()
    story.prune()
    story.forget(5)
    story.missed = 5
    story.write(2)
    story.check()
    story.file.restore(backup)
    story.resets += 1
    story.write(3)
    story.check()


def test_old_rows_imported_after_a_swap_are_rejected_and_reported(
    spread: Story,
) -> None:
    spread.file.replace()
    spread.write(3)
    spread.resets += 1
    spread.check()
    spread.write(4, timestamp=at(-1000))
    spread.forget(4)
    spread.rejected = 4
    spread.write(2)
    spread.check()


def test_old_rows_imported_into_the_same_table_count(spread: Story) -> None:
    backup = spread.file.backup()
    spread.write(4, timestamp=at(-1000))
    spread.check()
    spread.file.restore(backup)  # whose rows are newer than those read last
    spread.resets += 1
    spread.check()


def test_time_far_in_the_future_does_not_stop_counting_for_ever(
    files: Files,
) -> None:
    story = begin(files)
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
    story.write(3, timestamp=now(days=1.01))
    story.check()


@pytest.mark.parametrize("stamp", [None, "", "yesterday", b"\xff", 5, "2026-13-45"])
def test_unreadable_times_do_not_matter_but_for_a_swap(
    files: Files, stamp: object
) -> None:
    story = begin(files, rows=0)
    for move in MOVES.values():
        story.write(5, timestamp=stamp)
        move(story)
        story.check()
    story.file.replace()
    story.write(12, timestamp=stamp)  # as good as known ones
    story.forget(12)
    story.resets += 1
    story.check()
    story.write(3, timestamp=stamp)
    story.check()


@pytest.mark.parametrize("change", COLUMNS)
def test_changed_column_counts_nothing_twice(files: Files, change: str) -> None:
    story = begin(files, "cache_events")
    for statement in COLUMNS[change]:
        story.run(statement)
        if change in ("response-time", "timestamp") and "TO renamed" in statement:
            page = story.scrape()
            assert page("hakgal_cache_hits_total") == 10
            story.run("INSERT INTO {} (hit) VALUES (1)")
            assert story.scrape()("hakgal_cache_hits_total") == 11
            story.run("UPDATE {} SET renamed = NULL WHERE id = 11")
            story.run("DELETE FROM {} WHERE id = 11")
        else:
            story.check()
    story.write(3)
    assert story.check()("hakgal_cache_hits_total") == story.written + (
        len(COLUMNS[change]) - 1
    )


def test_ids_given_out_again_count_and_are_no_reset(files: Files) -> None:
    files.performance.run("DROP TABLE query_times")
    files.performance.run(
        "CREATE TABLE query_times (id INTEGER PRIMARY KEY, timestamp, query_time,"
        " query_type, success)"
    )
    story = begin(files)
    for _ in range(3):
        story.run("DELETE FROM {} WHERE id > 7")
        story.check()
        story.write(2)
        story.check()


@pytest.mark.parametrize("column", ["statement", "source", "confidence", "tags"])
@pytest.mark.parametrize("move", [None, *MOVES])
def test_updated_facts_do_not_count_again(
    files: Files, column: str, move: str | None
) -> None:
    story = begin(files, "facts")
    story.run(f"UPDATE {{}} SET {column} = '0.5'")
    MOVES.get(move or "", Story.check)(story)
    story.check()
    story.write(3)
    story.check()


@pytest.mark.parametrize("seq", ["'text'", "NULL", "x'ff'", "1.5", "-3"])
def test_sequence_edited_by_hand_does_not_matter(story: Story, seq: str) -> None:
    story.file.run(f"UPDATE sqlite_sequence SET seq = {seq}")
    story.check()
    story.write(3)
    story.check()


def test_row_put_back_under_the_cursor_does_not_count_again(story: Story) -> None:
    (row,) = story.file.run(f"SELECT * FROM {story.table} WHERE id = 10")
    story.run("DELETE FROM {} WHERE id = 10")
    story.check()
    story.run(f"INSERT INTO {{}} VALUES ({', '.join('?' * len(row))})", *row)
    story.check()
    story.write(3)
    story.check()


@pytest.mark.parametrize("row", [100, 2**31, 2**53 + 1, 2**63 - 3], ids=str)
def test_huge_id_put_in_by_hand_is_read_on_from(files: Files, row: int) -> None:
    story = begin(files)
    story.write(1, id=row)
    story.missed = row - 11
    story.check()
    story.write(2)
    story.file.vacuum_into()
    story.check()


def test_backup_restored_after_the_largest_id_of_all(files: Files) -> None:
    story = begin(files)
    backup = story.file.backup()
    story.write(1, id=2**63 - 1)
    story.missed = 2**63 - 1 - 11
    story.check()
    story.file.restore(backup)
    story.write(3)
    story.resets += 1
    story.check()
