"""What the shipped dashboards promise, read from their files.

That their queries find what they look for is tried in test_dashboards_live.py.
"""

import configparser
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import dashboards
from tests.dashboards import FILES, GRAFANA, MAY_BE_EMPTY, Panel
from tests.test_contract import METRICS
from tests.test_rules import ALERTS, NAMES, is_foreign, labels_of, load_rules

LOADED = dashboards.load()
PANELS = list(dashboards.panels())
UIDS = ("overview", "queries", "knowledge-base", "cache", "machine", "alerts")
each_dashboard = pytest.mark.parametrize("dashboard", LOADED.values(), ids=LOADED)
each_panel = pytest.mark.parametrize("panel", PANELS, ids=[p.name for p in PANELS])
SELECTOR = re.compile(r"(?<![\w:.\"])([a-zA-Z_:][\w:]*)\{([^}]*)\}")
BARE = re.compile(r"(?<![\w:.\"])((?:prometheus|alertmanager)_\w+)(?!\w*[{(])")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
CHOSEN = {("job", "=~", "$job"), ("instance", "=~", "$instance")}
OR_NONE = {("job", "=~", "$job|"), ("instance", "=~", "$instance|")}
# Prometheus makes these, or every program has them; job="hakgal" makes them ours.
OF_ALL_TARGETS = {
    *("process_resident_memory_bytes", "process_start_time_seconds"),
    *("scrape_duration_seconds", "scrape_samples_post_metric_relabeling", "up"),
}
# Metrics that no dashboard shows, and why.
NOT_SHOWN: dict[str, str] = {}
# Okabe and Ito's palette and what is between; red and orange are for bad.
RED, ORANGE = "#D55E00", "#E69F00"
COLOURS = {
    *("#0072B2", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#8C8C8C", "#44AA99"),
    *("#B8A21A", "#AAAAAA", "#777777", "#4D4D4D", "#8F4A7B", "text", "transparent"),
}
# What a unit needs in the expression, so that bytes are not shown as seconds.
NEEDS = {
    "s": "seconds|duration",
    "bytes": "bytes",
    "percentunit": r"ratio|/|avg_over_time\(up|threshold",
    "reqps": "rate",
    "ops": "rate",
    "dateTimeFromNow": r"timestamp|time_seconds|ALERTS_FOR_STATE",
}


def normalise(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, GRAFANA / "normalise.py", *words)
    return subprocess.run(command, capture_output=True, text=True, check=False)


def selectors(text: str) -> list[tuple[str, set[tuple[str, ...]]]]:
    found = [(m[1], set(MATCHER.findall(m[2]))) for m in SELECTOR.finditer(text)]
    return found + [(name, set()) for name in BARE.findall(text)]


def colours_in(value: Any) -> set[str]:
    if isinstance(value, dict):
        of_keys = {
            v
            for k, v in value.items()
            if k in ("color", "fixedColor", "iconColor") and isinstance(v, str)
        }
        return of_keys.union(*(colours_in(v) for v in value.values()))
    if isinstance(value, list):
        return set[str]().union(*(colours_in(v) for v in value))
    return set()


# What make dashboards does


def test_the_dashboards_are_as_normalising_leaves_them() -> None:
    done = normalise("--check")

    assert done.returncode == 0, done.stderr


def test_what_an_export_leaves_behind_is_taken_out(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(GRAFANA / "dashboards", tmp_path / "dashboards"))
    file = copy / "hakgal-cache.json"
    shipped = file.read_text()
    exported = json.loads(shipped) | {"__inputs": [], "id": 7, "editable": True}
    exported["panels"].reverse()
    exported["panels"][0] |= {"id": 99, "pluginVersion": "11.6.0"}
    exported["templating"]["list"][1]["current"] = {"text": "a", "value": "a"}
    file.write_text(json.dumps(exported))

    assert normalise("--check", "--folder", copy).returncode == 1
    assert normalise("--folder", copy).returncode == 0
    assert file.read_text() == shipped
    assert normalise("--check", "--folder", copy).returncode == 0


def set_key(key: str, value: object) -> Callable[[Any], None]:
    return lambda dashboard: dashboard.__setitem__(key, value)


def set_in_panel(key: str, value: object) -> Callable[[Any], None]:
    return lambda dashboard: dashboard["panels"][0].__setitem__(key, value)


REFUSED = {
    "spec": (set_key("spec", {}), "export it as"),
    "uid": (set_key("uid", "abc"), "uid is 'abc'"),
    "another's uid": (set_key("uid", "hakgal-queries"), "is hakgal-cache.json's"),
    "another's title": (set_key("title", "HAK/GAL / Queries"), "is hakgal-cache.json"),
    "schema": (set_key("schemaVersion", 42), "schemaVersion 42 is above"),
    "no panels": (lambda d: d.pop("panels"), "has no panels"),
    "many panels": (lambda d: d["panels"].extend(d["panels"]), "two dashboards"),
    "type": (set_in_panel("type", "graph"), "type 'graph' is none of"),
    "description": (set_in_panel("description", ""), "has no description"),
    "library": (set_in_panel("libraryPanel", {}), "library panel"),
    "data source": (set_in_panel("datasource", {"uid": "P1"}), "is not ${datasource}"),
    "twins": (set_in_panel("title", "Look-ups"), "two panels 'Look-ups'"),
    "overlap": (
        set_in_panel("gridPos", {"x": 1, "y": 0, "w": 6, "h": 4}),
        "overlaps",
    ),
    "hole": (set_in_panel("gridPos", {"x": 0, "y": 0, "w": 5, "h": 4}), "hole in row"),
    "wide": (
        set_in_panel("gridPos", {"x": 20, "y": 0, "w": 6, "h": 4}),
        "wider than the page",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_breaks_provisioning_is_refused_and_nothing_is_written(
    case: str, tmp_path: Path
) -> None:
    change, says = REFUSED[case]
    copy = Path(shutil.copytree(GRAFANA / "dashboards", tmp_path / "dashboards"))
    file = copy / "hakgal-cache.json"
    broken = json.loads(file.read_text())
    change(broken)
    file.write_text(json.dumps(broken))
    before = {path: path.read_text() for path in copy.iterdir()}

    done = normalise("--folder", copy)

    assert done.returncode == 1
    assert says in done.stderr
    # A second one with the same title or uid is reported at whichever comes last.
    assert "hakgal-cache.json" in done.stderr
    assert {path: path.read_text() for path in copy.iterdir()} == before


def test_a_file_that_is_not_json_and_an_empty_folder_are_refused(
    tmp_path: Path,
) -> None:
    assert "no dashboards" in normalise("--folder", tmp_path).stderr
    (tmp_path / "a.json").write_text("{")

    assert "a.json: not JSON" in normalise("--folder", tmp_path).stderr


# What they have in common


def test_there_are_the_seven() -> None:
    assert set(LOADED) == {f"hakgal-{uid}" for uid in (*UIDS, "monitoring")}
    assert [file.stem for file in FILES] == sorted(LOADED)


@each_dashboard
def test_a_dashboard_keeps_the_conventions(dashboard: Any) -> None:
    assert dashboard["description"].split("?")[0] != dashboard["description"]
    assert dashboard["tags"] == ["hakgal"]
    assert dashboard["editable"] is False
    assert dashboard["timezone"] == "utc"
    assert dashboard["refresh"] == "1m"
    assert dashboard["time"] == {"from": "now-6h", "to": "now"}
    assert dashboard["graphTooltip"] == 1
    (link,) = dashboard["links"]
    assert link["tags"] == ["hakgal"]
    assert link["includeVars"]
    assert link["keepTime"]
    variables = dashboard["templating"]["list"]
    names = [(v["name"], v["label"]) for v in variables]
    assert names[0] == ("datasource", "Data source")
    assert names[1:] == [("job", "Job"), ("instance", "Instance")]
    for variable in variables[1:]:
        assert variable["multi"]
        assert variable["includeAll"]
        assert variable["allValue"] == ".+"
        assert variable["refresh"] == 2
    alerts, restarts = dashboard["annotations"]["list"]
    assert "ALERTS{" in alerts["expr"]
    assert "process_start_time_seconds{" in restarts["expr"]


def test_overview_is_seen_without_scrolling() -> None:
    places = [panel["gridPos"] for panel in LOADED["hakgal-overview"]["panels"]]

    # 30 pixels a row and 8 between, 1080 less what browser and Grafana take.
    assert max(place["y"] + place["h"] for place in places) * 38 <= 1080 - 280


def test_each_number_of_the_overview_leads_on() -> None:
    numbers = [p for p in PANELS if p.dashboard == "hakgal-overview"]

    for panel in numbers:
        if panel.kind == "stat":
            (link,) = panel.defaults["links"]
            assert "${__url_time_range}" in link["url"]
            assert "${__all_variables}" in link["url"]


def test_links_lead_to_dashboards_that_exist() -> None:
    text = "".join(file.read_text() for file in FILES)
    linked = set(re.findall(r"/d/([\w-]+)", text))

    assert linked
    assert linked <= set(LOADED)
    assert set(re.findall(r"/d/([\w-]+)", str([a.annotations for a in ALERTS]))) <= set(
        LOADED
    )


# What a panel is made of


@each_panel
def test_a_panel_says_what_it_shows_and_looks_right(panel: Panel) -> None:
    assert len(panel.json["description"]) > 40
    if MAY_BE_EMPTY[:-1] in panel.json["description"]:
        assert panel.may_be_empty
    assert panel.defaults["noValue"]
    used = colours_in(panel.json)
    assert used <= COLOURS | {RED, ORANGE}
    assert "palette-classic" not in json.dumps(panel.json)
    for target in panel.targets:
        assert target["legendFormat"] or target.get("format") == "table"
        is_table = panel.kind in ("stat", "bargauge", "table")
        assert target["instant"] == is_table
        assert target["range"] != is_table
    if panel.kind in ("timeseries", "stat", "bargauge"):
        assert panel.defaults["unit"]


@each_panel
def test_red_is_only_for_bad(panel: Panel) -> None:
    # In thresholds, mappings and limits; never the colour of a series that is well.
    for override in panel.json["fieldConfig"]["overrides"]:
        name = override["matcher"]["options"]
        colour = [p["value"] for p in override["properties"] if p["id"] == "color"]
        if colour and colour[0].get("fixedColor") in (RED, ORANGE):
            assert re.match("limit|failed|objective|needed", str(name)), name


@each_panel
def test_a_query_asks_for_metrics_that_exist_of_the_chosen_instances(
    panel: Panel,
) -> None:
    for target in panel.targets:
        found = selectors(target["expr"])
        assert found, target["expr"]
        for metric, matchers in found:
            labels = {label for label, _, _ in matchers} - {"job", "instance"}
            if metric in ("ALERTS", "ALERTS_FOR_STATE"):
                continue
            if is_foreign(metric):
                continue
            if metric in OF_ALL_TARGETS:
                assert ("job", "=", "hakgal") in matchers, target["expr"]
            else:
                assert labels <= labels_of(metric), target["expr"]
                assert (
                    metric in NAMES
                    or re.sub("_(bucket|count|sum)$", "", metric) in METRICS
                    or metric in METRICS
                )
            assert matchers >= CHOSEN, target["expr"]


@each_panel
def test_alerts_are_those_of_the_chosen_instances_or_of_the_monitoring(
    panel: Panel,
) -> None:
    for target in panel.targets:
        # In "x and ALERTS" the left side has chosen already.
        text = re.sub(
            r"and ignoring \(alertstate\) ALERTS\{[^}]*\}", "", target["expr"]
        )
        for metric, matchers in selectors(text):
            if metric in ("ALERTS", "ALERTS_FOR_STATE"):
                names = {value for label, _, value in matchers if label == "alertname"}
                ours = matchers >= OR_NONE and "Hakgal.+" in names
                assert ours or names & {
                    "Watchdog",
                    "(Prometheus|Alertmanager|Grafana).+",
                }


@each_panel
def test_ranges_fit_the_scrape_interval(panel: Panel) -> None:
    for target in panel.targets:
        for function, range_ in re.findall(
            r"\b(rate|increase|delta|deriv|\w+_over_time)\([^\[]*\[([^\]]+)\]",
            target["expr"],
        ):
            assert range_ in ("$__rate_interval", "$__range", "$__range:1m") or (
                re.fullmatch(r"5m|15m|1h|24h", range_)
            ), (function, range_)


@each_panel
def test_the_unit_fits_what_is_asked(panel: Panel) -> None:
    needed = NEEDS.get(panel.defaults.get("unit", ""))
    for target in panel.targets:
        if needed:
            assert re.search(needed, target["expr"]), target["expr"]
        plain = re.fullmatch(r"(?:\w+\()?hakgal_\w+_bytes\{[^}]*\}\)?", target["expr"])
        if plain and panel.kind != "table":
            assert panel.defaults["unit"] == "bytes"


def test_each_metric_is_shown_or_said_not_to_be() -> None:
    text = "".join(t["expr"] for panel in PANELS for t in panel.targets)
    recorded = "".join(r.expr for r in load_rules() if r.recorded and r.name in text)
    shown = {
        metric
        for metric in METRICS
        if re.search(rf"\b{metric}(_bucket|_count|_sum)?\{{", text)
        or re.search(rf"\b{metric}(_bucket|_count|_sum)?\b", recorded)
    }

    assert {m for m in METRICS if m.startswith("hakgal_")} - shown == set(NOT_SHOWN)


def test_each_limit_is_drawn() -> None:
    limits = {name for name in NAMES if re.fullmatch(r"instance\w*:.+:threshold", name)}
    text = "".join(t["expr"] for panel in PANELS for t in panel.targets)

    assert limits
    assert {name for name in limits if f"{name}{{" not in text} == set()


# What provisioning needs


def test_provisioning_names_what_is_there() -> None:
    (file,) = (GRAFANA / "provisioning" / "datasources").glob("*.yml")
    sources = yaml.safe_load(file.read_text())["datasources"]
    (file,) = (GRAFANA / "provisioning" / "dashboards").glob("*.yml")
    (provider,) = yaml.safe_load(file.read_text())["providers"]
    ini = configparser.ConfigParser()
    ini.read(GRAFANA / "grafana.ini")
    home = Path(ini["dashboards"]["default_home_dashboard_path"])
    scrapes = yaml.safe_load((GRAFANA.parent / "prometheus/prometheus.yml").read_text())

    assert {s["uid"] for s in sources} == {"hakgal-prometheus", "hakgal-alertmanager"}
    assert not any(s["editable"] for s in sources)
    interval = sources[0]["jsonData"]["timeInterval"]
    assert interval == scrapes["global"]["scrape_interval"]
    assert provider["disableDeletion"] is True
    assert provider["allowUiUpdates"] is False
    assert "foldersFromFilesStructure" not in provider["options"]
    assert "/" not in provider["folder"]
    assert str(home.parent) == provider["options"]["path"]
    assert (GRAFANA / "dashboards" / home.name).exists()
    assert ini["auth.anonymous"]["enabled"] == "false"
    for key in ("reporting_enabled", "check_for_updates", "check_for_plugin_updates"):
        assert ini["analytics"][key] == "false"
