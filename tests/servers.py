"""Real Prometheus servers for tests, of both generations that are supported.

``make servers`` fetches them; each test that asks for ``servers`` runs once with each.
"""

import json
import os
import random
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Process = subprocess.Popen[bytes]

ROOT = Path(__file__).resolve().parent.parent
GENERATIONS = ("oldest", "newest")
# Everything is on loopback, where a proxy from the environment has no business.
HTTP = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Servers:
    """The programs of one generation."""

    folder: Path

    def program(self, name: str) -> Path:
        """Return the path of prometheus, promtool, alertmanager or amtool."""
        return self.folder / "bin" / name

    def run(self, name: str, *arguments: str | Path) -> tuple[int, str]:
        """Run a program to its end and return its exit code and all its output."""
        done = subprocess.run(
            [self.program(name), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    @property
    def version(self) -> str | None:
        """Version of Prometheus as ``2.42``, or nothing if it was not fetched."""
        version = self.folder / "version"
        return version.read_text().strip() if version.exists() else None


def find_servers() -> list[Servers]:
    """Return the generations that are there, oldest first; both, if none is."""
    folder = ROOT / os.environ.get("HAKGAL_SERVERS", ".servers")
    both = [Servers(folder / generation) for generation in GENERATIONS]
    return [servers for servers in both if servers.version] or both


def left_out() -> list[str]:
    """Return a line for each generation that is not there, while the other one is."""
    found = find_servers()
    names = {servers.folder.name for servers in found}
    return [
        f"Left out: {name}, tested was Prometheus {found[0].version} only;"
        " `make servers` says why"
        for name in GENERATIONS
        if name not in names
    ]


class Processes:
    """Starts programs and ends those, and no others, by their own handles."""

    def __init__(self, folder: Path, *, is_quiet: bool = False) -> None:
        self._folder, self._is_quiet = folder, is_quiet
        self._started: list[tuple[Process, Path]] = []

    def start(self, *command: str | Path, **environment: str) -> Process:
        """Start a command whose output goes to a file, shown if the test fails."""
        name = Path(command[0]).name
        log = self._folder / f"{name}-{len(self._started)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | environment,
            )
        self._started.append((process, log))
        return process

    def output(self, process: Process) -> str:
        """Return what a started process has written so far."""
        (log,) = (log for started, log in self._started if started is process)
        return log.read_text(errors="replace")

    def stop(self) -> None:
        """End everything that still runs: SIGTERM, and SIGKILL after 10 seconds."""
        for process, _ in self._started:
            if process.poll() is None:
                process.terminate()
        for process, log in self._started:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if not self._is_quiet:
                # pytest captures it and shows it with a failure only.
                print(f"--- {log.name} (exit {process.returncode})")
                print(log.read_text(errors="replace"))


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def api(self, path: str, **parameters: str) -> Any:
        """Return ``data`` of the answer to GET /api/v1/``path``."""
        query = urllib.parse.urlencode(parameters)
        with HTTP.open(f"{self.url}/api/v1/{path}?{query}") as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return the instant vector of a PromQL expression as (labels, value)."""
        result = self.api("query", query=expression)["result"]
        return [(series["metric"], float(series["value"][1])) for series in result]


def start_prometheus(
    servers: Servers,
    processes: Processes,
    config: Path,
    *arguments: str,
    port: int | None = None,
) -> Prometheus:
    """Start Prometheus on a free loopback port and return it when it is ready.

    Its data goes beside ``config``, so that belongs in a temporary folder.
    """
    port = port or find_free_port()
    process = processes.start(
        servers.program("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={config.parent / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage,expand-external-labels",
        *arguments,
        GRAFANA_URL="http://localhost:3000",
        RUNBOOKS_URL="https://example.org/docs/runbooks.md",
    )
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, processes.output(process)
        return answers(f"{url}/-/ready")

    wait_until(ready, 30)
    return Prometheus(url)


def adapt_config(folder: Path, *targets: str, scrape_interval: str) -> Path:
    """Copy the shipped configuration, with other exporters and another interval."""
    copy = folder / "prometheus"
    shutil.copytree(ROOT / "prometheus", copy)
    (copy / "targets" / "hakgal.yml").write_text(f"- targets: {list(targets)}\n")
    config = copy / "prometheus.yml"
    text = config.read_text()
    for name, shipped in (("scrape_interval", "15s"), ("scrape_timeout", "10s")):
        assert f"{name}: {shipped}\n" in text
        text = text.replace(f"{name}: {shipped}\n", f"{name}: {scrape_interval}\n")
    config.write_text(text)
    return config


def find_free_port() -> int:
    """Return a loopback port on which nothing listens at this moment.

    None that outgoing connections are given: a caller could reach itself.
    """
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


def answers(url: str) -> bool:
    """Tell whether a GET is answered with 200."""
    try:
        with HTTP.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def wait_until(probe: Callable[[], T], seconds: float) -> T:
    """Call ``probe`` until what it returns is true, and return that.

    Raises:
        TimeoutError: it was still false after ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while True:
        if result := probe():
            return result
        if time.monotonic() > deadline:
            raise TimeoutError(f"{probe} was still {result!r} after {seconds} s")
        time.sleep(0.05)
