"""What a page costs: against other sizes and against other exporters."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

from tests.benchmarks import peers
from tests.benchmarks.bench import Bench, say, size
from tests.benchmarks.client import PROMETHEUS, TEXT, Client
from tests.benchmarks.data import application
from tests.benchmarks.figures import Pairs, Sample, interleave
from tests.benchmarks.programs import Program, exporter, writer
from tests.benchmarks.report import Line, missing

WRITER_RATE = 1000
FLAT = 1.1
NODE_SHARE = 0.5
QUERY_SHARE = 1 / 5000
SPACING_SECONDS = 0.25

Headers = Mapping[str, str]
Sampler = Callable[[Bench, Program, Headers], Sample]

FORMATS: Mapping[str, Headers] = {
    "text": TEXT,
    "OpenMetrics+gzip": PROMETHEUS,
}


def flatness(bench: Bench) -> Iterator[Line]:
    """Yield whether pages cost the same whatever the tables hold."""
    for rate in (0, WRITER_RATE):
        for files in bench.files[1:]:
            how = f"{rate:,} events/s written" if rate else "idle"
            what = f"page p50, {size(files.rows)} rows, {how}"
            say(what)
            with ExitStack() as stack:
                pair = (bench.small, files)
                stack.enter_context(application(*pair))
                if rate:
                    for each in pair:
                        stack.enter_context(writer(each, rate))
                small, large = (stack.enter_context(exporter(each)) for each in pair)
                bench.settle()
                # Beside a writer every page must find new rows, as scrapes do: one that
                # finds none is so much cheaper that the p50 would be of either kind.
                sample = _spaced if rate else latency
                ours, theirs = sample(bench, large, TEXT), sample(bench, small, TEXT)
                pairs = interleave(bench.effort.rounds, ours, theirs)
            yield _line(what, f"{size(bench.small.rows)} rows", pairs, FLAT)


def node_exporter(bench: Bench) -> Iterator[Line]:
    """Yield latency and processor time against node_exporter's default page."""
    with ExitStack() as stack:
        stack.enter_context(application(bench.large))
        ours = stack.enter_context(exporter(bench.large))
        peer = stack.enter_context(peers.node_exporter(bench.folder))
        bench.settle()
        for what, headers, sample, rounds in _cases(bench):
            say(what)
            mine = sample(bench, ours, headers)
            if peer is None:
                yield missing(what, mine()[0], "s", "node_exporter", NODE_SHARE)
                continue
            pairs = interleave(rounds, mine, sample(bench, peer, headers))
            yield _line(what, "node_exporter", pairs, NODE_SHARE)


def query_exporter(bench: Bench) -> Iterator[Line]:
    """Yield latency against query-exporter, which asks the tables each time."""
    what = f"page p50, {size(bench.large.rows)} rows, text"
    say(f"{what}, against query-exporter")
    with ExitStack() as stack:
        stack.enter_context(application(bench.large))
        mine = latency(bench, stack.enter_context(exporter(bench.large)))
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


def latency(bench: Bench, program: Program, headers: Headers = TEXT) -> Sample:
    """Return what takes the seconds of some pages on one connection."""

    def sample() -> list[float]:
        with Client(program.port, headers=headers) as client:
            return client.timed(bench.effort.requests)

    return sample


def _cases(bench: Bench) -> Iterator[tuple[str, Headers, Sampler, int]]:
    """Yield what is measured against node_exporter, and in how many rounds."""
    for form, headers in FORMATS.items():
        yield f"page p50, {form}", headers, latency, bench.effort.rounds
    for form, headers in FORMATS.items():
        yield f"page, processor time, {form}", headers, _cpu_time, bench.effort.rounds
    # Some of the kernel's files are cheap only if they have just been read.
    what = f"page p50, OpenMetrics+gzip, one every {SPACING_SECONDS} s"
    yield what, PROMETHEUS, _spaced, bench.effort.slow_rounds


def _spaced(bench: Bench, program: Program, headers: Headers) -> Sample:
    """Return what takes the seconds of pages with a rest between them."""

    def sample() -> list[float]:
        with Client(program.port, headers=headers) as client:
            return client.timed(bench.effort.spaced_requests, SPACING_SECONDS)

    return sample


def _cpu_time(bench: Bench, program: Program, headers: Headers) -> Sample:
    """Return what takes the processor seconds a page, as one mean."""

    def sample() -> list[float]:
        with Client(program.port, headers=headers) as client:
            before = program.cpu_seconds()
            client.timed(bench.effort.requests)
            return [(program.cpu_seconds() - before) / bench.effort.requests]

    return sample


def _line(what: str, peer: str, pairs: Pairs, goal: float) -> Line:
    ours, theirs = pairs.values()
    details = {"ratios": pairs.ratios()}
    ratio, note = pairs.ratio(), pairs.spread()
    return Line(what, ours, "s", peer, theirs, ratio, goal, note, details)
