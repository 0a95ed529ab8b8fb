"""The old monitor's rows as samples: which, with which value, and which not."""

import math
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from exporter.backfill.history import LEFT_OUT, MEASURES
from exporter.backfill.reader import BATCH_ROWS, Reader
from tests import dashboards
from tests.backfill.old_monitor import collections, write_history
from tests.backfill.running import add_metric, backfill, written
from tests.databases import EPOCH, App, Files, at
from tests.servers import ROOT

END = EPOCH + 7 * 86400
HOUR = 3600


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    with Files(tmp_path) as made:
        yield made


def test_every_row_of_the_old_monitor_is_a_sample_of_the_new_name(
    folder: Path,
) -> None:
    found = list(collections(END, HOUR))
    assert write_history(folder / "hakgal_performance.db", iter(found)) == 9 * 60

    text = written(folder)

    for measure in MEASURES:
        name = measure.name + "_total" * (measure.kind == "counter")
        assert text.series(name) == [
            (c.moment, c.values[measure.old] / measure.divisor) for c in found
        ]
    assert len(text.names) == len(MEASURES)


def test_what_was_no_measurement_is_left_out_and_said(folder: Path) -> None:
    write_history(folder / "hakgal_performance.db", collections(END, HOUR))

    report = written(folder).report

    assert report[0] == "performance_metrics: 540 rows"
    assert report[1] == "  facts_count: 60 rows to hakgal_facts"
    for name, reason in LEFT_OUT.items():
        assert f"  {name}: 60 rows left out, {reason}" in report
    assert len(report) == 10


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.old)
def test_dashboards_ask_for_the_new_names(measure: object) -> None:
    name = getattr(measure, "name", "")
    asked = [t["expr"] for panel in dashboards.panels() for t in panel.targets]

    assert any(re.search(rf"(?<![\w:]){name}(_total)?\{{", query) for query in asked)
    if ":" in name:
        rules = (ROOT / "prometheus" / "rules" / "recording.yml").read_text()
        assert f"- record: {name}\n" in rules


BAD_ROWS = {
    "text": ("facts_count", "many", at(0), "not a number"),
    "bytes": ("facts_count", b"\x01", at(0), "not a number"),
    "infinite": ("facts_count", math.inf, at(0), "infinite"),
    "negative": ("cache_hits", -1, at(0), "negative"),
    "no time": ("facts_count", 5, "yesterday", "with a time that cannot be read"),
    "no clock": ("facts_count", 5, "1970-01-01", "before 2020-.*Z, by a clock .*"),
    "before 1970": ("facts_count", 5, "1969-01-01", "before 2020-.*Z, by a clock .*"),
    "NULL time": ("facts_count", 5, None, "with a time that cannot be read"),
    "mean of nothing": ("avg_query_time", 0.0, at(0), "means of no query"),
    "future": ("facts_count", 5, "2999-01-01 00:00:00", "after 20.*Z"),
}


@pytest.mark.parametrize("row", BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_row_that_is_no_measurement_is_counted_with_its_reason(
    row: tuple[object, object, object, str], files: Files, tmp_path: Path
) -> None:
    *columns, reason = row
    add_metric(files.performance, *columns)
    add_metric(files.performance, "facts_count", 7, at(60))

    text = written(tmp_path)

    assert text.series("hakgal_facts") == [(EPOCH + 60, 7)]
    assert text.names == ["hakgal_facts"]
    assert re.fullmatch(f"  rejected: 1 {reason}", text.report[-1])


def test_null_is_counted_where_a_schema_allows_it(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "hakgal_performance.db")) as db, db:
        db.executescript(
            "CREATE TABLE performance_metrics (id INTEGER PRIMARY KEY, metric_name,"
            " metric_value, timestamp); CREATE TABLE query_times (id INTEGER PRIMARY"
            " KEY); CREATE TABLE cache_events (id INTEGER PRIMARY KEY);"
            "INSERT INTO performance_metrics VALUES (1, 'facts_count', NULL, 'now')"
        )

    assert written(tmp_path).report[-1] == "  rejected: 1 NULL or NaN"


