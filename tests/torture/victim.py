"""The exporter under attack: a process, with those who depend on it beside it.

An application writes rows and knows how many; a scraper with every right to it asks all
the time. ``attacked`` judges, whatever the attack is: who depended on it was served at
once, each row counts once, and the process took little and gave it back.
"""

import io
import re
import resource
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import psutil

from tests.clients import Answer, Client
from tests.databases import Files
from tests.exporters import Command, Page, file_flags
from tests.servers import Processes, find_free_port
from tests.torture.report import Effort, Found

SCRAPE_SECONDS = 10.0  # Prometheus' own default
LONGEST_WAIT_SECONDS = 1.0  # of the scraper, whatever others do meanwhile
MOST_BYTES = 60_000_000
GROWTH_BYTES = 20 << 20  # the allocator keeps some; what leaks is more, or leaves none
SETTLE_SECONDS = 15.0  # longer than the exporter waits for anything that began
REST_SECONDS = 2.0
MOST_WORK_SECONDS = 0.1  # of processor time in these
MOST_LINES = 12  # of the log: some tell of the start and of the end
MOST_EXAMPLES = 3
OPERATIONS = ("add_fact", "update_fact", "delete_fact")


class Refused(Exception):
    """A page was refused because of --web.max-requests, as it should be."""


class Application(threading.Thread):
    """HAK/GAL: writes some rows all the time, and knows how many."""

    pause_seconds = 0.01

    def __init__(self, folder: Path, query_types: int) -> None:
        super().__init__(daemon=True)
        self.query_types = query_types
        self.written: Counter[str] = Counter()
        self.errors: list[str] = []
        self.is_open = threading.Event()
        self._folder = folder
        self._stopping = threading.Event()

    def run(self) -> None:
        with Files(self._folder) as files:
            for number in range(11 * self.query_types):  # each that there will be
                self._write(files, number)
            self.is_open.set()
            while not self._stopping.wait(self.pause_seconds):
                try:
                    self._write(files, self.written["queries"])
                except Exception as error:  # whatever it is, the writer suffered it
                    self.errors.append(repr(error))
            # The last rows stay in the log, so that the exporter has to read it.

    def stop(self) -> None:
        """Stop to write; nothing is written afterwards."""
        self._stopping.set()
        self.join()

    def _write(self, files: Files, number: int) -> None:
        query_type, success = f"type_{number % self.query_types}", number % 11 > 0
        files.add_query(0.001 * (number % 900), query_type, success)
        self.written["queries"] += 1
        files.add_cache(number % 3 > 0)
        self.written["cache"] += 1
        files.add_audit(OPERATIONS[number % 3])
        self.written["audit"] += 1


class Scraper(threading.Thread):
    """Who has every right: asks all the time, and remembers what it should not see."""

    def __init__(self, fetch: Callable[[], str], pause_seconds: float = 0.1) -> None:
        super().__init__(daemon=True)
        self.pages = 0
        self.refused = 0
        self.failures: list[str] = []
        self.fell: list[str] = []
        self.longest_seconds = 0.0
        self._fetch = fetch
        self._pause_seconds = pause_seconds
        self._seen: dict[Any, float] = {}
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.is_set():
            self.ask()
            self._stopping.wait(self._pause_seconds)

    def stop(self, *, waits: bool = True) -> None:
        """Finish what is being asked, and stop."""
        self._stopping.set()
        if waits:
            self.join()

    def ask(self) -> None:
        """Scrape once; any error is a failed scrape."""
        begin = time.monotonic()
        try:
            text = self._fetch()
            # What comes after that is our own work.
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - begin)
            self._compare(Page(text))
            self.pages += 1
        except Refused:
            self.refused += 1
        except Exception as error:
            self.failures.append(f"{error!r} after {time.monotonic() - begin:.2f} s")

    def _compare(self, page: Page) -> None:
        assert not page.failed, f"collectors failed: {page.failed}"
        for family in page.families.values():
            if family.type not in ("counter", "histogram"):
                continue
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                if sample.value < self._seen.get(key, 0.0):
                    self.fell.append(f"{key}: {self._seen[key]} to {sample.value}")
                self._seen[key] = sample.value


