"""What a page costs: at Prometheus' rhythm, whatever the tables hold, beside peers."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

from tests.benchmarks import peers
from tests.benchmarks.bench import Bench, say, size
from tests.benchmarks.client import PROMETHEUS, Client
from tests.benchmarks.data import add_some, application
from tests.benchmarks.figures import Pairs, Sample, interleave
from tests.benchmarks.programs import Program, exporter
from tests.benchmarks.report import Line, missing

NODE_SHARE = 1.3  # and 1.0 is aimed at
FLAT = 1.1
QUERY_SHARE = 1 / 1000
RHYTHM = "a scrape at Prometheus' rhythm"
INTERVAL_SECONDS = 15.0  # between scrapes, as in the shipped configuration


class Side(NamedTuple):
    """A program that is scraped, and what happens between its scrapes."""

    program: Program
    between: Callable[[], object] = lambda: None

    def scrape(self) -> float:
        """Return the seconds of a page on a new connection."""
        started = time.perf_counter()
        with Client(self.program.port, headers=PROMETHEUS) as client:
            client.page()
        return time.perf_counter() - started


def rhythm(bench: Bench) -> Iterator[Line]:
    """Yield what Prometheus' scrapes cost beside node_exporter's, and a hot loop's."""
    with ExitStack() as stack:
        stack.enter_context(application(bench.large))
        program = stack.enter_context(exporter(bench.large))
        ours = Side(program, partial(add_some, bench.large))
        peer = stack.enter_context(peers.node_exporter(bench.folder))
        bench.settle()
        say(RHYTHM)
        if peer is None:
            wall, cpu = _scrapes(bench, ours, ours)
            for what, pairs in {"seconds": wall, "processor time": cpu}.items():
                mine = pairs.values()[0]
                what = f"{RHYTHM}, {what}"
                yield missing(what, mine, "s", "node_exporter", NODE_SHARE)
            return
        wall, cpu = _scrapes(bench, ours, Side(peer))
        yield _line(f"{RHYTHM}, seconds", "node_exporter", wall, NODE_SHARE)
        used = 100 * cpu.values()[0] / INTERVAL_SECONDS
        note = f"one every {INTERVAL_SECONDS:g} s takes {used:.2g} % of a core"
        what = f"{RHYTHM}, processor time"
        yield _line(what, "node_exporter", cpu, NODE_SHARE, note)
        say("a hot loop")
        for what, sample in {"p50": _hot, "processor time": _hot_cpu}.items():
            sides = sample(bench, program), sample(bench, peer)
            pairs = interleave(bench.effort.rounds, *sides)
            yield _line(f"a page in a hot loop, {what}", "node_exporter", pairs, None)


def flatness(bench: Bench) -> Iterator[Line]:
    """Yield whether scrapes cost the same whatever the tables hold."""
    for files in bench.files[1:]:
        say(f"{RHYTHM}, {size(files.rows)} rows")
        pair = (files, bench.small)
        with ExitStack() as stack:
            stack.enter_context(application(*pair))
            large, small = (
                Side(stack.enter_context(exporter(one)), partial(add_some, one))
                for one in pair
            )
            bench.settle()
            both = _scrapes(bench, large, small)
        for what, pairs in zip(("seconds", "processor time"), both, strict=True):
            what = f"{RHYTHM}, {size(files.rows)} rows, {what}"
            yield _line(what, f"{size(bench.small.rows)} rows", pairs, FLAT)


def query_exporter(bench: Bench) -> Iterator[Line]:
    """Yield latency against query-exporter, which asks the tables each time."""
    what = f"a page in a hot loop, p50, {size(bench.large.rows)} rows"
    say(f"{what}, against query-exporter")
    with ExitStack() as stack:
        stack.enter_context(application(bench.large))
        mine = _hot(bench, stack.enter_context(exporter(bench.large)))
        peer = stack.enter_context(peers.query_exporter(bench.large))
        if peer is None:
            yield missing(what, mine()[0], "s", "query-exporter", QUERY_SHARE)
            return
        client = stack.enter_context(Client(peer.port))
        page = client.page().text
        if not all(name in page for name in ("query_bucket{", "fact_bucket{")):
            raise RuntimeError(f"query-exporter does not show its figures: {page}")
        rounds = bench.effort.slow_rounds
        pairs = interleave(rounds, mine, lambda: client.timed(1))
    yield _line(what, "query-exporter", pairs, QUERY_SHARE)


def _scrapes(bench: Bench, ours: Side, theirs: Side) -> tuple[Pairs, Pairs]:
    """Scrape both in turn; return the seconds, and the processor time a scrape.

    That is all that a program uses from one scrape to its next.
    """
    effort, wall, cpu = bench.effort, Pairs([], []), Pairs([], [])
    sides = (ours, wall.ours, cpu.ours), (theirs, wall.theirs, cpu.theirs)
    for _ in range(effort.rounds):
        before = [side.program.cpu_seconds() for side, _, _ in sides]
        for _, seconds, _ in sides:
            seconds.append([])
        for _ in range(effort.scrapes):
            for side, seconds, _ in sides:
                side.between()
                time.sleep(effort.scrape_seconds / 2)
                seconds[-1].append(side.scrape())
        for (side, _, used), began in zip(sides, before, strict=True):
            used.append([(side.program.cpu_seconds() - began) / effort.scrapes])
    return wall, cpu


def _hot(bench: Bench, program: Program) -> Sample:
    """Return what takes the seconds of some pages, one at once after the other."""

    def sample() -> list[float]:
        with Client(program.port, headers=PROMETHEUS) as client:
            return client.timed(bench.effort.requests)

    return sample


def _hot_cpu(bench: Bench, program: Program) -> Sample:
    """Return what takes the processor seconds of such a page, as one mean."""

    def sample() -> list[float]:
        before = program.cpu_seconds()
        _hot(bench, program)()
        return [(program.cpu_seconds() - before) / bench.effort.requests]

    return sample


def _line(
    what: str, peer: str, pairs: Pairs, goal: float | None, note: str = ""
) -> Line:
    ours, theirs = pairs.values()
    note = "; ".join(text for text in (pairs.spread(), note) if text)
    details = {"ratios": pairs.ratios()}
    return Line(what, ours, "s", peer, theirs, pairs.ratio(), goal, note, details)
