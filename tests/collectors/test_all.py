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
    ("audit", "operation"): FAMILIES["audit"],
    ("queries", "query_time"): FAMILIES["queries"],
    ("queries", "query_type"): FAMILIES["queries"],
    ("queries", "success"): FAMILIES["queries"],
    ("cache", "hit"): FAMILIES["cache"],
    ("cache", "response_time"): {"hakgal_cache_response_seconds"},
    ("facts", "timestamp"): {"hakgal_facts_last_added_timestamp_seconds"},
    ("audit", "timestamp"): set(),
    ("queries", "timestamp"): set(),
    ("cache", "timestamp"): set(),
}


def database_of(files: Files, collector: str) -> File:
    is_knowledge = collector in ("facts", "audit")
    return files.knowledge_base if is_knowledge else files.performance


def add_rows(files: Files) -> None:
    files.add_fact()
    files.add_audit()
    files.add_query()
    files.add_cache()


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = vars(record).get("fields", {})
    return fields


def test_all_collectors_are_tested_here() -> None:
    assert set(TABLE_COLLECTORS) == set(FAMILIES) == set(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_empty_table_has_no_time_and_no_backlog(
    name: str, files: Files, tmp_path: Path
) -> None:
    page = scrape(make_exporter(make_config(tmp_path)))

    labels = {"table": TABLES[name]}
    assert page("hakgal_last_event_timestamp_seconds", **labels) is None
    assert page("hakgal_exporter_backlog_rows", **labels) == 0
    assert page("hakgal_exporter_missed_rows_total", **labels) == 0
    assert page.sum("hakgal_exporter_rejected_rows_total", **labels) == 0
    assert page.sum("hakgal_exporter_resets_total", **labels) == 0


@pytest.mark.parametrize("name", TABLES)
def test_table_that_was_never_there_is_absent_and_no_failure(
    name: str, files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    add_rows(files)
    database_of(files, name).run(f"DROP TABLE {TABLES[name]}")
    exporter = make_exporter(make_config(tmp_path))

    for page in (scrape(exporter), scrape(exporter)):
        assert page.failed == set()
        assert page.names & ALL == ALL - FAMILIES[name]
        assert f'table="{TABLES[name]}"' not in page.text
        assert set(page.by("database", "hakgal_up").values()) == {1}
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (
        logging.INFO,
        "not all metrics can be had",
    )
    assert f"table {TABLES[name]}" in str(fields_of(record))


@pytest.mark.parametrize("name", TABLES)
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
    assert f"table {TABLES[name]} is gone" in str(fields_of(record)["error"])


@pytest.mark.parametrize(("name", "column"), LACKS)
@pytest.mark.parametrize("rows", [0, 1], ids=["empty", "row"])
def test_missing_column_costs_what_needs_it(
    name: str, column: str, rows: int, files: Files, tmp_path: Path
) -> None:
    for _ in range(rows):
        add_rows(files)
    whole = scrape(make_exporter(make_config(tmp_path, state_file=None))).names & ALL
    database_of(files, name).run(
        f"ALTER TABLE {TABLES[name]} RENAME {column} TO renamed"
    )

    page = scrape(make_exporter(make_config(tmp_path)))

    assert page.failed == set()
    assert page.names & ALL == whole - LACKS[name, column]
    last = page.by("table", "hakgal_last_event_timestamp_seconds")
    assert TABLES[name] not in last or column != "timestamp"


@pytest.mark.parametrize("name", TABLES)
def test_table_that_appears_later_is_picked_up(
    name: str, files: Files, tmp_path: Path
) -> None:
    file = database_of(files, name)
    file.run(f"DROP TABLE {TABLES[name]}")
    exporter = make_exporter(make_config(tmp_path))
    scrape(exporter)

    file.db.executescript(file.schema)
    page = scrape(exporter)

    assert page.failed == set()
    assert FAMILIES[name] - page.names <= {"hakgal_facts_last_added_timestamp_seconds"}


@pytest.mark.parametrize("stamp", [None, "yesterday", b"\x00", -1, 9e99, ""])
def test_newest_row_without_a_time_has_no_time(
    stamp: object, files: Files, tmp_path: Path
) -> None:
    for timestamp in ("2026-01-01 00:00:00", stamp):
        files.add_fact(timestamp=timestamp)
        files.add_audit(timestamp=timestamp)
        files.add_query(timestamp=timestamp)
        files.add_cache(timestamp=timestamp)

    page = scrape(make_exporter(make_config(tmp_path)))

    assert page.failed == set()
    assert page.by("table", "hakgal_last_event_timestamp_seconds") == {}
    assert page("hakgal_facts_last_added_timestamp_seconds") is None
    assert page("hakgal_facts") == 2


@pytest.mark.parametrize("name", TABLES)
def test_collector_that_is_switched_off_shows_and_reads_nothing(
    name: str, files: Files, tmp_path: Path
) -> None:
    database_of(files, name).run(f"DROP TABLE {TABLES[name]}")
    config = make_config(tmp_path)
    others = config.collectors - {name}

    page = scrape(make_exporter(make_config(tmp_path, collectors=others)))

    assert page.failed == set()
    assert page.names.isdisjoint(FAMILIES[name])
    assert set(page.by("collector", "hakgal_exporter_collector_success")) == others
    assert page.sum("hakgal_exporter_resets_total", table=TABLES[name]) == 0
    assert f'table="{TABLES[name]}"' not in page.text
