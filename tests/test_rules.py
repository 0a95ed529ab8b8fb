"""What the shipped rules promise, read from the files and asked of real servers.

What each rule does is tried by promtool, with the tests in ``tests/rules``.
"""

import json
import math
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.servers import (
    HTTP,
    ROOT,
    Processes,
    Servers,
    adapt_config,
    start_prometheus,
    wait_until,
)
from tests.test_contract import METRICS, Promise

PROMETHEUS = ROOT / "prometheus"
RULE_FILES = sorted((PROMETHEUS / "rules").glob("*.yml"))
TEST_FILES = sorted((ROOT / "tests" / "rules").glob("*.yml"))
GOLDEN = ROOT / "tests" / "golden" / "metrics.txt"
DASHBOARDS = {
    "hakgal-overview",
    "hakgal-queries",
    "hakgal-knowledge-base",
    "hakgal-cache",
    "hakgal-machine",
    "hakgal-alerts",
    "hakgal-monitoring",
}
SEVERITIES = {"critical", "warning", "info", "none"}
# Alerts that DESIGN names. More may be added, none may go.
DESIGNED = {
    "HakgalExporterDown",
    "HakgalDatabaseDown",
    "HakgalQueryLatencyHigh",
    "HakgalQueryFailuresHigh",
    "HakgalCacheHitRatioLow",
    "HakgalCpuHigh",
    "HakgalMemoryHigh",
    "HakgalDiskFilling",
    "HakgalWalGrowing",
    "HakgalFactsDropped",
    "HakgalEventsStalled",
    "HakgalBacklogGrowing",
    "HakgalRowsMissed",
    "HakgalRowsRejected",
    "HakgalCollectorFailing",
    "HakgalErrorBudgetBurn",
    "Watchdog",
}
# Those for Prometheus, Alertmanager and Grafana themselves.
OTHERS = r"Prometheus\w+|Alertmanager\w+|GrafanaDown"
# Prometheus makes these for each target, so they are on no page.
SYNTHETIC = {
    "up": Promise("gauge", set()),
    "scrape_duration_seconds": Promise("gauge", set()),
}
# As 0.25 and 0.33 show them.
ALERTMANAGERS_OWN = {
    "alertmanager_config_last_reload_successful": "gauge",
    "alertmanager_notifications_failed_total": "counter",
}
# What the first part of a recorded name says about labels, next to job and instance.
LEVELS = {
    "hakgal": {"severity", "slo", "unit"},
    "instance": {"severity"},
    "instance_database": {"database", "mountpoint"},
    "instance_le": {"le"},
    "instance_query_type": {"query_type"},
    "instance_result": {"result"},
    "instance_severity": {"severity"},
    "instance_slo": {"slo"},
}
COUNTER_FUNCTIONS = {"rate", "increase", "resets"}
GAUGE_FUNCTIONS = {
    "avg_over_time",
    "count_over_time",
    "deriv",
    "max_over_time",
    "min_over_time",
}
# So that one lost scrape changes nothing, alerts look at these over some scrapes.
SMOOTHING = COUNTER_FUNCTIONS | GAUGE_FUNCTIONS
GROUPING = re.compile(r"\b(?:by|without|on|group_left)\s*\(([^)]*)\)")
# Strings outside of braces are arguments, such as those of label_replace.
SELECTOR = re.compile(
    r""""[^"]*" |
        (?: (?P<function>\w+) \(\s* )?
        (?<![\w:.]) (?P<metric> [a-zA-Z_:][\w:]* ) (?![\w:]*\s*\()
        (?: \{ (?P<matchers> [^}]* ) \} )?
        (?: \[ (?P<range> \w+ ) \] )?""",
    re.VERBOSE,
)
TYPES = re.compile(r"^# TYPE (\w+) (\w+)$", re.MULTILINE)
KEYWORDS = {"and", "or", "unless"}
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
RESEND = "--rules.alert.resend-delay=1s"
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Selector(NamedTuple):
    """A metric in an expression, with the function and range around it."""

    metric: str
    function: str
    matchers: dict[str, str]
    range: str


