"""A scrape as a whole: it fails in parts only, and shows what is safe."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client.core import Metric

from exporter.collectors import TABLE_COLLECTORS, cache
from exporter.collectors.families import gauge
from exporter.counting.table import State
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

CACHE_FAMILIES = {
    "hakgal_cache_hits",
    "hakgal_cache_misses",
    "hakgal_cache_response_seconds",
}
HITS = "hakgal_cache_hits_total"
QUERIES = "hakgal_query_duration_seconds_count"
BACKLOG = "hakgal_exporter_backlog_rows"


def raise_an_error(*_: object) -> Iterator[Metric]:
    raise ZeroDivisionError("a bug")


def give_text_for_a_value(*_: object) -> Iterator[Metric]:
    yield gauge("hakgal_bad", "Bad.", {"": "many"})  # type: ignore[dict-item]


class SlowDisk:
    """A disk on which fsync takes as long as a test wants."""

    def __init__(self) -> None:
        self.holds = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self._fsync = os.fsync

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


def hits_and_backlog(page: Page) -> tuple[float | None, float | None]:
    return page(HITS), page(BACKLOG, table="cache_events")


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return events and what they are about."""
    fields = [(r.getMessage(), vars(r).get("fields", {})) for r in caplog.records]
    return [(event, f["what"]) for event, f in fields if "what" in f]


