"""What is promised to the outside stands here a second time, and in the documents.

A name, type or label that changes is a breaking change: it must be meant.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from exporter.collectors import TABLE_COLLECTORS
from exporter.config import COLLECTORS, SETTINGS
from exporter.scrape import Exporter
from tests.databases import Files
from tests.exporters import Page, make_config, make_exporter, scrape
from tests.servers import ROOT, wait_until

# Each wing may import those before it.
CHAIN = (
    ("database",),
    ("counting",),
    ("collectors",),
    ("scrape",),
    ("web",),
    ("commands",),
    ("__main__",),
)
CLIENTS_OWN = ("process_", "python_")


class Promise(NamedTuple):
    """A metric as DESIGN fixes it."""

    kind: str
    labels: set[str]


def promise(kind: str, labels: str = "") -> Promise:
    return Promise(kind, set(labels.split()))


METRICS = {
    "hakgal_up": promise("gauge", "database"),
    "hakgal_facts": promise("gauge"),
    "hakgal_facts_added_total": promise("counter"),
    "hakgal_facts_last_added_timestamp_seconds": promise("gauge"),
    "hakgal_fact_confidence": promise("histogram"),
    "hakgal_audit_events_total": promise("counter", "operation"),
    "hakgal_query_duration_seconds": promise("histogram", "query_type outcome"),
    "hakgal_cache_hits_total": promise("counter"),
    "hakgal_cache_misses_total": promise("counter"),
    "hakgal_cache_response_seconds": promise("histogram", "result"),
    "hakgal_last_event_timestamp_seconds": promise("gauge", "table"),
    "hakgal_database_size_bytes": promise("gauge", "database"),
    "hakgal_database_free_bytes": promise("gauge", "database"),
    "hakgal_wal_size_bytes": promise("gauge", "database"),
    "hakgal_wal_frames": promise("gauge", "database"),
    "hakgal_wal_checkpointed_frames": promise("gauge", "database"),
    "hakgal_database_connections": promise("gauge", "database"),
    "hakgal_system_cpu_seconds_total": promise("counter", "mode"),
    "hakgal_system_memory_total_bytes": promise("gauge"),
    "hakgal_system_memory_available_bytes": promise("gauge"),
    "hakgal_system_disk_size_bytes": promise("gauge", "database mountpoint"),
    "hakgal_system_disk_free_bytes": promise("gauge", "database mountpoint"),
    "hakgal_exporter_build_info": promise(
        "gauge", "version revision python_version sqlite_version"
    ),
    "hakgal_exporter_collector_success": promise("gauge", "collector"),
    "hakgal_exporter_collector_duration_seconds": promise("gauge", "collector"),
    "hakgal_exporter_backlog_rows": promise("gauge", "table"),
    "hakgal_exporter_missed_rows_total": promise("counter", "table"),
    "hakgal_exporter_rejected_rows_total": promise("counter", "table reason"),
    "hakgal_exporter_resets_total": promise("counter", "table reason"),
    "hakgal_exporter_label_overflows_total": promise("counter", "metric"),
    "hakgal_exporter_checkpoint_timestamp_seconds": promise("gauge"),
}
LABEL_VALUES = {
    ("hakgal_up", "database"): {"knowledge_base", "performance"},
    ("hakgal_query_duration_seconds_count", "outcome"): {"success", "failure"},
    ("hakgal_cache_response_seconds_count", "result"): {"hit", "miss"},
    ("hakgal_exporter_collector_success", "collector"): set(COLLECTORS),
    ("hakgal_exporter_backlog_rows", "table"): {
        "facts",
        "audit_log",
        "query_times",
        "cache_events",
    },
}


@pytest.fixture
def page(files: Files, tmp_path: Path) -> Page:
    """Return a page on which every family has samples."""
    files.add_fact()
    return full_page(make_exporter(make_config(tmp_path)))


def full_page(exporter: Exporter) -> Page:
    """Return a page that also has what is counted after a scrape."""
    wait_until(lambda: "hakgal_database_connections" in scrape(exporter).names, 10)
    return scrape(exporter)


def table_in(file: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading of a document."""
    text = (ROOT / file).read_text().partition(f"# {heading}\n")[2]
    start = text.index("\n|") + 1
    lines = text[start:].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def promised_on(page: Page) -> Iterator[tuple[str, Promise]]:
    for family in page.families.values():
        if not family.name.startswith(CLIENTS_OWN):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = {label for s in family.samples for label in s.labels} - {"le"}
            yield name, Promise(family.type, labels)


def imports_of(module: str) -> set[str]:
    """Return the parts of the chain that a part imports."""
    path = ROOT / "exporter" / module
    files = sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    nodes = [n for file in files for n in ast.walk(ast.parse(file.read_text()))]
    found = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    found += [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
    parts = [(name or "").split(".") for name in found]
    return {part[1] for part in parts if part[0] == "exporter" and part[1:]} - {module}


def test_page_has_the_metrics_of_the_design(page: Page) -> None:
    assert dict(promised_on(page)) == METRICS


def test_labels_have_the_values_of_the_design(page: Page) -> None:
    for (name, label), values in LABEL_VALUES.items():
        family = next(f for f in page.families.values() if name.startswith(f.name))
        found = {s.labels[label] for s in family.samples if s.name == name}
        assert found == values, name


def test_each_metric_has_a_help_text_of_one_sentence_or_more(page: Page) -> None:
    for family in page.families.values():
        if not family.name.startswith(CLIENTS_OWN):
            assert re.fullmatch(r"[A-Z].*\.", family.documentation), family.name


def test_documentation_lists_the_metrics_of_the_page(page: Page) -> None:
    header, _, *rows = table_in("docs/metrics.md", "Metrics")
    assert header == ["Metric", "Type", "Labels", "Unit", "Source"]

    listed = {
        name.strip("`"): Promise(kind, set(labels.split(", ")) - {""})
        for name, kind, labels, *_ in rows
    }

    assert len(listed) == len(rows)
    assert listed == dict(promised_on(page))


def test_documentation_lists_each_flag_with_its_default() -> None:
    header, _, *rows = table_in("docs/configuration.md", "Configuration")
    assert header == ["Flag", "Default", "Does"]

    listed = {flag: (default.strip("`"), does) for flag, default, does in rows}

    assert listed == {f"`--{s.name}`": (s.default or "none", s.help) for s in SETTINGS}


def test_collectors_are_those_that_can_be_switched() -> None:
    assert set(COLLECTORS) == {*TABLE_COLLECTORS, "storage", "system"}
    switches = {s.name for s in SETTINGS if s.name.startswith("collector.")}
    assert switches == {f"collector.{name}" for name in COLLECTORS}


def test_capped_metrics_are_metrics(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    tables = [collector.table(config) for collector in TABLE_COLLECTORS.values()]

    assert {table.metric for table in tables if table.label} <= set(METRICS)


@pytest.mark.parametrize("position", range(len(CHAIN)), ids=lambda n: CHAIN[n][0])
def test_data_flows_one_way(position: int) -> None:
    later = {module for part in CHAIN[position + 1 :] for module in part}

    for module in CHAIN[position]:
        assert imports_of(module).isdisjoint(later), module


def test_files_of_the_readme_exist() -> None:
    rows = table_in("README.md", "Files")[2:]

    for where, _ in rows:
        names = re.findall(r"`([^`]+)`", where)
        folder = Path(names[0]).parent
        paths = [names[0], *(folder / name for name in names[1:])]
        assert [p for p in paths if not (ROOT / p).exists()] == []
