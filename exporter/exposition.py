"""Write a page, and what has not changed since the last one only once.

All text comes from the client library. A family that is the very same object as in the
page before has the very same text; that of a table's families, the bulk of a page,
stays until a row is added.
"""

from collections.abc import Callable, Iterable
from itertools import groupby

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

WORTH_KEEPING_SAMPLES = 10  # a smaller family is written in the time it takes to look


class Writer:
    """Writes pages in one format."""

    def __init__(self, generate: Callable[[Collector], bytes]) -> None:
        self._generate = generate
        self._end = generate(_Families([]))  # OpenMetrics has one: "# EOF"
        self._kept: dict[int, tuple[Metric, bytes]] = {}

    def write(self, families: Iterable[Metric]) -> bytes:
        """Return the page with these families, in this order."""
        texts: list[bytes] = []
        keep: dict[int, tuple[Metric, bytes]] = {}
        for is_large, group in groupby(families, _is_large):
            if not is_large:
                texts.append(self._text(list(group)))
                continue
            for family in group:
                known = self._kept.get(id(family))
                text = known[1] if known else self._text([family])
                keep[id(family)] = (family, text)
                texts.append(text)
        # The families are kept with their texts, so that an id is not given out again.
        self._kept = keep
        return b"".join(texts) + self._end

    def _text(self, families: list[Metric]) -> bytes:
        return self._generate(_Families(families)).removesuffix(self._end)


class _Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _is_large(family: Metric) -> bool:
    return len(family.samples) >= WORTH_KEEPING_SAMPLES
