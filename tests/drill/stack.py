"""Prometheus and Alertmanager with the shipped files, in which time passes faster."""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.alertmanager.running import Alertmanager, post
from tests.drill.inbox import Inbox
from tests.drill.scaling import scale, seconds, shorten
from tests.servers import (
    ROOT,
    Process,
    Processes,
    Prometheus,
    Servers,
    answers,
    find_free_port,
    start_prometheus,
    wait_until,
)

# What a Prometheus does by itself at certain intervals, with its defaults.
LOOKBACK, RESEND = "5m", "1m"
START_SECONDS = 120.0
SECRETS = "/etc/alertmanager/secrets"
ITSELF = "localhost:9090"  # what Prometheus scrapes by the shipped file


@dataclass
class Stack:
    """One generation of the servers over a copy of the shipped files."""

    servers: Servers
    processes: Processes
    folder: Path
    factor: float
    inbox: Inbox
    grafana: InitVar[str]
    alertmanager: Process = field(init=False)

    def __post_init__(self, grafana: str) -> None:
        self._secrets = self.folder / "secrets"
        # The label instance of what a job scrapes, where it is one only.
        self.addresses = {
            "prometheus": f"127.0.0.1:{find_free_port()}",
            "alertmanager": f"127.0.0.1:{find_free_port()}",
            "grafana": grafana,
        }
        self.rules = self.folder / "prometheus" / "rules"
        self.configurations = {
            "prometheus": self.folder / "prometheus/prometheus.yml",
            "alertmanager": self.folder / "alertmanager/alertmanager.production.yml",
        }
        self.prometheus = Prometheus(f"http://{self.addresses['prometheus']}")
        self.routes = Alertmanager(f"http://{self.addresses['alertmanager']}")
        self._copy("prometheus")
        self._copy("alertmanager")
        self._adapt_receivers()

    def seconds(self, duration: str) -> float:
        """Return how many seconds a duration takes here."""
        return seconds(duration, self.factor)

    def start(self, instances: Sequence[str]) -> None:
        """Start both over some exporters and wait until all are seen to be up."""
        self.write_targets("hakgal", instances)
        self.write_targets("alertmanager")
        self.write_targets("grafana")
        self.start_alertmanager()
        start_prometheus(
            self.servers,
            self.processes,
            self.configurations["prometheus"],
            f"--query.lookback-delta={shorten(LOOKBACK, self.factor)}",
            f"--rules.alert.resend-delay={shorten(RESEND, self.factor)}",
            "--web.enable-lifecycle",
            port=int(self.addresses["prometheus"].rpartition(":")[2]),
        )
        found = len(instances) + len(self.addresses)
        wait_until(
            lambda: len(self.prometheus.query("up == 1")) == found, START_SECONDS
        )

    def start_alertmanager(self) -> None:
        """Start Alertmanager, anew too, and wait until it is ready."""
        address = self.addresses["alertmanager"]
        self.alertmanager = self.processes.start(
            self.servers.program("alertmanager"),
            f"--config.file={self.configurations['alertmanager']}",
            f"--storage.path={self.folder / 'alertmanager-data'}",
            f"--web.listen-address={address}",
            "--cluster.listen-address=",
        )
        wait_until(lambda: answers(f"http://{address}/-/ready"), START_SECONDS)

    def reload(self, server: str = "prometheus") -> None:
        """Let a server read its files again, which it may refuse."""
        post(f"http://{self.addresses[server]}/-/reload", b"", {})

    def write_targets(self, job: str, addresses: Sequence[str] | None = None) -> None:
        """Tell Prometheus what a job scrapes; it notices within 5 seconds."""
        targets = [self.addresses[job]] if addresses is None else list(addresses)
        file = self.folder / "prometheus" / "targets" / f"{job}.yml"
        file.write_text(json.dumps([{"targets": targets}]))

    def connect_slack(self, *, works: bool) -> None:
        """Let Slack's messages arrive, or send them where nobody takes them."""
        url = self.inbox.web_url if works else self.prometheus.url
        (self._secrets / "slack-url").write_text(f"{url}/slack")

    def _copy(self, name: str) -> None:
        """Copy a folder of the product; its YAML files with their times shortened."""
        shutil.copytree(ROOT / name, self.folder / name)
        for file in (self.folder / name).rglob("*.yml"):
            text = file.read_text().replace(ITSELF, self.addresses["prometheus"])
            # All of the interval: what is to be short is the time until the next one.
            text = text.replace("scrape_timeout: 10s", "scrape_timeout: 15s")
            file.write_text(scale(text, self.factor))

    def _adapt_receivers(self) -> None:
        """Send everything to the inbox, in the words of the shipped templates."""
        file = self.configurations["alertmanager"]
        text = file.read_text()
        self._secrets.mkdir()
        for name in re.findall(rf"{SECRETS}/([\w-]+)", text):
            (self._secrets / name).write_text("drill")
        self.connect_slack(works=True)
        config = yaml.safe_load(text.replace(SECRETS, str(self._secrets)))
        config["global"]["smtp_smarthost"] = self.inbox.mail_address
        config["global"]["smtp_require_tls"] = False
        for receiver in config["receivers"]:
            _adapt(receiver, self.inbox.web_url)
        file.write_text(yaml.safe_dump(config, sort_keys=False))


def _adapt(receiver: dict[str, Any], web: str) -> None:
    """Address a receiver to the inbox; who gets mail gets a webhook as well."""
    name = receiver["name"]
    to = {"to": f"{name}@drill.invalid"}
    if mails := receiver.get("email_configs"):  # which receivers share in the file
        receiver["email_configs"] = [mail | to for mail in mails]
    hooks = receiver.get("webhook_configs", [{"send_resolved": True}] if mails else [])
    url = {"url": f"{web}/webhook/{name}"}
    receiver["webhook_configs"] = [hook | url for hook in hooks]