@dataclass(frozen=True)
class Rule:
    """A rule as its file has it."""

    name: str
    recorded: bool
    expr: str
    labels: dict[str, str]
    annotations: dict[str, str]
    hold: str
    group: str

    @property
    def severity(self) -> str:
        return self.labels["severity"]

    @property
    def selectors(self) -> list[Selector]:
        """Return the metrics in the expression."""
        text = GROUPING.sub(" ", self.expr)
        return [
            Selector(
                found["metric"],
                found["function"] or "",
                {m[0]: m[2] for m in MATCHER.findall(found["matchers"] or "")},
                found["range"] or "",
            )
            for found in SELECTOR.finditer(text)
            if found["metric"] and found["metric"] not in KEYWORDS
        ]

    @property
    def grouped(self) -> set[str]:
        """Return the labels that the expression matches and aggregates by."""
        lists = ",".join(GROUPING.findall(self.expr))
        return {label.strip() for label in lists.split(",")} - {""}


class Check(NamedTuple):
    """What a promtool test expects of an alert at one time."""

    test: str
    alert: str
    expected: list[dict[str, dict[str, str]]]


@cache
def load_rules() -> list[Rule]:
    return [
        Rule(
            rule.get("alert") or rule["record"],
            "record" in rule,
            str(rule["expr"]),
            rule.get("labels", {}),
            rule.get("annotations", {}),
            rule.get("for", ""),
            group["name"],
        )
        for file in RULE_FILES
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]


@cache
def load_tests() -> list[dict[str, Any]]:
    return [
        test
        for file in TEST_FILES
        for test in yaml.safe_load(file.read_text())["tests"]
    ]


def checks() -> list[Check]:
    return [
        Check(test["name"], check["alertname"], check.get("exp_alerts", []))
        for test in load_tests()
        for check in test.get("alert_rule_test", ())
    ]


ALERTS = [rule for rule in load_rules() if not rule.recorded]
RECORDED = [rule for rule in load_rules() if rule.recorded]
NAMES = {rule.name for rule in RECORDED}
each_alert = pytest.mark.parametrize(
    "alert", ALERTS, ids=[f"{a.name}-{a.severity}" for a in ALERTS]
)
each_rule = pytest.mark.parametrize(
    "rule",
    load_rules(),
    ids=lambda rule: f"{rule.name}-{'-'.join(rule.labels.values())}",
)


def promised(metric: str) -> Promise:
    """Return type and labels of what the exporter or Prometheus itself shows."""
    if metric in SYNTHETIC:
        return SYNTHETIC[metric]
    family = METRICS.get(re.sub(r"_(bucket|count|sum)$", "", metric))
    if family and family.kind == "histogram":
        extra = {"le"} if metric.endswith("_bucket") else set()
        return Promise("counter", family.labels | extra)
    return METRICS[metric]


def is_foreign(metric: str) -> bool:
    """Tell whether a metric is one of Prometheus' or Alertmanager's own."""
    return metric.startswith(("prometheus_", "alertmanager_"))


def labels_of(metric: str) -> set[str]:
    """Return the labels that a metric may have, next to job and instance."""
    if metric in NAMES:
        return LEVELS[metric.partition(":")[0]]
    return promised(metric).labels


# What promtool says


@pytest.mark.parametrize("file", RULE_FILES, ids=lambda file: file.stem)
def test_promtool_finds_nothing_to_say_about_the_rules(
    servers: Servers, file: Path
) -> None:
    code, output = servers.run(
        "promtool", "check", "rules", "--lint=all", "--lint-fatal", file
    )

    assert code == 0, output
    assert "SUCCESS" in output


@pytest.mark.parametrize("file", TEST_FILES, ids=lambda file: file.stem)
def test_rules_do_what_their_tests_say(servers: Servers, file: Path) -> None:
    code, output = _trials(servers)[file].result()

    assert code == 0, output


