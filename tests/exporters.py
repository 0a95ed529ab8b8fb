"""The exporter under test, in this process or as its own, and the page it shows."""

import gzip
import http.client
import json
import os
import ssl
import subprocess
import sys
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from exporter.commands.healthcheck import ask_health
from exporter.config import Config, load
from exporter.counting.checkpoint import Checkpoint
from exporter.scrape import Exporter
from tests.servers import ROOT, Process, Processes, wait_until

NOBODY = 65534
WAIT_SECONDS = 60.0  # nothing here takes that long unless it is broken
# The interpreter may lie where that user cannot start it, so it changes after that,
# and it ends at once, because what measures coverage could not write either.
AS_NOBODY = f"""
import os, sys, encodings.ascii, encodings.idna
import exporter.commands.check, exporter.commands.serve
from exporter.__main__ import main
os.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})
code = main()
sys.stdout.flush()
os._exit(code)
"""


Labels = frozenset[tuple[str, str]]


class Page:
    """The samples of a metrics page in either format, by name and labels."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families: dict[str, Metric] = {}
        self._values: dict[str, dict[Labels, float]] = defaultdict(dict)
        is_openmetrics = text.endswith("# EOF\n")
        parse = parse_openmetrics if is_openmetrics else text_string_to_metric_families
        for family in parse(text):
            assert family.name not in self.families
            self.families[family.name] = family
            for sample in family.samples:
                values, labels = self._values[sample.name], sample.labels.items()
                assert frozenset(labels) not in values, f"twice on the page: {sample}"
                values[frozenset(labels)] = sample.value

    def __call__(self, name: str, **labels: str) -> float | None:
        """Return the value of a series, None if it is not on the page."""
        return self._values[name].get(frozenset(labels.items()))

    def series(self, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
        """Return the series that have these labels: all of their labels, and values."""
        found = self._values[name].items()
        return [(dict(key), value) for key, value in found if labels.items() <= key]

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """Return the values of a metric by one label, for given other labels."""
        return {found[label]: v for found, v in self.series(name, **labels)}

    def sum(self, name: str, **labels: str) -> float:
        """Return the sum over all series with these labels."""
        return sum(value for _, value in self.series(name, **labels))

    @property
    def names(self) -> set[str]:
        """Names of the families that have samples."""
        return {name for name, family in self.families.items() if family.samples}

    @property
    def failed(self) -> set[str]:
        """Names of the collectors that failed."""
        success = self.by("collector", "hakgal_exporter_collector_success")
        return {name for name, value in success.items() if not value}


def parse_openmetrics(text: str) -> list[Metric]:
    """Return the families of an OpenMetrics page, which must be well-formed."""
    families = openmetrics.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    return list(families)


def make_config(folder: Path, **changes: Any) -> Config:
    """Return the default configuration with all files in a folder."""
    files = {
        "knowledge_base": folder / "hexagonal_kb.db",
        "performance": folder / "hakgal_performance.db",
        "state_file": folder / "exporter-state.json",
    }
    return replace(load(Namespace(), {}), **files | changes)


def make_exporter(config: Config) -> Exporter:
    """Return an exporter in this process; without lock on its state file."""
    return Exporter(config, Checkpoint(config.state_file))


class Families(list[Metric], Collector):
    """Families for the client library's writers."""

    def collect(self) -> list[Metric]:
        return self


def scrape(exporter: Exporter, *names: str, budget_seconds: float = 10.0) -> Page:
    """Return a page with these collectors' families, or with all."""
    wanted = frozenset(names) or exporter.collector_names
    families = exporter.collect(budget_seconds, wanted)
    return Page(generate_latest(Families(families)).decode())


def first_page(folder: Path, **changes: Any) -> Page:
    """Return the first page of a new exporter over the files in a folder."""
    return scrape(make_exporter(make_config(folder, **changes)))


