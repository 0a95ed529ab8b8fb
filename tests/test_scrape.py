"""A scrape as a whole: it answers in time, fails in parts only, and shows what is safe.

What needs another process' locks or a real end runs the command; the rest runs here.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.core import GaugeMetricFamily, Metric

from exporter import source, tail
from exporter.collectors import TABLE_COLLECTORS
from exporter.collectors.base import TableCollector
from exporter.collectors.cache import Cache
from exporter.database import Look
from exporter.tail import Reading, State
from tests.databases import App, Files, at
from tests.exporters import (
    Command,
    Page,
    fetch,
    fetch_page,
    make_config,
    make_exporter,
    read_state,
    scrape,
    serving,
)
from tests.servers import wait_until

CACHE_FAMILIES = {
    "hakgal_cache_hits",
    "hakgal_cache_misses",
    "hakgal_cache_response_seconds",
}
HITS = "hakgal_cache_hits_total"
BACKLOG = "hakgal_exporter_backlog_rows"
MANY_QUERIES = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)
INSERT INTO query_times(query_time, query_type) SELECT i / 3e5, 'health_check' FROM n
"""


class BrokenCache(Cache):
    """Fails as soon as there is a row."""

    def families(self, state: State | None, reading: Reading) -> Iterator[Metric]:
        if state and state.rows:
            raise ZeroDivisionError("a bug")
        yield from super().families(state, reading)


class UncountableCache(Cache):
    """Fails while the database is read."""

    def count(self, db: sqlite3.Connection, look: Look, reading: Reading) -> int | None:
        raise KeyError("a bug")


class TextCache(Cache):
    """Has text for a value."""

    def families(self, state: State | None, reading: Reading) -> Iterator[Metric]:
        yield from super().families(state, reading)
        value: float = "many" if state and state.rows else 0.0  # type: ignore[assignment]
        yield GaugeMetricFamily("hakgal_bad", "Bad.", value=value)


class NumberCache(Cache):
    """Has a number for a label value."""

    def families(self, state: State | None, reading: Reading) -> Iterator[Metric]:
        yield from super().families(state, reading)
        bad = GaugeMetricFamily("hakgal_bad", "Bad.", labels=["id"])
        bad.add_metric([7 if state and state.rows else "7"], 1.0)  # type: ignore[list-item]
        yield bad


class SlowDisk:
    """A disk on which fsync takes as long as a test wants."""

    def __init__(self) -> None:
        self.holds = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self._fsync = os.fsync

    def hold(self) -> None:
        self.go_on.clear()

    def fsync(self, file: int) -> None:
        if not self.go_on.is_set():
            self.holds.set()
            assert self.go_on.wait(10)
        self._fsync(file)


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    disk = SlowDisk()
    monkeypatch.setattr(os, "fsync", disk.fsync)
    return disk


def add_rows(files: Files) -> None:
    files.add_fact()
    files.add_audit()
    files.add_query()
    files.add_cache(1)


def fetch_pages(command: Command, number: int) -> list[Page]:
    return [command.page() for _ in range(number)]


