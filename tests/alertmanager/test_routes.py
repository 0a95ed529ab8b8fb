"""Who is told what, when, by real Alertmanagers with the shipped configuration."""

import json
import re
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.alertmanager.running import (
    CONFIGS,
    DEFAULT,
    PRODUCTION,
    Alertmanager,
    Labels,
    adapt,
    start_alertmanager,
    start_inbox,
)
from tests.alertmanager.sinks import WAIT_SECONDS, HttpSink, SmtpSink, running
from tests.prometheus.shipped import ALERTS
from tests.servers import ROOT, Processes, Servers, find_free_port, wait_until

TIMINGS = ("group_wait", "group_interval", "repeat_interval")
INBOX_URL = "http://localhost:9099/"
HERE = {"job": "hakgal", "instance": "localhost:8000"}


def alert(words: str) -> Labels:
    """Return labels: a name, a severity if there is one, others as name=value."""
    name, *others = words.split()
    if others and "=" not in others[0]:
        others[0] = f"severity={others[0]}"
    return {"alertname": name} | dict(other.split("=") for other in others)


CASES = yaml.safe_load((Path(__file__).parent / "cases" / "alerts.yml").read_text())
each_config = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)


def read(config: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(config.read_text())
    return content


# What the files say


@each_config
def test_amtool_accepts_the_configuration(servers: Servers, config: Path) -> None:
    code, output = servers.run("amtool", "check-config", config)

    assert (code, "SUCCESS" in output) == (0, True), output


def test_both_configurations_differ_in_what_receivers_contain_only() -> None:
    default, production = read(DEFAULT), read(PRODUCTION)

    for part in ("route", "inhibit_rules", "time_intervals", "templates"):
        assert default[part] == production[part], part
    names = [[r["name"] for r in c["receivers"]] for c in (default, production)]
    assert names[0] == names[1]
    assert set(names[0]) == set(CASES["routes"].values())


def test_documentation_tells_the_timings() -> None:
    root = read(DEFAULT)["route"]
    lines = (ROOT / "docs" / "notifications.md").read_text().splitlines()

    for route in root["routes"]:
        timings = [(root | route)[name] for name in TIMINGS]
        if route["receiver"] != "nobody":
            assert f"| {' | '.join([route['receiver'], *timings])} |" in lines


def test_inhibition_knows_all_tables_collectors_and_alerts() -> None:
    page = (ROOT / "tests" / "contract" / "golden" / "metrics.txt").read_text()
    matchers = json.dumps(read(DEFAULT)["inhibit_rules"]).replace('\\"', "'")
    named = {
        label: {
            name
            for values in re.findall(rf"\b{label}!?=~?'(.*?)'", matchers)
            for name in values.split("|")
        }
        for label in ("table", "collector", "alertname")
    }

    assert named["table"] == set(re.findall(r'\btable="(\w+)"', page))
    # What does not read a database outlives one.
    collectors = set(re.findall(r'\bcollector="(\w+)"', page))
    assert named["collector"] == collectors - {"system"}
    assert named["alertname"] <= {alert.name for alert in ALERTS}


def test_no_secret_is_in_the_configuration() -> None:
    for config in CONFIGS:
        for name in ("password", "credentials", "api_url", "token"):
            assert f"{name}:" not in config.read_text()


def test_each_alert_reaches_its_receiver(servers: Servers) -> None:
    for words, receiver in CASES["routes"].items():
        labels = [f"{name}={value}" for name, value in (alert(words) | HERE).items()]
        test = "config", "routes", "test", f"--config.file={DEFAULT}"
        code, output = servers.run("amtool", *test, *labels)

        # It may warn of a configuration of its own before.
        assert (code, output.splitlines()[-1]) == (0, receiver), words


# What a running one does


Start = Callable[..., Alertmanager]


@pytest.fixture
def start(servers: Servers, processes: Processes, tmp_path: Path) -> Start:
    """Return what starts an Alertmanager with replacements in a configuration."""

    def start_with(config: Path, replaced: dict[str, str]) -> Alertmanager:
        adapted = adapt(config, tmp_path, replaced)
        return start_alertmanager(servers, processes, adapted, tmp_path)

    return start_with


def test_production_starts_without_any_secret(start: Start) -> None:
    start(PRODUCTION, {})


def test_default_shows_alerts_in_the_inbox(start: Start, processes: Processes) -> None:
    inbox = start_inbox(processes)
    alertmanager = start(DEFAULT, {INBOX_URL: inbox.url})
    labels = alert("HakgalQueryLatencyHigh critical") | HERE

    alertmanager.post(labels, summary="Queries are slow.")
    wait_until(lambda: "Queries are slow." in inbox.page(), WAIT_SECONDS)
    alertmanager.post(labels, summary="Queries are slow.", resolved=True)
    wait_until(lambda: "Resolved: Queries are slow." in inbox.page(), WAIT_SECONDS)


def test_heartbeat_is_sent_at_each_third_look(start: Start) -> None:
    with running(HttpSink()) as sink:
        alertmanager = start(DEFAULT, {INBOX_URL: sink.url})
        alertmanager.post(alert("Watchdog none"))
        # Here group_interval is a second: one each three seconds. The third would come
        # after eight if repeat_interval were a multiple of group_interval.
        wait_until(lambda: len(sink.posts) == 3, 7.5)

        alertmanager.post(alert("Watchdog none"), resolved=True)
        # News of one group, a second apart: the Watchdog's was looked at meanwhile.
        for name in ("HakgalCpuHigh", "HakgalMemoryHigh", "HakgalWalGrowing"):
            alertmanager.post(alert(f"{name} critical") | HERE)
            sink.wait_for(name)

    assert '"status":"resolved"' not in sink.text


def test_inhibition_holds_back_what_follows_and_nothing_else(start: Start) -> None:
    nowhere = f"http://127.0.0.1:{find_free_port()}/"
    alertmanager = start(DEFAULT, {INBOX_URL: nowhere})
    # What is free is told first: it would be inhibited by the time the others are.
    for kind in ("free", "inhibited"):
        for cause, consequences in CASES[kind].items():
            for words in consequences:
                place = {"job": "hakgal", "instance": f"{kind}: {words} by {cause}"}
                name = {"consequence": place["instance"]}
                for labels in (alert(cause), alert(words) | name):
                    known = {k: v for k, v in (place | labels).items() if v}
                    alertmanager.post(known)

    def held_back() -> set[str]:
        alerts = alertmanager.alerts()
        held = [a["labels"] for a in alerts if a["status"]["inhibitedBy"]]
        return {labels.get("consequence", "a cause") for labels in held}

    wanted = {
        f"inhibited: {words} by {cause}"
        for cause, consequences in CASES["inhibited"].items()
        for words in consequences
    }
    wait_until(lambda: held_back() >= wanted, WAIT_SECONDS)
    assert held_back() == wanted


def test_production_uses_the_secrets_in_files(start: Start, tmp_path: Path) -> None:
    with running(HttpSink()) as http, running(SmtpSink()) as smtp:
        replaced = write_secrets(tmp_path / "secrets", http, smtp)
        alertmanager = start(PRODUCTION, replaced)
        labels = alert("HakgalQueryLatencyHigh critical") | HERE
        alertmanager.post(labels, summary="Queries are slow.")
        alertmanager.post(alert("Watchdog none"))
        wait_until(lambda: smtp.mails and len({p.path for p in http.posts}) == 3, 20)

    posts, (mail, *_) = {post.path: post for post in http.posts}, smtp.mails
    user, password, recipient, message = mail
    subject = "CRITICAL: Queries are slow (localhost:8000)"
    assert (user, password) == ("monitoring@example.org", "smtp-secret")
    assert recipient == "oncall@example.org"
    assert message["subject"] == subject
    parts = [part.get_content_type() for part in message.iter_parts()]
    assert parts == ["text/plain", "text/html"]
    (attachment,) = json.loads(posts["/slack"].body)["attachments"]
    assert (attachment["title"], attachment["color"]) == (subject, "danger")
    assert json.loads(posts["/oncall"].body)["alerts"][0]["labels"] == labels
    assert posts["/oncall"].authorization == "Bearer oncall-secret"
    basic = b64encode(b"hakgal:deadman-secret").decode()
    assert posts["/deadman"].authorization == f"Basic {basic}"


def write_secrets(folder: Path, http: HttpSink, smtp: SmtpSink) -> dict[str, str]:
    """Write the files; return what is to be in the place of examples."""
    folder.mkdir()
    # The password without a line feed: 0.25 would send it along, and be refused.
    (folder / "smtp-password").write_text("smtp-secret")
    (folder / "slack-url").write_text(f"{http.url}slack\n")
    (folder / "oncall-token").write_text("oncall-secret\n")
    (folder / "deadman-password").write_text("deadman-secret\n")
    return {
        "/etc/alertmanager/secrets": str(folder),
        "smtp.example.org:587": f"127.0.0.1:{smtp.server_address[1]}",
        # Go sends a password in clear text to the same machine only.
        "smtp_require_tls: true": "smtp_require_tls: false",
        "https://oncall.example.org/alertmanager": f"{http.url}oncall",
        "https://deadman.example.org/hakgal": f"{http.url}deadman",
    }


def test_muted_warnings_wait_and_critical_alerts_do_not(start: Start) -> None:
    muted = "mute_time_intervals: [nights, weekends]"
    # Night is all day, so that the test passes at any time.
    all_day = {'start_time: "18:00"': 'start_time: "07:00"'}
    with running(HttpSink()) as sink:
        replaced = {INBOX_URL: sink.url, f"# {muted}": muted} | all_day
        alertmanager = start(DEFAULT, replaced)
        alertmanager.post(alert("HakgalCpuHigh warning") | HERE)
        # Each is a group of its own, sent at once, one after the other.
        for instance in ("one:8000", "two:8000", "three:8000"):
            alertmanager.post(alert(f"HakgalCpuHigh critical instance={instance}"))
            sink.wait_for(instance)

    assert '"warning"' not in sink.text