@cache
def _trials(servers: Servers) -> dict[Path, "Future[tuple[int, str]]"]:
    """Begin the trials of all files, two at a time: promtool uses one processor."""
    pool = ThreadPoolExecutor(2)
    return {
        file: pool.submit(servers.run, "promtool", "test", "rules", file)
        for file in TEST_FILES
    }


def test_what_only_3_knows_is_put_below_the_rest(
    servers: Servers, tmp_path: Path
) -> None:
    config = adapt_config(tmp_path, "localhost:8000", scrape_interval="15s")
    both = config.with_name("prometheus-with-3.yml")
    both.write_text(
        config.read_text() + config.with_name("prometheus-3.yml").read_text()
    )

    code, output = servers.run(
        "promtool", "check", "config", "--lint=all", "--lint-fatal", both
    )

    is_3 = (servers.version or "") >= "3"
    assert (code == 0) == is_3, output


# What rules are made of


@each_rule
def test_metrics_of_a_rule_exist_and_are_used_as_what_they_are(rule: Rule) -> None:
    assert (
        rule.selectors or rule.group == "hakgal-thresholds" or rule.name == "Watchdog"
    )
    for selector in rule.selectors:
        metric, function = selector.metric, selector.function
        if metric in NAMES:
            assert function not in COUNTER_FUNCTIONS, metric
        elif not is_foreign(metric):
            kind = promised(metric).kind
            assert function not in COUNTER_FUNCTIONS or kind == "counter", metric
            assert function not in GAUGE_FUNCTIONS or kind == "gauge", metric
            # A counter as such says nothing: it has been counting for ever.
            assert kind == "gauge" or function in COUNTER_FUNCTIONS, metric


@each_rule
def test_labels_of_a_rule_exist(rule: Rule) -> None:
    own = [s for s in rule.selectors if not is_foreign(s.metric)]
    known = {"job", "instance"}.union(*(labels_of(s.metric) for s in own))
    if len(own) == len(rule.selectors):
        assert rule.grouped <= known
    for selector in own:
        assert selector.matchers.keys() <= labels_of(selector.metric) | {
            "job",
            "instance",
        }


def test_values_of_labels_exist_on_the_golden_page() -> None:
    page = text_string_to_metric_families(GOLDEN.read_text())
    samples = [sample for family in page for sample in family.samples]
    shown = {(s.name, *pair) for s in samples for pair in s.labels.items()}
    on_page = {(name, label) for name, label, _ in shown}
    asked = {
        (selector.metric, label, alternative)
        for rule in load_rules()
        for selector in rule.selectors
        for label, value in selector.matchers.items()
        for alternative in value.split("|")
        if (selector.metric, label) in on_page
    }

    assert asked
    assert asked <= shown


@each_rule
def test_ranges_hold_four_scrapes_or_more(rule: Rule) -> None:
    for selector in rule.selectors:
        if selector.range:
            length = int(selector.range[:-1]) * SECONDS[selector.range[-1]]
            assert length >= 4 * 15, selector


def test_recorded_names_have_three_parts() -> None:
    for rule in RECORDED:
        level, metric, operations = rule.name.split(":")
        assert level in LEVELS, rule.name
        assert operations, rule.name
        assert not metric.endswith("_total"), rule.name


def test_each_recording_rule_is_tried() -> None:
    tried = " ".join(
        check["expr"]
        for test in load_tests()
        for check in test.get("promql_expr_test", ())
        if check.get("exp_samples")
    )

    assert {name for name in NAMES if re.search(rf"{name}\b", tried)} == NAMES


# What people are told


@each_alert
def test_an_alert_says_all_that_it_should(alert: Rule) -> None:
    assert alert.severity in SEVERITIES
    assert set(alert.labels) == {"severity"}
    assert set(alert.annotations) == {
        "summary",
        "description",
        "runbook_url",
        "dashboard_url",
    }
    assert re.fullmatch(r"[A-Z][^{}]*\.", alert.annotations["summary"])
    assert alert.annotations["description"].endswith(".")
    assert (alert.hold == "") == (alert.name == "Watchdog")
    assert alert.hold == "" or alert.hold[-1] in "mh"


