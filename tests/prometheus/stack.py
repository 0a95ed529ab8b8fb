"""Prometheus with the shipped rules, in a hurry, and the Alertmanager that it tells."""

from pathlib import Path
from typing import NamedTuple

from tests.alertmanager.running import DEFAULT, Alertmanager, start_alertmanager
from tests.servers import (
    Processes,
    Prometheus,
    Servers,
    adapt_config,
    find_free_port,
    start_prometheus,
)

# What is fired before there is anybody to tell is sent again.
RESEND = "--rules.alert.resend-delay=1s"
EVERY_SECOND = {
    "evaluation_interval: 15s\n": "evaluation_interval: 1s\n",
    "    interval: 1m\n": "    interval: 1s\n",
}


class Stack(NamedTuple):
    """Both servers, and where Prometheus finds itself."""

    prometheus: Prometheus
    alertmanager: Alertmanager


def start_stack(
    servers: Servers, processes: Processes, folder: Path, *exporters: str
) -> Stack:
    """Start both with the shipped configuration; quarters of a minute take seconds."""
    alertmanager = start_alertmanager(servers, processes, DEFAULT, folder / "told")
    config = adapt_config(folder, *exporters, scrape_interval="1s")
    port = find_free_port()
    for path in (config, *config.parent.glob("rules/*.yml")):
        text = path.read_text().replace("localhost:9090", f"127.0.0.1:{port}")
        for shipped, hurried in EVERY_SECOND.items():
            text = text.replace(shipped, hurried)
        path.write_text(text)
    assert "evaluation_interval: 1s" in config.read_text()
    address = alertmanager.url.removeprefix("http://")
    targets = config.parent / "targets" / "alertmanager.yml"
    targets.write_text(f"- targets: ['{address}']\n")
    prometheus = start_prometheus(servers, processes, config, RESEND, port=port)
    return Stack(prometheus, alertmanager)
