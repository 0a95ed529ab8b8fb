"""Events from before the exporter: counted as it counts them, without a leap."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from exporter.backfill.counted import BEAT_SECONDS
from tests.backfill.old_monitor import write_events
from tests.backfill.running import TARGET, Written, add_metric, written
from tests.databases import EPOCH, Files, at
from tests.exporters import make_config, make_exporter, scrape

QUERIES = "hakgal_query_duration_seconds"
CACHE = "hakgal_cache_response_seconds"
HITS, MISSES = "hakgal_cache_hits_total", "hakgal_cache_misses_total"
KIND = {"query_type": "search_knowledge", "outcome": "success"}
HOUR = 3600


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    with Files(tmp_path) as made:
        yield made


def counted(folder: Path, until: int, *flags: str) -> Written:
    """Run the command for events up to so many seconds after EPOCH."""
    until_flag = f"--backfill.until={at(until)}"
    return written(folder, "--backfill.events", until_flag, *flags)


def since_epoch(series: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(moment - EPOCH, value) for moment, value in series]


def test_a_series_begins_at_zero_and_reaches_the_end(
    files: Files, tmp_path: Path
) -> None:
    for second in (20, 22, 61):
        files.add_query(timestamp=at(second))

    series = counted(tmp_path, 600).series(f"{QUERIES}_count", **KIND)

    assert since_epoch(series) == [
        (15, 0),  # nothing yet
        (30, 2),  # what a scrape every 15 s would have seen
        (60, 2),  # just before the next change, so that its rate is not smeared
        (75, 3),
        (315, 3),  # before Prometheus takes it for gone
        (555, 3),
        (585, 3),
        (600, 3),
    ]


def test_the_end_is_never_passed(files: Files, tmp_path: Path) -> None:
    files.add_query(timestamp=at(20))

    series = counted(tmp_path, 21).series(f"{QUERIES}_count", **KIND)

    assert since_epoch(series) == [(6, 0), (21, 1)]


def test_rows_that_are_newer_are_left_to_the_exporter(
    files: Files, tmp_path: Path
) -> None:
    for second in (0, 60, 61, 120):
        files.add_query(timestamp=at(second))

    text = counted(tmp_path, 60)

    assert text.series(f"{QUERIES}_count", **KIND)[-1] == (EPOCH + 60, 2)
    assert "query_times: 2 rows up to 2026-01-01T00:01:00Z" in text.report


@pytest.mark.parametrize("label_limit", [100, 6])
def test_the_last_values_are_those_of_the_exporters_first_page(
    label_limit: int, files: Files, tmp_path: Path
) -> None:
    write_events(files.performance.path, EPOCH, EPOCH + 6 * HOUR)
    for bad in (-1, "slow", None):
        files.add_cache(response_time=bad, timestamp=at(6 * HOUR))
    for number in range(3):
        files.add_query(query_type=f"new_{number}", timestamp=at(6 * HOUR))
    page = scrape(make_exporter(make_config(tmp_path, label_limit=label_limit)))

    text = counted(tmp_path, 6 * HOUR + 60, f"--label.limit={label_limit}")

    compared = 0
    for (name, pairs), series in text.all_series().items():
        labels = {k: v for k, v in pairs if k not in TARGET}
        moment, value = series[-1]
        shown = page(name, **labels)
        assert shown is not None
        assert moment == EPOCH + 6 * HOUR + 60
        if name.endswith("_sum"):
            # Never above: a sum that falls is counted once more as a whole.
            assert shown * (1 - 1e-8) <= value <= shown
            assert value < shown or shown == 0
        else:
            assert value == shown, (name, labels)
        compared += 1
    families = {QUERIES, CACHE, "hakgal_cache_hits", "hakgal_cache_misses"}
    shown_series = [s for f in families for s in page.families[f].samples]
    assert compared == len(shown_series)


def test_no_counter_falls_and_none_seems_to_be_gone(
    files: Files, tmp_path: Path
) -> None:
    write_events(files.performance.path, EPOCH, EPOCH + HOUR)
    write_events(files.performance.path, EPOCH + 5 * HOUR, EPOCH + 6 * HOUR, each=400)

    for series in counted(tmp_path, 8 * HOUR).all_series().values():
        for (before, low), (after, high) in pairwise(series):
            assert 0 < after - before <= BEAT_SECONDS
            assert low <= high
        assert series[-1][0] == EPOCH + 8 * HOUR


def test_rows_without_a_time_count_with_those_before_them(
    files: Files, tmp_path: Path
) -> None:
    odd = "never", "1970-01-01 00:00:05", None, "2999-01-01 00:00:00"
    for moment in (*odd[:2], at(0), at(600), at(300), *odd[2:], at(900)):
        files.add_query(timestamp=moment)

    text = counted(tmp_path, 1000)

    changes = dict.fromkeys(v for _, v in text.series(f"{QUERIES}_count", **KIND))
    assert list(changes) == [0, 3, 7, 8]
    assert text.report[-2] == ("  4 with no time of theirs, counted at the one before")


def test_old_counters_end_where_the_events_begin(files: Files, tmp_path: Path) -> None:
    for second in (0, 60, 120, 180):
        add_metric(files.performance, "cache_hits", 500 + second, at(second))
        add_metric(files.performance, "avg_query_time", 0.25, at(second))
    files.add_cache(timestamp=at(130))
    files.add_query(timestamp=at(170))

    text = counted(tmp_path, 200)

    assert since_epoch(text.series(HITS)) == [
        *((second, 500 + second) for second in (0, 60)),
        (120, 0),
        (135, 1),
        (185, 1),
        (200, 1),
    ]
    means = text.series("instance:hakgal_query_duration_seconds:mean5m")
    assert since_epoch(means) == [(0, 0.25), (60, 0.25), (120, 0.25)]
    assert (
        "  rejected: 2 of what cache_events tells exactly,"
        " 1 of what query_times tells exactly"
    ) in text.report


def test_tables_without_rows_have_no_series(files: Files, tmp_path: Path) -> None:
    text = counted(tmp_path, 200)

    assert text.names == []
    assert text.report[1:] == [
        "query_times: 0 rows up to 2026-01-01T00:03:20Z",
        "cache_events: 0 rows up to 2026-01-01T00:03:20Z",
    ]


def test_many_events_in_one_step_are_one_sample(files: Files, tmp_path: Path) -> None:
    files.performance.run(
        "WITH RECURSIVE n(i) AS"
        " (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12000)"
        f" INSERT INTO cache_events(hit, timestamp) SELECT i % 4 > 0, '{at(7)}' FROM n"
    )

    text = counted(tmp_path, 30)

    assert since_epoch(text.series(HITS)) == [(0, 0), (15, 9000), (30, 9000)]
    assert since_epoch(text.series(MISSES)) == [(0, 0), (15, 3000), (30, 3000)]
    # None of them has a duration.
    assert text.series(f"{CACHE}_count", result="hit")[-1] == (EPOCH + 30, 0)
