"""What holds for each collector that reads a table."""

import logging
from itertools import product
from pathlib import Path

import pytest

from exporter.collectors import TABLE_COLLECTORS
from exporter.collectors.queries import OUTCOMES, QUERY_TYPES
from tests.databases import File, Files
from tests.exporters import first_page, make_config, make_exporter, scrape

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
EVENTS = "hakgal_audit_events_total"
QUERIES = "hakgal_query_duration_seconds"
KNOWN = {"add_fact": 0, "delete_fact": 0, "update_fact": 0}
each_collector = pytest.mark.parametrize("name", TABLES)


def database_of(files: Files, collector: str) -> File:
    is_knowledge = collector in ("facts", "audit")
    return files.knowledge_base if is_knowledge else files.performance


def test_all_collectors_are_tested_here() -> None:
    assert set(TABLE_COLLECTORS) == set(FAMILIES) == set(TABLES)


@each_collector
def test_table_that_was_never_there_is_absent_and_picked_up_later(
    name: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    exporter = make_exporter(make_config(folder))
    with Files(folder) as files:
        files.add_each()
        file = database_of(files, name)
        file.run(f"DROP TABLE {TABLES[name]}")
        for page in (scrape(exporter), scrape(exporter)):
            assert page.failed == set()
            assert page.names & ALL == ALL - FAMILIES[name]
            assert f'table="{TABLES[name]}"' not in page.text
        (record,) = caplog.records
        assert record.getMessage() == "some metrics are unavailable"
        assert f"table {TABLES[name]}" in vars(record)["fields"]["lacks"]
        file.db.executescript(file.schema)
        files.add_each()
        assert scrape(exporter).names >= ALL


@each_collector
def test_table_that_is_gone_costs_its_own_families_only(
    name: str, files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = make_exporter(make_config(tmp_path))
    files.add_each()
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
        files.add_each()
        rename = f"ALTER TABLE {TABLES[name]} RENAME {column} TO renamed"
        database_of(files, name).run(rename)

    page = first_page(folder)

    assert page.failed == set()
    assert page.names & ALL == ALL - LACKS[name, column]
    assert column != "timestamp" or TABLES[name] not in page.by("table", LAST)


def test_what_is_known_is_zero_in_empty_tables(folder: Path) -> None:
    page = first_page(folder)

    assert page.by("operation", EVENTS) == KNOWN
    for query_type, outcome in product(QUERY_TYPES, OUTCOMES):
        labels = {"query_type": query_type, "outcome": outcome}
        assert page(f"{QUERIES}_bucket", le="+Inf", **labels) == 0
    assert page("hakgal_cache_hits_total") == page("hakgal_cache_misses_total") == 0
    assert page("hakgal_facts") == page("hakgal_facts_added_total") == 0
    assert page("hakgal_facts_last_added_timestamp_seconds") is None
    assert page.by("table", "hakgal_last_event_timestamp_seconds") == {}


def test_limit_of_labels_outlives_a_first_page(folder: Path) -> None:
    for operations in (("import", "export"), ("import", "split", "other")):
        with Files(folder) as files:
            for operation in operations:
                files.add_audit(operation)
        page = first_page(folder, label_limit=4)

    assert page.by("operation", EVENTS) == KNOWN | {"import": 2, "other": 3}
    # Not the row that is called so.
    assert page("hakgal_exporter_label_overflows_total", metric=EVENTS) == 2