@pytest.mark.parametrize(
    "broken", [BrokenCache, UncountableCache, TextCache, NumberCache]
)
def test_failing_collector_does_not_hide_others(
    broken: type[TableCollector],
    files: Files,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(TABLE_COLLECTORS, "cache", broken)
    add_rows(files)
    with serving(make_exporter(make_config(tmp_path))) as address:
        page = fetch_page(address)

    assert page.failed == {"cache"}
    assert page.names.isdisjoint(CACHE_FAMILIES | {"hakgal_bad"})
    assert page.sum("hakgal_query_duration_seconds_count") == 1
    assert page("hakgal_up", database="performance") == 1
    seconds = "hakgal_exporter_collector_duration_seconds"
    assert page(seconds, collector="cache") is not None


def test_failing_collector_is_logged_when_it_begins_and_when_it_ends(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = make_exporter(make_config(tmp_path))
    scrape(exporter)
    files.performance.run("ALTER TABLE cache_events RENAME TO elsewhere")
    for _ in range(3):
        scrape(exporter)
    files.performance.run("ALTER TABLE elsewhere RENAME TO cache_events")
    with caplog.at_level("INFO"):
        for _ in range(3):
            scrape(exporter)

    shown = [(r.getMessage(), r.__dict__["fields"]["what"]) for r in caplog.records]
    assert shown == [("failing", "cache"), ("recovered", "cache")]


def test_name_selects_series_and_families(files: Files, tmp_path: Path) -> None:
    add_rows(files)
    with serving(make_exporter(make_config(tmp_path))) as address:
        page = fetch_page(address, f"/metrics?name[]={HITS}&name[]=hakgal_up")

    assert page.names == {"hakgal_cache_hits", "hakgal_up"}
    assert page(HITS) == 1


def test_collect_selects_collectors_and_reads_no_others(
    files: Files, tmp_path: Path
) -> None:
    add_rows(files)
    with serving(make_exporter(make_config(tmp_path))) as address:
        page = fetch_page(address, "/metrics?collect[]=cache&collect[]=system")

    success = page.by("collector", "hakgal_exporter_collector_success")
    assert success == {"cache": 1, "system": 1}
    assert page.by("database", "hakgal_up") == {"performance": 1}
    assert page(HITS) == 1
    assert "hakgal_system_memory_total_bytes" in page.names
    assert page.by("table", BACKLOG) == {"cache_events": 0}
    assert page.names.isdisjoint({"hakgal_facts", "hakgal_query_duration_seconds"})


def test_collector_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with serving(make_exporter(make_config(tmp_path))) as address:
        answer = fetch(address, "/metrics?collect[]=facts&collect[]=fax")

    assert answer.status == 400
    assert answer.text == (
        "unknown collector; there are: audit, cache, facts, queries, storage, system\n"
    )


def test_database_that_does_not_exist_yet_is_picked_up(
    command: Command, tmp_path: Path
) -> None:
    command.start()
    page = command.page()
    assert page.by("database", "hakgal_up") == {"knowledge_base": 0, "performance": 0}
    assert page.failed == {"facts", "audit", "queries", "cache", "storage"}
    assert command.get("/-/ready").status == 503

    with Files(tmp_path) as files:
        add_rows(files)

    page = command.page()
    assert page.failed == set()
    assert page(HITS) == page("hakgal_facts") == 1
    assert page.sum("hakgal_exporter_resets_total", table="cache_events") in (0, 1)
    assert command.get("/-/ready").status == 200


def test_locked_database_is_down_and_the_page_is_in_time(
    command: Command, files: Files
) -> None:
    add_rows(files)
    files.close()
    command.start().wait_until_ready()
    command.page()
    with App(files.performance.path) as app:
        app.run("PRAGMA locking_mode = EXCLUSIVE")
        app.run("INSERT INTO cache_events(hit) VALUES (1)")
        started = time.monotonic()
        page = command.page(X_Prometheus_Scrape_Timeout_Seconds="1")
        assert time.monotonic() - started < 1

    assert page.by("database", "hakgal_up") == {"knowledge_base": 1, "performance": 0}
    assert page.failed == {"queries", "cache", "storage"}
    assert page("hakgal_facts") == 1
    assert command.page()(HITS) == 2


def test_file_that_vanishes_is_down_until_it_is_back(
    files: Files, tmp_path: Path
) -> None:
    add_rows(files)
    files.close()
    exporter = make_exporter(make_config(tmp_path))
    scrape(exporter)
    aside = files.performance.path.rename(tmp_path / "aside.db")

    page = scrape(exporter)
    assert page("hakgal_up", database="performance") == 0
    assert page(HITS) is None
    assert page("hakgal_facts") == 1

    aside.rename(files.performance.path)
    page = scrape(exporter)
    assert page("hakgal_up", database="performance") == 1
    assert page(HITS) == 1


def test_new_file_is_counted_on_top_of_the_old_one(
    files: Files, tmp_path: Path
) -> None:
    exporter = make_exporter(make_config(tmp_path))
    for second in range(3):
        files.add_cache(1, timestamp=at(second))
    assert scrape(exporter)(HITS) == 3
    files.performance.replace()
    files.add_cache(1, timestamp=at(10))
    files.add_cache(1, timestamp=at(11))

    page = scrape(exporter)

    assert page(HITS) == 5
    labels = {"table": "cache_events", "reason": "file_replaced"}
    assert page("hakgal_exporter_resets_total", **labels) == 1


def test_state_file_that_cannot_be_written_holds_the_counters(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = make_exporter(make_config(tmp_path))
    files.add_cache(1)
    scrape(exporter)
    obstacle = tmp_path / "exporter-state.json.tmp"
    obstacle.mkdir()
    for _ in range(2):
        files.add_cache(1)

    for _ in range(2):
        page = scrape(exporter)
        assert (page(HITS), page(BACKLOG, table="cache_events")) == (1, 2)
    assert [r.__dict__["fields"]["what"] for r in caplog.records] == ["checkpoint"]

    obstacle.rmdir()
    page = scrape(exporter)
    assert (page(HITS), page(BACKLOG, table="cache_events")) == (3, 0)


def test_state_file_that_is_removed_under_it_comes_back(
    files: Files, tmp_path: Path
) -> None:
    config = make_config(tmp_path)
    exporter = make_exporter(config)
    add_rows(files)
    shown = scrape(exporter)("hakgal_cache_hits_total")
    before = read_state(tmp_path)
    (tmp_path / "exporter-state.json").unlink()
    scrape(exporter)
    assert read_state(tmp_path) == before
    (tmp_path / "exporter-state.json").unlink()
    exporter.close()
    files.performance.prune("cache_events")
    assert scrape(make_exporter(config))("hakgal_cache_hits_total") == shown


def test_page_shows_only_what_a_kill_cannot_take_back(
    files: Files, tmp_path: Path, slow_disk: SlowDisk
) -> None:
    exporter = make_exporter(make_config(tmp_path))
    files.add_cache(1)
    scrape(exporter)
    slow_disk.hold()
    files.add_cache(1)
    page = scrape(exporter, budget_seconds=0.4)
    assert (page(HITS), page(BACKLOG, table="cache_events")) == (1, 1)
    assert read_state(tmp_path)["cache_events"]["cursor"] == 1

    slow_disk.go_on.set()
    assert scrape(exporter)(HITS) == 2
    assert read_state(tmp_path)["cache_events"]["cursor"] == 2


def test_killed_exporter_counts_nothing_twice(command: Command, files: Files) -> None:
    for hits in (10, 20, 30):
        for _ in range(10):
            files.add_cache(1)
        command.start()
        assert command.page()(HITS) == hits

        command.kill()
        files.performance.prune("cache_events", keep=1)

    assert files.performance.value("SELECT COUNT(*) FROM cache_events") == 1
    command.start()
    assert command.page()(HITS) == 30


def test_scrapes_at_the_same_time_show_the_same(files: Files, tmp_path: Path) -> None:
    for _ in range(50):
        files.add_cache(1)
        files.add_query()
    address_of = serving(make_exporter(make_config(tmp_path)))
    with address_of as address, ThreadPoolExecutor(16) as pool:
        pages = list(pool.map(lambda _: fetch_page(address), range(16)))
        last = fetch_page(address)

    shown = {(p(HITS), p(BACKLOG, table="cache_events")) for p in pages}
    assert shown == {(50, 0)}
    assert all(page.failed == set() for page in pages)
    assert last(HITS) == 50
    assert last.sum("hakgal_query_duration_seconds_count") == 50


def test_counters_never_fall_while_a_writer_is_at_work(
    command: Command, files: Files
) -> None:
    files.close()
    command.start()
    with App(files.performance.path) as app, ThreadPoolExecutor(4) as pool:
        pages = [pool.submit(fetch_pages, command, 25) for _ in range(4)]
        for _ in range(300):
            app.run("INSERT INTO cache_events(hit) VALUES (1)")

    for future in pages:
        # In rollback mode, a writer without a pause can keep a reader out for long.
        hits = [h for page in future.result() if (h := page(HITS)) is not None]
        assert len(hits) > 15
        assert hits == sorted(hits)
    assert command.page()(HITS) == 300


def test_scrape_behind_a_hanging_one_is_in_time(
    files: Files, tmp_path: Path, slow_disk: SlowDisk
) -> None:
    exporter = make_exporter(make_config(tmp_path))
    files.add_cache(1)
    scrape(exporter)
    files.add_cache(1)
    slow_disk.hold()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(scrape, exporter)
        assert slow_disk.holds.wait(10)
        started = time.monotonic()
        page = scrape(exporter, budget_seconds=1)

        assert time.monotonic() - started < 1
        assert page.by("database", "hakgal_up") == {}  # nobody knows
        slow_disk.go_on.set()
        assert first.result()(HITS) == 2


def test_families_are_absent_while_a_table_is_first_read(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "SLICE_ROWS", 2)
    monkeypatch.setattr(source, "IDLE_READ_SECONDS", 0.0)
    for _ in range(300):
        files.add_query()
    files.add_cache(1)
    with serving(make_exporter(make_config(tmp_path))) as address:
        page = fetch_page(address)
        answer = fetch(address, "/-/ready")

        assert page("hakgal_query_duration_seconds_count") is None
        assert page(BACKLOG, table="query_times") == 300
        assert page(HITS) == 1
        assert page.failed == set()
        assert answer.status == 503
        assert answer.text.startswith("table query_times is being read: ")
        wait_until(lambda: fetch(address, "/-/ready").status == 200, 10)
        assert fetch_page(address).sum("hakgal_query_duration_seconds_count") == 300


def test_large_backlog_is_folded_between_scrapes(
    command: Command, files: Files
) -> None:
    files.performance.run(MANY_QUERIES)
    files.close()
    command.start()

    command.wait_until_ready()

    page = command.page()
    labels = {"query_type": "health_check", "outcome": "success"}
    name = "hakgal_query_duration_seconds"
    assert page(f"{name}_count", **labels) == 300_000
    assert page(f"{name}_bucket", le="0.5", **labels) == 150_000
    assert page(f"{name}_sum", **labels) == pytest.approx(150_000.5)


def test_scrapes_stay_in_time_while_a_large_table_is_first_read(
    files: Files, tmp_path: Path
) -> None:
    files.performance.run(MANY_QUERIES)
    with serving(make_exporter(make_config(tmp_path))) as address:
        for _ in range(5):
            started = time.monotonic()
            fetch_page(address, X_Prometheus_Scrape_Timeout_Seconds="1")
            assert time.monotonic() - started < 1


def test_who_gives_no_time_makes_no_noise(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = make_exporter(make_config(folder))
    scrape(exporter)
    with exporter._one_at_a_time, caplog.at_level("INFO"):
        assert "facts" in scrape(exporter, budget_seconds=0.001).failed
        assert not caplog.records
        assert "facts" in scrape(exporter, budget_seconds=0.5).failed
    assert {record.getMessage() for record in caplog.records} == {"failing"}


def test_late_answer_to_who_gives_no_time_is_not_logged(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = make_exporter(make_config(folder))
    with caplog.at_level("INFO"):
        assert scrape(exporter, budget_seconds=0.0).failed
    assert not [record for record in caplog.records if record.levelname != "INFO"]
