"""What rows of each table become, beside what the golden page shows."""

from itertools import product
from pathlib import Path

from exporter.collectors.queries import OUTCOMES, QUERY_TYPES
from tests.databases import EPOCH, Files, at
from tests.exporters import Page, make_config, make_exporter, scrape

EVENTS = "hakgal_audit_events_total"
QUERIES = "hakgal_query_duration_seconds"
KNOWN = {"add_fact": 0, "delete_fact": 0, "update_fact": 0}


def restart(folder: Path, **changes: object) -> Page:
    """Return the first page of a new exporter."""
    return scrape(make_exporter(make_config(folder, **changes)))


def test_what_is_known_is_zero_in_empty_tables(folder: Path) -> None:
    page = restart(folder)

    assert page.by("operation", EVENTS) == KNOWN
    for query_type, outcome in product(QUERY_TYPES, OUTCOMES):
        labels = {"query_type": query_type, "outcome": outcome}
        assert page(f"{QUERIES}_bucket", le="+Inf", **labels) == 0
    assert page("hakgal_cache_hits_total") == page("hakgal_cache_misses_total") == 0
    assert page("hakgal_facts") == page("hakgal_facts_added_total") == 0
    assert page("hakgal_facts_last_added_timestamp_seconds") is None
    assert page.by("table", "hakgal_last_event_timestamp_seconds") == {}


def test_facts_held_and_facts_added_differ_by_those_removed(
    files: Files, tmp_path: Path
) -> None:
    exporter, pages = make_exporter(make_config(tmp_path)), []
    scrape(exporter)
    for second in range(7):  # INSERT OR IGNORE gives out ids for known facts, too
        files.add_fact(id=10 * second + 1, timestamp=at(second))
    for ids in ("9", "1, 11", "21, 31, 41, 51, 61"):
        files.knowledge_base.run(f"DELETE FROM facts WHERE id IN ({ids})")
        pages.append(scrape(exporter, "facts"))

    assert [page("hakgal_facts") for page in pages] == [7, 5, 0]
    assert [page("hakgal_facts_added_total") for page in pages] == [7, 7, 7]
    missed = "hakgal_exporter_missed_rows_total"
    assert [page(missed, table="facts") for page in pages] == [0, 0, 0]
    newest = "hakgal_facts_last_added_timestamp_seconds"
    assert [page(newest) for page in pages] == [EPOCH + 6, EPOCH + 6, None]


def test_limit_of_labels_outlives_a_restart(folder: Path) -> None:
    for operations in (("import", "export"), ("import", "split")):
        with Files(folder) as files:
            for operation in operations:
                files.add_audit(operation)
        page = restart(folder, label_limit=4)

    assert page.by("operation", EVENTS) == KNOWN | {"import": 2, "other": 2}
    assert page("hakgal_exporter_label_overflows_total", metric=EVENTS) == 2


def test_buckets_are_those_of_the_configuration(folder: Path) -> None:
    with Files(folder) as files:
        files.add_query(0.25, "add_fact")
        files.add_query(0.5, "add_fact")

    page = restart(folder, query_buckets=(0.25, 2.0))

    labels = {"query_type": "add_fact", "outcome": "success"}
    buckets = page.by("le", f"{QUERIES}_bucket", **labels)
    assert buckets == {"0.25": 1, "2.0": 2, "+Inf": 2}
