"""What the exporter says about itself."""

import platform
import sqlite3
import time
from pathlib import Path

import pytest

from exporter import __version__
from tests.databases import Files
from tests.exporters import make_config, make_exporter, scrape

COLLECTORS = {"facts", "audit", "queries", "cache", "storage", "system"}
TABLES = {"facts", "audit_log", "query_times", "cache_events"}


def test_build_info_says_what_is_running(files: Files, tmp_path: Path) -> None:
    page = scrape(make_exporter(make_config(tmp_path)))

    (sample,) = page.families["hakgal_exporter_build_info"].samples
    assert sample.value == 1
    assert sample.labels.pop("revision")
    assert sample.labels == {
        "version": __version__,
        "python_version": platform.python_version(),
        "sqlite_version": sqlite3.sqlite_version,
    }


def test_each_collector_has_success_and_duration(files: Files, tmp_path: Path) -> None:
    started = time.monotonic()
    page = scrape(make_exporter(make_config(tmp_path)))
    elapsed = time.monotonic() - started

    success = page.by("collector", "hakgal_exporter_collector_success")
    assert success == dict.fromkeys(COLLECTORS, 1)
    seconds = page.by("collector", "hakgal_exporter_collector_duration_seconds")
    assert set(seconds) == COLLECTORS
    # Storage adds up two databases, which are read at the same time.
    assert all(0 < value < 2 * elapsed for value in seconds.values())


def test_every_trouble_that_can_come_is_zero_from_the_first_scrape(
    files: Files, tmp_path: Path
) -> None:
    page = scrape(make_exporter(make_config(tmp_path)))

    zero = dict.fromkeys(TABLES, 0)
    assert page.by("table", "hakgal_exporter_missed_rows_total") == zero
    for reason in ("replaced", "state_lost", "buckets_changed"):
        found = page.by("table", "hakgal_exporter_resets_total", reason=reason)
        assert found == zero
    rejected = "hakgal_exporter_rejected_rows_total"
    assert page.by("table", rejected, reason="before_replacement") == zero
    negative = page.by("table", rejected, reason="negative")
    assert negative == dict.fromkeys(TABLES - {"audit_log"}, 0)
    assert page.by("metric", "hakgal_exporter_label_overflows_total") == {
        "hakgal_audit_events_total": 0,
        "hakgal_query_duration_seconds": 0,
    }


def test_rows_pruned_before_they_were_read_are_missed(
    files: Files, tmp_path: Path
) -> None:
    exporter = make_exporter(make_config(tmp_path))
    files.add_query()
    scrape(exporter)
    for _ in range(5):
        files.add_query()
    files.performance.prune("query_times", keep=2)

    page = scrape(exporter)

    missed = page.by("table", "hakgal_exporter_missed_rows_total")
    assert missed == dict.fromkeys(TABLES, 0) | {"query_times": 3}
    assert page.sum("hakgal_query_duration_seconds_count") == 3


def test_checkpoint_time_is_that_of_the_last_one(files: Files, tmp_path: Path) -> None:
    config = make_config(tmp_path)
    before = time.time()

    page = scrape(make_exporter(config))

    saved_at = page("hakgal_exporter_checkpoint_timestamp_seconds") or 0
    assert before - 1 < saved_at < time.time() + 1
    assert config.state_file
    assert saved_at == pytest.approx(config.state_file.stat().st_mtime)


def test_nothing_new_writes_no_checkpoint(files: Files, tmp_path: Path) -> None:
    config = make_config(tmp_path)
    exporter = make_exporter(config)
    scrape(exporter)
    assert config.state_file
    inode = config.state_file.stat().st_ino

    scrape(exporter)

    assert config.state_file.stat().st_ino == inode


def test_without_checkpoint_its_time_is_absent(files: Files, tmp_path: Path) -> None:
    page = scrape(make_exporter(make_config(tmp_path, state_file=None)))

    assert page("hakgal_exporter_checkpoint_timestamp_seconds") is None
    assert page("hakgal_up", database="performance") == 1
