"""What holds for each collector that reads a table."""

import logging
from pathlib import Path

import pytest

from exporter.collectors import TABLE_COLLECTORS
from tests.databases import File, Files
from tests.exporters import make_config, make_exporter, scrape

FAMILIES = {
    "facts": {
        "hakgal_facts",
        "hakgal_facts_added",
        "hakgal_facts_last_added_timestamp_seconds",
        "hakgal_fact_confidence",
    },
    "audit": {"hakgal_audit_events"},
    "queries": {"hakgal_query_duration_seconds"},
    "cache": {
        "hakgal_cache_hits",
        "hakgal_cache_misses",
        "hakgal_cache_response_seconds",
    },
}
ALL = set().union(*FAMILIES.values())
TABLES = {
    "facts": "facts",
    "audit": "audit_log",
    "queries": "query_times",
    "cache": "cache_events",
}
LACKS = {  # which families a column is needed for
    ("facts", "confidence"): {"hakgal_fact_confidence"},
    ("facts", "timestamp"): {"hakgal_facts_last_added_timestamp_seconds"},
    ("audit", "operation"): FAMILIES["audit"],
    ("queries", "query_time"): FAMILIES["queries"],
    ("queries", "query_type"): FAMILIES["queries"],
    ("queries", "success"): FAMILIES["queries"],
    ("queries", "timestamp"): set(),
    ("cache", "hit"): FAMILIES["cache"],
    ("cache", "response_time"): {"hakgal_cache_response_seconds"},
}
LAST = "hakgal_last_event_timestamp_seconds"
each_collector = pytest.mark.parametrize("name", TABLES)


def database_of(files: Files, collector: str) -> File:
    is_knowledge = collector in ("facts", "audit")
    return files.knowledge_base if is_knowledge else files.performance


def add_rows(files: Files) -> None:
    for add in (files.add_fact, files.add_audit, files.add_query, files.add_cache):
        add()


def test_all_collectors_are_tested_here() -> None:
    assert set(TABLE_COLLECTORS) == set(FAMILIES) == set(TABLES)


@each_collector
def test_table_that_was_never_there_is_absent_and_picked_up_later(
    name: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    exporter = make_exporter(make_config(folder))
    with Files(folder) as files:
        add_rows(files)
        file = database_of(files, name)
        file.run(f"DROP TABLE {TABLES[name]}")
        for page in (scrape(exporter), scrape(exporter)):
            assert page.failed == set()
            assert page.names & ALL == ALL - FAMILIES[name]
            assert f'table="{TABLES[name]}"' not in page.text
        (record,) = caplog.records
        assert record.getMessage() == "not all metrics can be had"
        assert f"table {TABLES[name]}" in vars(record)["fields"]["lacks"]
        file.db.executescript(file.schema)
        add_rows(files)
        assert scrape(exporter).names >= ALL


@each_collector
def test_table_that_is_gone_costs_its_own_families_only(
    name: str, files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = make_exporter(make_config(tmp_path))
    add_rows(files)
    scrape(exporter)
    database_of(files, name).run(f"DROP TABLE {TABLES[name]}")

    page = scrape(exporter)

    assert page.failed == {name}
    assert page.names & ALL == ALL - FAMILIES[name]
    assert page.by("database", "hakgal_up") == {"knowledge_base": 1, "performance": 1}
    (record,) = caplog.records
    assert f"table {TABLES[name]} is gone" in vars(record)["fields"]["error"]


@pytest.mark.parametrize(("name", "column"), LACKS)
def test_missing_column_costs_what_needs_it(
    name: str, column: str, folder: Path
) -> None:
    with Files(folder) as files:
        add_rows(files)
        rename = f"ALTER TABLE {TABLES[name]} RENAME {column} TO renamed"
        database_of(files, name).run(rename)

    page = scrape(make_exporter(make_config(folder)))

    assert page.failed == set()
    assert page.names & ALL == ALL - LACKS[name, column]
    assert column != "timestamp" or TABLES[name] not in page.by("table", LAST)
