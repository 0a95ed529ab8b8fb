"""A page comes in time, whatever hangs, and a backlog is caught up beside it."""

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.clients import serving
from tests.databases import EPOCH, File, Files, at
from tests.exporters import (
    fetch,
    fetch_page,
    make_config,
    make_exporter,
    scrape,
)
from tests.servers import wait_until

SECONDS = 60.0  # far more than anything here takes
COUNT = "hakgal_query_duration_seconds_count"
HITS, UP = "hakgal_cache_hits_total", "hakgal_up"
BACKLOG = "hakgal_exporter_backlog_rows"
MANY = f"""
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 12000)
INSERT INTO query_times (timestamp, query_time, query_type)
SELECT '{at(0)}', i / 12e3, 'health_check' FROM n;
INSERT INTO cache_events (hit) SELECT 1 FROM query_times;
"""
# To read a row takes some milliseconds; 5,000 take far more than a scrape has.
SLOW_TABLE = f"""
DROP TABLE query_times;
CREATE TABLE query_times (id INTEGER PRIMARY KEY, timestamp, query_type, success);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000)
INSERT INTO query_times (success) SELECT 1 FROM n;
ALTER TABLE query_times ADD COLUMN
    query_time AS (0.0 * ({" + ".join(["length(hex(zeroblob(3000 + id % 2)))"] * 50)}));
"""
# What befalls a table that has been read in part, and how many rows count then.
CHANGES: dict[str, tuple[Callable[[File], object], int]] = {
    "nothing": (lambda file: None, 12_000),
    "recreated": (lambda file: file.recreate("query_times"), 0),
    "pruned": (lambda file: file.prune("query_times", keep=1), 0),
}


@pytest.fixture
def many(folder: Path) -> File:
    """Return the performance database with 12,000 rows in two tables."""
    with Files(folder) as files:
        files.performance.db.executescript(MANY)
    return files.performance


@pytest.fixture
def slow_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a scrape read 5,000 rows of a table, and nothing be read between scrapes."""
    monkeypatch.setattr("exporter.scrape.reader.FOLD_SECONDS", 0.0)
    monkeypatch.setattr("exporter.scrape.reader.IDLE_SECONDS", 0.0)


def test_hanging_database_costs_its_own_families_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Files(folder) as files:
        files.add_fact()
        files.add_query()
    go_on, connect = threading.Event(), sqlite3.connect

    def open_slowly(file: str, **options: Any) -> Any:
        assert "hakgal_performance" not in file or go_on.wait(SECONDS)
        return connect(file, **options)

    exporter = make_exporter(make_config(folder))
    assert scrape(exporter).sum(COUNT) == 1
    monkeypatch.setattr(sqlite3, "connect", open_slowly)
    with ThreadPoolExecutor(2) as pool:
        scrapes = [pool.submit(scrape, exporter, budget_seconds=2.0) for _ in range(2)]
        pages = [one.result(20) for one in scrapes]  # it would hang for longer
    go_on.set()
    for page in pages:
        assert page.by("database", UP) == {"knowledge_base": 1, "performance": 0}
        assert page.failed == {"queries", "cache", "storage", "system"}
        assert page("hakgal_facts") == 1
        assert page("hakgal_database_size_bytes", database="knowledge_base")
    wait_until(lambda: not scrape(exporter).failed, SECONDS)
    assert scrape(exporter).sum(COUNT) == 1


def test_table_that_never_ends_costs_its_own_collector_only(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Files(folder) as files:
        files.add_cache(1)
        files.performance.db.executescript(SLOW_TABLE)
    page = scrape(make_exporter(make_config(folder)), budget_seconds=2.0)
    assert page.failed == {"queries"}
    assert "exceeded the scrape deadline" in str(vars(caplog.records[0])["fields"])
    assert page(HITS) == 1
    assert page("hakgal_database_size_bytes", database="performance")


@pytest.mark.usefixtures("slow_reader")
@pytest.mark.parametrize("change", CHANGES)
def test_counts_are_not_shown_before_all_was_read_once(many: File, change: str) -> None:
    exporter = make_exporter(make_config(many.path.parent))
    befall, expected = CHANGES[change]
    page = scrape(exporter)
    assert page(BACKLOG, table="query_times") == 12_000
    last = "hakgal_last_event_timestamp_seconds"
    assert page(last, table="query_times") == EPOCH
    assert "query_times" not in page.by("table", "hakgal_exporter_missed_rows_total")
    many.open()
    befall(many)
    while page(BACKLOG, table="query_times"):
        assert not page.by("query_type", COUNT)
        page = scrape(exporter)
    assert page.sum(COUNT) == expected
    many.insert("query_times", query_time=1, query_type="x", success=1)
    assert scrape(exporter).sum(COUNT) == expected + 1
    many.close()


@pytest.mark.usefixtures("slow_reader", "many")
def test_large_table_is_read_between_scrapes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(make_exporter(make_config(folder))) as address:
        assert fetch_page(address).failed == set()
        answer = fetch(address, "/-/ready")
        assert answer.status == 503
        assert "table query_times is being read: 7000 rows left" in answer.text
        monkeypatch.undo()
        wait_until(lambda: fetch(address, "/-/ready").status == 200, SECONDS)
        page = fetch_page(address)
    labels = {"query_type": "health_check", "outcome": "success"}
    name = COUNT.removesuffix("_count")
    assert page(f"{name}_bucket", le="0.5", **labels) == 6_000
    assert page(f"{name}_sum", **labels) == pytest.approx(6_000.5)
