"""The trials of ``rules/``, which are of 15 s, again: at 60 s and 120 s, and with
targets whose labels change.

Each target of a trial is fed once for each scene, as an instance of its own. A rule
that fails for one of them fails for all, and promtool says so.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.prometheus.shipped import length
from tests.servers import Servers

TRIALS = sorted(Path(__file__).parent.glob("rules/*.yml"))
# Where windows are hours and days, other intervals show nothing.
LONG = [f for f in TRIALS if f.stem in ("disk", "slo", "slo_days", "storage")]
SHORT = [f for f in TRIALS if f not in LONG]
PIECE = re.compile(r"(-?[\d.e]+|_)([+-][\d.e]+)?x(\d+)")
# Labels that rules set or exporters have, on targets, too.
TAKEN = "database", "limit", "operation", "severity", "slo", "table", "unit"
ALL, UNTIL, SINCE = "all", "until", "since"
# Scenes: the labels of targets, and when they have them; a change is while alerts fire.
TARGETS: list[tuple[str, dict[str, str], str]] = [
    ("plain", {}, ALL),
    ("twins", {"site": "a"}, ALL),
    ("twins", {"site": "b"}, ALL),
    ("jobs", {"job": "{job}-a"}, ALL),
    ("jobs", {"job": "{job}-b"}, ALL),
    ("added", {}, UNTIL),
    ("added", {"site": "a"}, SINCE),
    ("renamed", {"job": "old-{job}", "instance": "was/{instance}"}, UNTIL),
    ("renamed", {}, SINCE),
    ("taken", dict.fromkeys(TAKEN, "a"), UNTIL),
    ("taken", dict.fromkeys(TAKEN, "b"), SINCE),
]
STEADY = {scene for scene, _, which in TARGETS if which == ALL}
CHANGING = {scene for scene, _, _ in TARGETS} - STEADY
# Who has shown itself is known, whatever its job is called.
BUILDS = {"hakgal": "hakgal_exporter", "alertmanager": "alertmanager"}
BUILDS["grafana"] = "grafana"
FIRING = """
count by (severity, instance) (group without (site, job) (
  ALERTS{{alertname="{}", alertstate="firing", instance=~"({})/({})"}}
))"""
COUNT = """
count by (rule, alertname, of) (label_replace(label_replace(
  {{__name__=~"{}", alertstate!="pending", instance=~"{}/.+"}},
"of", "$1", "instance", ".+/(.+)"), "rule", "$1", "__name__", "(.+)"))"""


def expand(values: str) -> Iterator[str]:
    """Yield the samples of promtool's notation: ``1+2x3`` are 1, 3, 5 and 7."""
    for piece in values.split():
        if not (found := PIECE.fullmatch(piece)):
            yield piece
        elif found[1] == "_":
            yield from ["_"] * int(found[3])
        else:
            first, step = float(found[1]), float(found[2] or 0)
            yield from (str(first + n * step) for n in range(int(found[3]) + 1))


def attach(own: dict[str, str], scene: str, extra: dict[str, str]) -> dict[str, str]:
    """Return a sample's labels as Prometheus makes them of its own and a target's."""
    target = {"instance": f"{scene}/{own['instance']}"}
    target["job"] = own["job"].replace("hakgal", "kb")
    target |= {name: value.format(**target) for name, value in extra.items()}
    kept = {k: v for k, v in own.items() if k not in ("job", "instance")}
    return {f"exported_{k}" if k in extra else k: v for k, v in kept.items()} | target


