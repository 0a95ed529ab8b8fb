"""The number of facts: exact, without counting a large table in the scrape."""

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.counting import row_count
from exporter.scrape import Exporter
from tests.databases import File, Files, at
from tests.exporters import make_config, make_exporter, scrape
from tests.servers import wait_until

SECONDS = 10.0
LARGE = 60  # with these tests' small numbers
CLOCK = count()


def count_small_numbers(patch: pytest.MonkeyPatch) -> None:
    """Let a dozen rows be many, and be counted anew after each change."""
    patch.setattr(row_count, "INLINE_ROWS", 10)
    patch.setattr(row_count, "SLICE_ROWS", 2)
    patch.setattr(row_count, "COUNT_AGAIN_SECONDS", 0.0)


@pytest.fixture
def small_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    count_small_numbers(monkeypatch)


@pytest.fixture
def file(files: Files) -> File:
    return files.knowledge_base


@pytest.fixture
def exporter(files: Files, tmp_path: Path) -> Exporter:
    return make_exporter(make_config(tmp_path))


def add(file: File, rows: int) -> None:
    file.run("BEGIN")
    for _ in range(rows):
        file.insert("facts", statement="Is(A, Fact).", timestamp=at(next(CLOCK)))
    file.run("COMMIT")


def shown(exporter: Exporter) -> float | None:
    return scrape(exporter, "facts")("hakgal_facts")


def truth(file: File) -> int:
    return int(file.value("SELECT COUNT(*) FROM facts"))


def wait_for_truth(file: File, exporter: Exporter) -> None:
    wait_until(lambda: shown(exporter) == truth(file), SECONDS)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM facts WHERE id = 3",
        "DELETE FROM facts WHERE id > 7",
        "DELETE FROM facts",
        "INSERT OR IGNORE INTO facts (id, statement) VALUES (-5, 'Is(By, Hand).')",
        "INSERT OR IGNORE INTO facts (id, statement) VALUES (90000, 'Is(Far).')",
        "DROP TABLE facts",
    ],
)
def test_small_table_is_exact_in_every_scrape(
    file: File, exporter: Exporter, sql: str
) -> None:
    for _ in range(2):
        assert shown(exporter) == truth(file)
        add(file, 10)
        assert shown(exporter) == truth(file)
        file.run(sql)
        file.db.executescript(file.schema)


@pytest.mark.usefixtures("small_numbers")
def test_large_table_is_counted_between_scrapes(file: File, exporter: Exporter) -> None:
    add(file, LARGE)
    assert shown(exporter) is None
    wait_for_truth(file, exporter)
    add(file, 3)
    assert shown(exporter) == LARGE + 3  # what is added is exact at once
    file.run("DELETE FROM facts WHERE id BETWEEN 11 AND 14")
    assert shown(exporter) in (LARGE + 3, LARGE - 1)  # what is removed is seen later
    wait_for_truth(file, exporter)


@pytest.mark.usefixtures("small_numbers")
def test_count_of_another_table_is_dropped(file: File, exporter: Exporter) -> None:
    add(file, LARGE + 5)
    file.run("DELETE FROM facts WHERE id BETWEEN 11 AND 15")
    backup = file.backup()
    add(file, 1)
    wait_for_truth(file, exporter)
    file.replace()
    add(file, 4)
    assert shown(exporter) == 4
    file.restore(backup)
    assert shown(exporter) in (None, LARGE)
    wait_for_truth(file, exporter)


@pytest.mark.usefixtures("small_numbers")
def test_large_table_without_ids_is_counted_too(file: File, exporter: Exporter) -> None:
    file.run("DROP TABLE facts")
    file.run("CREATE TABLE facts (statement TEXT, timestamp TEXT)")
    add(file, LARGE)
    assert shown(exporter) is None
    wait_for_truth(file, exporter)


@settings(deadline=None, max_examples=30)
@given(changes=st.lists(st.sampled_from("arnsx"), max_size=30))
def test_any_order_of_changes_ends_in_the_right_number(
    tmp_path_factory: pytest.TempPathFactory, changes: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("count")
    with pytest.MonkeyPatch.context() as patch, Files(folder) as files:
        count_small_numbers(patch)
        file, exporter = files.knowledge_base, make_exporter(make_config(folder))
        actions: dict[str, Callable[[], object]] = {
            "a": lambda: add(file, 9),
            "r": lambda: file.run("DELETE FROM facts WHERE id % 4 = 1"),
            "n": lambda: file.prune("facts", keep=truth(file) // 2),
            "s": lambda: shown(exporter),
            "x": lambda: file.replace(),
        }
        for change in changes:
            actions[change]()
        wait_for_truth(file, exporter)
        assert shown(exporter) == truth(file)
