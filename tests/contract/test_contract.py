"""The page, the settings and the imports are those that are promised."""

import ast
from pathlib import Path

import pytest

from exporter.collectors import TABLE_COLLECTORS
from exporter.config import COLLECTORS, SETTINGS
from tests.contract.metrics import METRICS, Promise, full_page, table_in
from tests.databases import Files
from tests.exporters import make_config, make_exporter
from tests.servers import ROOT

# Each wing may import those before it.
WINGS = ("database", "counting", "collectors", "scrape", "web", "commands", "__main__")


def test_page_has_the_metrics_that_are_documented(files: Files, tmp_path: Path) -> None:
    files.add_fact()
    page = full_page(make_exporter(make_config(tmp_path)))
    shown = {}
    for family in page.families.values():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels}
        shown[name] = Promise(family.type, labels - {"le"})

    clients_own = {n for n in shown if n.startswith(("process_", "python_"))}
    assert {n: p for n, p in shown.items() if n not in clients_own} == METRICS


def test_flags_are_documented_and_each_collector_has_one() -> None:
    rows = table_in("docs/configuration.md", "Configuration")
    listed = {
        flag.strip("`"): (default.strip("`"), does) for flag, default, does in rows
    }
    flags = {f"--{s.name}": (s.default or "none", s.help) for s in SETTINGS}
    switches = {name[12:] for name in flags if name.startswith("--collector.")}

    assert listed == flags
    assert switches == set(COLLECTORS) == {*TABLE_COLLECTORS, "storage", "system"}


@pytest.mark.parametrize("wing", WINGS)
def test_wing_imports_only_what_is_below_it(wing: str) -> None:
    path = ROOT / "exporter" / wing
    files = path.glob("*.py") if path.is_dir() else [path.with_suffix(".py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    imports = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    for node in nodes:
        if isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
    above = {f"exporter.{name}" for name in WINGS[WINGS.index(wing) + 1 :]}

    assert imports
    assert above.isdisjoint(".".join(name.split(".")[:2]) for name in imports)
