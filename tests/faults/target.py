"""The exporter under fault: a process that is started, scraped and killed."""

import gzip
import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.faults.rows import LABEL_LIMIT, QUERY_BUCKETS, Samples
from tests.servers import ROOT

START_SECONDS = 20.0
STOP_SECONDS = 10.0
ANSWER_SECONDS = 30.0
OPENMETRICS = "application/openmetrics-text;version=1.0.0"
COUNTING = ("counter", "histogram")
# These start anew with each process, or are the kernel's, which may turn them back.
NOT_KEPT = ("process_", "python_", "hakgal_system_")


@dataclass(frozen=True)
class Asking:
    """How a page is asked for; the timeout is what Prometheus would send."""

    openmetrics: bool = False
    compressed: bool = False
    timeout_seconds: float | None = None

    @property
    def headers(self) -> dict[str, str]:
        headers = {"Accept": OPENMETRICS if self.openmetrics else "text/plain"}
        if self.compressed:
            headers["Accept-Encoding"] = "gzip"
        if self.timeout_seconds is not None:
            timeout = str(self.timeout_seconds)
            headers["X-Prometheus-Scrape-Timeout-Seconds"] = timeout
        return headers


class Page:
    """A page, whole: samples by name and by the values of their sorted labels."""

    def __init__(self, families: Iterable[Metric], started: float) -> None:
        self.started, self.ended = started, time.monotonic()
        samples: dict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
        self.counters: dict[tuple[str, ...], float] = {}
        for family in families:
            for sample in family.samples:
                labels = dict(sample.labels)
                last = [labels.pop("le")] if "le" in labels else []
                key = (*(labels[name] for name in sorted(labels)), *last)
                assert key not in samples[sample.name], f"twice: {sample}"
                samples[sample.name][key] = sample.value
                is_kept = not sample.name.startswith(NOT_KEPT)
                if family.type in COUNTING and is_kept:
                    self.counters[sample.name, *key] = sample.value
        self.samples: Samples = samples

    def gauge(self, name: str, *labels: str) -> float | None:
        """Return a value, None if it is not on the page."""
        return self.samples[name].get(labels)

    def succeeded(self, collector: str) -> bool:
        """Tell whether a collector did."""
        name = "hakgal_exporter_collector_success"
        return self.gauge(name, collector) == 1


class Target:
    """The exporter's process, and what it leaves behind."""

    def __init__(self, folder: Path, knowledge_base: Path, performance: Path) -> None:
        self.state = folder / "state" / "exporter-state.json"
        self.log = folder / "exporter.log"
        self.starts = 0
        self.crashes: list[str] = []
        self.environment: dict[str, str] = {}
        self.prefix: tuple[str, ...] = ()  # a command that starts it, with its limits
        self.output: int | None = None  # instead of the log
        self.patience_seconds = ANSWER_SECONDS
        self.program: tuple[str, ...] = ("-m", "exporter")
        self.port = _find_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.flags = (
            f"--database.knowledge-base={knowledge_base}",
            f"--database.performance={performance}",
            f"--state.file={self.state}",
            f"--query.buckets={' '.join(map(str, QUERY_BUCKETS))}",
            f"--label.limit={LABEL_LIMIT}",
        )

    @property
    def pid(self) -> int:
        """Return the number of its process."""
        assert self._process
        return self._process.pid

    @property
    def is_up(self) -> bool:
        """Tell whether it was started and not ended."""
        return self._process is not None

    def start(self) -> None:
        """Start it; it may take a moment until it answers."""
        assert self._process is None
        address = f"--web.listen-address=127.0.0.1:{self.port}"
        self.starts += 1
        command = [sys.executable, *self.program, *self.flags, address]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.prefix, *command],
                stdin=subprocess.DEVNULL,
                stdout=log if self.output is None else self.output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | self.environment,
            )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process that was started."""
        assert self._process is not None
        return self._process

    def wait(self, seconds: float) -> int | None:
        """Return the exit code of what ends by itself, None if it does not."""
        with suppress(subprocess.TimeoutExpired):
            code = self.process.wait(seconds)
            self._process = None
            return code
        return None

    def wait_until_up(self) -> None:
        """Wait until it listens."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and not self._has_ended():
            if self.answers():
                return
            time.sleep(0.005)
        self._crash("does not start")

    def answers(self) -> bool:
        """Tell whether it listens."""
        try:
            socket.create_connection(("127.0.0.1", self.port), 1.0).close()
        except OSError:
            return False
        return True

    def scrape(self, asking: Asking) -> Page | None:
        """Return a page that was received whole, None if none was."""
        try:
            return self._fetch(asking)
        except (OSError, http.client.HTTPException):
            return None
        except (ValueError, AssertionError) as error:
            self.crashes.append(f"unreadable page: {error}")
            return None

    def end(self, number: signal.Signals) -> None:
        """Send SIGKILL or SIGTERM and wait; after SIGTERM it must end with 0."""
        if self._process is None or self._has_ended():
            self._crash("ended by itself")
            return
        process, self._process = self._process, None
        process.send_signal(number)
        try:
            code = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if code != (0 if number == signal.SIGTERM else -signal.SIGKILL):
            self.crashes.append(f"exit code {code} after {number.name}")

    def kill(self) -> None:
        """End what still runs, whatever happened."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def check(self) -> None:
        """Note if it is gone although nobody ended it."""
        if self._process is not None and self._has_ended():
            self._crash("ended by itself")

    def errors(self) -> Iterator[str]:
        """Yield the lines of the log that tell of bugs."""
        for line in self.log.read_text(errors="replace").splitlines():
            if "level=error" in line or "Traceback" in line:
                yield line

    def _fetch(self, asking: Asking) -> Page:
        started = time.monotonic()
        client = http.client.HTTPConnection(
            "127.0.0.1", self.port, self.patience_seconds
        )
        with closing(client):
            client.request("GET", "/metrics", headers=asking.headers)
            answer = client.getresponse()
            body = answer.read()
        if answer.status != 200:
            raise ValueError(f"status {answer.status}, {body[:200]!r}")
        if answer.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        parse = parse_openmetrics if asking.openmetrics else parse_text
        return Page(parse(body.decode()), started)

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _crash(self, what: str) -> None:
        code = self._process.returncode if self._process else None
        tail = self.log.read_text(errors="replace").splitlines()[-3:]
        self.crashes.append(f"{what}, exit code {code}: {tail}")
        self.kill()


class Scraping:
    """Scrapes in a thread, one after the other until told to stop or none comes."""

    def __init__(self, target: Target, asking: Asking, *, again: bool = False) -> None:
        self.pages: list[Page] = []
        self._target = target
        self._asking = asking
        self._again = again
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def finish(self) -> list[Page]:
        """Return the pages that were received whole, oldest first."""
        self._again = False
        self._thread.join()
        return self.pages

    def _run(self) -> None:
        while page := self._target.scrape(self._asking):
            self.pages.append(page)
            if not self._again:
                return


def _find_port() -> int:
    """Return a free port that no outgoing connection is given.

    Connecting to a port of that kind while nobody listens can reach oneself.
    """
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")
