"""The cache collector: hits, misses, and the time of each."""

from pathlib import Path

from tests.databases import Files
from tests.exporters import Page, make_config, make_exporter, scrape

NAME = "hakgal_cache_response_seconds"


def page_after(files: Files, folder: Path, *rows: tuple[object, object]) -> Page:
    for row in rows:
        files.add_cache(*row)
    return scrape(make_exporter(make_config(folder)))


def test_empty_table_has_zeros(files: Files, tmp_path: Path) -> None:
    page = page_after(files, tmp_path)

    assert page("hakgal_cache_hits_total") == 0
    assert page("hakgal_cache_misses_total") == 0
    assert page.by("result", f"{NAME}_count") == {"hit": 0, "miss": 0}


def test_hits_and_misses_are_counted_apart(files: Files, tmp_path: Path) -> None:
    page = page_after(files, tmp_path, *[(1, 0.25)] * 3, *[(0, 0.5)] * 2, (True, 2))

    assert page("hakgal_cache_hits_total") == 4
    assert page("hakgal_cache_misses_total") == 2
    assert page.by("result", f"{NAME}_count") == {"hit": 4, "miss": 2}
    assert page.by("result", f"{NAME}_sum") == {"hit": 2.75, "miss": 1}


def test_look_up_without_a_time_counts_and_is_in_no_bucket(
    files: Files, tmp_path: Path
) -> None:
    page = page_after(files, tmp_path, (1, None), (1, None), (1, 0.25), (0, None))

    assert page("hakgal_cache_hits_total") == 3
    assert page("hakgal_cache_misses_total") == 1
    assert page.by("result", f"{NAME}_bucket", le="+Inf") == {"hit": 1, "miss": 0}
    assert page.sum("hakgal_exporter_rejected_rows_total", table="cache_events") == 0


def test_bucket_includes_its_bound(files: Files, tmp_path: Path) -> None:
    times = (0, 0.0005, 0.00051, 1.0, 1.01)

    page = page_after(files, tmp_path, *[(0, time) for time in times])

    buckets = page.by("le", f"{NAME}_bucket", result="miss")
    assert [buckets[le] for le in ("0.0005", "0.001", "1.0", "+Inf")] == [2, 3, 4, 5]


def test_rows_that_cannot_count_are_rejected_by_reason(
    files: Files, tmp_path: Path
) -> None:
    bad = [("yes", 0.1), (1, "fast"), (1, "fast"), (0, -1), (0, 9e999)]

    page = page_after(files, tmp_path, (1, 0.1), *bad)

    assert page("hakgal_cache_hits_total") == 1
    assert page("hakgal_cache_misses_total") == 0
    rejected = "hakgal_exporter_rejected_rows_total"
    assert page.by("reason", rejected, table="cache_events") == {
        "before_replacement": 0,
        "null": 0,
        "not_a_number": 2,
        "negative": 1,
        "infinite": 1,
        "not_a_boolean": 1,
    }
