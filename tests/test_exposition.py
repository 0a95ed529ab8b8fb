"""Pages are the client library's own text, whether written anew or kept."""

import pytest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.exposition import WORTH_KEEPING_SAMPLES, Writer
from exporter.negotiation import OPENMETRICS, TEXT, Format

FORMATS = pytest.mark.parametrize("form", [TEXT, OPENMETRICS], ids=["text", "open"])


class Registry(Collector):
    """Holds families."""

    def __init__(self, families: list[Metric]) -> None:
        self.families = families

    def collect(self) -> list[Metric]:
        return self.families


def large(name: str, first: int = 0) -> Metric:
    family = CounterMetricFamily(name, "Large.", labels=["number"])
    for number in range(first, first + WORTH_KEEPING_SAMPLES):
        family.add_metric([str(number)], number)
    return family


def small(value: float) -> Metric:
    return GaugeMetricFamily("small", "Small.", value=value)


@FORMATS
def test_page_is_what_the_library_writes(form: Format) -> None:
    families = [small(1), large("a"), small(2), small(3), large("b")]
    writer = Writer(form.generate)
    for _ in range(2):
        assert writer.write(families) == form.generate(Registry(families))


@FORMATS
def test_page_without_families_is_what_the_library_writes(form: Format) -> None:
    assert Writer(form.generate).write([]) == form.generate(Registry([]))


@FORMATS
def test_family_made_anew_is_written_anew(form: Format) -> None:
    writer = Writer(form.generate)
    for first in range(50):
        families = [large("a", first)]
        assert writer.write(families) == form.generate(Registry(families))


def test_unchanged_large_family_is_written_once() -> None:
    written: list[str] = []

    def generate(registry: Collector) -> bytes:
        written.extend(family.name for family in registry.collect())
        return b""

    writer, kept = Writer(generate), large("a")
    for value in (1, 2):
        writer.write([kept, small(value)])
    assert written == ["a", "small", "small"]
