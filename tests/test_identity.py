"""Recognising a table: fingerprints first, then the rows' own time."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.identity import (
    ABSENT,
    WINDOW,
    Fingerprints,
    Life,
    forget_after,
    locate,
    parse_time,
    remember,
)
from exporter.tail import SLICE_ROWS
from tests.databases import EPOCH, Files
from tests.stories import FACTS, QUERIES, Story


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    with Files(tmp_path) as files:
        yield files


def begin(files: Files, rows: int = 10, facts: bool = False) -> Story:
    """Return a story whose exporter has read some rows of queries or facts."""
    story = Story(files, FACTS if facts else QUERIES)
    story.scrape()
    story.write(rows)
    story.check()
    return story


def known(story: Story) -> Fingerprints:
    return story.state.known


def remembered_ids(story: Story) -> list[int]:
    return [row for row, _ in known(story).newest_first()]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-01 00:00:00", 0),
        ("2026-01-01 00:00:01.5", 1.5),
        ("2026-01-01T00:00:02", 2),
        ("2026-01-01T00:00:03Z", 3),
        ("2026-01-01T02:00:04+02:00", 4),
        ("2025-12-31T19:00:05.25-05:00", 5.25),
        ("2026-01-01T00:00:06.123456+00:00", 6.123456),
        ("  2026-01-01 00:00:07\n", 7),
        ("2026-01-01", 0),
    ],
)
def test_time_is_read_as_utc_unless_it_says_otherwise(
    text: str, seconds: float
) -> None:
    assert parse_time(text) == pytest.approx(EPOCH + seconds, abs=1e-6)


@pytest.mark.parametrize(
    "text",
    [None, "", "now", "2026-02-30 00:00:00", "2026-01-01 25:00:00", 1.7e9, 5, b"\xff"],
    ids=repr,
)
def test_what_is_no_time_is_none(text: object) -> None:
    assert parse_time(text) is None


@given(st.one_of(st.text(), st.integers(), st.floats(), st.binary(), st.none()))
def test_any_value_can_be_asked_for_its_time(value: object) -> None:
    assert isinstance(parse_time(value), float | None)


@given(st.datetimes(timezones=st.none() | st.timezones()))
def test_any_date_has_a_time_or_none(moment: object) -> None:
    assert isinstance(parse_time(moment), float | None)


def test_last_rows_are_remembered(files: Files) -> None:
    story = begin(files, 5)
    assert remembered_ids(story) == [5, 4, 3, 2, 1]
    assert len(known(story).window) == 5


def test_window_moves_with_the_cursor(files: Files) -> None:
    story = begin(files, WINDOW)
    for rows in (1, 10, WINDOW, 3 * WINDOW):
        story.write(rows)
        story.scrape()
        cursor = story.state.cursor
        window = list(range(cursor, cursor - WINDOW, -1))
        assert remembered_ids(story)[:WINDOW] == window


def test_ids_without_a_row_are_remembered_as_such(files: Files) -> None:
    story = Story(files)
    story.scrape()
    story.write(5)
    story.delete(3)
    story.scrape()
    assert known(story).window[2] == ABSENT
    assert remembered_ids(story) == [5, 4, 2, 1]


def test_row_that_is_deleted_later_stays_remembered(files: Files) -> None:
    story = begin(files, 5)
    story.delete(3)
    story.write(1)
    story.scrape()
    assert remembered_ids(story) == [6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize("step", [15, 500, 3000], ids=str)
def test_older_rows_are_remembered_at_distances_that_double(
    files: Files, step: int
) -> None:
    story = begin(files)
    for _ in range(6000 // step):
        story.write(step)
        story.scrape()
    distances = [story.state.cursor - row for row, _ in reversed(known(story).older)]
    assert distances[-1] == story.state.cursor - 1  # the very first row
    assert all(b <= 2 * a + step for a, b in pairwise(distances))
    assert len(distances) <= 8


def test_first_row_is_remembered_though_it_was_passed_at_once(files: Files) -> None:
    story = Story(files)
    story.write(3 * SLICE_ROWS)
    story.scrape()
    assert remembered_ids(story)[-1] == 1
    assert len(remembered_ids(story)) == WINDOW + 1


def test_what_is_after_the_cursor_can_be_forgotten(files: Files) -> None:
    story = begin(files, WINDOW + 500)
    story.write(500)
    story.scrape()
    for cursor in (1990, 1500, 977, 976, 500, 1, 0):
        left = forget_after(known(story), cursor)
        ids = [row for row, _ in left.newest_first()]
        assert ids == [row for row in remembered_ids(story) if row <= cursor]
        with_more = remember(files.performance.db, QUERIES, left, 2000)
        assert with_more.first + len(with_more.window) - 1 == 2000


def test_fingerprint_is_never_that_of_no_row(files: Files) -> None:
    story = begin(files, WINDOW)
    assert ABSENT not in known(story).window
    assert len(set(known(story).window)) == WINDOW


@pytest.mark.parametrize("column", ["timestamp", "query_time", "query_type", "success"])
def test_every_lasting_column_tells_rows_apart(files: Files, column: str) -> None:
    story = begin(files, 1)
    before = known(story).window
    files.performance.run(f"UPDATE query_times SET {column} = '7'")
    (again,) = remember(files.performance.db, QUERIES, Fingerprints(), 1).window
    assert again != before[0]


@pytest.mark.parametrize("row", [1, 5, 10], ids=["first", "middle", "newest"])
@pytest.mark.parametrize("column", ["statement", "source", "confidence", "tags"])
def test_fact_updated_in_place_does_not_count_again(
    files: Files, row: int, column: str
) -> None:
    story = begin(files, facts=True)
    files.knowledge_base.run(f"UPDATE facts SET {column} = '0.5' WHERE id = ?", row)
    story.check()
    story.write(3)
    story.check()


def test_all_facts_updated_in_place_do_not_count_again(files: Files) -> None:
    story = begin(files, facts=True)
    files.knowledge_base.run("UPDATE facts SET statement = 'Is(This, New).'")
    story.check()
    story.file.vacuum()
    story.write(3)
    story.check()


def test_all_facts_updated_and_moved_after_a_scrape_do_not_count_again(
    files: Files,
) -> None:
    story = begin(files, facts=True)
    files.knowledge_base.run("UPDATE facts SET statement = 'Is(This, New).'")
    story.check()
    story.file.vacuum_into()
    story.write(3)
    story.check()


@pytest.mark.parametrize("row", [1, 5, 9], ids=["first", "middle", "newest-but-one"])
def test_older_fact_updated_before_a_move_does_not_count_again(
    files: Files, row: int
) -> None:
    story = begin(files, facts=True)
    files.knowledge_base.run("UPDATE facts SET statement = 'New().' WHERE id = ?", row)
    story.file.vacuum_into()
    story.write(3)
    story.check()


@pytest.mark.parametrize("rows", [1, 3, 10], ids=str)
@pytest.mark.parametrize("how", ["vacuum_into", "move_to_copy"])
def test_newest_facts_updated_long_before_a_move_do_not_count_again(
    files: Files, rows: int, how: str
) -> None:
    story = begin(files, facts=True)
    files.knowledge_base.run(
        "UPDATE facts SET statement = 'New().' WHERE id > ?", 10 - rows
    )
    story.check()
    getattr(story.file, how)()
    story.check()
    story.write(2)
    story.check()


@pytest.mark.parametrize("rows", [1, 3, 10], ids=str)
def test_newest_facts_updated_before_a_move_do_not_count_again(
    files: Files, rows: int
) -> None:
    story = begin(files, facts=True)
    files.knowledge_base.run(
        "UPDATE facts SET statement = 'New().' WHERE id > ?", 10 - rows
    )
    story.file.vacuum_into()
    story.check()


@pytest.mark.xfail(
    strict=True,
    reason="in the same file, facts of one second are told apart by id and time only",
)
@pytest.mark.parametrize("rows", [10, 30], ids=str)
def test_facts_of_a_recreated_table_in_the_same_second_count(
    files: Files, rows: int
) -> None:
    story = Story(files, FACTS, spread=False)
    story.scrape()
    story.write(10)
    story.check()
    story.file.recreate("facts")
    story.write(rows)
    story.resets = {"table_recreated": 1}
    story.check()


@pytest.mark.parametrize("rows", [0, 3, 5, 20], ids=str)
@pytest.mark.parametrize("same_inode", [True, False], ids=["same", "other"])
def test_rows_missed_and_brought_back_by_a_backup_do_not_count_later(
    files: Files, rows: int, same_inode: bool
) -> None:
    """They were written before; that they were missed has been reported."""
    story = begin(files)
    story.write(5)
    backup = story.file.backup()
    story.prune()
    story.write(2)
    story.expected[-7:-2] = []
    story.missed = 5
    story.check()
    story.file.restore(backup, same_inode)
    story.write(rows)
    story.resets = {"backup_restored": 1}
    story.check()


@pytest.mark.parametrize("rows", [0, 3, 30], ids=str)
def test_backup_from_before_counting_began_anew(files: Files, rows: int) -> None:
    story = begin(files)
    backup = story.file.backup()
    story.write(10)
    story.prune(keep=5)
    story.lose_checkpoint()
    story.lost_count()
    story.scrape()
    assert story.found == story.wanted
    story.file.restore(backup)
    story.write(rows)
    story.resets |= {"backup_restored": 1}
    story.scrape()
    assert story.found == story.wanted


@pytest.mark.xfail(
    strict=True,
    reason="a new table is read from its first row, whatever was pruned before that:"
    " its ids may as well go on from those of an emptied table that was read",
)
@pytest.mark.parametrize("rows", [1, 3, 30], ids=str)
def test_new_file_whose_first_rows_were_pruned_before_they_were_read(
    files: Files, rows: int
) -> None:
    story = begin(files)
    story.file.replace()
    story.write(rows + 4)
    story.prune(keep=rows)
    del story.expected[10:14]
    story.missed = 4
    story.resets = {"file_replaced": 1}
    story.check()


def test_backup_of_an_emptied_table_does_not_miss_its_rows_again(files: Files) -> None:
    story = begin(files)
    story.write(2)
    story.prune()
    story.forget(2)
    backup = story.file.backup()
    story.write(1)
    story.missed = 2
    story.check()
    story.file.restore(backup)
    story.resets = {"backup_restored": 1}
    story.check()
    story.write(2)
    story.check()


def test_older_then_newer_backup_of_one_table_count_once(files: Files) -> None:
    story = begin(files)
    older = story.file.backup()
    story.write(5)
    newer = story.file.backup("newer.db")
    story.write(3)
    story.check()
    story.file.restore(older)
    story.write(4)
    story.resets = {"backup_restored": 1}
    story.check()
    story.file.restore(newer)
    story.write(2)
    story.resets = {"backup_restored": 2}
    story.check()


@pytest.mark.parametrize("keep", [5, 1400, 2000], ids=str)
@pytest.mark.parametrize("new_rows", [0, 3], ids=str)
def test_old_file_that_comes_back_grown_counts_what_is_new(
    files: Files, keep: int, new_rows: int
) -> None:
    story = begin(files)
    story.write(1500)
    story.check()
    story.prune(keep=keep)
    old = story.file.backup()
    story.file.replace()
    story.resets = {"file_replaced": 1}
    story.write(new_rows)
    story.check()
    story.file.restore(old)
    story.write(40)
    story.resets = {"file_replaced": 1, "backup_restored": 1}
    story.check()


def test_backup_that_only_a_past_life_knows_counts_once(files: Files) -> None:
    """What was read since is forgotten row by row; another life has the beginning."""
    story = begin(files)
    older = story.file.backup()
    story.write(10)
    story.check()
    story.file.restore(older)
    story.write(50)
    story.resets = {"backup_restored": 1}
    story.check()
    story.delete(1)
    newer = story.file.backup("newer.db")
    for _ in range(10):
        story.write(WINDOW // 2)
        story.check()
    assert not [row for row in remembered_ids(story) if 1 < row <= 60]
    story.file.restore(newer)
    story.resets = {"backup_restored": 2}
    story.check()
    story.write(3)
    story.check()


def test_backup_behind_where_a_past_life_ended_counts_once(files: Files) -> None:
    """A past life remembers rows further on, but has not read as far."""
    story = begin(files)
    older = story.file.backup()
    story.write(5)
    newer = story.file.backup("newer.db")
    story.check()
    for restored, backup in enumerate((older, newer), 1):
        story.file.restore(backup)
        story.resets = {"backup_restored": restored}
        story.check()
    story.write(45)
    story.check()
    middle = story.file.backup("middle.db")
    for _ in range(10):
        story.write(WINDOW // 2)
        story.check()
    assert not [row for row in remembered_ids(story) if 1 < row <= 60]
    story.file.restore(middle)
    story.resets = {"backup_restored": 3}
    story.check()
    story.write(3)
    story.check()


def test_rows_of_an_emptied_table_are_not_missed_far_back(files: Files) -> None:
    story = begin(files)
    story.prune()
    empty = story.file.backup()
    story.write(3 * WINDOW)
    story.check()
    story.file.restore(empty)
    story.write(3)
    story.resets = {"table_recreated": 1}
    story.check()


def test_row_under_the_cursor_replaced_by_hand_counts(files: Files) -> None:
    story = begin(files)
    story.delete(10)
    story.check()
    story.write(1, id=10)
    story.write(2)
    story.resets = {"backup_restored": 1}
    story.scrape()
    assert story.found["rows"] == len(story.expected)


def test_state_without_fingerprints_reads_on(files: Files) -> None:
    life = Life(0, Fingerprints(), None)
    place = locate(files.performance.db, QUERIES, life, 0, same_file=True)
    assert place == (0, None)
