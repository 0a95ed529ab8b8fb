"""What recording an event costs HAK/GAL, beside the client library's observe."""

import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Histogram

from exporter.recorder import Recorder
from tests.benchmarks.bench import Bench, say
from tests.benchmarks.figures import Sample, interleave
from tests.benchmarks.report import Line

CALLS = 1000  # at a time, so that the clock costs nothing
FLUSH_SECONDS = 60.0


def recording(bench: Bench) -> Iterator[Line]:
    """Yield the time of one call, and of one event until it is committed."""
    path = bench.folder / "recorded.db"
    registry = CollectorRegistry()
    histogram = Histogram("h", "h", ["query_type", "outcome"], registry=registry)

    def observe() -> None:
        histogram.labels("search_knowledge", "success").observe(0.012)

    # As many as fit: what is dropped would cost nothing.
    with Recorder(path, buffered_events=10_000_000) as recorder:

        def record() -> None:
            recorder.record_query(0.012, "search_knowledge")

        def wait() -> None:
            assert recorder.flush(FLUSH_SECONDS)

        for what, clock in (
            ("record a query, time of a call", time.perf_counter),
            ("record a query, processor time until committed", time.process_time),
        ):
            say(what)
            is_whole = clock is time.process_time
            ours = _sample(bench, record, clock, wait, counts_wait=is_whole)
            theirs = _sample(bench, observe, clock)
            pairs = interleave(bench.effort.rounds, ours, theirs)
            mine, others = pairs.values()
            goal = None if is_whole else 1.0
            against = "observe of a labelled Histogram"
            yield Line(
                what, mine, "s", against, others, pairs.ratio(), goal, pairs.spread()
            )


def _sample(
    bench: Bench,
    call: Callable[[], None],
    clock: Callable[[], float],
    wait: Callable[[], None] = lambda: None,
    *,
    counts_wait: bool = False,
) -> Sample:
    """Return what takes the seconds of one call, some times."""

    def sample() -> list[float]:
        taken = []
        for _ in range(bench.effort.requests):
            started = clock()
            for _ in range(CALLS):
                call()
            ended = clock()
            wait()
            taken.append(((clock() if counts_wait else ended) - started) / CALLS)
        return taken

    return sample