@pytest.mark.parametrize("families", [raise_an_error, give_text_for_a_value])
def test_failing_collector_does_not_hide_others(
    families: Callable[[State], Iterator[Metric]],
    files: Files,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = SimpleNamespace(**vars(cache) | {"families": families})
    monkeypatch.setitem(TABLE_COLLECTORS, "cache", broken)
    add_rows(files)
    with serving(make_exporter(make_config(tmp_path))) as address:
        page = fetch_page(address)

    assert page.failed == {"cache"}
    assert page.names.isdisjoint(CACHE_FAMILIES | {"hakgal_bad"})
    assert page.sum(QUERIES) == 1
    assert page("hakgal_up", database="performance") == 1
    seconds = "hakgal_exporter_collector_duration_seconds"
    assert page(seconds, collector="cache") is not None


def test_failure_is_logged_when_it_begins_and_when_it_ends(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = make_exporter(make_config(tmp_path))
    scrape(exporter)
    away = files.performance.path.with_name("away.db")
    caplog.set_level("INFO")
    for _ in range(2):
        files.performance.run("ALTER TABLE cache_events RENAME TO elsewhere")
        scrape(exporter)
        scrape(exporter)
        files.performance.run("ALTER TABLE elsewhere RENAME TO cache_events")
        scrape(exporter)
        scrape(exporter)
    files.close()
    files.performance.path.rename(away)
    scrape(exporter)
    scrape(exporter)
    away.rename(files.performance.path)
    scrape(exporter)
    twice = [("failing", "cache"), ("recovered", "cache")] * 2
    assert told(caplog)[:5] == [*twice, ("failing", "performance")]
    assert set(told(caplog)[5:]) == {("recovered", "performance")}


def test_names_and_collectors_can_be_chosen(files: Files, tmp_path: Path) -> None:
    add_rows(files)
    with serving(make_exporter(make_config(tmp_path))) as address:
        named = fetch_page(address, f"/metrics?name[]={HITS}&name[]=hakgal_up")
        page = fetch_page(address, "/metrics?collect[]=cache&collect[]=system")
        refusal = fetch(address, "/metrics?collect[]=facts&collect[]=fax")
        whole = fetch_page(address)

    assert "hakgal_exporter_build_info" in whole.names  # not asked for by name before
    assert named.names == {"hakgal_cache_hits", "hakgal_up"}
    success = page.by("collector", "hakgal_exporter_collector_success")
    assert success == {"cache": 1, "system": 1}
    assert page(HITS) == 1
    assert "hakgal_system_memory_total_bytes" in page.names
    assert page.by("table", BACKLOG) == {"cache_events": 0}
    assert page.names.isdisjoint({"hakgal_facts", "hakgal_query_duration_seconds"})
    valid = "audit, cache, facts, queries, storage, system"
    assert (refusal.status, refusal.text) == (
        400,
        f"unknown collector; there are: {valid}\n",
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
    command.wait_until_ready()  # though nobody scrapes
    page = command.page()
    assert page.failed == set()
    assert page(HITS) == page("hakgal_facts") == 1
    assert page.sum("hakgal_exporter_resets_total") == 0


def test_locked_database_is_down_and_the_page_is_in_time(
    command: Command, files: Files
) -> None:
    add_rows(files)
    files.close()
    command.start().wait_until_ready()
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
    for aside in (None, tmp_path / "aside.db", None):
        if aside:
            files.performance.path.rename(aside)
        page = scrape(exporter)
        assert page("hakgal_up", database="performance") == (0 if aside else 1)
        assert page(HITS) == (None if aside else 1)
        assert page("hakgal_facts") == 1
        if aside:
            aside.rename(files.performance.path)


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
        assert hits_and_backlog(scrape(exporter)) == (1, 2)
    assert told(caplog) == [("failing", "checkpoint")]
    obstacle.rmdir()
    assert hits_and_backlog(scrape(exporter)) == (3, 0)


def test_state_file_that_is_removed_comes_back_with_new_rows(
    files: Files, tmp_path: Path
) -> None:
    exporter = make_exporter(make_config(tmp_path))
    for hits in (1, 2, 3):
        files.add_cache(1)
        assert scrape(exporter)(HITS) == hits
        (tmp_path / "exporter-state.json").unlink()


def test_page_shows_only_what_a_kill_cannot_take_back(
    files: Files, tmp_path: Path, slow_disk: SlowDisk
) -> None:
    exporter = make_exporter(make_config(tmp_path))
    files.add_cache(1)
    scrape(exporter)
    slow_disk.go_on.clear()
    files.add_cache(1)
    assert hits_and_backlog(scrape(exporter, budget_seconds=0.4)) == (1, 1)
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
    command.start()
    assert command.page()(HITS) == 30


def test_scrapes_at_the_same_time_show_the_same(files: Files, tmp_path: Path) -> None:
    for _ in range(50):
        files.add_cache(1)
        files.add_query()
    address_of = serving(make_exporter(make_config(tmp_path)))
    with address_of as address, ThreadPoolExecutor(16) as pool:
        pages = list(pool.map(lambda _: fetch_page(address), range(16)))

    assert {hits_and_backlog(page) for page in pages} == {(50, 0)}
    assert {page.sum(QUERIES) for page in pages} == {50}
    assert all(page.failed == set() for page in pages)


def test_counters_never_fall_while_a_writer_is_at_work(
    command: Command, files: Files
) -> None:
    files.close()
    command.start()
    with App(files.performance.path) as app, ThreadPoolExecutor(4) as pool:
        pages = [
            pool.submit(lambda: [command.page()(HITS) for _ in range(25)])
            for _ in range(4)
        ]
        for _ in range(300):
            app.run("INSERT INTO cache_events(hit) VALUES (1)")

    for future in pages:
        # In rollback mode, a writer without a pause can keep a reader out for long.
        hits = [number for number in future.result() if number is not None]
        assert len(hits) > 15
        assert hits == sorted(hits)
    assert command.page()(HITS) == 300


def test_times_that_nobody_can_use_are_logged_when_they_begin_and_end(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = make_exporter(make_config(tmp_path))
    newest = "hakgal_last_event_timestamp_seconds"
    caplog.set_level("INFO")
    for timestamp in ("yesterday", "today", at(0), "2999-01-01 00:00:00", None):
        files.add_query(timestamp=timestamp)
        is_shown = scrape(exporter)(newest, table="query_times") is not None
        assert is_shown == (timestamp not in ("yesterday", "today", None))
    what = "time of query_times"
    assert told(caplog) == [("failing", what), ("recovered", what)] * 2


@pytest.mark.parametrize("is_new", [True, False], ids=["new", "missed"])
def test_trouble_with_a_table_is_logged_once(
    files: Files, tmp_path: Path, is_new: bool, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = make_exporter(make_config(tmp_path))
    files.add_query(timestamp=at(0))
    scrape(exporter)
    if is_new:
        files.performance.replace()
    for second in (1, 2, 3):
        files.add_query(timestamp=at(second))
    files.performance.prune("query_times", keep=3 if is_new else 1)
    for _ in range(3):
        scrape(exporter)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert vars(record)["fields"]["table"] == "query_times"
    assert ("reason" in vars(record)["fields"]) == is_new