def test_unknown_names_are_counted_without_filling_memory(
    files: Files, tmp_path: Path
) -> None:
    for n in range(30):
        add_metric(files.performance, f"metric_{n}", 1, at(0))
    add_metric(files.performance, "x" * 1000, 1, at(0))

    report = written(tmp_path).report

    assert report[1] == (
        "  metric_0: 1 rows left out, the old monitor had no such metric"
    )
    assert report[-1].startswith("  others: 11 rows left out")
    assert len(report) == 22


def test_of_each_step_the_newest_sample_is_kept(files: Files, tmp_path: Path) -> None:
    for second in range(60):
        add_metric(files.performance, "facts_count", second, at(second))

    default = written(tmp_path).series("hakgal_facts")
    all_of_them = written(tmp_path, "--backfill.step=1").series("hakgal_facts")

    assert default == [(EPOCH + second, second) for second in (14, 29, 44, 59)]
    assert all_of_them == [(EPOCH + second, second) for second in range(60)]


def test_time_rises_where_the_clock_was_set_back(files: Files, tmp_path: Path) -> None:
    for value, second in enumerate((0, 60, 120, 60, 61, 180)):
        add_metric(files.performance, "facts_count", value, at(second))

    series = written(tmp_path).series("hakgal_facts")

    # What was written later is right about its own time.
    assert [(t - EPOCH, v) for t, v in series] == [(0, 0), (61, 4), (120, 2), (180, 5)]


def test_times_of_other_zones_and_parts_of_seconds_are_understood(
    files: Files, tmp_path: Path
) -> None:
    add_metric(files.performance, "facts_count", 1, "2026-01-01T02:00:00.250+02:00")

    assert written(tmp_path).series("hakgal_facts") == [(EPOCH + 0.25, 1)]


def test_what_is_newer_than_until_is_left_to_the_exporter(
    files: Files, tmp_path: Path
) -> None:
    for second in (0, 60, 120):
        add_metric(files.performance, "facts_count", second, at(second))

    text = written(tmp_path, "--backfill.until=2026-01-01T00:01:00Z")

    assert text.series("hakgal_facts") == [(EPOCH, 0), (EPOCH + 60, 60)]
    assert text.report[-1] == "  rejected: 1 after 2026-01-01T00:01:00Z"


def test_old_counters_do_not_leap_to_those_of_the_exporter(
    files: Files, tmp_path: Path
) -> None:
    add_metric(files.performance, "cache_hits", 5, at(0))
    files.add_cache(timestamp=at(0))

    text = written(tmp_path)

    assert text.names == []
    assert text.report[1] == (
        "  cache_hits: 1 rows left out, the exporter counts all rows of"
        " cache_events; add --backfill.events"
    )


def test_labels_are_those_that_were_asked_for(files: Files, tmp_path: Path) -> None:
    add_metric(files.performance, "facts_count", 5, at(0))
    flags = "--backfill.job=a", '--backfill.instance=say "b"\\'

    done = backfill(tmp_path, *flags)

    assert f'hakgal_facts{{instance="say \\"b\\"\\\\",job="a"}} 5.0 {EPOCH}\n' in (
        done.stdout
    )


def test_a_writer_is_let_in_between_two_batches(tmp_path: Path) -> None:
    with Files(tmp_path, "delete") as files:
        write_history(files.performance.path, collections(END, 12 * HOUR))
    batches = Reader(tmp_path / "hakgal_performance.db").batches(
        "performance_metrics", "metric_name"
    )

    assert len(next(batches)) == BATCH_ROWS
    with App(tmp_path / "hakgal_performance.db", timeout=0) as app:
        app.run(f"DELETE FROM performance_metrics WHERE id > {BATCH_ROWS + 1000}")
    assert len(next(batches)) == 1000
    assert list(batches) == []
