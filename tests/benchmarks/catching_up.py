"""Very many rows at once: one scrape must answer all the same, and lose nothing."""

import time
from collections.abc import Iterator

from tests.benchmarks.bench import Bench, say, size
from tests.benchmarks.client import PROMETHEUS, Client
from tests.benchmarks.data import add_queries, application, count_queries
from tests.benchmarks.programs import Program, exporter
from tests.benchmarks.report import Line, limit, none_of
from tests.benchmarks.starting import totals

PATIENCE_SECONDS = 60.0
TIMEOUTS = (1, 10)  # of Prometheus, in seconds; 10 is its default
_TIMEOUT_HEADER = "X-Prometheus-Scrape-Timeout-Seconds"


def catching_up(bench: Bench) -> Iterator[Line]:
    """Yield whether the scrape that finds a backlog answers within its timeout."""
    rows = bench.effort.new_rows
    with application(bench.large), exporter(bench.large) as program:
        for timeout in TIMEOUTS:
            what = f"a scrape that finds {size(rows)} new rows, timeout {timeout} s"
            say(what)
            with Client(program.port) as client:
                before, _ = totals(client.page().text)
            add_queries(bench.large, rows)
            headers = {**PROMETHEUS, _TIMEOUT_HEADER: str(timeout)}
            with Client(program.port, headers=headers) as client:
                answer = client.page()
            counted, _ = totals(answer.text)
            note = f"{counted - before} of them were on this page"
            yield limit(what, answer.seconds, "s", timeout, note)
            yield _rest(bench, program, counted, before + rows)


def _rest(bench: Bench, program: Program, counted: int, expected: int) -> Line:
    """Return how many rows are counted wrong once all should have been read."""
    started, pages = time.monotonic(), 1
    with Client(program.port) as client:
        while counted < expected and time.monotonic() < started + PATIENCE_SECONDS:
            counted, _ = totals(client.page().text)
            pages += 1
        took = time.monotonic() - started
        counted, total = totals(client.page().text)
    rows, seconds = count_queries(bench.large)
    wrong = abs(counted - rows) + (abs(total - seconds) > 1e-6 * seconds)
    note = f"all there {took:.2g} s later, on page {pages}"
    what = f"counted wrong of {size(bench.effort.new_rows)} new rows"
    return none_of(what, int(wrong), note)
