"""What the shipped Alertmanager configuration does in real Alertmanagers."""

import json
import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.alertmanager.running import (
    CONFIGS,
    DEFAULT,
    PRODUCTION,
    WAIT_SECONDS,
    Alertmanager,
    Labels,
    adapt,
    start_alertmanager,
    start_inbox,
)
from tests.alertmanager.sinks import HttpSink, SmtpSink, running
from tests.servers import ROOT, Processes, Servers, find_free_port, wait_until

DOCUMENTATION = ROOT / "docs" / "notifications.md"
TIMINGS = ("group_wait", "group_interval", "repeat_interval")
INBOX_URL = "http://localhost:9099/"
HERE = {"job": "hakgal", "instance": "localhost:8000"}

ROUTES = {
    "critical": ("critical", {"alertname": "HakgalCpuHigh", "severity": "critical"}),
    "warning": ("warning", {"alertname": "HakgalCpuHigh", "severity": "warning"}),
    "watchdog": ("watchdog", {"alertname": "Watchdog", "severity": "none"}),
    "info": ("nobody", {"alertname": "HakgalCountersReset", "severity": "info"}),
    "none, but no watchdog": ("nobody", {"alertname": "Other", "severity": "none"}),
    "a watchdog that demands action": (
        "critical",
        {"alertname": "Watchdog", "severity": "critical"},
    ),
    "a watchdog without severity": ("warning", {"alertname": "Watchdog"}),
    "no severity": ("warning", {"alertname": "Foreign"}),
    "unknown severity": ("warning", {"alertname": "Foreign", "severity": "page"}),
}

DOWN = {"alertname": "HakgalExporterDown", "severity": "critical"}
NO_KNOWLEDGE_BASE = {
    "alertname": "HakgalDatabaseDown",
    "severity": "critical",
    "database": "knowledge_base",
}
NO_PERFORMANCE = NO_KNOWLEDGE_BASE | {"database": "performance"}


def warning(alertname: str, **labels: str) -> Labels:
    return {"alertname": alertname, "severity": "warning", **labels}


def critical(alertname: str, **labels: str) -> Labels:
    return {"alertname": alertname, "severity": "critical", **labels}