class Victim:
    """The exporter, and how a scraper with the right to it gets in."""

    def __init__(
        self,
        command: Command,
        login: str = "",
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self.command = command
        self.address = command.address
        self.process = psutil.Process(command.process.pid)
        self._headers = {"authorization": login} if login else {}
        self._tls = tls

    def get(
        self, target: str = "/metrics", *, source: str = "", **headers: str
    ) -> Answer:
        """Return the answer on a new connection, with all rights."""
        tls = self._tls and self._tls()
        with Client(self.address, tls, seconds=SCRAPE_SECONDS, source=source) as client:
            return client.get(target, **self._headers | headers)

    def fetch(self) -> str:
        """Return the text of the page; anything but that is an error."""
        answer = self.get()
        if answer.body.endswith(b" concurrent requests reached\n"):
            raise Refused(answer)
        assert answer.status == 200, answer
        return answer.body.decode()

    def resources(self) -> dict[str, int]:
        """Return what it uses at this moment."""
        with self.process.oneshot():
            return {
                "threads": self.process.num_threads(),
                "file descriptors": self.process.num_fds(),
                "bytes": self.process.memory_info().rss,
            }

    @property
    def most_bytes(self) -> int:
        """The most memory that it ever had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        return 1024 * int(kilobytes)

    @property
    def work_seconds(self) -> float:
        """The processor time that it has used."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def attacked(
    effort: Effort,
    found: Found,
    *flags: str,
    login: str = "",
    tls: Callable[[], ssl.SSLContext] | None = None,
    forgiven: str = "",
    growth_bytes: int = GROWTH_BYTES,
    may_refuse: bool = False,
    descriptors: int | None = None,
    query_types: int = 7,
) -> Iterator[Victim]:
    """Yield an exporter to attack, and judge it afterwards.

    ``forgiven`` is in lines of the log that the attack should cause; ``descriptors`` is
    how many files the exporter may have open; a page has 3.2 kB for each query type.
    """
    processes = Processes(effort.folder)
    application = Application(effort.folder, query_types)
    with ExitStack() as stack:
        stack.callback(_end_quietly, processes)
        application.start()
        stack.callback(application.stop)
        application.is_open.wait()
        every = (*file_flags(effort.folder), *flags)
        command = Command(processes, find_free_port(), *every)
        with _limited(descriptors):
            command.start()
        victim = Victim(command, login, tls)
        scraper = Scraper(victim.fetch)
        for _ in range(10):  # what is loaded and remembered on first use
            scraper.ask()
        before = victim.resources()
        scraper.start()
        stack.callback(scraper.stop)
        yield victim
        scraper.stop()
        application.stop()
        _judge_scraper(found, scraper, may_refuse)
        if command.process.poll() is None:
            _judge_rows(found, victim, application)
            _judge_resources(found, victim, before, growth_bytes)
            _judge_rest(found, victim)
            megabytes = victim.most_bytes / 1e6
            wait = f"{scraper.longest_seconds:.2f} s"
            print(f"  at most {megabytes:.0f} MB, and {wait} for a page")
        _judge_end(found, command, forgiven)


@contextmanager
def _limited(descriptors: int | None) -> Iterator[None]:
    """Let what is started have so many open files; ours stay open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors or limits[0], limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def complain(found: Found, finding: str, what: str, examples: Sequence[object]) -> None:
    """Note all of something, with some examples of it."""
    if examples:
        shown = "; ".join(str(example) for example in examples[:MOST_EXAMPLES])
        found.note(finding, f"{what}: {shown}", len(examples))


def _end_quietly(processes: Processes) -> None:
    with redirect_stdout(io.StringIO()):  # its log is in the folder, and judged
        processes.stop()


def _judge_scraper(found: Found, scraper: Scraper, may_refuse: bool) -> None:
    complain(found, "crashed", "a scraper was not served", scraper.failures)
    complain(found, "lost", "a counter fell", scraper.fell)
    if scraper.refused and not may_refuse:
        found.note("crashed", "a scrape was refused", scraper.refused)
    if not scraper.pages:
        found.note("crashed", "nothing was ever scraped")
    if scraper.longest_seconds > LONGEST_WAIT_SECONDS:
        found.note("crashed", f"a page took {scraper.longest_seconds:.2f} s")


def _judge_rows(found: Found, victim: Victim, application: Application) -> None:
    complain(found, "harmed", "the application saw an error", application.errors)
    try:
        page = Page(victim.fetch())
    except Exception as error:
        found.note("crashed", f"no page after it: {error!r}")
        return
    counted = {
        "queries": page.sum("hakgal_query_duration_seconds_count"),
        "cache": page.sum("hakgal_cache_hits_total")
        + page.sum("hakgal_cache_misses_total"),
        "audit": page.sum("hakgal_audit_events_total"),
    }
    for table, rows in application.written.items():
        difference = round(rows - counted[table])
        if difference:
            finding = "lost" if difference > 0 else "doubled"
            found.note(finding, f"{table}: {counted[table]} of {rows}", abs(difference))


def _judge_resources(
    found: Found, victim: Victim, before: dict[str, int], growth_bytes: int
) -> None:
    if (most := victim.most_bytes) > MOST_BYTES:
        found.note("crashed", f"it took {most / 1e6:.1f} MB")
    deadline = time.monotonic() + SETTLE_SECONDS
    while too_many := _surplus(victim, before, growth_bytes):
        if time.monotonic() > deadline:
            found.note("crashed", f"not given back: {too_many}, before {before}")
            return
        time.sleep(0.1)


def _surplus(
    victim: Victim, before: dict[str, int], growth_bytes: int
) -> dict[str, int]:
    # The thread and the two descriptors of a read, or of somebody asking for health.
    allowed = {"threads": 2, "file descriptors": 4, "bytes": growth_bytes}
    now = victim.resources()
    return {k: v for k, v in now.items() if v > before[k] + allowed[k]}


def _judge_rest(found: Found, victim: Victim) -> None:
    """Note if it works while nobody asks for anything."""
    before = victim.work_seconds
    time.sleep(REST_SECONDS)
    if (worked := victim.work_seconds - before) > MOST_WORK_SECONDS:
        found.note("crashed", f"worked {worked:.2f} s in {REST_SECONDS:.0f} s of rest")


def _judge_end(found: Found, command: Command, forgiven: str) -> None:
    if command.process.poll() is not None:
        found.note("crashed", f"ended by itself with {command.process.returncode}")
    elif code := command.stop():
        found.note("crashed", f"ended with {code} when asked to")
    lines = command.output.splitlines()
    if forgiven:
        lines = [line for line in lines if not re.search(forgiven, line)]
    if len(lines) > MOST_LINES:
        found.note("crashed", f"{len(lines)} lines logged")
    wrong = [
        line[:300] for line in lines if not re.search(" level=(info|debug) ", line)
    ]
    complain(found, "crashed", "logged", wrong)
