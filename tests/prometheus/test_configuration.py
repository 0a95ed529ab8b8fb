"""What the shipped Prometheus configuration does in real Prometheus servers."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.prometheus.shipped import ALERTS, RULES
from tests.prometheus.stack import Stack, start_stack
from tests.servers import HTTP, ROOT, Processes, Servers, adapt_config, wait_until

PATIENCE_SECONDS = 30
EXPORTER = "127.0.0.1:1"  # nobody is there, and that is told
CHECK = ("promtool", "check", "config", "--lint=all", "--lint-fatal")
FOREIGN = re.compile(r"\b(?:prometheus|alertmanager)_\w+")
DOCUMENTED = FOREIGN.findall((ROOT / "docs" / "runbooks.md").read_text())


@pytest.fixture(scope="module")
def stack(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    processes = Processes(folder := tmp_path_factory.mktemp("stack"))
    try:
        yield start_stack(servers, processes, folder, EXPORTER)
    finally:
        processes.stop()


def test_promtool_finds_nothing_to_say(servers: Servers) -> None:
    code, output = servers.run(*CHECK, ROOT / "prometheus" / "prometheus.yml")

    assert code == 0, output
    # A target file that is missing is only a warning.
    assert "SUCCESS" in output
    assert "WARNING" not in output


def test_what_only_3_knows_is_in_a_file_of_its_own(
    servers: Servers, tmp_path: Path
) -> None:
    config = adapt_config(tmp_path, EXPORTER, scrape_interval="15s")
    overlay = config.with_name("prometheus-3.yml").read_text()
    config.write_text(config.read_text() + overlay)

    code, output = servers.run(*CHECK, config)

    assert (code == 0) == ((servers.version or "") >= "3"), output


def test_prometheus_finds_the_exporter_itself_and_the_alertmanager(
    stack: Stack,
) -> None:
    # Prometheus passes what it discovered to the scrapers every 5 seconds.
    def found() -> dict[str, str]:
        targets = stack.prometheus.api("targets")["activeTargets"]
        labels = [target["labels"] for target in targets]
        return {one["job"]: one["instance"] for one in labels}

    addresses = (s.url.removeprefix("http://") for s in stack)
    wanted = dict(zip(("prometheus", "alertmanager"), addresses, strict=True))
    wait_until(lambda: found() == {"hakgal": EXPORTER} | wanted, PATIENCE_SECONDS)


def test_prometheus_evaluates_each_rule_without_an_error(stack: Stack) -> None:
    def rules() -> list[Any]:
        groups = stack.prometheus.api("rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    wait_until(lambda: {r["health"] for r in rules()} == {"ok"}, PATIENCE_SECONDS)
    assert len(rules()) == len(RULES)


def test_alerts_leave_without_the_labels_that_are_for_links(stack: Stack) -> None:
    wait_until(stack.alertmanager.alerts, PATIENCE_SECONDS)
    labels = {"alertname": "Watchdog", "severity": "none"}
    alerts = [a for a in stack.alertmanager.alerts() if a["labels"] == labels]
    links = alerts[0]["annotations"]

    assert re.fullmatch(r"https?://\S+/runbooks\.md#watchdog", links["runbook_url"])
    assert links["dashboard_url"] == "http://localhost:3000/d/hakgal-monitoring"


def test_the_servers_own_metrics_exist(stack: Stack) -> None:
    types: dict[str, str] = {}
    wait_until(stack.alertmanager.alerts, PATIENCE_SECONDS)
    for server in stack:
        with HTTP.open(f"{server.url}/metrics") as answer:
            page = answer.read().decode()
        types |= dict(re.findall(r"(?m)^# TYPE (\w+) (\w+)$", page))
    used = {s.metric: s.function for a in ALERTS for s in a.selectors if s.is_foreign}

    assert set(DOCUMENTED) <= types.keys()
    for metric, function in used.items():
        is_counter = function in ("rate", "increase")
        assert types.get(metric) == ("counter" if is_counter else "gauge"), metric