class Answer(NamedTuple):
    """What came back over HTTP; names of headers as they were sent."""

    status: int
    headers: dict[str, str]
    text: str


def fetch(address: tuple[str, int], target: str = "/metrics", **headers: str) -> Answer:
    """GET a target; ``Accept_Encoding="x"`` sends ``Accept-Encoding: x``."""
    return request(address, target, headers)


def request(
    address: tuple[str, int],
    target: str,
    headers: Mapping[str, str],
    seconds: float = WAIT_SECONDS,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """GET a target, in TLS if told how."""
    client = http.client.HTTPConnection(*address, seconds)
    if tls:
        client = http.client.HTTPSConnection(*address, timeout=seconds, context=tls)
    with closing(client):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        client.request("GET", target, headers=named)
        answer = client.getresponse()
        body = answer.read()
    if answer.headers["Content-Encoding"] == "gzip":
        body = gzip.decompress(body)
    return Answer(answer.status, dict(answer.headers), body.decode())


def fetch_page(
    address: tuple[str, int], target: str = "/metrics", **headers: str
) -> Page:
    """Return the page at a target, which must be answered with 200."""
    answer = fetch(address, target, **headers)
    assert answer.status == 200, answer
    return Page(answer.text)


class Command:
    """``python -m exporter`` as a process of its own, on a loopback port."""

    process: Process

    def __init__(self, processes: Processes, port: int, *flags: str) -> None:
        self.address = "127.0.0.1", port
        self.flags = (*flags, f"--web.listen-address=127.0.0.1:{port}")
        self._processes = processes

    @property
    def output(self) -> str:
        return self._processes.output(self.process)

    def start(self, *words: str, **environment: str) -> Self:
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "exporter", *words, *self.flags]
        environment = {"PYTHONPATH": str(ROOT)} | environment
        self.process = self._processes.start(*command, **environment)
        wait_until(self._answers, WAIT_SECONDS)
        return self

    def kill(self) -> None:
        """Kill it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to stop and return its exit code."""
        self.process.terminate()
        return self.process.wait(WAIT_SECONDS)

    def page(self, target: str = "/metrics", **headers: str) -> Page:
        return fetch_page(self.address, target, **headers)

    def get(self, target: str, **headers: str) -> Answer:
        return fetch(self.address, target, **headers)

    def wait_until_ready(self) -> None:
        wait_until(lambda: self.get("/-/ready").status == 200, WAIT_SECONDS)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.output
        words = (flag.partition("=") for flag in self.flags)
        web = {name: Path(value) for name, _, value in words}.get("--web.config.file")
        return ask_health("{}:{}".format(*self.address), web) is None


def file_flags(folder: Path) -> list[str]:
    """Return flags that name all files in a folder."""
    return [
        f"--database.knowledge-base={folder / 'hexagonal_kb.db'}",
        f"--database.performance={folder / 'hakgal_performance.db'}",
        f"--state.file={folder / 'exporter-state.json'}",
    ]


def run(
    *words: str | Path, cwd: Path | None = None, program: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m exporter``, or a program text, to its end."""
    start = ["-c", program] if program else ["-m", "exporter"]
    return subprocess.run(
        [sys.executable, *start, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "88"} | environment,
        timeout=WAIT_SECONDS,
        check=False,
    )


def run_as_nobody(*words: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m exporter`` as a user to whom permissions apply."""
    return run(*words, program=AS_NOBODY if os.geteuid() == 0 else "")


@contextmanager
def other_user() -> Iterator[None]:
    """Act as a user with no rights of its own; only root can, others have few."""
    is_root = os.geteuid() == 0
    if is_root:
        os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        if is_root:
            os.setresuid(0, 0, 0)


def read_state(folder: Path) -> dict[str, Any]:
    """Return the tables in the state file of a folder."""
    line, _ = (folder / "exporter-state.json").read_text().split("\n", 1)
    tables: dict[str, Any] = json.loads(line)["tables"]
    return tables