@each_alert
def test_links_of_an_alert_lead_somewhere(alert: Rule) -> None:
    runbooks = (ROOT / "docs" / "runbooks.md").read_text()
    anchors = [h.lower() for h in re.findall(r"^## (\w+)$", runbooks, re.MULTILINE)]
    base, _, anchor = alert.annotations["runbook_url"].partition("#")
    dashboard = alert.annotations["dashboard_url"]

    assert base == "{{ $externalLabels.runbook_url_base }}"
    assert anchor == alert.name.lower()
    assert anchors.count(anchor) == 1
    found = re.match(r"\{\{ \$externalLabels\.grafana_url }}/d/([\w-]+)", dashboard)
    assert found is not None
    assert found[1] in DASHBOARDS


@each_alert
def test_an_alert_survives_a_lost_scrape(alert: Rule) -> None:
    """Gauges are looked at over a range; absent() is meant to see what is not there."""
    for selector in alert.selectors:
        is_rate = re.search(r":(rate|ratio_rate|mean|increase)", selector.metric)
        is_constant = selector.metric.endswith(":threshold")
        assert selector.function in SMOOTHING | {"absent"} or is_rate or is_constant, (
            selector
        )


def test_all_alerts_of_the_design_exist() -> None:
    names = {alert.name for alert in ALERTS}

    assert names >= DESIGNED
    extra = {n for n in names if not re.fullmatch(rf"Hakgal\w+|Watchdog|{OTHERS}", n)}
    assert extra == set()


def test_twins_differ_in_severity() -> None:
    named = [(alert.name, alert.severity) for alert in ALERTS]

    assert len(named) == len(set(named))
    for name in {name for name, _ in named}:
        severities = {severity for n, severity in named if n == name}
        assert len(severities) == 1 or severities == {"warning", "critical"}, name


@each_alert
def test_an_alert_is_tried(alert: Rule) -> None:
    """Quiet, firing and quiet again in one test, with each label that it mentions."""
    mine = [check for check in checks() if check.alert == alert.name]
    fired = [
        expected["exp_labels"]
        for check in mine
        for expected in check.expected
        if expected["exp_labels"]["severity"] == alert.severity
    ]
    mentioned = set(
        re.findall(r"\$labels\.(\w+)", " ".join(alert.annotations.values()))
    )
    orders = {
        test: [bool(c.expected) for c in mine if c.test == test]
        for test in {check.test for check in mine}
    }

    assert fired
    assert mentioned <= set().union(*fired)
    if alert.name != "Watchdog":
        assert any(o[0] is False and True in o for o in orders.values())
        assert any(True in o and o[-1] is False for o in orders.values())


# Limits


def evaluate(expression: str) -> float:
    """Return the value of a limit such as ``256 * 1024^2``."""
    if "*" in expression:
        first, second = expression.split("*", 1)
        return evaluate(first) * evaluate(second)
    if "^" in expression:
        base, power = expression.split("^")
        return math.pow(float(base), float(power))
    return float(expression)


def thresholds() -> dict[str, dict[str, Rule]]:
    """Return the shipped limits by quantity and severity or objective."""
    found: dict[str, dict[str, Rule]] = {}
    for rule in RECORDED:
        if rule.group == "hakgal-thresholds":
            key = rule.labels.get("severity") or rule.labels.get("slo") or ""
            found.setdefault(rule.name.split(":")[1], {})[key] = rule
    return found


def limits_of(alert: Rule) -> set[tuple[str, str]]:
    """Return the limits that an alert compares with, as (quantity, severity)."""
    return {
        (found[1], selector.matchers.get("severity", ""))
        for selector in alert.selectors
        if (found := re.fullmatch(r"\w+:hakgal_(\w+):threshold", selector.metric))
    }


