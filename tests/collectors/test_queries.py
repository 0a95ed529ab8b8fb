"""The queries collector: durations by type and outcome, with exemplars."""

from itertools import product
from pathlib import Path

import pytest

from exporter.collectors.queries import OUTCOMES, QUERY_TYPES
from tests.databases import Files
from tests.exporters import (
    Page,
    fetch,
    make_config,
    make_exporter,
    parse_openmetrics,
    scrape,
    serving,
)

NAME = "hakgal_query_duration_seconds"


def page_after(files: Files, folder: Path, *rows: tuple[object, ...]) -> Page:
    for row in rows:
        files.add_query(*row)
    return scrape(make_exporter(make_config(folder, label_limit=7)))


def test_known_types_and_both_outcomes_are_zero_in_an_empty_table(
    files: Files, tmp_path: Path
) -> None:
    page = page_after(files, tmp_path)

    for query_type, outcome in product(QUERY_TYPES, OUTCOMES):
        labels = {"query_type": query_type, "outcome": outcome}
        assert page(f"{NAME}_count", **labels) == page(f"{NAME}_sum", **labels) == 0
        assert page(f"{NAME}_bucket", le="+Inf", **labels) == 0
    assert len(page.families[NAME].samples) == 10 * (15 + 2)


def test_durations_are_counted_by_type_and_outcome(
    files: Files, tmp_path: Path
) -> None:
    page = page_after(
        files,
        tmp_path,
        *[(0.25, "add_fact", 1)] * 2,
        *[(0.5, "add_fact", 0)] * 3,
        *[(1.5, "plan_route", True)] * 5,
    )

    counts = page.by("query_type", f"{NAME}_count", outcome="success")
    assert {t: c for t, c in counts.items() if c} == {"add_fact": 2, "plan_route": 5}
    assert page(f"{NAME}_count", query_type="add_fact", outcome="failure") == 3
    assert page(f"{NAME}_sum", query_type="add_fact", outcome="success") == 0.5
    assert page(f"{NAME}_sum", query_type="add_fact", outcome="failure") == 1.5


def test_bucket_includes_its_bound(files: Files, tmp_path: Path) -> None:
    times = (0, 0.005, 0.0051, 0.1, 10, 10.1)

    page = page_after(files, tmp_path, *[(t, "health_check", 1) for t in times])

    labels = {"query_type": "health_check", "outcome": "success"}
    buckets = page.by("le", f"{NAME}_bucket", **labels)
    bounds = ("0.005", "0.01", "0.075", "0.1", "5.0", "10.0", "+Inf")
    assert [buckets[le] for le in bounds] == [2, 3, 3, 4, 4, 5, 6]


def test_rows_that_cannot_count_are_rejected_by_reason(
    files: Files, tmp_path: Path
) -> None:
    bad = [("slow",), (b"\x01",), (-0.1,), (9e999,), (0.1, "a", None), (0.1, "a", "no")]

    page = page_after(files, tmp_path, (0.1,), *bad)

    assert page.sum(f"{NAME}_count") == 1
    rejected = "hakgal_exporter_rejected_rows_total"
    assert page.by("reason", rejected, table="query_times") == {
        "before_replacement": 0,
        "null": 1,
        "not_a_number": 2,
        "negative": 1,
        "infinite": 1,
        "not_a_boolean": 1,
    }


def test_type_that_is_null_is_unknown_and_those_above_the_limit_are_other(
    files: Files, tmp_path: Path
) -> None:
    types = (None, "plan", "learn", None, "learn", "forget")

    page = page_after(files, tmp_path, *[(0.1, t, 1) for t in types])

    counts = page.by("query_type", f"{NAME}_count", outcome="success")
    assert {t: c for t, c in counts.items() if c} == {
        "unknown": 2,
        "plan": 1,
        "other": 3,
    }
    assert page("hakgal_exporter_label_overflows_total", metric=NAME) == 3


def test_exemplar_is_the_newest_row_of_its_bucket(files: Files, tmp_path: Path) -> None:
    for time in (0.06, 0.07, 0.3, 0.06, 20):
        files.add_query(time)
    with serving(make_exporter(make_config(tmp_path))) as address:
        text = fetch(address, Accept="application/openmetrics-text").text

    samples = [s for f in parse_openmetrics(text) for s in f.samples]
    shown = {s.labels["le"]: s.exemplar for s in samples if s.exemplar}
    assert {le: (e.labels, e.value) for le, e in shown.items()} == {
        "0.075": ({"query_id": "4"}, 0.06),
        "0.3": ({"query_id": "3"}, 0.3),
        "+Inf": ({"query_id": "5"}, 20),
    }


def test_buckets_are_those_of_the_configuration(files: Files, tmp_path: Path) -> None:
    config = make_config(tmp_path, query_buckets=(0.25, 2.0))
    files.add_query(0.5, "add_fact")

    page = scrape(make_exporter(config))

    labels = {"query_type": "add_fact", "outcome": "success"}
    assert page.by("le", f"{NAME}_bucket", **labels) == {"0.25": 0, "2.0": 1, "+Inf": 1}


def test_sum_is_exact_to_the_last_digits(files: Files, tmp_path: Path) -> None:
    page = page_after(files, tmp_path, *[(0.1, "add_fact", 1)] * 1000)

    assert page.sum(f"{NAME}_sum") == pytest.approx(100, rel=1e-12)