# The cause, and what it does and does not hold back. Of the same instance, unless
# labels say otherwise.
INHIBITED: dict[str, tuple[Labels, Labels]] = {
    "critical over its warning": (
        critical("HakgalCpuHigh"),
        warning("HakgalCpuHigh"),
    ),
    "of the same database": (
        critical("HakgalDiskFilling", database="performance"),
        warning("HakgalDiskFilling", database="performance"),
    ),
    "of the same objective": (
        critical("HakgalErrorBudgetBurn", slo="query_latency"),
        warning("HakgalErrorBudgetBurn", slo="query_latency"),
    ),
    "exporter over a critical alert": (DOWN, critical("HakgalCpuHigh")),
    "exporter over a database": (DOWN, NO_PERFORMANCE),
    "exporter over a budget": (
        DOWN,
        warning("HakgalErrorBudgetBurn", slo="query_latency"),
    ),
    "knowledge base over its facts": (
        NO_KNOWLEDGE_BASE,
        critical("HakgalFactsDropped"),
    ),
    "knowledge base over its table": (
        NO_KNOWLEDGE_BASE,
        warning("HakgalRowsMissed", table="audit_log"),
    ),
    "knowledge base over its collector": (
        NO_KNOWLEDGE_BASE,
        warning("HakgalCollectorFailing", collector="facts"),
    ),
    "knowledge base over the collector of both": (
        NO_KNOWLEDGE_BASE,
        warning("HakgalCollectorFailing", collector="storage"),
    ),
    "performance over the collector of both": (
        NO_PERFORMANCE,
        warning("HakgalCollectorFailing", collector="storage"),
    ),
    "performance over its table": (
        NO_PERFORMANCE,
        critical("HakgalBacklogGrowing", table="query_times"),
    ),
    "performance over its collector": (
        NO_PERFORMANCE,
        warning("HakgalCollectorFailing", collector="cache"),
    ),
    **{
        f"performance over {name}": (NO_PERFORMANCE, critical(name))
        for name in (
            "HakgalEventsStalled",
            "HakgalQueryFailuresHigh",
            "HakgalQueryLatencyHigh",
            "HakgalErrorBudgetBurn",
            "HakgalCacheHitRatioLow",
        )
    },
}
FREE: dict[str, tuple[Labels, Labels]] = {
    "a warning of another name": (
        critical("HakgalCpuHigh"),
        warning("HakgalMemoryHigh"),
    ),
    "a warning of the other database": (
        critical("HakgalDiskFilling", database="performance"),
        warning("HakgalDiskFilling", database="knowledge_base"),
    ),
    "a warning of the other objective": (
        critical("HakgalErrorBudgetBurn", slo="query_latency"),
        warning("HakgalErrorBudgetBurn", slo="query_success"),
    ),
    "a warning of another instance": (
        critical("HakgalCpuHigh", instance="elsewhere:8000"),
        warning("HakgalCpuHigh"),
    ),
    "what another exporter says": (
        DOWN | {"instance": "down:8000"},
        critical("HakgalMemoryHigh"),
    ),
    "what Prometheus says of itself": (
        DOWN,
        warning("PrometheusStorageFailing", job="prometheus"),
    ),
    "what is about no instance": (
        {"alertname": "HakgalExporterDown", "severity": "critical", "instance": ""},
        warning("HakgalThresholdMissing", job="", instance=""),
    ),
    "the disk of an unreadable database": (
        NO_PERFORMANCE,
        critical("HakgalDiskFilling", database="performance"),
    ),
    "the log of an unreadable database": (
        NO_PERFORMANCE,
        warning("HakgalWalGrowing", database="performance"),
    ),
    "tables of the other database": (
        NO_PERFORMANCE,
        warning("HakgalRowsMissed", table="audit_log"),
    ),
    "facts, without the other database": (
        NO_PERFORMANCE,
        critical("HakgalFactsDropped"),
    ),
    "queries, without the other database": (
        NO_KNOWLEDGE_BASE,
        critical("HakgalQueryLatencyHigh"),
    ),
    "collectors of neither": (
        NO_KNOWLEDGE_BASE,
        warning("HakgalCollectorFailing", collector="system"),
    ),
}


