"""What a page costs: at Prometheus' rhythm, whatever the tables hold, beside peers."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median
from typing import NamedTuple

from tests.benchmarks import peers
from tests.benchmarks.bench import Bench, say
from tests.benchmarks.client import Client
from tests.benchmarks.data import Files, add_some, application
from tests.benchmarks.programs import Program, exporter
from tests.benchmarks.report import Line, Pairs, compare, interleave, limit

NODE_SHARE = 1.3  # and 1.0 is aimed at
FLAT = 1.1
QUERY_SHARE = 1 / 1000
IDLE_PERCENT = 0.05
RHYTHM = "a scrape at Prometheus' rhythm"
INTERVAL_SECONDS = 15.0  # between scrapes, as in the shipped configuration
SCRAPERS = 8


class Side(NamedTuple):
    """A program that is scraped, and files into which somebody writes meanwhile."""

    program: Program
    files: Files | None = None

    def scrape(self) -> float:
        """Return the seconds of a page on a new connection."""
        with Client(self.program.port) as client:
            return client.page().seconds


def rhythm(bench: Bench) -> Iterator[Line]:
    """Yield what scrapes cost beside node_exporter's: Prometheus', and hot loops'."""
    with (
        application(bench.large),
        exporter(bench.large) as program,
        peers.node_exporter(bench) as peer,
    ):
        bench.settle()
        wall, cpu = _scrapes(bench, Side(program, bench.large), Side(peer))
        yield compare(f"{RHYTHM}, seconds", wall, "node_exporter", NODE_SHARE)
        used = 100 * median(cpu.percentiles(0.5)[0]) / INTERVAL_SECONDS
        note = f"one every {INTERVAL_SECONDS:g} s takes {used:.2g} % of a core"
        what = f"{RHYTHM}, processor time"
        yield compare(what, cpu, "node_exporter", NODE_SHARE, note)
        for what, sample in {
            "a page in a hot loop, p50": _hot,
            f"a page of {SCRAPERS} scrapers at once, p50": _at_once,
        }.items():
            sides = [partial(sample, bench, side) for side in (program, peer)]
            pairs = interleave(bench.effort.rounds, *sides)
            yield compare(what, pairs, "node_exporter", None)


def flatness(bench: Bench) -> Iterator[Line]:
    """Yield whether scrapes cost the same whatever the tables hold."""
    for files in bench.files[1:]:
        small = bench.small
        with (
            application(files, small),
            exporter(files) as ours,
            exporter(small) as theirs,
        ):
            bench.settle()
            both = _scrapes(bench, Side(ours, files), Side(theirs, small))
        for what, pairs in zip(("seconds", "processor time"), both, strict=True):
            what = f"{RHYTHM}, {files.size} rows, {what}"
            yield compare(what, pairs, f"{bench.small.size} rows", FLAT)


def idle(bench: Bench) -> Iterator[Line]:
    """Yield what the product uses while nobody asks it for anything."""
    seconds = bench.effort.idle_seconds
    with application(bench.large), exporter(bench.large) as program:
        bench.settle()
        before = program.cpu_seconds()
        time.sleep(seconds)
        percent = 100 * (program.cpu_seconds() - before) / seconds
    note = f"in {seconds:g} s without a scrape"
    yield limit("idle", percent, "% of a core", IDLE_PERCENT, note)


def query_exporter(bench: Bench) -> Iterator[Line]:
    """Yield latency against query-exporter, which asks the tables each time."""
    with (
        application(bench.large),
        exporter(bench.large) as program,
        peers.query_exporter(bench) as peer,
        Client(peer.port) as client,
    ):
        if peers.QUERY_EXPORTER.exists():
            assert "query_bucket{" in client.page().text
        sides = partial(_hot, bench, program), partial(client.timed, 1)
        pairs = interleave(bench.effort.slow_rounds, *sides)
    what = f"a page in a hot loop, p50, {bench.large.size} rows"
    yield compare(what, pairs, "query-exporter", QUERY_SHARE)


def _scrapes(bench: Bench, ours: Side, theirs: Side) -> tuple[Pairs, Pairs]:
    """Scrape both in turn; return the seconds, and the processor time a scrape.

    That is all that a program uses from one scrape to its next.
    """
    say(RHYTHM)
    effort, wall, cpu = bench.effort, Pairs(), Pairs()
    sides = (ours, wall.ours, cpu.ours), (theirs, wall.theirs, cpu.theirs)
    for _ in range(effort.rounds):
        before = [side.program.cpu_seconds() for side, _, _ in sides]
        for _, seconds, _ in sides:
            seconds.append([])
        for _ in range(effort.scrapes):
            for side, seconds, _ in sides:
                if side.files:
                    add_some(side.files)
                time.sleep(effort.scrape_seconds / 2)
                seconds[-1].append(side.scrape())
        for (side, _, used), began in zip(sides, before, strict=True):
            used.append([(side.program.cpu_seconds() - began) / effort.scrapes])
    return wall, cpu


def _hot(bench: Bench, program: Program) -> list[float]:
    """Return the seconds of some pages, one at once after the other."""
    with Client(program.port) as client:
        return client.timed(bench.effort.requests)


def _at_once(bench: Bench, program: Program) -> list[float]:
    """Return the seconds of pages that several ask for together."""
    with ThreadPoolExecutor(SCRAPERS) as pool:
        times = range(bench.effort.requests)
        return [*pool.map(lambda _: Side(program).scrape(), times)]
