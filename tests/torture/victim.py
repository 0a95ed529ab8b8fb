"""The exporter under test: a process that is started, scraped, measured, killed."""

import http.client
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from tests import exporters
from tests.servers import ROOT, find_free_port
from tests.torture.rows import LABEL_LIMIT, QUERY_BUCKETS

PROGRAM = ("-m", "exporter")
START_SECONDS = 20.0
STOP_SECONDS = 10.0
ANSWER_SECONDS = 30.0
OPENMETRICS = "application/openmetrics-text;version=1.0.0"
COUNTING = ("counter", "histogram")
# These start anew with each process, or are the kernel's, which may turn them back.
NOT_KEPT = ("process_", "python_", "hakgal_system_")

Headers = Mapping[str, str]


def draw_headers(rng: random.Random, timeout_seconds: float | None = None) -> Headers:
    """Return a way to ask for a page; the timeout is what Prometheus would send."""
    headers = {"Accept": OPENMETRICS if rng.random() < 0.4 else "text/plain"}
    if rng.random() < 0.3:
        headers["Accept-Encoding"] = "gzip"
    if timeout_seconds is not None:
        headers["X-Prometheus-Scrape-Timeout-Seconds"] = str(timeout_seconds)
    return headers


class Page(exporters.Page):
    """A page, when it was asked for and there, and all counters that never fall."""

    def __init__(self, text: str, started: float) -> None:
        self.started, self.ended = started, time.monotonic()
        super().__init__(text)
        self.counters: dict[tuple[object, ...], float] = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
            if family.type in COUNTING and not sample.name.startswith(NOT_KEPT)
        }

    def resets(self, table: str) -> float:
        """Return how often counting has begun anew in a table."""
        return self.sum("hakgal_exporter_resets_total", table=table)


class Usage(NamedTuple):
    """What a process has; its memory is what is resident."""

    memory_bytes: int
    descriptors: int
    threads: int


class Victim:
    """The exporter's process, and what it leaves behind.

    ``prefix`` is a command that starts it, with its limits; ``tls`` and ``login`` are
    how somebody with a right to its pages comes in.
    """

    def __init__(self, folder: Path, program: tuple[str, ...] = PROGRAM) -> None:
        self.data = folder / "data"
        self.state = folder / "state" / "exporter-state.json"
        self.log = folder / "exporter.log"
        self.program, self.prefix = program, tuple[str, ...]()
        self.environment: dict[str, str] = {}
        self.crashes: list[str] = []
        self.patience_seconds = ANSWER_SECONDS
        self.tls: Callable[[], ssl.SSLContext] | None = None
        self.login = ""
        self.address = "127.0.0.1", find_free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.flags = [
            f"--database.knowledge-base={self.data / 'hexagonal_kb.db'}",
            f"--database.performance={self.data / 'hakgal_performance.db'}",
            f"--state.file={self.state}",
            f"--query.buckets={' '.join(map(str, QUERY_BUCKETS))}",
            f"--label.limit={LABEL_LIMIT}",
            "--web.listen-address={}:{}".format(*self.address),
            "--web.max-requests=0",
        ]

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process that was started."""
        assert self._process is not None
        return self._process

    @property
    def is_up(self) -> bool:
        """Whether it was started and not ended."""
        return self._process is not None

    def start(self) -> None:
        """Start it; it may take a moment until it answers."""
        assert self._process is None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.prefix, sys.executable, *self.program, *self.flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | self.environment,
            )

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
            socket.create_connection(self.address, 1.0).close()
        except OSError:
            return False
        return True

    def scrape(self, headers: Headers) -> Page | None:
        """Return a page that was received whole, None if none was."""
        try:
            return self._fetch(headers)
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

    @property
    def errors(self) -> list[str]:
        """The lines of the log that tell of bugs."""
        return [n for n in self.lines if "level=error" in n or "Traceback" in n]

    @property
    def lines(self) -> list[str]:
        """The lines of the log."""
        if not self.log.exists():
            return []
        return self.log.read_text(errors="replace").splitlines()

    @property
    def usage(self) -> Usage:
        """What it has at this moment."""
        process = psutil.Process(self.process.pid)
        memory = process.memory_info().rss
        return Usage(memory, process.num_fds(), process.num_threads())

    @property
    def work_seconds(self) -> float:
        """The processor time that it has used."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def _fetch(self, headers: Headers) -> Page:
        started, tls = time.monotonic(), self.tls and self.tls()
        if self.login:
            headers = {**headers, "Authorization": self.login}
        seconds = self.patience_seconds
        answer = exporters.request(self.address, "/metrics", headers, seconds, tls)
        if answer.status != 200:
            raise ValueError(f"status {answer.status}, {answer.text[:200]!r}")
        return Page(answer.text, started)

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _crash(self, what: str) -> None:
        code = self._process.returncode if self._process else None
        self.crashes.append(f"{what}, exit code {code}: {self.lines[-3:]}")
        self.kill()


class Scraping:
    """Scrapes in a thread, one after the other until told to stop or none comes."""

    def __init__(self, victim: Victim, headers: Headers, *, again: bool) -> None:
        self.pages: list[Page] = []
        self._victim = victim
        self._headers = headers
        self._again = again
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def finish(self) -> list[Page]:
        """Return the pages that were received whole, oldest first."""
        self._again = False
        self._thread.join()
        return self.pages

    def _run(self) -> None:
        while page := self._victim.scrape(self._headers):
            self.pages.append(page)
            if not self._again:
                return
