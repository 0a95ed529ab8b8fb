"""The compose files, brought up on the engine that .ci/docker runs."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.exporters import Page, fetch_page
from tests.servers import ROOT, Prometheus, find_free_port

PORT = re.compile(r"\$\{(\w+_PORT):-")
# Nothing is fetched, and there is no image of Grafana; whatever else is in the files is
# started.
OFFLINE = "--pull never --scale grafana=0"
DOCUMENTED = (ROOT / "README.md", ROOT / "docs" / "deployment.md")
COMMAND_SECONDS = 900.0  # the first one builds the image
PATIENCE_SECONDS = 300.0  # for what takes a quarter of that at most
LISTENING = "0A"
LOOPBACK = ("0100007F", "00000000000000000000000001000000")


class Stack:
    """A project of some compose files; containers are called by their service."""

    def __init__(self, start: str, **environment: str) -> None:
        """Take the line that starts it, as the documentation has it."""
        assert_documented(start)
        before, up, after = start.partition(" up ")
        self._start = f"{before}{up}{OFFLINE} {after}"
        self._compose = shlex.split(before)
        files = "".join(path.read_text() for path in ROOT.glob("docker-compose*.yml"))
        self._ports = {name: str(find_free_port()) for name in PORT.findall(files)}
        # A .env of the person who runs this is not what is tested.
        quiet = {"COMPOSE_DISABLE_ENV_FILE": "1", "COMPOSE_PROGRESS": "plain"}
        self._environment = os.environ | quiet | self._ports | environment

    def up(self) -> None:
        """Start it, or what is missing of it, and wait until all is healthy."""
        self._run(shlex.split(self._start))

    def play(self, line: str) -> None:
        """Run another line of the documentation."""
        assert_documented(line)
        self._run(shlex.split(line))

    def compose(self, *words: str) -> str:
        """Return what a subcommand of compose prints; it has to succeed."""
        return self._run([*self._compose, *words])

    def docker(self, *words: str) -> str:
        """Return what a command of docker prints."""
        return self._run(["docker", *words])

    def python(self, service: str, program: str) -> str:
        """Run a Python program in the container of a service that has Python."""
        return self.compose("exec", "-T", service, "python", "-c", program)

    def check(self) -> str:
        """Return what the exporter's own check says."""
        return self.compose("exec", "-T", "exporter", "hakgal-exporter", "check")

    def simulate(self, flags: str) -> None:
        """Let the simulated HAK/GAL do something besides, and do not wait for it."""
        files = "--database.knowledge-base /data/hexagonal_kb.db"
        files += " --database.performance /data/hakgal_performance.db"
        command = f"exec -T --detach hakgal hakgal-exporter simulate {files} {flags}"
        self.compose(*command.split())

    def containers(self) -> dict[str, dict[str, Any]]:
        """Return what the engine knows of each container, also of ended ones."""
        ids = self.compose("ps", "--all", "--quiet").split()
        found = json.loads(self.docker("inspect", *ids)) if ids else []
        return {c["Config"]["Labels"]["com.docker.compose.service"]: c for c in found}

    def pid(self, service: str) -> int:
        """Return the process of a container as this machine sees it."""
        pid: int = self.containers()[service]["State"]["Pid"]
        return pid

    def is_healthy(self, *services: str) -> bool:
        """Tell whether these run and say that they are well."""
        states = [self.containers()[name]["State"] for name in services]
        return all(s.get("Health", {}).get("Status") == "healthy" for s in states)

    def url(self, port: str) -> str:
        """Return the address of a published port, by the variable that moves it."""
        return f"http://localhost:{self._ports[port]}"

    def page(self) -> Page:
        """Return the exporter's page."""
        return fetch_page(("127.0.0.1", int(self._ports["HAKGAL_EXPORTER_PORT"])))

    def prometheus(self, port: str = "PROMETHEUS_PORT") -> Prometheus:
        """Return one of the servers that answer PromQL."""
        return Prometheus(self.url(port))

    def told_of(self, alert: str) -> list[str]:
        """Return the firing notifications in the inbox that name an alert."""
        log = self.compose("logs", "--no-log-prefix", "inbox")
        told = re.split(r"^(?=\d{4}-\d\d-\d\d [\d:]+ UTC: )", log, flags=re.MULTILINE)
        firing = [text for text in told if re.search(": [1-9][0-9]* firing", text)]
        return [text for text in firing if f"{alert} on " in text]

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {(done.stdout + done.stderr)[-8000:]}"
        return done.stdout


def assert_documented(line: str) -> None:
    assert any(line in path.read_text() for path in DOCUMENTED), line


@contextmanager
def running(stack: Stack) -> Iterator[Stack]:
    """Start a stack; what it said is shown if a test fails; nothing stays."""
    try:
        stack.up()
        yield stack
    finally:
        # pytest captures it and shows it with a failure only.
        print(stack.compose("ps", "--all"), stack.compose("logs", "--tail", "50"))
        stack.compose("down", "--volumes", "--timeout", "20")


def open_sockets() -> set[str]:
    """Return the addresses beyond loopback on which this machine takes connections."""
    lines = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    fields = [line.split() for line in lines.splitlines() if "local" not in line]
    listening = {local for _, local, _, state, *_ in fields if state == LISTENING}
    return {name for name in listening if name.partition(":")[0] not in LOOPBACK}
