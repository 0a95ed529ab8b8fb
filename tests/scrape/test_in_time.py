"""A page comes in time, whatever hangs, and a backlog is caught up beside it."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from exporter.scrape import Exporter
from tests.databases import App, Files
from tests.exporters import (
    Command,
    Page,
    fetch,
    fetch_page,
    make_config,
    make_exporter,
    scrape,
    serving,
)
from tests.servers import wait_until

SECONDS = 20.0
NAME = "hakgal_query_duration_seconds"
UP, BACKLOG = "hakgal_up", "hakgal_exporter_backlog_rows"
MANY = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)
INSERT INTO query_times(query_time, query_type) SELECT i / 3e5, 'health_check' FROM n
"""
# To read a row takes a millisecond; 5,000 take more than a scrape has.
SLOW_TABLE = f"""
DROP TABLE query_times;
CREATE TABLE query_times (id INTEGER PRIMARY KEY, timestamp, query_type, success);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000)
INSERT INTO query_times (success) SELECT 1 FROM n;
ALTER TABLE query_times ADD COLUMN
    query_time AS (0.0 * ({" + ".join(["length(hex(zeroblob(300 + id % 2)))"] * 50)}));
"""


@contextmanager
def hanging(path: Path) -> Iterator[None]:
    """Let whoever looks at a file's log wait for somebody who never writes."""
    wal, shm = (path.with_name(path.name + side) for side in ("-wal", "-shm"))
    wal.write_bytes(bytes(100))
    os.mkfifo(shm)
    try:
        yield
    finally:
        pipe = os.open(shm, os.O_RDWR)
        shm.unlink()
        wal.unlink()
        os.close(pipe)


def timed_page(exporter: Exporter, seconds: float) -> Page:
    """Return a page that must be there before the time is up."""
    started = time.monotonic()
    page = scrape(exporter, budget_seconds=seconds)
    assert time.monotonic() - started < seconds
    return page


def test_hanging_database_costs_its_own_families_only(tmp_path: Path) -> None:
    with Files(tmp_path) as files:
        files.add_fact()
        files.add_query()
    exporter = make_exporter(make_config(tmp_path))
    assert scrape(exporter).sum(f"{NAME}_count") == 1
    with hanging(files.performance.path), ThreadPoolExecutor(2) as pool:
        beside = pool.submit(timed_page, exporter, 2.0)
        pages = [timed_page(exporter, 1.0), timed_page(exporter, 1.0), beside.result()]
    for page in pages:
        assert page.by("database", UP) == {"knowledge_base": 1, "performance": 0}
        assert page.failed - {"system"} == {"queries", "cache", "storage"}
        assert page("hakgal_facts") == 1
        assert page("hakgal_database_size_bytes", database="knowledge_base")
    wait_until(lambda: not scrape(exporter).failed, SECONDS)
    assert scrape(exporter).sum(f"{NAME}_count") == 1


def test_table_that_never_ends_costs_its_own_collector_only(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files.add_cache(1)
    files.performance.db.executescript(SLOW_TABLE)
    page = timed_page(make_exporter(make_config(tmp_path)), 1.0)
    assert page.failed == {"queries"}
    assert "the scrape's time was up" in str(vars(caplog.records[0])["fields"])
    assert page("hakgal_cache_hits_total") == 1
    assert page("hakgal_database_size_bytes", database="performance")


def test_time_that_is_up_loses_nothing(files: Files, tmp_path: Path) -> None:
    files.performance.run(MANY)
    exporter = make_exporter(make_config(tmp_path))
    assert "queries" in scrape(exporter, budget_seconds=0.0).failed
    wait_until(lambda: scrape(exporter).sum(f"{NAME}_count") == 300_000, SECONDS)


def test_large_table_is_read_between_scrapes_that_stay_in_time(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.scrape.reader.FOLD_SECONDS", 0.0)
    files.performance.run(MANY)
    files.add_cache(1)
    with serving(make_exporter(make_config(tmp_path))) as address:
        page = fetch_page(address)
        answer = fetch(address, "/-/ready")

        assert page(f"{NAME}_count") is None
        assert 200_000 < (page(BACKLOG, table="query_times") or 0) <= 300_000
        assert (page("hakgal_cache_hits_total"), page.failed) == (1, set())
        assert answer.status == 503
        assert answer.text.startswith("table query_times is being read: ")
        while fetch(address, "/-/ready").status == 503:
            started = time.monotonic()
            fetch_page(address, X_Prometheus_Scrape_Timeout_Seconds="1")
            assert time.monotonic() - started < 1
        page = fetch_page(address)
    labels = {"query_type": "health_check", "outcome": "success"}
    assert page(f"{NAME}_count", **labels) == 300_000
    assert page(f"{NAME}_bucket", le="0.5", **labels) == 150_000
    assert page(f"{NAME}_sum", **labels) == pytest.approx(150_000.5)


def test_backlog_is_read_though_nobody_scrapes(command: Command, files: Files) -> None:
    files.performance.run(MANY)
    files.performance.run("INSERT INTO cache_events (hit) SELECT 1 FROM query_times")
    files.close()
    command.start().wait_until_ready()
    page = command.page()
    assert page.by("table", BACKLOG)["query_times"] == 0
    assert page("hakgal_cache_hits_total") == 300_000


def test_broken_table_does_not_stop_another_from_catching_up(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a backlog, which cannot be caught up any more."""
    monkeypatch.setattr("exporter.scrape.reader.FOLD_SECONDS", 0.0)
    files.performance.run(MANY)
    files.performance.run("INSERT INTO cache_events (hit) SELECT 1 FROM query_times")
    exporter = make_exporter(make_config(tmp_path))
    assert scrape(exporter)(BACKLOG, table="query_times")
    files.performance.run("DROP TABLE query_times")
    wait_until(lambda: scrape(exporter)("hakgal_cache_hits_total") == 300_000, SECONDS)


def test_lock_in_the_midst_of_catching_up_loses_nothing(tmp_path: Path) -> None:
    with Files(tmp_path, "delete") as files:
        files.performance.run(MANY)
    exporter = make_exporter(make_config(tmp_path))
    with App(files.performance.path) as app:
        for _ in range(5):
            app.run("BEGIN EXCLUSIVE")
            assert scrape(exporter, budget_seconds=0.2).failed
            app.run("ROLLBACK")
            scrape(exporter)
    wait_until(lambda: scrape(exporter).sum(f"{NAME}_count") == 300_000, SECONDS)


@pytest.mark.parametrize("database", ["hexagonal_kb.db", "hakgal_performance.db"])
def test_not_ready_before_both_databases_were_read(folder: Path, database: str) -> None:
    away = (folder / database).rename(folder / "away")
    exporter = make_exporter(make_config(folder))
    exporter.start()
    wait_until(lambda: (exporter.not_ready() or "").count("read yet") == 1, SECONDS)
    away.rename(folder / database)
    wait_until(lambda: exporter.not_ready() is None, SECONDS)
    (folder / database).rename(away)
    assert scrape(exporter).failed
    assert exporter.not_ready() is None  # once ready stays ready
