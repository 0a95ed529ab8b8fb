"""The client library's own time for a page: the floor under the product."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, exposition
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from tests.benchmarks.bench import Bench, say
from tests.benchmarks.client import OPENMETRICS, TEXT, Client
from tests.benchmarks.data import application
from tests.benchmarks.figures import Sample, interleave
from tests.benchmarks.pages import latency
from tests.benchmarks.programs import exporter
from tests.benchmarks.report import Line

OWN_SHARE = 0.3


class _Format(NamedTuple):
    headers: Mapping[str, str]
    parse: Callable[[str], Iterable[Metric]]
    generate: Callable[[CollectorRegistry], bytes]


FORMATS = {
    "text": _Format(TEXT, text_string_to_metric_families, exposition.generate_latest),
    "OpenMetrics": _Format(
        OPENMETRICS,
        openmetrics_parser.text_string_to_metric_families,
        openmetrics.generate_latest,
    ),
}


def floor(bench: Bench) -> Iterator[Line]:
    """Yield what the product adds to the library's writing of the same page."""
    with application(bench.large), exporter(bench.large) as ours:
        bench.settle()
        for name, form in FORMATS.items():
            what = f"own share of a page, {name}"
            say(what)
            with Client(ours.port, headers=form.headers) as client:
                families = list(form.parse(client.page().text))
            mine = latency(bench, ours, form.headers)
            constant = _constant(bench, families, form.generate)
            pairs = interleave(bench.effort.rounds, mine, constant)
            page, library = pairs.values()
            series = sum(len(family.samples) for family in families)
            yield Line(
                what,
                abs(page - library),
                "s",
                f"generate_latest, {series} series",
                library,
                pairs.ratio() - 1,
                OWN_SHARE,
                f"the page took {page * 1e3:.3g} ms; page to floor, {pairs.spread()}",
            )


class _Constant(Collector):
    """Families that never change."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _constant(
    bench: Bench,
    families: list[Metric],
    generate: Callable[[CollectorRegistry], bytes],
) -> Sample:
    """Return what takes the seconds of some pages that are made in this process."""
    registry = CollectorRegistry()
    registry.register(_Constant(families))

    def sample() -> list[float]:
        taken = []
        for _ in range(bench.effort.requests):
            started = time.perf_counter()
            generate(registry)
            taken.append(time.perf_counter() - started)
        return taken

    return sample
