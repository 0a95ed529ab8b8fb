"""A scrape as a whole: it fails in parts only, and shows what is safe."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client.core import Metric

from exporter.collectors import TABLE_COLLECTORS, cache
from exporter.collectors.families import gauge
from exporter.counting.table import State
from tests.clients import serving
from tests.databases import Files, at
from tests.exporters import (
    Command,
    Page,
    fetch,
    fetch_page,
    make_config,
    make_exporter,
    read_state,
    scrape,
)

HITS = "hakgal_cache_hits_total"
QUERIES = "hakgal_query_duration_seconds_count"
BACKLOG = "hakgal_exporter_backlog_rows"
UP = "hakgal_up"


def raise_an_error(*_: object) -> Iterator[Metric]:
    raise ZeroDivisionError("a bug")


def give_text_for_a_value(*_: object) -> Iterator[Metric]:
    yield gauge("hakgal_bad", "Bad.", {"": "many"})  # type: ignore[dict-item]


def hits_and_backlog(page: Page) -> tuple[float | None, float | None]:
    return page(HITS), page(BACKLOG, table="cache_events")


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return events and what they are about."""
    fields = [(r.getMessage(), vars(r).get("fields", {})) for r in caplog.records]
    return [(event, f["what"]) for event, f in fields if "what" in f]


@pytest.mark.parametrize("families", [raise_an_error, give_text_for_a_value])
def test_failing_collector_does_not_hide_others(
    families: Callable[[State], Iterator[Metric]],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = SimpleNamespace(**vars(cache) | {"families": families})
    monkeypatch.setitem(TABLE_COLLECTORS, "cache", broken)
    with serving(make_exporter(make_config(folder))) as address:
        page = fetch_page(address)

    assert page.failed == {"cache"}
    assert not any("cache_hits" in name or "bad" in name for name in page.names)
    assert "hakgal_query_duration_seconds" in page.names
    assert page(UP, database="performance") == 1
    seconds = "hakgal_exporter_collector_duration_seconds"
    assert page(seconds, collector="cache") is not None


def test_failure_is_logged_when_it_begins_and_when_it_ends(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = make_exporter(make_config(tmp_path))
    scrape(exporter)
    caplog.set_level("INFO")
    for old, new in (("cache_events", "elsewhere"), ("elsewhere", "cache_events")) * 2:
        files.performance.run(f"ALTER TABLE {old} RENAME TO {new}")
        scrape(exporter)
        scrape(exporter)
    files.close()
    away = files.performance.path.rename(tmp_path / "away.db")
    scrape(exporter)
    scrape(exporter)
    away.rename(files.performance.path)
    scrape(exporter)
    twice = [("failing", "cache"), ("recovered", "cache")] * 2
    assert told(caplog)[:5] == [*twice, ("failing", "performance")]
    assert set(told(caplog)[5:]) == {("recovered", "performance")}


def test_names_and_collectors_can_be_chosen(folder: Path) -> None:
    with serving(make_exporter(make_config(folder))) as address:
        named = fetch_page(address, f"/metrics?name[]={HITS}&name[]=hakgal_up")
        page = fetch_page(address, "/metrics?collect[]=cache&collect[]=system")
        refusal = fetch(address, "/metrics?collect[]=facts&collect[]=fax")

    assert named.names == {"hakgal_cache_hits", "hakgal_up"}
    success = page.by("collector", "hakgal_exporter_collector_success")
    assert success == {"cache": 1, "system": 1}
    assert {"hakgal_cache_hits", "hakgal_system_memory_total_bytes"} <= page.names
    assert page.names.isdisjoint({"hakgal_facts", "hakgal_query_duration_seconds"})
    assert refusal.status == 400
    assert "audit, cache, facts, queries, storage, system\n" in refusal.text


def test_database_that_does_not_exist_yet_is_picked_up(
    command: Command, tmp_path: Path
) -> None:
    command.start()
    page = command.page()
    assert page.by("database", UP) == {"knowledge_base": 0, "performance": 0}
    assert page.failed == {"facts", "audit", "queries", "cache", "storage"}
    assert command.get("/-/ready").status == 503

    with Files(tmp_path) as files:
        files.add_each()
    command.wait_until_ready()  # though nobody scrapes
    page = command.page()
    assert page.failed == set()
    assert page(HITS) == page("hakgal_facts") == 1
    assert page.sum("hakgal_exporter_resets_total") == 0


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


def test_page_shows_only_what_a_kill_cannot_take_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = make_exporter(make_config(folder))
    go_on, fsync = threading.Event(), os.fsync
    with Files(folder) as files:
        files.add_cache(1)
        scrape(exporter)
        monkeypatch.setattr(os, "fsync", lambda file: (go_on.wait(60), fsync(file)))
        files.add_cache(1)
        assert hits_and_backlog(scrape(exporter, budget_seconds=2.0)) == (1, 1)
        assert read_state(folder)["cache_events"]["cursor"] == 1
        go_on.set()
        assert scrape(exporter)(HITS) == 2
        assert read_state(folder)["cache_events"]["cursor"] == 2


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


def test_trouble_with_a_table_is_logged_once(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = make_exporter(make_config(tmp_path))
    scrape(exporter)
    for start, keep in ((0, 2), (10, 3)):
        for second in range(3):
            files.add_query(timestamp=at(start + second))
        files.performance.prune("query_times", keep)
        scrape(exporter)
        scrape(exporter)
        files.performance.replace()
    events = [record.getMessage() for record in caplog.records]
    assert events == ["rows deleted before being read", "table reset"]
    assert {vars(r)["fields"]["table"] for r in caplog.records} == {"query_times"}