def feed(
    one: dict[str, str], steps: tuple[int, int], at: int, scenes: set[str]
) -> Iterator[dict[str, str]]:
    """Yield what a series becomes."""
    metric, _, inside = one["series"].partition("{")
    own = dict(re.findall(r'(\w+)="([^"]*)"', inside))
    given = list(expand(one["values"]))
    times = range(0, len(given) * steps[0], steps[1])
    samples = [*(given[time // steps[0]] for time in times), given[-1]]
    life = {ALL: samples, UNTIL: [*samples[:at], "stale"]}
    life[SINCE] = ["_"] * at + samples[at:]
    fed = [
        (attach(own, scene, extra), life[which])
        for scene, extra, which in TARGETS
        if scene in scenes and "job" in own
    ]
    if "job" not in own:  # a limit, perhaps of an instance
        names = [f"{s}/{own['instance']}" for s in scenes if "instance" in own]
        fed = [(own | {"instance": name}, samples) for name in names or [""]]
    for labels, values in fed:
        pairs = ",".join(f'{name}="{value}"' for name, value in labels.items())
        yield {"series": f"{metric}{{{pairs}}}", "values": " ".join(values)}


def fired(check: dict[str, Any]) -> Counter[tuple[str, str]]:
    """Return the severities and instances that are to fire."""
    labels = [alert["exp_labels"] for alert in check.get("exp_alerts", ())]
    return Counter((a["severity"], a["instance"]) for a in labels if "instance" in a)


def expect(
    checks: list[dict[str, Any]], every: int, at: int, scenes: set[str]
) -> Iterator[dict[str, Any]]:
    """Yield what is to fire, and after a change, that all is as without it."""
    firing = "|".join({instance for check in checks for _, instance in fired(check)})
    for check in checks:
        moment = length(check["eval_time"])
        if moment > at * every and not fired(check):
            moment += every  # what ends, ends with the next scrape
        yield {
            "expr": FIRING.format(check["alertname"], "|".join(STEADY), firing),
            # The last evaluation, which may be long ago for a query.
            "eval_time": f"{moment // every * every}s",
            "exp_samples": [
                {"labels": f'{{severity="{s}", instance="{scene}/{i}"}}', "value": n}
                for (s, i), n in fired(check).items()
                for scene in scenes - CHANGING
            ],
        }
    # When windows of 5 min have forgotten the labels of before, as much is recorded as
    # without a change, and no other alert fires. What had fired may take longer to end.
    for scene in scenes & CHANGING:
        for name, differs in (("instance.+", "!="), ("ALERTS", "unless")):
            plain = COUNT.format(name, "plain")
            yield {
                "expr": COUNT.format(name, scene) + differs + plain,
                "eval_time": f"{(at + 2) * every + 300}s",
            }


def play(trial: dict[str, Any], every: int, scenes: set[str]) -> dict[str, Any]:
    """Return a trial in some scenes, scraped and evaluated at an interval."""
    checks = trial.get("alert_rule_test", [])
    moments = [length(check["eval_time"]) for check in checks if fired(check)]
    at = min(moments, default=600) // every
    ups = (re.match(r'up\{job="(\w+)"(.+)', s["series"]) for s in trial["input_series"])
    seen = [
        {"series": f'{BUILDS[up[1]]}_build_info{{job="{up[1]}"{up[2]}', "values": "1"}
        for up in ups
        if up and up[1] in BUILDS
    ]
    steps = length(trial["interval"]), every
    series = trial["input_series"] + seen
    return {
        "interval": f"{every}s",
        "input_series": [f for one in series for f in feed(one, steps, at, scenes)],
        "promql_expr_test": list(expect(checks, every, at, scenes)),
    }


def run(
    servers: Servers, folder: Path, file: Path, every: int, scenes: set[str]
) -> None:
    document = yaml.safe_load(file.read_text())
    trials = [trial for trial in document["tests"] if trial["input_series"]]
    document["tests"] = [play(trial, every, scenes) for trial in trials]
    rules = [str((file.parent / path).resolve()) for path in document["rule_files"]]
    document |= {"rule_files": rules, "evaluation_interval": f"{every}s"}
    (folder / file.name).write_text(yaml.safe_dump(document))

    code, output = servers.run("promtool", "test", "rules", folder / file.name)

    assert code == 0, output


@pytest.mark.parametrize("file", SHORT, ids=lambda file: file.stem)
def test_alerts_work_at_120_s(servers: Servers, tmp_path: Path, file: Path) -> None:
    run(servers, tmp_path, file, 120, {"plain"})


@pytest.mark.parametrize("file", TRIALS, ids=lambda file: file.stem)
def test_rules_bear_other_labels(servers: Servers, tmp_path: Path, file: Path) -> None:
    own = length(yaml.safe_load(file.read_text())["evaluation_interval"])
    every = 2 * own if file in LONG else 60
    run(servers, tmp_path, file, every, STEADY | CHANGING)
