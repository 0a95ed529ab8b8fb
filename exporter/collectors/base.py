"""What the collectors of one table have in common."""

import sqlite3
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from exporter.config import Config
from exporter.database import Look
from exporter.fold import Series, Table
from exporter.tail import Reading, State


class TableCollector:
    """Families of one table that is followed by a tail."""

    database: str  # "knowledge_base" or "performance"
    table: Table

    def __init__(self, config: Config) -> None:
        """Take what the table's definition needs from the configuration."""

    def count(self, db: sqlite3.Connection, look: Look, reading: Reading) -> int | None:
        """Return the number of rows in the table, where that is a metric."""
        return None

    def counted(self, state: State) -> int | None:
        """Return that number as far as it is known without asking the database."""
        return None

    @property
    def counting(self) -> bool:
        """Whether ``count_slice`` has something to do."""
        return False

    def count_slice(self, db: sqlite3.Connection, look: Look) -> float:
        """Continue a long count; return the seconds to rest before the next slice."""
        return 0.0

    def families(self, state: State | None, reading: Reading) -> Iterator[Metric]:
        """Yield what ``state`` has counted, if anything, and ``reading`` found."""
        raise NotImplementedError


def add_histogram(
    family: HistogramMetricFamily,
    labels: list[str],
    table: Table,
    series: Series,
    exemplar_label: str = "",
) -> None:
    """Add a series to a histogram: cumulative buckets and the sum."""
    bounds = [*map(floatToGoString, table.buckets), "+Inf"]
    buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
    for n, (bound, count) in enumerate(
        zip(bounds, accumulate(series.counts[:-1]), strict=True)
    ):
        newest = series.exemplars.get(n)
        if newest and exemplar_label:
            exemplar = Exemplar({exemplar_label: str(newest.row)}, newest.value)
            buckets.append((bound, float(count), exemplar))
        else:
            buckets.append((bound, float(count)))
    family.add_metric(labels, buckets, series.total)
