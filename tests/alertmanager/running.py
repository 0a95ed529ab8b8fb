"""A running Alertmanager with the shipped configuration, and the inbox."""

import json
import re
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from tests.alertmanager.sinks import WAIT_SECONDS
from tests.servers import (
    HTTP,
    ROOT,
    Process,
    Processes,
    Servers,
    answers,
    find_free_port,
    wait_until,
)

FOLDER = ROOT / "alertmanager"
DEFAULT = FOLDER / "alertmanager.yml"
PRODUCTION = FOLDER / "alertmanager.production.yml"
CONFIGS = (DEFAULT, PRODUCTION)
JSON = {"Content-Type": "application/json"}

Labels = dict[str, str]


class Alertmanager(NamedTuple):
    """A running Alertmanager."""

    url: str

    def post(
        self, labels: Labels, *, summary: str = "", resolved: bool = False
    ) -> None:
        """Tell it that an alert fires, or that it does no longer."""
        now = datetime.now(UTC)
        end = now if resolved else now + timedelta(hours=1)
        alert = {
            "labels": labels,
            "annotations": {"summary": summary} if summary else {},
            "startsAt": (now - timedelta(minutes=1)).isoformat(),
            "endsAt": end.isoformat(),
        }
        assert post_json(f"{self.url}/api/v2/alerts", [alert]) == 200

    def alerts(self) -> list[dict[str, Any]]:
        """Return all alerts that it knows, with their status."""
        with HTTP.open(f"{self.url}/api/v2/alerts") as answer:
            return list(json.load(answer))


def post_json(url: str, content: object) -> int:
    """POST and return the status of the answer."""
    return post(url, json.dumps(content).encode(), JSON)


def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    """POST bytes and return the status of the answer."""
    request = urllib.request.Request(url, body, headers)
    try:
        with HTTP.open(request, timeout=WAIT_SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def start_alertmanager(
    servers: Servers, processes: Processes, config: Path, storage: Path
) -> Alertmanager:
    """Start Alertmanager on a free loopback port and return it when it is ready."""
    port = find_free_port()
    process = processes.start(
        servers.program("alertmanager"),
        f"--config.file={config}",
        f"--storage.path={storage}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    )
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, processes.output(process)
        return answers(f"{url}/-/ready")

    wait_until(ready, WAIT_SECONDS)
    return Alertmanager(url)


def adapt(config: Path, folder: Path, replaced: Mapping[str, str]) -> Path:
    """Copy the configuration with other addresses, and with times of a second."""
    copy = folder / "alertmanager"
    shutil.copytree(FOLDER, copy)
    text = config.read_text()
    for old, new in replaced.items():
        assert old in text, old
        text = text.replace(old, new)
    text = re.sub(r"(?m)\bgroup_wait: \w+$", "group_wait: 0s", text)
    text = re.sub(r"(?m)\bgroup_interval: \w+$", "group_interval: 1s", text)
    # In the same relation to group_interval as in the shipped file.
    text = text.replace("repeat_interval: 50s", "repeat_interval: 2500ms")
    adapted = copy / config.name
    adapted.write_text(text)
    return adapted


class RunningInbox(NamedTuple):
    """A running alertmanager/inbox.py."""

    url: str
    process: Process

    def page(self) -> str:
        with HTTP.open(self.url) as answer:
            return str(answer.read().decode())


def start_inbox(processes: Processes) -> RunningInbox:
    """Start the inbox on a free loopback port and return it when it answers."""
    address = f"127.0.0.1:{find_free_port()}"
    command = (sys.executable, FOLDER / "inbox.py", f"--web.listen-address={address}")
    process = processes.start(*command)
    wait_until(lambda: answers(f"http://{address}/-/healthy"), WAIT_SECONDS)
    return RunningInbox(f"http://{address}/", process)
