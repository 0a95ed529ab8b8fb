"""Every query of every dashboard, asked of real servers that watch real exporters."""

import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from exporter.commands.simulate import create
from tests import dashboards
from tests.alertmanager.running import Alertmanager, start_alertmanager
from tests.dashboards import Panel, fill
from tests.exporters import Command, file_flags, run
from tests.servers import (
    ROOT,
    Processes,
    Prometheus,
    Servers,
    adapt_config,
    find_free_port,
    find_servers,
    start_prometheus,
    wait_until,
)

PATIENCE_SECONDS = 60
PANELS = list(dashboards.panels())
STEP_SECONDS = 1
each_panel = pytest.mark.parametrize("panel", PANELS, ids=[p.name for p in PANELS])


class Stack(NamedTuple):
    """A Prometheus with the shipped rules, its Alertmanager, and two exporters."""

    prometheus: Prometheus
    alertmanager: Alertmanager
    exporters: list[str]
    began: float

    def ask(self, target: dict[str, Any], **chosen: str) -> list[dict[str, Any]]:
        """Return the series that a target of a panel has."""
        query = fill(target["expr"], **chosen)
        if target["instant"]:
            answer = self.prometheus.api("query", query=query)
            assert answer["resultType"] == "vector"
        else:
            answer = self.prometheus.api(
                "query_range",
                query=query,
                start=str(self.began),
                end=str(time.time()),
                step=str(STEP_SECONDS),
            )
            assert answer["resultType"] == "matrix"
        return list(answer["result"])


@pytest.fixture(scope="module", params=find_servers(), ids=lambda s: s.folder.name)
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """Two HAK/GALs under load that breaks their limits, watched for some seconds."""
    servers: Servers = request.param
    if servers.version is None:
        pytest.fail("the servers are missing; run: make servers")
    folder = tmp_path_factory.mktemp("dashboards")
    processes = Processes(folder)
    began = time.time()
    try:
        config = ROOT / "alertmanager" / "alertmanager.yml"
        alertmanager = start_alertmanager(servers, processes, config, folder / "am")
        exporters = [start_exporter(processes, folder / name) for name in "ab"]
        port = find_free_port()
        addresses = {
            "localhost:9090": f"127.0.0.1:{port}",
            "localhost:9093": alertmanager.url.removeprefix("http://"),
        }
        copy = configure(folder, exporters, addresses)
        prometheus = start_prometheus(servers, processes, copy, port=port)
        stack = Stack(prometheus, alertmanager, exporters, began)
        wait_until_there_is_something_to_show(stack)
        yield stack
    finally:
        processes.stop()


def start_exporter(processes: Processes, folder: Path) -> str:
    """Start a HAK/GAL that is written to all the time, and its exporter."""
    folder.mkdir()
    flags = file_flags(folder)
    create(folder / "hexagonal_kb.db", folder / "hakgal_performance.db")
    assert run("simulate", *flags[:2], "--rate=2000", "--duration=1").returncode == 0
    command = Command(processes, find_free_port(), *flags).start()
    host, port = command.address
    processes.start(
        *(sys.executable, "-m", "exporter", "simulate", *flags[:2], "--rate=50"),
        PYTHONPATH=str(ROOT),
    )
    return f"{host}:{port}"


def configure(folder: Path, exporters: list[str], addresses: dict[str, str]) -> Path:
    """Copy the shipped configuration; what takes quarters of a minute takes seconds."""
    config = adapt_config(folder, *exporters, scrape_interval="1s")
    copy = config.parent
    targets = [addresses["localhost:9093"]]
    (copy / "targets" / "alertmanager.yml").write_text(f"- targets: {targets}\n")
    for path in (config, *(copy / "rules").glob("*.yml")):
        text = path.read_text().replace(
            "evaluation_interval: 15s", "evaluation_interval: 1s"
        )
        text = text.replace("localhost:9090", addresses["localhost:9090"])
        path.write_text(text.replace("    interval: 1m\n", "    interval: 1s\n"))
    return config


def wait_until_there_is_something_to_show(stack: Stack) -> None:
    """Wait for what comes last."""
    for query in (
        'ALERTS{alertname="Watchdog", alertstate="firing"}',
        'ALERTS{alertname="HakgalQueryLatencyHigh"}',
        "count(instance_slo:hakgal_error_budget_left:ratio30d) == 4",
        "count(alertmanager_notifications_total)",
        "count(up == 1) == 4",
        "count(hakgal_wal_frames)",
        "rate(prometheus_notifications_sent_total[1m])",
    ):
        wait_until(partial(stack.prometheus.query, query), PATIENCE_SECONDS)
    # A range ends with its last full step, which must not be before all that.
    time.sleep(2 * STEP_SECONDS)


@each_panel
@pytest.mark.parametrize("chosen", ["all", "one"])
def test_each_query_of_a_panel_finds_what_it_looks_for(
    stack: Stack, panel: Panel, chosen: str
) -> None:
    # One is chosen as Grafana writes it: what a regular expression means is escaped.
    one = stack.exporters[0].replace(".", r"\\.")
    choice = {"instance": one, "job": "hakgal"} if chosen == "one" else {}
    for target in panel.targets:
        if target["exemplar"]:
            continue
        series = stack.ask(target, **choice)
        assert series or panel.may_be_empty, target["expr"]
        if panel.kind in ("stat", "bargauge"):
            assert len(series) <= 1, "a number for each series is no number"
        pairs = [p for s in series for p in s.get("values") or [s["value"]]]
        assert panel.may_be_empty or any(value != "NaN" for _, value in pairs)


@each_panel
def test_the_same_series_does_not_come_twice(stack: Stack, panel: Panel) -> None:
    if panel.kind != "timeseries":
        return
    for target in panel.targets:
        names = [
            fill_legend(target["legendFormat"], series["metric"])
            for series in stack.ask(target)
        ]
        assert len(names) == len(set(names)), names


def fill_legend(legend: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        legend = legend.replace(f"{{{{{name}}}}}", value)
    assert "{{" not in legend, (legend, labels)
    return legend


def test_exemplars_name_the_row(stack: Stack) -> None:
    targets = [(p, t) for p in PANELS for t in p.targets if t["exemplar"]]

    assert [panel.name for panel, _ in targets] == [
        "hakgal-queries/Duration: mean, p50, p95, p99"
    ]
    found = stack.prometheus.api(
        "query_exemplars",
        query=fill(targets[0][1]["expr"]),
        start=str(stack.began),
        end=str(time.time()),
    )
    exemplars = [e for series in found for e in series["exemplars"]]
    assert exemplars
    assert all(e["labels"]["query_id"].isdigit() for e in exemplars)
    # The query itself draws nothing: it is there for its exemplars.
    assert stack.ask(targets[0][1]) == []


@pytest.mark.parametrize("uid", dashboards.load())
def test_variables_and_annotations_find_what_they_look_for(
    stack: Stack, uid: str
) -> None:
    dashboard = dashboards.load()[uid]
    found = {}
    for variable in dashboard["templating"]["list"][1:]:
        metric, label = variable["query"]["query"][len("label_values(") : -1].rsplit(
            ", ", 1
        )
        selector = {"match[]": fill(metric)}
        found[label] = stack.prometheus.api(f"label/{label}/values", **selector)
    assert found == {"job": ["hakgal"], "instance": sorted(stack.exporters)}

    alerts, restarts = dashboard["annotations"]["list"]
    for annotation in (alerts, restarts):
        series = stack.ask(annotation | {"instant": False})
        assert series or annotation is alerts