def test_each_limit_is_used_by_an_alert_of_its_severity() -> None:
    for quantity, limits in thresholds().items():
        for severity in limits:
            users = [
                alert
                for alert in ALERTS
                if (quantity, severity) in limits_of(alert)
                or (quantity, "") in limits_of(alert)
            ]
            assert users, (quantity, severity)


def test_each_limit_is_missed_when_it_is_missing() -> None:
    (missing,) = (a for a in ALERTS if a.name == "HakgalThresholdMissing")
    watched = {
        (
            s.metric.split(":")[1],
            s.matchers.get("severity") or s.matchers.get("slo") or "",
        )
        for s in missing.selectors
    }

    assert watched == {(q, key) for q, limits in thresholds().items() for key in limits}


def test_each_limit_comes_into_force() -> None:
    in_force = {
        rule.name.split(":")[1].removeprefix("hakgal_")
        for rule in RECORDED
        if rule.name.endswith(":threshold") and rule.name.startswith("instance")
    }

    assert in_force == set(thresholds())


@each_alert
def test_an_alert_compares_with_limits_of_its_severity(alert: Rule) -> None:
    own = {severity for _, severity in limits_of(alert)} - {""}
    # Which the prediction of both needs: see disk_utilisation in thresholds.yml.
    allowed = {"warning"} if alert.name == "HakgalDiskFilling" else set()

    assert own <= {alert.severity} | allowed
    for quantity in re.findall(
        r"instance:hakgal_(\w+):threshold", str(alert.annotations)
    ):
        assert (quantity, alert.severity) in limits_of(alert) or allowed


@pytest.mark.parametrize("quantity", thresholds())
def test_warning_comes_before_critical(quantity: str) -> None:
    limits = {k: evaluate(r.expr) for k, r in thresholds()[quantity].items()}
    if "warning" in limits:
        low_is_bad = quantity in ("cache_hits_per_lookup", "disk_full_seconds")
        assert (limits["warning"] > limits["critical"]) == low_is_bad


# The page for people


def rows_of_docs() -> dict[str, list[str]]:
    """Return the cells of the table of alerts by name."""
    text = (ROOT / "docs" / "alerts.md").read_text()
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line[:3] == "| ["]
    cells = [[cell.strip() for cell in row] for row in rows]
    names = [re.fullmatch(r"\[(\w+)\]\(runbooks\.md#(\w+)\)", c[0]) for c in cells]
    assert all(name and name[1].lower() == name[2] for name in names)
    assert len({name[1] for name in names if name}) == len(cells)
    return {name[1]: c for name, c in zip(names, cells, strict=True) if name}


def show(value: float, unit: str) -> str:
    """Return a limit as people write it: 0.1 s, 80 %, 256 MiB, 10,000 rows."""
    if unit == "ratio":
        return f"{value:.0%}".replace("%", " %")
    if unit == "bytes":
        power = max(n for n in range(5) if value >= 1024**n)
        return f"{value / 1024**power:g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
    if unit == "seconds":
        fitting = [(n, u) for u, n in SECONDS.items() if value >= n] or [(1, "s")]
        length, symbol = max(fitting)
        return f"{value / length:g} {'min' if symbol == 'm' else symbol}"
    return f"{value:,.0f} {unit}"


def twins(name: str) -> list[Rule]:
    """Return the alerts of a name, the warning first."""
    found = [alert for alert in ALERTS if alert.name == name]
    return sorted(found, key=lambda alert: alert.severity, reverse=True)


def test_docs_list_each_alert_in_the_order_of_the_rules() -> None:
    """The objectives, from a file of their own, stand with what is right or wrong."""
    order = list(dict.fromkeys(alert.name for alert in ALERTS))
    order.remove("HakgalErrorBudgetBurn")
    order.insert(order.index("HakgalCountersReset"), "HakgalErrorBudgetBurn")

    assert list(rows_of_docs()) == order


