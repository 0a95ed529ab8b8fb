"""The number of facts: exact, without counting a large table in the scrape."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter import count
from exporter.count import INLINE_IDS, SLICE_ROWS, RowCount
from exporter.database import Look
from tests.databases import JOURNAL_MODES, Files
from tests.stories import FACTS, Story

COUNT = "SELECT COUNT(*) FROM facts"
MANY = (
    "INSERT INTO facts (statement) WITH RECURSIVE n(i) AS"
    " (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?) SELECT ? FROM n"
)


class Counted:
    """A story of facts, and what is known of their number."""

    def __init__(self, files: Files) -> None:
        self.story = Story(files, FACTS)
        self.file = files.knowledge_base
        self.count = RowCount("facts")
        self.statements: list[str] = []

    @property
    def truth(self) -> int:
        return int(self.file.value(COUNT))

    def measure(self) -> int | None:
        """Return the number that a scrape would show."""
        self.story.scrape()
        return self.measure_only()

    def measure_only(self) -> int | None:
        def work(db: sqlite3.Connection, look: Look) -> int | None:
            db.set_trace_callback(self.statements.append)
            return self.count.measure(db, look, self.story.state)

        return self.story.database.read(work, float("inf"))

    def slice(self) -> float:
        return self.story.database.read(
            lambda db, look: self.count.count_slice(db, look), float("inf")
        )

    def finish(self) -> int:
        """Run the slices to their end and return how many there were."""
        slices = 0
        while self.count.running:
            self.slice()
            slices += 1
        return slices

    @property
    def counts_made(self) -> int:
        return sum("COUNT" in statement for statement in self.statements)


@pytest.fixture(params=JOURNAL_MODES)
def counted(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Counted]:
    with Files(tmp_path, request.param) as files:
        yield Counted(files)


@pytest.fixture
def large(counted: Counted) -> Counted:
    """Return a table of two and a half slices above the limit, read to its end."""
    counted.file.run(MANY, 2 * SLICE_ROWS + SLICE_ROWS // 2, "Is(Many).")
    counted.file.insert("facts", id=INLINE_IDS + 1, statement="Is(Large).")
    assert counted.measure() is None
    return counted


@pytest.mark.parametrize("rows", [0, 1, 7], ids=str)
def test_small_table_is_counted_at_once(counted: Counted, rows: int) -> None:
    counted.story.write(rows)
    assert counted.measure() == rows
    assert not counted.count.running


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM facts WHERE id = 3",
        "DELETE FROM facts WHERE id > 7",
        "DELETE FROM facts",
        "INSERT INTO facts (id, statement) VALUES (-5, 'Is(By, Hand).')",
        "UPDATE facts SET statement = 'Is(New).'",
        "INSERT INTO facts (id, statement) VALUES (90000, 'Is(Far).')",
        "DROP TABLE facts",
    ],
)
def test_small_table_is_exact_in_every_scrape(counted: Counted, sql: str) -> None:
    counted.story.write(10)
    counted.measure()
    counted.file.run(sql)
    counted.file.db.executescript(counted.file.schema)
    assert counted.measure() == counted.truth
    counted.story.write(3)
    assert counted.measure() == counted.truth


def test_file_that_did_not_change_is_not_counted_again(counted: Counted) -> None:
    counted.story.write(10)
    for _ in range(5):
        assert counted.measure() == 10
    assert counted.counts_made == 1


def test_rows_that_are_not_read_yet_do_not_count(counted: Counted) -> None:
    counted.story.write(10)
    counted.measure()
    counted.story.write(5)
    assert counted.measure_only() == 10
    assert counted.measure() == 15


def test_large_table_is_unknown_until_it_is_counted(large: Counted) -> None:
    assert large.count.running
    assert large.finish() == 3
    assert large.measure() == large.truth == 2.5 * SLICE_ROWS + 1


def test_large_table_is_not_counted_in_the_scrape(large: Counted) -> None:
    large.finish()
    large.file.run("DELETE FROM facts WHERE id <= 100")
    large.measure()
    assert large.counts_made == 0


def test_rows_added_to_a_large_table_are_exact_at_once(large: Counted) -> None:
    large.finish()
    for rows in (1, 10, 0, 5):
        large.story.write(rows)
        assert large.measure() == large.truth


def test_rows_added_while_a_large_table_is_counted_are_exact(large: Counted) -> None:
    large.slice()
    large.story.write(10)
    assert large.measure() is None
    large.finish()
    assert large.measure() == large.truth


def test_rows_removed_from_a_large_table_show_after_the_next_count(
    large: Counted,
) -> None:
    large.finish()
    before = large.measure()
    large.file.run("DELETE FROM facts WHERE id BETWEEN 101 AND 400")
    assert large.measure() == before
    large.finish()
    assert large.measure() == large.truth


@pytest.mark.parametrize("row", [1, SLICE_ROWS - 1, 2 * SLICE_ROWS, INLINE_IDS + 1])
def test_rows_removed_while_a_large_table_is_counted_show_in_the_end(
    large: Counted, row: int
) -> None:
    large.slice()
    large.file.run("DELETE FROM facts WHERE id = ?", row)
    for _ in range(2):  # what this count does not see, the next one does
        large.finish()
        number = large.measure()
    assert number == large.truth


def test_scrape_while_a_large_table_is_counted_is_followed_by_another_count(
    large: Counted,
) -> None:
    large.slice()
    large.file.run("DELETE FROM facts WHERE id = 1")
    large.measure()
    large.finish()
    assert large.measure() == large.truth
    assert not large.count.running


def test_large_table_that_did_not_change_is_not_counted_again(large: Counted) -> None:
    large.finish()
    assert large.measure() == large.truth
    assert large.measure() == large.truth
    assert not large.count.running


def test_count_of_a_table_that_was_replaced_is_dropped(large: Counted) -> None:
    large.finish()
    assert large.measure() == large.truth
    large.file.replace()
    large.story.write(4)
    assert large.measure() == 4


def test_running_count_of_a_table_that_was_replaced_does_no_harm(
    large: Counted,
) -> None:
    large.slice()
    large.file.replace()
    large.story.write(4)
    assert large.measure() == 4
    large.finish()
    assert large.measure() == 4
    large.story.write(1)
    large.file.run("DELETE FROM facts WHERE id = 1")
    assert large.measure() == 4


def test_large_table_after_another_is_counted_anew(large: Counted) -> None:
    large.finish()
    large.file.replace()
    large.file.run(MANY, 10, "Is(New).")
    large.file.insert("facts", id=INLINE_IDS + 1, statement="Is(New).")
    assert large.measure() is None
    large.finish()
    assert large.measure() == 11


def test_rest_is_longer_where_it_could_hold_up_a_writer(
    large: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(count, "PAUSES", 0)
    assert large.slice() > 0  # nobody knows yet whether somebody writes
    is_wal = large.file.journal_mode == "wal"
    assert (large.slice() == 0) == is_wal
    large.file.run("DELETE FROM facts WHERE id = 1")
    large.measure()
    assert large.slice() > 0


def test_nothing_to_count_needs_no_rest(counted: Counted) -> None:
    assert counted.slice() == 0.0


CHANGES: dict[str, Callable[[Counted], object]] = {
    "add": lambda counted: counted.story.write(3),
    "remove": lambda counted: counted.file.run("DELETE FROM facts WHERE id % 4 = 1"),
    "remove-new": lambda counted: counted.story.prune(keep=1),
    "slice": Counted.slice,
    "scrape": Counted.measure,
    "replace": lambda counted: counted.file.replace(),
}
OPERATIONS = st.lists(st.sampled_from(sorted(CHANGES)), max_size=40)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(operations=OPERATIONS)
def test_any_order_of_changes_ends_in_the_right_number(
    tmp_path_factory: pytest.TempPathFactory, operations: list[str]
) -> None:
    with (
        pytest.MonkeyPatch.context() as patch,
        closing(Files(tmp_path_factory.mktemp("count"))) as files,
    ):
        patch.setattr(count, "INLINE_IDS", 4)
        patch.setattr(count, "SLICE_ROWS", 3)
        counted = Counted(files)
        for operation in operations:
            CHANGES[operation](counted)
        for _ in range(3):
            number = counted.measure()
            counted.finish()
        assert number == counted.truth