def read(config: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(config.read_text())
    return content


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_amtool_accepts_the_configuration(servers: Servers, config: Path) -> None:
    code, output = servers.run("amtool", "check-config", config)

    assert (code, "SUCCESS" in output) == (0, True), output


def test_both_configurations_differ_in_receivers_only() -> None:
    default, production = read(DEFAULT), read(PRODUCTION)

    for part in ("route", "inhibit_rules", "time_intervals", "templates"):
        assert default[part] == production[part], part
    assert [r["name"] for r in default["receivers"]] == [
        r["name"] for r in production["receivers"]
    ]


def test_documentation_tells_the_timings() -> None:
    root = read(DEFAULT)["route"]
    lines = DOCUMENTATION.read_text().splitlines()

    for route in root["routes"]:
        timings = [(root | route)[name] for name in TIMINGS]
        if route["receiver"] != "nobody":
            assert f"| {' | '.join([route['receiver'], *timings])} |" in lines


def test_inhibition_knows_all_tables_and_collectors() -> None:
    page = (ROOT / "tests" / "golden" / "metrics.txt").read_text()

    assert named("table") == set(re.findall(r'\btable="(\w+)"', page))
    # What does not read a database outlives one.
    collectors = set(re.findall(r'\bcollector="(\w+)"', page))
    assert named("collector") == collectors - {"system"}


def test_inhibition_names_alerts_that_exist() -> None:
    rules = "".join(p.read_text() for p in (ROOT / "prometheus/rules").glob("*.yml"))

    assert named("alertname") <= set(re.findall(r"alert: (\w+)", rules))


def named(label: str) -> set[str]:
    """Return the values of a label that the inhibition rules know."""
    matchers = [
        matcher
        for rule in read(DEFAULT)["inhibit_rules"]
        for matcher in rule["source_matchers"] + rule["target_matchers"]
    ]
    values = [re.fullmatch(rf'{label}!?=~?"(.*)"', matcher) for matcher in matchers]
    return {name for value in values if value for name in value[1].split("|")}


def test_no_secret_is_in_the_configuration() -> None:
    for config in CONFIGS:
        for name in ("password", "credentials", "api_url", "token"):
            assert f"{name}:" not in config.read_text()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize(("receiver", "labels"), ROUTES.values(), ids=ROUTES.keys())
def test_alert_reaches_its_receiver(
    servers: Servers, config: Path, receiver: str, labels: Labels
) -> None:
    code, output = servers.run(
        *("amtool", "config", "routes", "test"),
        f"--config.file={config}",
        f"--verify.receivers={receiver}",
        *(f"{name}={value}" for name, value in (labels | HERE).items()),
    )

    # It may warn of a configuration of its own before.
    assert (code, output.splitlines()[-1]) == (0, receiver)


def test_every_receiver_is_proven() -> None:
    proven = {receiver for receiver, _ in ROUTES.values()}

    assert proven == {receiver["name"] for receiver in read(DEFAULT)["receivers"]}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_alertmanager_starts_without_any_secret(
    servers: Servers, processes: Processes, tmp_path: Path, config: Path
) -> None:
    start_alertmanager(servers, processes, config, tmp_path)


def test_default_shows_alerts_in_the_inbox(
    servers: Servers, processes: Processes, tmp_path: Path
) -> None:
    inbox = start_inbox(processes)
    config = adapt(DEFAULT, tmp_path, {INBOX_URL: inbox.url})
    alertmanager = start_alertmanager(servers, processes, config, tmp_path)
    labels = critical("HakgalQueryLatencyHigh") | HERE

    alertmanager.post(labels, summary="Queries are slow.")
    inbox.wait_for("Queries are slow.")
    alertmanager.post(labels, summary="Queries are slow.", resolved=True)
    inbox.wait_for("Resolved: Queries are slow.")


def test_heartbeat_is_sent_at_each_third_look(
    servers: Servers, processes: Processes, tmp_path: Path
) -> None:
    with running(HttpSink()) as sink:
        config = adapt(DEFAULT, tmp_path, {INBOX_URL: url(sink)})
        alertmanager = start_alertmanager(servers, processes, config, tmp_path)
        watchdog = {"alertname": "Watchdog", "severity": "none"}
        alertmanager.post(watchdog)
        # Here group_interval is a second: one each three seconds. The third would come
        # after eight if repeat_interval were a multiple of group_interval.
        wait_until(lambda: len(sink.posts) == 3, 7.5)

        alertmanager.post(watchdog, resolved=True)
        # News of one group, a second apart: the Watchdog's was looked at meanwhile.
        for name in ("HakgalCpuHigh", "HakgalMemoryHigh", "HakgalWalGrowing"):
            alertmanager.post(critical(name) | HERE)
            wait_for(sink, name)

    assert not any(b'"status":"resolved"' in post.body for post in sink.posts)


def test_inhibition_holds_back_what_follows_and_nothing_else(
    servers: Servers, processes: Processes, tmp_path: Path
) -> None:
    nowhere = f"http://127.0.0.1:{find_free_port()}/"
    config = adapt(DEFAULT, tmp_path, {INBOX_URL: nowhere})
    alertmanager = start_alertmanager(servers, processes, config, tmp_path)
    for name, (cause, consequence) in (FREE | INHIBITED).items():
        place = {"job": "hakgal", "instance": name}
        alertmanager.post(drop_empty(place | cause))
        alertmanager.post(drop_empty(place | consequence | {"consequence_of": name}))

    # What is free was told first: it would be inhibited by the time the others are.
    def inhibited() -> set[str]:
        return find_inhibited(alertmanager)

    wait_until(lambda: inhibited() >= INHIBITED.keys(), WAIT_SECONDS)
    assert inhibited() == INHIBITED.keys()


def find_inhibited(alertmanager: Alertmanager) -> set[str]:
    alerts = alertmanager.alerts()
    assert len([a for a in alerts if "consequence_of" in a["labels"]]) == len(
        INHIBITED | FREE
    )
    return {
        alert["labels"].get("consequence_of", "a cause")
        for alert in alerts
        if alert["status"]["inhibitedBy"]
    }


def drop_empty(labels: Labels) -> Labels:
    return {name: value for name, value in labels.items() if value}


def url(sink: HttpSink) -> str:
    return f"http://127.0.0.1:{sink.server_address[1]}/"


def test_production_uses_the_secrets_in_files(
    servers: Servers, processes: Processes, tmp_path: Path
) -> None:
    with running(HttpSink()) as http, running(SmtpSink()) as smtp:
        config = adapt_production(tmp_path, http, smtp)
        alertmanager = start_alertmanager(servers, processes, config, tmp_path)
        labels = critical("HakgalQueryLatencyHigh") | HERE
        alertmanager.post(labels, summary="Queries are slow.")
        alertmanager.post({"alertname": "Watchdog", "severity": "none"})
        wait_until(lambda: smtp.mails and len({p.path for p in http.posts}) == 3, 20)

    (mail, *_), (slack, *_) = smtp.mails, http.find("/slack")
    (oncall, *_), (deadman, *_) = http.find("/oncall"), http.find("/deadman")
    subject = "CRITICAL: Queries are slow (localhost:8000)"
    assert mail[:3] == (
        "monitoring@example.org",
        "smtp-secret",
        "oncall@example.org",
    )
    assert mail.message["subject"] == subject
    assert [part.get_content_type() for part in mail.message.iter_parts()] == [
        "text/plain",
        "text/html",
    ]
    (attachment,) = json.loads(slack.body)["attachments"]
    assert (attachment["title"], attachment["color"]) == (subject, "danger")
    assert json.loads(oncall.body)["alerts"][0]["labels"] == labels
    assert oncall.authorization == "Bearer oncall-secret"
    basic = b64encode(b"hakgal:deadman-secret").decode()
    assert deadman.authorization == f"Basic {basic}"


def adapt_production(folder: Path, http: HttpSink, smtp: SmtpSink) -> Path:
    secrets = folder / "secrets"
    secrets.mkdir()
    # The password without a line feed: 0.25 would send it along, and be refused.
    (secrets / "smtp-password").write_text("smtp-secret")
    (secrets / "slack-url").write_text(f"{url(http)}slack\n")
    (secrets / "oncall-token").write_text("oncall-secret\n")
    (secrets / "deadman-password").write_text("deadman-secret\n")
    replaced = {
        "/etc/alertmanager/secrets": str(secrets),
        "smtp.example.org:587": f"127.0.0.1:{smtp.server_address[1]}",
        # Go sends a password in clear text to the same machine only.
        "smtp_require_tls: true": "smtp_require_tls: false",
        "https://oncall.example.org/alertmanager": f"{url(http)}oncall",
        "https://deadman.example.org/hakgal": f"{url(http)}deadman",
    }
    return adapt(PRODUCTION, folder, replaced)


def test_muted_warnings_wait_and_critical_alerts_do_not(
    servers: Servers, processes: Processes, tmp_path: Path
) -> None:
    with running(HttpSink()) as sink:
        config = adapt(
            DEFAULT,
            tmp_path,
            {
                INBOX_URL: url(sink),
                "# mute_time_intervals: [nights, weekends]": (
                    "mute_time_intervals: [nights, weekends]"
                ),
                # Night is all day, so that the test passes at any time.
                'start_time: "18:00"': 'start_time: "07:00"',
            },
        )
        alertmanager = start_alertmanager(servers, processes, config, tmp_path)
        alertmanager.post(warning("HakgalCpuHigh") | HERE)
        # Each is a group of its own, sent at once, one after the other.
        for number in range(3):
            instance = f"host{number}:8000"
            alertmanager.post(critical("HakgalCpuHigh", instance=instance))
            wait_for(sink, instance)

    assert b'"warning"' not in bodies(sink)


def wait_for(sink: HttpSink, text: str) -> None:
    wait_until(lambda: text.encode() in bodies(sink), WAIT_SECONDS)


def bodies(sink: HttpSink) -> bytes:
    return b"".join(post.body for post in sink.posts)