@pytest.mark.parametrize("name", dict.fromkeys(alert.name for alert in ALERTS))
def test_docs_say_what_the_rules_say(name: str) -> None:
    _, severity, fires_when, limit, hold = rows_of_docs()[name]
    alerts = twins(name)
    limits = {
        show(evaluate(rule.expr), rule.labels["unit"])
        for alert in alerts
        for quantity, wanted in limits_of(alert)
        for key, rule in thresholds()[quantity].items()
        if wanted in (key, "")
    }

    assert severity == " / ".join(alert.severity for alert in alerts)
    assert fires_when
    assert set(re.split(" / | and | or |; ", limit)) - {""} == limits
    assert hold == " / ".join(dict.fromkeys(alert.hold for alert in alerts))


# What real servers make of it


class Sink:
    """Somebody who takes alerts as an Alertmanager does, and keeps them."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                sink.alerts += json.loads(self.rfile.read(length))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"

    @contextmanager
    def serving(self) -> Iterator["Sink"]:
        thread = Thread(target=self._server.serve_forever, args=[0.02])
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


def hurry(config: Path, alertmanager: str) -> None:
    """Let a copy of the configuration evaluate every second and alert that target."""
    text = config.read_text()
    assert "evaluation_interval: 15s\n" in text
    text = text.replace("evaluation_interval: 15s\n", "evaluation_interval: 1s\n")
    config.write_text(text)
    slo = config.parent / "rules" / "slo.yml"
    assert "interval: 1m\n" in slo.read_text()
    slo.write_text(slo.read_text().replace("interval: 1m\n", "interval: 1s\n"))
    targets = config.parent / "targets" / "alertmanager.yml"
    targets.write_text(f"- targets: ['{alertmanager}']\n")


def test_alerts_leave_without_the_labels_that_are_for_links(
    servers: Servers, processes: Processes, tmp_path: Path
) -> None:
    config = adapt_config(tmp_path, "127.0.0.1:1", scrape_interval="1s")
    with Sink().serving() as sink:
        hurry(config, sink.address)
        # What it fires before it has found anybody to tell is sent again.
        start_prometheus(servers, processes, config, RESEND)
        wait_until(lambda: sink.alerts, 30)

    watchdog = next(a for a in sink.alerts if a["labels"]["alertname"] == "Watchdog")
    assert watchdog["labels"] == {"alertname": "Watchdog", "severity": "none"}
    links = watchdog["annotations"]
    assert re.fullmatch(r"https?://\S+/runbooks\.md#watchdog", links["runbook_url"])
    assert links["dashboard_url"] == "http://localhost:3000/d/hakgal-monitoring"


def test_prometheus_loads_the_rules_and_shows_the_metrics_that_these_use(
    servers: Servers, processes: Processes, tmp_path: Path
) -> None:
    config = adapt_config(tmp_path, "127.0.0.1:1", scrape_interval="1s")
    with Sink().serving() as sink:
        hurry(config, sink.address)
        prometheus = start_prometheus(servers, processes, config, RESEND)
        wait_until(lambda: sink.alerts, 30)
        rules = wait_until(lambda: evaluated(prometheus.api("rules")), 30)
        types = dict(TYPES.findall(page_of(prometheus.url))) | ALERTMANAGERS_OWN

    assert {rule.get("lastError", "") for rule in rules} == {""}
    assert len(rules) == len(load_rules())
    for selector in (s for alert in ALERTS for s in alert.selectors):
        if is_foreign(selector.metric):
            is_counter = selector.function in COUNTER_FUNCTIONS
            expected = "counter" if is_counter else "gauge"
            assert types.get(selector.metric) == expected, selector.metric


def page_of(url: str) -> str:
    """Return the metrics of a server."""
    with HTTP.open(f"{url}/metrics") as answer:
        return str(answer.read().decode())


def evaluated(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all rules, or none as long as some have not been evaluated."""
    rules = [rule for group in answer["groups"] for rule in group["rules"]]
    return [] if any(rule["health"] == "unknown" for rule in rules) else rules
