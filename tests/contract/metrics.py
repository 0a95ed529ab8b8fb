"""The metrics that are promised, as docs/metrics.md promises them to people."""

from typing import NamedTuple

from exporter.scrape import Exporter
from tests.exporters import Page, scrape
from tests.servers import ROOT, wait_until

# Of metrics that Prometheus makes for each target, so that they are on no page.
SYNTHETIC = ("up", "scrape_duration_seconds")


class Promise(NamedTuple):
    """Type and labels of a metric."""

    kind: str
    labels: set[str]


def table_in(file: str, heading: str) -> list[list[str]]:
    """Return the rows of the first table below a heading of a document."""
    text = (ROOT / file).read_text().partition(f"# {heading}\n")[2]
    table = text[text.index("\n|") + 1 :].partition("\n\n")[0]
    rows = [line.split("|")[1:-1] for line in table.splitlines()]
    return [[cell.strip() for cell in row] for row in rows[2:]]


METRICS = {
    name.strip("`"): Promise(kind, set(labels.split(", ")) - {""})
    for name, kind, labels, *_ in table_in("docs/metrics.md", "Metrics")
}


def series(name: str) -> Promise | None:
    """Return what is promised of a series; the parts of a histogram are counters."""
    if name in SYNTHETIC:
        return Promise("gauge", set())
    for ending in ("_bucket", "_count", "_sum"):
        family = METRICS.get(name.removesuffix(ending))
        if name.endswith(ending) and family and family.kind == "histogram":
            labels = family.labels | ({"le"} if ending == "_bucket" else set())
            return Promise("counter", labels)
    return METRICS.get(name)


def full_page(exporter: Exporter) -> Page:
    """Return a page that also has what is counted after a scrape."""
    wait_until(lambda: "hakgal_database_connections" in scrape(exporter).names, 10)
    return scrape(exporter)
