"""Prometheus and Alertmanager with the shipped files, in which time passes faster."""

import json
import re
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.drill.inbox import Inbox
from tests.drill.scaling import scale, shorten
from tests.servers import (
    HTTP,
    ROOT,
    Process,
    Processes,
    Prometheus,
    Servers,
    answers,
    find_free_port,
    wait_until,
)

# What a Prometheus does by itself at certain intervals, with its defaults.
LOOKBACK, RESEND = "5m", "1m"
START_SECONDS = 30.0
SECRETS = "/etc/alertmanager/secrets"
ITSELF = "localhost:9090"  # what Prometheus scrapes by the shipped file


class Stack:
    """One generation of the servers over a copy of the shipped files."""

    def __init__(
        self,
        servers: Servers,
        processes: Processes,
        folder: Path,
        factor: float,
        inbox: Inbox,
        *,
        grafana: str,
    ) -> None:
        self.servers = servers
        self.factor = factor
        self.inbox = inbox
        self._processes = processes
        self.folder = folder
        self.secrets = folder / "secrets"
        self.prometheus_address = f"127.0.0.1:{find_free_port()}"
        self.alertmanager_address = f"127.0.0.1:{find_free_port()}"
        self._addresses = {
            "prometheus": self.prometheus_address,
            "alertmanager": self.alertmanager_address,
            "grafana": grafana,
        }
        self._originals: dict[Path, str | None] = {}
        self.prometheus: Process
        self.alertmanager: Process
        self._copy("prometheus")
        self._copy("alertmanager")
        self._adapt_receivers()

    @property
    def rules(self) -> Path:
        """Return the folder of the rule files."""
        return self.folder / "prometheus" / "rules"

    @property
    def configurations(self) -> tuple[Path, Path]:
        """Return Prometheus' configuration and Alertmanager's."""
        return (
            self.folder / "prometheus" / "prometheus.yml",
            self.folder / "alertmanager" / "alertmanager.production.yml",
        )

    def address(self, job: str) -> str | None:
        """Return the label ``instance`` of what a job scrapes, where it is one only."""
        return self._addresses.get(job)

    def start(self, instances: Sequence[str]) -> None:
        """Start both over some exporters and wait until they are ready."""
        self.write_targets("hakgal", instances)
        self.write_targets("alertmanager", [self.alertmanager_address])
        self.write_targets("grafana", [self._addresses["grafana"]])
        self.start_alertmanager()
        self.prometheus = self._processes.start(
            self.servers.program("prometheus"),
            f"--config.file={self.configurations[0]}",
            f"--storage.tsdb.path={self.folder / 'tsdb'}",
            f"--web.listen-address={self.prometheus_address}",
            f"--query.lookback-delta={shorten(LOOKBACK, self.factor)}",
            f"--rules.alert.resend-delay={shorten(RESEND, self.factor)}",
        )
        self._wait(self.prometheus, self.prometheus_address)
        # A new Prometheus takes 5 s to find its targets, however fast time passes.
        found = len(instances) + len(self._addresses)
        wait_until(lambda: len(self.query("up == 1")) == found, START_SECONDS)

    def start_alertmanager(self) -> None:
        """Start Alertmanager, anew too, and wait until it is ready."""
        self.alertmanager = self._processes.start(
            self.servers.program("alertmanager"),
            f"--config.file={self.configurations[1]}",
            f"--storage.path={self.folder / 'alertmanager-data'}",
            f"--web.listen-address={self.alertmanager_address}",
            "--cluster.listen-address=",
        )
        self._wait(self.alertmanager, self.alertmanager_address)

    def edit(self, file: Path, change: Callable[[str], str]) -> None:
        """Change a file, or make one, and let both read their files again."""
        text = file.read_text() if file.exists() else None
        self._originals.setdefault(file, text)
        file.write_text(change(text or ""))
        self._reload()

    def restore(self, *files: Path) -> None:
        """Undo what was edited in these files."""
        for file in files:
            text = self._originals.pop(file)
            if text is None:
                file.unlink()
            else:
                file.write_text(text)
        self._reload()

    def _reload(self) -> None:
        for process in (self.prometheus, self.alertmanager):
            process.send_signal(signal.SIGHUP)

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that Prometheus has, pending and firing."""
        prometheus = Prometheus(f"http://{self.prometheus_address}")
        found: list[dict[str, Any]] = prometheus.api("alerts")["alerts"]
        return found

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return what Prometheus answers."""
        return Prometheus(f"http://{self.prometheus_address}").query(expression)

    def routed(self) -> list[dict[str, Any]]:
        """Return the alerts that Alertmanager has, and what it does with them."""
        url = f"http://{self.alertmanager_address}/api/v2/alerts"
        with HTTP.open(url, timeout=5) as answer:
            found: list[dict[str, Any]] = json.load(answer)
            return found

    def _copy(self, name: str) -> None:
        """Copy a folder of the product; its YAML files with their times divided."""
        shutil.copytree(ROOT / name, self.folder / name)
        for file in (self.folder / name).rglob("*.yml"):
            text = scale(file.read_text(), self.factor)
            file.write_text(text.replace(ITSELF, self.prometheus_address))

    def write_targets(self, job: str, addresses: Sequence[str]) -> None:
        """Tell Prometheus what a job scrapes; it notices within 5 seconds."""
        file = self.folder / "prometheus" / "targets" / f"{job}.yml"
        file.write_text(json.dumps([{"targets": list(addresses)}]))

    def _adapt_receivers(self) -> None:
        """Send everything to the inbox, in the words of the shipped templates."""
        text = self.configurations[1].read_text()
        self.secrets.mkdir()
        for name in re.findall(rf"{SECRETS}/([\w-]+)", text):
            (self.secrets / name).write_text("drill")
        self.connect_slack()
        config = yaml.safe_load(text.replace(SECRETS, str(self.secrets)))
        config["global"]["smtp_smarthost"] = self.inbox.mail_address
        config["global"]["smtp_require_tls"] = False
        for receiver in config["receivers"]:
            _adapt(receiver, self.inbox.web_url)
        self.configurations[1].write_text(yaml.safe_dump(config, sort_keys=False))

    def connect_slack(self) -> None:
        """Let Slack's messages arrive."""
        (self.secrets / "slack-url").write_text(f"{self.inbox.web_url}/slack")

    def disconnect_slack(self) -> None:
        """Send them where nobody takes them."""
        nowhere = f"http://{self.prometheus_address}/nowhere"
        (self.secrets / "slack-url").write_text(nowhere)

    def _wait(self, process: Process, address: str) -> None:
        def ready() -> bool:
            assert process.poll() is None, self._processes.output(process)
            return answers(f"http://{address}/-/ready")

        wait_until(ready, START_SECONDS)


def _adapt(receiver: dict[str, Any], web: str) -> None:
    """Address a receiver to the inbox; who gets mail gets a webhook as well."""
    name = receiver["name"]
    to = {"to": f"{name}@drill.invalid"}
    if mails := receiver.get("email_configs"):  # which receivers share in the file
        receiver["email_configs"] = [mail | to for mail in mails]
    hooks = receiver.get("webhook_configs", [{"send_resolved": True}] if mails else [])
    url = {"url": f"{web}/webhook/{name}"}
    receiver["webhook_configs"] = [hook | url for hook in hooks]
