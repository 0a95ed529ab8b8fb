"""What recording an event costs HAK/GAL, beside the client library's observe."""

import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Histogram

from exporter.recorder import Recorder
from tests.benchmarks.bench import Bench
from tests.benchmarks.report import Line, compare, interleave

CALLS = 1000  # at a time, so that the clock costs nothing
FLUSH_SECONDS = 60.0
Clock = Callable[[], float]


def recording(bench: Bench) -> Iterator[Line]:
    """Yield the time of one call, and of one event until it is committed."""
    registry = CollectorRegistry()
    histogram = Histogram("h", "h", ["query_type", "outcome"], registry=registry)
    # As many as fit: what is dropped would cost nothing.
    recorder = Recorder(bench.folder / "recorded.db", buffered_events=10_000_000)

    def record() -> None:
        recorder.record_query(0.012, "search_knowledge")

    def observe() -> None:
        histogram.labels("search_knowledge", "success").observe(0.012)

    def take(call: Callable[[], None], clock: Clock, counts_flush: bool) -> list[float]:
        taken = []
        for _ in range(bench.effort.requests):
            started = clock()
            for _ in range(CALLS):
                call()
            ended = clock()
            assert recorder.flush(FLUSH_SECONDS)
            taken.append(((clock() if counts_flush else ended) - started) / CALLS)
        return taken

    def line(what: str, clock: Clock, goal: float | None) -> Line:
        pairs = interleave(
            bench.effort.rounds,
            lambda: take(record, clock, counts_flush=goal is None),
            lambda: take(observe, clock, counts_flush=False),
        )
        peer = "observe of a labelled Histogram"
        return compare(f"record a query, {what}", pairs, peer, goal)

    with recorder:
        yield line("time of a call", time.perf_counter, 1.0)
        yield line("processor time until committed", time.process_time, None)
