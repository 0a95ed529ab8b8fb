"""The facts collector: rows held, rows ever added, and their confidence."""

from pathlib import Path

import pytest

from tests.databases import EPOCH, Files, at
from tests.exporters import make_config, make_exporter, scrape


def test_empty_table_has_zeros_and_no_newest_fact(files: Files, tmp_path: Path) -> None:
    page = scrape(make_exporter(make_config(tmp_path)), "facts")

    assert page("hakgal_facts") == 0
    assert page("hakgal_facts_added_total") == 0
    assert page("hakgal_facts_last_added_timestamp_seconds") is None
    assert page("hakgal_fact_confidence_count") == 0
    assert page("hakgal_fact_confidence_sum") == 0


def test_facts_held_and_facts_added_differ_by_those_removed(
    files: Files, tmp_path: Path
) -> None:
    exporter = make_exporter(make_config(tmp_path))
    for second in range(7):
        files.add_fact(timestamp=at(second))
    scrape(exporter)
    files.knowledge_base.run("DELETE FROM facts WHERE id <= 2")

    page = scrape(exporter, "facts")

    assert page("hakgal_facts") == 5
    assert page("hakgal_facts_added_total") == 7
    assert page("hakgal_facts_last_added_timestamp_seconds") == EPOCH + 6


def test_all_facts_removed_leaves_what_was_added(files: Files, tmp_path: Path) -> None:
    exporter = make_exporter(make_config(tmp_path))
    files.add_fact()
    files.add_fact()
    scrape(exporter)
    files.knowledge_base.run("DELETE FROM facts")

    page = scrape(exporter, "facts")

    assert page("hakgal_facts") == 0
    assert page("hakgal_facts_added_total") == 2
    assert page("hakgal_facts_last_added_timestamp_seconds") is None


def test_facts_before_the_first_start_are_not_added_if_ids_are_missing(
    files: Files, tmp_path: Path
) -> None:
    for _ in range(6):
        files.add_fact()
    files.knowledge_base.run("DELETE FROM facts WHERE id IN (1, 4)")

    page = scrape(make_exporter(make_config(tmp_path)))

    assert page("hakgal_facts") == 4
    assert page("hakgal_facts_added_total") == 0
    assert page("hakgal_exporter_missed_rows_total", table="facts") == 0
    assert page.sum("hakgal_exporter_resets_total", table="facts") == 0


def test_ids_without_a_fact_are_neither_added_nor_missed(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """INSERT OR IGNORE gives out ids for facts that are there already."""
    exporter = make_exporter(make_config(tmp_path))
    files.add_fact()
    scrape(exporter)
    files.add_fact(id=9)

    page = scrape(exporter)

    assert page("hakgal_facts") == page("hakgal_facts_added_total") == 2
    assert page("hakgal_exporter_missed_rows_total", table="facts") == 0
    assert not caplog.records


def test_confidence_counts_where_a_bound_includes_it(
    files: Files, tmp_path: Path
) -> None:
    for confidence in (0, 0.1, 0.11, 0.5, 1.0, 1.5):
        files.add_fact(confidence=confidence)

    page = scrape(make_exporter(make_config(tmp_path)), "facts")

    buckets = page.by("le", "hakgal_fact_confidence_bucket")
    assert [buckets[le] for le in ("0.1", "0.2", "0.5", "1.0", "+Inf")] == [
        2,
        3,
        4,
        5,
        6,
    ]
    assert page("hakgal_fact_confidence_sum") == pytest.approx(3.21)


def test_confidence_that_is_no_number_is_rejected_and_the_fact_counts(
    files: Files, tmp_path: Path
) -> None:
    for confidence in (0.7, None, "sure", -1, 9e999):
        files.add_fact(confidence=confidence)

    page = scrape(make_exporter(make_config(tmp_path)))

    assert page("hakgal_facts") == page("hakgal_facts_added_total") == 5
    assert page("hakgal_fact_confidence_count") == 1
    assert page.by("reason", "hakgal_exporter_rejected_rows_total", table="facts") == {
        "before_replacement": 0,
        "null": 1,
        "not_a_number": 1,
        "negative": 1,
        "infinite": 1,
    }


def test_update_of_a_fact_is_not_counted_again(files: Files, tmp_path: Path) -> None:
    exporter = make_exporter(make_config(tmp_path))
    files.add_fact(confidence=0.25)
    scrape(exporter)
    files.knowledge_base.run("UPDATE facts SET confidence = 0.75, statement = 'X.'")

    page = scrape(exporter)

    assert page("hakgal_fact_confidence_count") == 1
    assert page("hakgal_fact_confidence_sum") == 0.25
    assert page.sum("hakgal_exporter_resets_total", table="facts") == 0
