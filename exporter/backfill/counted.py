"""The counted events as the families of their collector."""

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import accumulate
from types import ModuleType

from prometheus_client.core import Metric

from exporter.backfill.events import Events, Key, Span
from exporter.backfill.openmetrics import Family, Group, Values
from exporter.backfill.scratch import Scratch
from exporter.counting.state import Counts, Reading, State

# Prometheus takes a series for gone that has no sample for 5 min.
BEAT_SECONDS = 240
# The exporter adds up the same durations in other slices, and so rounds otherwise. A
# sum that fell in its last digit would be a restart: all of it counted once more.
SUM_MARGIN = 1 - 1e-9
_FLAGS = {"hakgal_cache_misses": False, "hakgal_cache_hits": True}


def families(
    collector: ModuleType, events: Events, scratch: Scratch, span: Span
) -> Iterator[Family]:
    """Yield what the collector would, over the time that was read."""
    if events.start is None:
        return
    zero = Counts()
    for label, _ in events.numbers:
        zero.add(events.table, label, False, 0, 0)
    state = State(zero)
    for metric in collector.families(Reading(events.table, state)):
        groups = tuple(
            Group(series, partial(_values, scratch, number, span, metric.type))
            for series, number in _series(metric, events.numbers)
        )
        yield Family(metric.name, metric.type, metric.documentation, groups)


def _series(
    metric: Metric, numbers: Mapping[Key, int]
) -> Iterator[tuple[tuple[tuple[str, Mapping[str, str]], ...], int]]:
    """Yield the series that belong together, and their number in the scratch file."""
    samples = [(sample.name, sample.labels) for sample in metric.samples]
    if metric.name in _FLAGS:
        yield tuple(samples), numbers["", _FLAGS[metric.name]]
        return
    # A collector adds its histograms in the order of the counts that it is given.
    length = len(samples) // len(numbers)
    for place, number in enumerate(numbers.values()):
        yield tuple(samples[place * length : (place + 1) * length]), number


def _values(scratch: Scratch, number: int, span: Span, kind: str) -> Iterator[Values]:
    for moment, counts, total in _filled(scratch, number, span):
        if kind == "counter":
            yield moment, (float(sum(counts)),)
        else:
            buckets = [float(count) for count in accumulate(counts[:-1])]
            yield moment, (*buckets, buckets[-1], total * SUM_MARGIN)


def _filled(
    scratch: Scratch, number: int, span: Span
) -> Iterator[tuple[int, list[int], float]]:
    """Yield the points of a series and, where nothing changed, enough between them.

    One just before a change keeps the rise as steep as it was.
    """
    last, counts, total = 0, [0], 0.0
    for moment, new_counts, new_total in scratch.points(number):
        if last:
            for between in _beats(last, moment, span.step):
                yield between, counts, total
        yield moment, new_counts, new_total
        last, counts, total = moment, new_counts, new_total
    for between in _beats(last, span.until, span.step):
        yield between, counts, total
    if last < span.until:
        yield span.until, counts, total


def _beats(after: int, before: int, step: int) -> Iterator[int]:
    """Yield moments at which a series that stands still needs a sample."""
    beats = range(after + BEAT_SECONDS, before, BEAT_SECONDS)
    yield from beats
    if before - step > (beats[-1] if beats else after):
        yield before - step
