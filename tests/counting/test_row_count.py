"""The number of facts: exact, without counting a large table in the scrape."""

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.counting import row_count
from exporter.scrape import Exporter
from tests.databases import File, Files, at
from tests.exporters import make_config, make_exporter, scrape
from tests.servers import wait_until

SECONDS = 60.0  # far more than anything here takes
LARGE = 60  # with these tests' small numbers
CLOCK = count()


@pytest.fixture
def small_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a dozen rows be many, and be counted anew after each change."""
    monkeypatch.setattr(row_count, "INLINE_ROWS", 10)
    monkeypatch.setattr(row_count, "SLICE_ROWS", 2)
    monkeypatch.setattr(row_count, "COUNT_AGAIN_SECONDS", 0.0)


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


@pytest.mark.usefixtures("small_numbers")
def test_large_table_is_counted_between_scrapes(tmp_path: Path) -> None:
    with Files(tmp_path) as files:
        file, exporter = files.knowledge_base, make_exporter(make_config(tmp_path))
        add(file, LARGE)
        assert shown(exporter) is None
        wait_for_truth(file, exporter)
        add(file, 3)
        assert shown(exporter) == LARGE + 3  # what is added is exact at once
        file.run("DELETE FROM facts WHERE id BETWEEN 11 AND 14")
        assert shown(exporter) in (LARGE + 3, LARGE - 1)  # removed ones are seen later
        wait_for_truth(file, exporter)


@pytest.mark.usefixtures("small_numbers")
@settings(
    deadline=None,
    derandomize=True,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(changes=st.lists(st.sampled_from("arnsvxy"), max_size=30))
def test_any_order_of_changes_ends_in_the_right_number(
    tmp_path_factory: pytest.TempPathFactory, changes: list[str]
) -> None:
    with Files(folder := tmp_path_factory.mktemp("count")) as files:
        file, exporter = files.knowledge_base, make_exporter(make_config(folder))
        actions: dict[str, Callable[[], object]] = {
            "a": lambda: add(file, 9),
            "r": lambda: file.run("DELETE FROM facts WHERE id % 4 = 1"),
            "n": lambda: file.prune("facts", keep=truth(file) // 2),
            "s": lambda: shown(exporter),
            "v": lambda: file.vacuum(),
            "x": lambda: file.replace(),
            "y": lambda: file.replace(same_inode=True),
        }
        for change in changes:
            actions[change]()
        wait_for_truth(file, exporter)
        assert shown(exporter) == truth(file)
