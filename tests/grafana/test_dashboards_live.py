"""Every query of every dashboard, asked of real servers that watch real exporters."""

import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from exporter.commands.simulate import create
from tests.exporters import Command, file_flags, run
from tests.grafana import dashboards
from tests.grafana.dashboards import Json, Panel, fill
from tests.prometheus.stack import start_stack
from tests.servers import (
    ROOT,
    Processes,
    Prometheus,
    Servers,
    find_free_port,
    wait_until,
)

PATIENCE_SECONDS = 60
PANELS = list(dashboards.panels())
STEP_SECONDS = 1
# What there must be before anything is asked; these come last.
EVENTUALLY = (
    'ALERTS{alertname="Watchdog", alertstate="firing"}',
    'ALERTS{alertname="HakgalQueryLatencyHigh"}',
    "count(instance_slo:hakgal_error_budget_left:ratio30d) == 4",
    "count(alertmanager_notifications_total)",
    "count(up == 1) == 4",
    "count(hakgal_wal_frames)",
    "rate(prometheus_notifications_sent_total[1m])",
)


class Watched(NamedTuple):
    """A Prometheus with the shipped rules, and the exporters that it watches."""

    prometheus: Prometheus
    exporters: list[str]
    began: float

    def ask(self, target: Json, **chosen: str) -> list[Any]:
        """Return the series of a panel's target that have a number."""
        query = fill(target["expr"], **chosen)
        if target["instant"]:
            answer = self.prometheus.api("query", query=query)
        else:
            period = self.period() | {"step": str(STEP_SECONDS)}
            answer = self.prometheus.api("query_range", query=query, **period)
        found = [(s, s.get("values") or [s["value"]]) for s in answer["result"]]
        return [s for s, pairs in found if any(value != "NaN" for _, value in pairs)]

    def period(self) -> dict[str, str]:
        return {"start": str(self.began), "end": str(time.time())}


@pytest.fixture(scope="module")
def watched(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    """Two HAK/GALs under load that breaks their limits, watched for some seconds."""
    processes = Processes(folder := tmp_path_factory.mktemp("dashboards"))
    began = time.time()
    try:
        exporters = [start_exporter(processes, folder / name) for name in "ab"]
        stack = start_stack(servers, processes, folder, *exporters)
        for query in EVENTUALLY:
            wait_until(partial(stack.prometheus.query, query), PATIENCE_SECONDS)
        # A range ends with its last full step, which must not be before all that.
        time.sleep(2 * STEP_SECONDS)
        yield Watched(stack.prometheus, exporters, began)
    finally:
        processes.stop()


def start_exporter(processes: Processes, folder: Path) -> str:
    """Start a HAK/GAL that is written to all the time, and its exporter."""
    folder.mkdir()
    flags = file_flags(folder)
    create(folder / "hexagonal_kb.db", folder / "hakgal_performance.db")
    assert run("simulate", *flags[:2], "--rate=2000", "--duration=1").returncode == 0
    host, port = Command(processes, find_free_port(), *flags).start().address
    simulate = sys.executable, "-m", "exporter", "simulate", *flags[:2], "--rate=50"
    processes.start(*simulate, "--fault=slow-queries", PYTHONPATH=str(ROOT))
    return f"{host}:{port}"


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.name)
def test_panel_finds_what_it_looks_for(watched: Watched, panel: Panel) -> None:
    # One is chosen as Grafana writes it: what a regular expression means is escaped.
    one = {"instance": watched.exporters[0].replace(".", r"\\."), "job": "hakgal"}
    if panel.colours:
        for choice in ({}, one):
            wait_until(partial(one_answers, watched, panel, choice), PATIENCE_SECONDS)
        return
    for target in panel.targets:
        for choice in ({}, one):
            # Asked for its exemplars, or says what there is not: draws nothing itself.
            if target["exemplar"] or target["legendFormat"].startswith("no "):
                assert watched.ask(target, **choice) == []
                continue
            # On a busy machine a scrape may be late; with the next, all is there again.
            ask = partial(watched.ask, target, **choice)
            series = ask() if panel.may_be_empty else wait_until(ask, PATIENCE_SECONDS)
            if panel.kind in ("stat", "bargauge"):
                assert len(series) <= 1, "a number for each series is no number"
            elif panel.kind == "timeseries":
                names = [name_of(target, s["metric"]) for s in series]
                assert len(names) == len(set(names)), names
            elif panel.kind == "table":
                columns = panel.json["transformations"][-1]["options"]
                shown = {label for s in series for label in s["metric"]}
                assert (
                    shown <= (columns["excludeByName"] | columns["renameByName"]).keys()
                )


def one_answers(watched: Watched, panel: Panel, choice: dict[str, str]) -> bool:
    return sum(len(watched.ask(target, **choice)) for target in panel.targets) == 1


def name_of(target: Json, labels: dict[str, str]) -> str:
    """Return what the legend calls a series."""
    legend = str(target["legendFormat"])
    for name, value in labels.items():
        legend = legend.replace(f"{{{{{name}}}}}", value)
    assert "{{" not in legend, (legend, labels)
    return legend


def test_exemplars_name_the_row(watched: Watched) -> None:
    targets = [t for panel in PANELS for t in panel.targets if t["exemplar"]]
    query = {"query": fill(targets[0]["expr"])} | watched.period()
    (series, *_) = watched.prometheus.api("query_exemplars", **query)

    assert all(e["labels"]["query_id"].isdigit() for e in series["exemplars"])


@pytest.mark.parametrize("uid", dashboards.load())
def test_variables_and_annotations_find_what_they_look_for(
    watched: Watched, uid: str
) -> None:
    dashboard = dashboards.load()[uid]
    found = {}
    for variable in dashboard["templating"]["list"][1:]:
        words = variable["query"]["query"].removeprefix("label_values(")
        metric, label = words.removesuffix(")").rsplit(", ", 1)
        selector = {"match[]": fill(metric)}
        found[label] = watched.prometheus.api(f"label/{label}/values", **selector)
    alerts, restarts = dashboard["annotations"]["list"]

    assert found == {"job": ["hakgal"], "instance": sorted(watched.exporters)}
    assert watched.ask(restarts | {"instant": False})
    watched.ask(alerts | {"instant": False})
