"""Put the dashboards into the one form in which they are kept, and refuse the rest.

    python grafana/normalise.py            rewrite grafana/dashboards/*.json
    python grafana/normalise.py --check    only say what would change; for CI

A dashboard may come from an editor or from Grafana's "Export": keys are sorted, panels
numbered in reading order, and what an export leaves behind is taken out. What would
stop Grafana from provisioning, or break a promise to those who look at it, is refused
with the place and the remedy, and then nothing is written.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("dashboards")
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
MOST_PANELS = 15
# Of Grafana 9.4, the oldest in which they are looked at.
NEWEST_SCHEMA = 37
PANEL_TYPES = {
    "bargauge",
    "heatmap",
    "row",
    "stat",
    "state-timeline",
    "table",
    "text",
    "timeseries",
}
FIXED = {"editable": False, "version": 1}
# What a variable is set to until somebody chooses: all, or Grafana's default source.
ALL = {"selected": True, "text": ["All"], "value": ["$__all"]}
DEFAULT = {"selected": False, "text": "default", "value": "default"}
# Told apart by colour-blind people as well; vermilion is only for critical and bad.
COLOURS = {
    *("#0072B2", "#009E73", "#56B4E9", "#8C8C8C"),
    *("#CC79A7", "#D55E00", "#E69F00", "#F0E442", "text", "transparent"),
}
COLOUR_MODES = {"fixed", "palette-classic", "thresholds"}
WITHOUT_UNIT = {"heatmap", "state-timeline"}
# What the longest name of an alert needs, 28 characters.
ALERT_WIDTH = 240
KEEPS_CHOICE = "${__url_time_range}&${__all_variables}"
LEFT_BEHIND = (
    *("__elements", "__inputs", "__requires", "gnetId", "id", "iteration"),
    "preload",
)

Json = dict[str, Any]


def main() -> int:
    """Rewrite the dashboards or, with ``--check``, say which are to be rewritten."""
    parser = argparse.ArgumentParser(description="Normalise Grafana's dashboards.")
    parser.add_argument("--check", action="store_true", help="change nothing")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    texts, errors = {}, []
    dashboards: dict[Path, Json] = {}
    for path in sorted(options.folder.glob("*.json")):
        texts[path] = path.read_text()
        try:
            dashboards[path] = json.loads(texts[path])
        except ValueError as error:
            errors.append(f"{path.name}: not JSON: {error}")
    errors += [
        f"{path.name}: {error}"
        for path, dashboard in dashboards.items()
        for error in find_errors(dashboard, path.stem)
    ]
    errors += find_twins(dashboards)
    if not texts:
        errors.append(f"{options.folder}: no dashboards; is it the right folder?")
    if errors:
        print(*errors, sep="\n", file=sys.stderr)
        return 1
    changed = {
        path: text
        for path, dashboard in dashboards.items()
        if (text := normalise(dashboard)) != texts[path]
    }
    for path, text in changed.items():
        if options.check:
            print(f"{path.name}: not normal; run: make dashboards", file=sys.stderr)
        else:
            path.write_text(text)
            print(f"{path.name}: rewritten")
    return 1 if options.check and changed else 0


def normalise(dashboard: Json) -> str:
    """Return a dashboard without errors as the text that its file should have."""
    kept = {k: v for k, v in dashboard.items() if k not in LEFT_BEHIND}
    kept |= FIXED
    kept["panels"] = sorted(kept["panels"], key=_place)
    for number, panel in enumerate(kept["panels"], start=1):
        panel["id"] = number
        panel.pop("pluginVersion", None)
        for letter, target in zip(
            "ABCDEFGHIJKLMNOPQRSTUVWXYZ", panel.get("targets", ()), strict=False
        ):
            target.setdefault("refId", letter)
    for variable in kept["templating"]["list"]:
        # What was chosen and found when it was exported.
        variable["options"] = []
        variable["current"] = ALL if variable.get("includeAll") else DEFAULT
    return json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def find_errors(dashboard: Json, stem: str) -> Iterator[str]:
    """Yield what Grafana, or those who look at it, would stumble over."""
    if not isinstance(dashboard, dict) or "spec" in dashboard or "kind" in dashboard:
        yield "not a classic dashboard; export it as “Classic”, not as a resource"
        return
    missing = {"panels", "schemaVersion", "templating", "title"} - dashboard.keys()
    if missing:
        yield f"has no {', '.join(sorted(missing))}; export the whole dashboard"
        return
    if dashboard.get("uid") != stem:
        yield f"uid is {dashboard.get('uid')!r}; links need it to be {stem!r}"
    if dashboard["schemaVersion"] > NEWEST_SCHEMA:
        yield (
            f"schemaVersion {dashboard['schemaVersion']} is above {NEWEST_SCHEMA},"
            " which is what Grafana 9.4 knows; export it from there, or check by hand"
            " that nothing newer is used and lower it"
        )
    panels = dashboard["panels"]
    if len(panels) > MOST_PANELS:
        yield f"{len(panels)} panels; more than {MOST_PANELS} is two dashboards"
    for panel in panels:
        for error in _panel_errors(panel):
            yield f"panel {panel.get('title', '?')!r}: {error}"
    yield from _layout_errors(panels)
    for annotation in dashboard.get("annotations", {}).get("list", ()):
        is_line = "offset $__interval" in annotation.get("expr", "")
        if not (is_line or annotation.get("useValueForTime")):
            yield (
                f"annotation {annotation.get('name')!r} would cover the graphs; draw a"
                " line where it starts: `x unless x offset $__interval`"
            )
    titles = [panel.get("title") for panel in panels if panel.get("type") != "row"]
    for title in sorted({str(t) for t in titles if titles.count(t) > 1}):
        yield f"two panels {title!r}; say what differs"


def find_twins(dashboards: dict[Path, Json]) -> Iterator[str]:
    """Yield what two have in common: it would silently stop all provisioning."""
    for key in ("title", "uid"):
        seen: dict[Any, Path] = {}
        for path, dashboard in dashboards.items():
            value = dashboard.get(key) if isinstance(dashboard, dict) else None
            if value in seen:
                yield f"{path.name}: {key} {value!r} is {seen[value].name}'s as well"
            seen[value] = path


def _panel_errors(panel: Json) -> Iterator[str]:
    kind = panel.get("type")
    if "libraryPanel" in panel:
        yield "is a library panel, which a file cannot hold; unlink it first"
    if kind not in PANEL_TYPES:
        yield f"type {kind!r} is none of {', '.join(sorted(PANEL_TYPES))}"
    if kind in ("row", "text"):
        return
    for holder in (panel, *panel.get("targets", ())):
        if holder.get("datasource") != DATASOURCE:
            yield f"datasource {holder.get('datasource')!r} is not ${{datasource}}"
            return
    if not panel.get("description"):
        yield "has no description; say what it shows and what is normal"
    yield from _looks_errors(panel, panel.get("fieldConfig", {}).get("defaults", {}))


def _looks_errors(panel: Json, defaults: Json) -> Iterator[str]:
    """Yield what only those who look at a panel would notice."""
    kind = panel["type"]
    if kind not in ("stat", "bargauge") and "noValue" in defaults:
        yield "has a noValue, which labels each tick or cell; say it in the description"
    if kind not in WITHOUT_UNIT and defaults.get("unit", "none") == "none":
        yield "has values without a unit; short is for mere numbers"
    mode = defaults.get("color", {}).get("mode", "fixed")
    if mode not in COLOUR_MODES:
        yield f"colours by {mode!r}; take one of {', '.join(sorted(COLOUR_MODES))}"
    text = json.dumps(panel)
    used = set(re.findall(r'"(?:color|fixedColor)": "([^"]+)"', text))
    if strange := used - COLOURS:
        yield (
            f"uses {', '.join(sorted(strange))}; colour-blind people tell apart"
            f" {', '.join(sorted(COLOURS))}"
        )
    if kind == "stat" and not any(
        KEEPS_CHOICE in link["url"] for link in defaults.get("links", ())
    ):
        yield f"leads nowhere; link what explains it, with ?{KEEPS_CHOICE}"
    steps = defaults.get("thresholds", {}).get("steps")
    if kind == "stat" and (not steps or steps[0]["color"] != "text"):
        yield "has a noValue as good or bad; its lowest threshold's colour must be text"
    if '"from": null' in text:
        yield "maps values from null, but Grafana 9.4 takes null for 0; write -1e9"
    if kind == "table" and re.search(r'"renameByName": \{[^}]*": "[a-z]', text):
        yield "has a column whose title starts in lower case"
    if kind == "table" and '"alertname": "Alert"' in text:
        widths = [
            entry.get("value", 0)
            for override in panel["fieldConfig"]["overrides"]
            if override["matcher"]["options"] == "Alert"
            for entry in override["properties"]
            if entry["id"] == "custom.width"
        ]
        if max(widths, default=0) < ALERT_WIDTH:
            yield f"cuts the names of alerts; set custom.width to {ALERT_WIDTH} or more"


def _layout_errors(panels: list[Json]) -> Iterator[str]:
    taken: dict[tuple[int, int], str] = {}
    for panel in sorted(panels, key=_place):
        place, title = panel["gridPos"], panel.get("title", "?")
        if place["x"] + place["w"] > COLUMNS:
            yield f"panel {title!r} is wider than the page"
        cells = [
            (y, x)
            for y in range(place["y"], place["y"] + place["h"])
            for x in range(place["x"], place["x"] + place["w"])
        ]
        if others := {taken[cell] for cell in cells if cell in taken}:
            yield f"panel {title!r} overlaps {', '.join(sorted(others))}"
        taken |= dict.fromkeys(cells, str(title))
    height = max((y for y, _ in taken), default=-1) + 1
    for y in range(height):
        holes = [x for x in range(COLUMNS) if (y, x) not in taken]
        if holes:
            yield f"hole in row {y}, from column {holes[0]}"
            return


def _place(panel: Json) -> tuple[int, int]:
    return panel["gridPos"]["y"], panel["gridPos"]["x"]


if __name__ == "__main__":
    sys.exit(main())
