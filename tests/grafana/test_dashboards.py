"""What the shipped dashboards promise, read from their files."""

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.metrics import METRICS
from tests.grafana import dashboards
from tests.grafana.dashboards import FILES, GRAFANA, MAY_BE_EMPTY, Panel
from tests.prometheus.shipped import RECORDED, RULES, selectors
from tests.servers import ROOT

LOADED = dashboards.load()
PANELS = list(dashboards.panels())
NAMES = ("overview", "queries", "knowledge-base", "cache", "machine", "alerts")
ASKED = "\n".join(target["expr"] for panel in PANELS for target in panel.targets)
CHOSEN = {("job", "=~", "$job"), ("instance", "=~", "$instance")}
OR_NONE = {("job", "=~", "$job|"), ("instance", "=~", "$instance|")}
OF_THE_MONITORING = {"Watchdog", "(Prometheus|Alertmanager|Grafana).+"}
# Of these Prometheus or every program has some; what only exporters have chooses ours.
OF_EXPORTERS = re.compile(r"on \(job, instance\)[^{]* instance:(up:group|hakgal_)")
OF_ALL_TARGETS = {
    *("process_resident_memory_bytes", "process_start_time_seconds"),
    *("scrape_duration_seconds", "scrape_samples_post_metric_relabeling", "up"),
}
# Metrics that no dashboard shows, and why.
NOT_SHOWN: dict[str, str] = {}
COMMON = {"tags": ["hakgal"], "timezone": "utc", "refresh": "1m", "graphTooltip": 1}
LINK = {"tags": ["hakgal"], "includeVars": True, "keepTime": True}
VARIABLE = {"multi": True, "includeAll": True, "allValue": ".+", "refresh": 2}
RANGE = re.compile(r"\$__rate_interval|\$__range(:1m)?|5m|15m|1h|24h")
ANNOTATIONS: Any = LOADED["hakgal-overview"]["annotations"]["list"]
each_panel = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.name)


@pytest.mark.parametrize("name", [*NAMES, "monitoring"])
def test_dashboard_keeps_the_conventions(name: str) -> None:
    dashboard: Any = LOADED[f"hakgal-{name}"]
    (link,) = dashboard["links"]
    firing, restarts = dashboard["annotations"]["list"]
    source, *chosen = dashboard["templating"]["list"]

    assert re.fullmatch(r"[^.?]+\? .+\.", dashboard["description"])
    assert firing["enable"] == (name == "alerts")
    assert [firing | {"enable": False}, restarts] == ANNOTATIONS
    assert dashboard.items() >= COMMON.items()
    assert link.items() >= LINK.items()
    assert source["name"] == "datasource"
    assert [variable["name"] for variable in chosen] == ["job", "instance"]
    assert all(variable.items() >= VARIABLE.items() for variable in chosen)


def test_overview_is_seen_without_scrolling_and_leads_on() -> None:
    for panel in LOADED["hakgal-overview"]["panels"]:
        # 30 pixels a row and 8 between, 1080 less what browser and Grafana take.
        assert (panel["gridPos"]["y"] + panel["gridPos"]["h"]) * 38 <= 1080 - 280
    linked = re.findall(r"/d/([\w-]+)", "".join(file.read_text() for file in FILES))
    assert set(linked) <= set(LOADED)


# What a panel is made of


@each_panel
def test_panel_says_what_it_shows(panel: Panel) -> None:
    defaults = panel.json["fieldConfig"]["defaults"]
    description = panel.json["description"]

    assert panel.may_be_empty or MAY_BE_EMPTY[:-1] not in description
    if panel.kind in ("stat", "bargauge"):
        assert defaults["noValue"]
    for target in panel.targets:
        is_now = panel.kind in ("stat", "bargauge", "table")
        assert (target["instant"], target["range"]) == (is_now, not is_now)
        assert target["legendFormat"] or target.get("format") == "table"
        if panel.kind in ("timeseries", "stat", "bargauge"):
            # So that bytes are not shown as seconds.
            plain = re.match(r"(\w+\()?hakgal_\w+_bytes\{[^}]*\}\)?$", target["expr"])
            assert not plain or defaults["unit"] == "bytes"


@each_panel
def test_panel_asks_for_the_chosen_instances(panel: Panel) -> None:
    for target in panel.targets:
        # In "x and ALERTS" the left side has chosen already.
        filtered = r"and (on|ignoring) \([\w, ]+\) (ALERTS|instance:up:group)(\{.*?\})?"
        found = selectors(re.sub(filtered, "", target["expr"]))
        assert found, target["expr"]
        for one in found:
            if one.metric in ("ALERTS", "ALERTS_FOR_STATE"):
                name = one.values["alertname"]
                ours = name == "Hakgal.+" and one.matchers >= OR_NONE
                assert ours or name in OF_THE_MONITORING
            elif not one.is_foreign:
                is_ours = OF_EXPORTERS.search(target["expr"])
                assert one.matchers >= CHOSEN, target["expr"]
                assert is_ours or one.metric not in OF_ALL_TARGETS, target["expr"]
            assert not one.range or RANGE.fullmatch(one.range), target["expr"]


def test_each_metric_is_shown_or_said_not_to_be() -> None:
    recorded = "\n".join(r.expr for r in RULES if r.recorded and r.name in ASKED)
    parts = "(_bucket|_count|_sum)?"
    shown = {
        metric
        for metric in METRICS
        if re.search(rf"\b{metric}{parts}\{{", ASKED)
        or re.search(rf"\b{metric}{parts}\b", recorded)
    }

    assert METRICS.keys() - shown == set(NOT_SHOWN)


def test_headline_figures_are_coloured_by_their_limits() -> None:
    for panel in (panel for panel in PANELS if panel.kind == "stat"):
        asked = "\n".join(target["expr"] for target in panel.targets)
        for quantity in re.findall(r"instance\w*:(hakgal_\w+):(?!p\d)", asked):
            if f"instance:{quantity}:threshold" in RECORDED:
                assert f"instance:{quantity}:threshold{{" in asked, panel.name
                assert panel.colours == ["text", "#E69F00", "#D55E00"], panel.name


def test_each_limit_is_drawn() -> None:
    limits = {n for n in RECORDED if re.fullmatch(r"instance\w*:.+:threshold", n)}

    assert {name for name in limits if f"{name}{{" not in ASKED} == set()


# What provisioning needs


def test_provisioning_names_what_is_there() -> None:
    made = GRAFANA / "provisioning"
    sources = read(made / "datasources" / "hakgal.yml")["datasources"]
    (provider,) = read(made / "dashboards" / "hakgal.yml")["providers"]
    scrapes = read(ROOT / "prometheus" / "prometheus.yml")["global"]
    ini = configparser.ConfigParser()
    ini.read(GRAFANA / "grafana.ini")
    home = Path(ini["dashboards"]["default_home_dashboard_path"])

    assert {s["uid"] for s in sources} == {"hakgal-prometheus", "hakgal-alertmanager"}
    assert not any(s["editable"] for s in sources)
    assert sources[0]["jsonData"]["timeInterval"] == scrapes["scrape_interval"]
    assert (provider["disableDeletion"], provider["allowUiUpdates"]) == (True, False)
    assert "foldersFromFilesStructure" not in provider["options"]
    assert "/" not in provider["folder"]
    assert str(home.parent) == provider["options"]["path"]
    assert (GRAFANA / "dashboards" / home.name).exists()
    assert ini["auth.anonymous"]["enabled"] == "false"
    for key in ("reporting_enabled", "check_for_updates", "check_for_plugin_updates"):
        assert ini["analytics"][key] == "false"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())
