"""What the shipped Prometheus configuration does in real Prometheus servers."""

from pathlib import Path

from tests.servers import (
    ROOT,
    Processes,
    Servers,
    adapt_config,
    start_prometheus,
    wait_until,
)

CONFIG = ROOT / "prometheus" / "prometheus.yml"


def test_promtool_finds_nothing_to_say_about_the_configuration(
    servers: Servers,
) -> None:
    code, output = servers.run(
        "promtool", "check", "config", "--lint=all", "--lint-fatal", CONFIG
    )

    assert code == 0, output
    # A target file that is missing is only a warning.
    assert "SUCCESS" in output
    assert "WARNING" not in output


def test_prometheus_finds_the_exporter_and_itself(
    servers: Servers, processes: Processes, tmp_path: Path, free_port: int
) -> None:
    exporter = f"127.0.0.1:{free_port}"
    config = adapt_config(tmp_path, exporter, scrape_interval="1s")
    prometheus = start_prometheus(servers, processes, config)

    # Prometheus passes what it discovered to the scrapers every 5 seconds.
    targets = wait_until(lambda: prometheus.api("targets")["activeTargets"], 30)

    found = {(t["labels"]["job"], t["labels"]["instance"]) for t in targets}
    assert found == {("hakgal", exporter), ("prometheus", "localhost:9090")}
