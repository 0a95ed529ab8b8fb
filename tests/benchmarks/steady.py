"""What the product costs while it just runs: memory, idle time, many scrapers."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from tests.benchmarks.bench import Bench, say, size
from tests.benchmarks.client import PROMETHEUS, TEXT, Client
from tests.benchmarks.data import application
from tests.benchmarks.figures import percentile
from tests.benchmarks.programs import Program, exporter, started_exporter
from tests.benchmarks.report import Line, limit

MEMORY_BYTES = 45e6
IDLE_PERCENT = 0.05
INTERVAL_SECONDS = 15.0  # between scrapes, as in the shipped configuration
SPACED_SCRAPES = 40
SCRAPERS = 8
SLOWEST_SECONDS = 1.0


def memory(bench: Bench) -> Iterator[Line]:
    """Yield resident memory after a first fold of everything, and its peak."""
    rows = size(bench.large.rows)
    say(f"memory, {rows} rows")
    state = bench.folder / "memory-state.json"
    with application(bench.large), started_exporter(bench.large, state) as program:
        program.wait_for("/-/ready")
        program.wait_until_counted()
        for headers in (TEXT, PROMETHEUS):
            with Client(program.port, headers=headers) as client:
                client.timed(2 * bench.effort.requests)
        now, peak = (program.memory_bytes(field) for field in ("VmRSS", "VmHWM"))
    state.unlink()
    note = "a fresh process: first fold, count of facts, pages in both formats"
    yield limit(f"resident memory, {rows} rows", now, "B", MEMORY_BYTES)
    yield limit(f"its peak, {rows} rows", peak, "B", MEMORY_BYTES, note)


def idle(bench: Bench) -> Iterator[Line]:
    """Yield the share of a core at a scrape every 15 s while nothing is written.

    Waiting four minutes would show the same: a scrape costs what a spaced one costs,
    less what the process uses by itself meanwhile, and that runs for all 15 s.
    """
    say("idle cost")
    seconds = bench.effort.idle_seconds
    spacing = seconds / SPACED_SCRAPES
    with ExitStack() as stack:
        stack.enter_context(application(bench.large))
        program = stack.enter_context(exporter(bench.large))
        client = stack.enter_context(Client(program.port, headers=PROMETHEUS))
        client.timed(5)
        bench.settle()
        spaced, length = _used(program, lambda: client.timed(SPACED_SCRAPES, spacing))
        alone, rest = _used(program, lambda: time.sleep(seconds))
    own = alone / rest
    scrape = (spaced - own * length) / SPACED_SCRAPES
    percent = 100 * (scrape / INTERVAL_SECONDS + own)
    note = (
        f"{scrape * 1e3:.3g} ms a scrape ({SPACED_SCRAPES}, every {spacing:.3g} s),"
        f" {own * 1e6:.3g} µs/s without any"
    )
    what = "idle cost, a scrape every 15 s"
    yield limit(what, percent, "% of a core", IDLE_PERCENT, note)


def crowd(bench: Bench) -> Iterator[Line]:
    """Yield how eight scrapers at once fare, each asking again as soon as it can."""
    effort = bench.effort
    say(f"{SCRAPERS} scrapers for {effort.crowd_seconds:.0f} s")
    with application(bench.large), exporter(bench.large) as program:
        bench.settle()
        with Client(program.port, headers=PROMETHEUS) as client:
            before = client.timed(4 * effort.requests)
            ends = time.monotonic() + effort.crowd_seconds
            with ThreadPoolExecutor(SCRAPERS) as pool:
                jobs = [pool.submit(_until, program, ends) for _ in range(SCRAPERS)]
                taken = [seconds for job in jobs for seconds in job.result()]
            single = percentile(before + client.timed(4 * effort.requests), 0.5)
        peak = program.memory_bytes("VmHWM")
    slowest, p99 = max(taken), percentile(taken, 0.99)
    note = f"{len(taken)} pages; memory at most {peak / 1e6:.3g} MB"
    yield limit(f"{SCRAPERS} scrapers, slowest page", slowest, "s", SLOWEST_SECONDS)
    yield Line(
        f"{SCRAPERS} scrapers, page p99",
        p99,
        "s",
        "p50 of one",
        single,
        p99 / single,
        float(SCRAPERS),
        note,
    )


def _used(program: Program, action: Callable[[], object]) -> tuple[float, float]:
    """Return the processor seconds used during an action, and its length."""
    cpu, started = program.cpu_seconds(), time.monotonic()
    action()
    return program.cpu_seconds() - cpu, time.monotonic() - started


def _until(program: Program, ends: float) -> list[float]:
    taken: list[float] = []
    with Client(program.port, headers=PROMETHEUS) as client:
        while time.monotonic() < ends or not taken:
            taken.append(client.page().seconds)
    return taken
