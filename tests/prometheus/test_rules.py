"""The shipped rules, read from their files; what each does is tried by ``rules/``."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.contract.metrics import series
from tests.prometheus.shipped import (
    ALERTS,
    FILES,
    RECORDED,
    RULES,
    THRESHOLDS,
    Rule,
    length,
    selectors,
)
from tests.servers import ROOT, Servers

TRIALS = sorted(Path(__file__).parent.glob("rules/*.yml"))
GOLDEN = ROOT / "tests" / "contract" / "golden" / "metrics.txt"
SMOOTHING = {
    *("count_over_time", "last_over_time", "max_over_time", "min_over_time"),
    *("deriv", "increase", "rate", "resets"),
}
OF_TARGETS = {"job", "instance", "zone"}  # the last as users add their own
# Labels of which the golden page has all values.
CLOSED = {"collector", "database", "outcome", "reason", "result", "table"}
each_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.id)


def trials() -> Iterator[dict[str, Any]]:
    for file in TRIALS:
        yield from yaml.safe_load(file.read_text())["tests"]


# What trials expect of an alert at one time: trial, alert, and those that fire.
CHECKS = [
    (trial["name"], check["alertname"], check.get("exp_alerts", []))
    for trial in trials()
    for check in trial.get("alert_rule_test", ())
]


def test_promtool_finds_nothing_to_say_about_the_rules(servers: Servers) -> None:
    check = "promtool", "check", "rules", "--lint=all", "--lint-fatal"
    code, output = servers.run(*check, *FILES)

    assert (code, output.count("SUCCESS")) == (0, len(FILES)), output


@pytest.mark.parametrize("file", TRIALS, ids=lambda file: file.stem)
def test_rules_do_what_their_trials_say(servers: Servers, file: Path) -> None:
    code, output = servers.run("promtool", "test", "rules", file)

    assert code == 0, output


# What the trials are good for


def test_trials_feed_only_what_the_exporter_shows() -> None:
    """So that a rule which does what its trials say is about series that exist."""
    page = text_string_to_metric_families(GOLDEN.read_text())
    samples = [sample for family in page for sample in family.samples]
    shown = {(s.name, *pair) for s in samples for pair in s.labels.items()}
    on_page = {(name, label) for name, label, _ in shown}
    fed = [one["series"] for trial in trials() for one in trial["input_series"]]
    ours = {selector for text in fed for selector in selectors(text)}

    asked = {selector.metric for rule in RULES for selector in rule.selectors}
    assert asked - RECORDED <= {selector.metric for selector in ours}
    for metric, _, matchers, _ in ours:
        promise = series(metric)
        assert promise or not metric.startswith("hakgal_"), metric
        for label, _, value in matchers:
            if promise:
                assert label in promise.labels | OF_TARGETS, metric
            if label in CLOSED and (metric, label) in on_page:
                assert (metric, label, value) in shown


def test_each_recording_rule_is_tried() -> None:
    tried = " ".join(
        check["expr"]
        for trial in trials()
        for check in trial.get("promql_expr_test", ())
        if check.get("exp_samples")
    )

    assert {name for name in RECORDED if not re.search(rf"{name}\b", tried)} == set()


# What people are told


@each_alert
def test_alert_says_all_that_it_should(alert: Rule) -> None:
    said = alert.annotations
    base, _, anchor = said["runbook_url"].partition("#")
    link = r"\{\{ \$externalLabels\.grafana_url }}/d/([\w-]+)"
    dashboard = re.match(link, said["dashboard_url"])

    assert set(alert.labels) == {"severity"}
    assert set(said) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert re.fullmatch(r"[A-Z][^{}]*\.", said["summary"])
    assert said["description"].endswith(".")
    assert (alert.hold == "") == (alert.name == "Watchdog")
    assert (base, anchor) == (
        "{{ $externalLabels.runbook_url_base }}",
        alert.name.lower(),
    )
    assert dashboard
    assert (ROOT / "grafana" / "dashboards" / f"{dashboard[1]}.json").exists()


@each_alert
def test_alert_survives_a_lost_scrape(alert: Rule) -> None:
    """Two of three, at each interval up to 2 min. `up` is there for lost ones too."""
    steady = re.compile(r":(rate|ratio_rate|mean|increase|threshold$|group$)")
    for metric, function, _, range_ in alert.selectors:
        if metric == "up" and not range_:
            assert length(alert.hold) > 2 * 60
        elif function != "absent" and not steady.search(metric):
            assert function in SMOOTHING, metric


def test_windows_hold_two_samples_at_each_interval() -> None:
    ranges = {s.range for rule in RULES for s in rule.selectors if s.range}

    assert min(map(length, ranges)) >= 5 * 60


@each_alert
def test_alert_is_tried(alert: Rule) -> None:
    """Quiet, firing and quiet again in one trial, with each label that it mentions."""
    mine = [(trial, fired) for trial, name, fired in CHECKS if name == alert.name]
    labels = [one["exp_labels"] for _, fired in mine for one in fired]
    own = [one for one in labels if one["severity"] == alert.severity]
    mentioned = re.findall(r"\$labels\.(\w+)", str(alert.annotations))
    stories = [
        [bool(fired) for name, fired in mine if name == trial] for trial, _ in mine
    ]

    assert own
    assert set(mentioned) <= set().union(*own)
    if alert.name != "Watchdog":
        assert any(not story[0] and True in story for story in stories)
        assert any(True in story and not story[-1] for story in stories)


# Limits


@each_alert
def test_alert_compares_with_limits_of_its_severity(alert: Rule) -> None:
    # Which the prediction of both needs: see disk_utilisation in thresholds.yml.
    allowed = {"warning"} if alert.name == "HakgalDiskFilling" else set()
    told = re.findall(r"instance:hakgal_(\w+):threshold", str(alert.annotations))

    assert {severity for _, severity in alert.limits} <= {alert.severity, ""} | allowed
    assert {(quantity, alert.severity) for quantity in told} <= alert.limits or allowed


def test_each_limit_is_in_force_and_missed_when_it_is_missing() -> None:
    limits = {(name, key) for name, keys in THRESHOLDS.items() for key in keys}
    (missing,) = (a for a in ALERTS if a.name == "HakgalThresholdMissing")
    watched = {
        (s.metric.split(":")[1], s.values.get("severity") or s.values.get("slo") or "")
        for s in missing.selectors
    }
    of_instances = [n for n in RECORDED if re.match(r"instance.*:threshold$", n)]
    used = {limit for alert in ALERTS for limit in alert.limits}

    assert watched == limits
    assert {n.split(":")[1].removeprefix("hakgal_") for n in of_instances} == set(
        THRESHOLDS
    )
    assert {(n, k) for n, k in limits if not {(n, k), (n, "")} & used} == set()
