"""Rows as HAK/GAL might write them, and what each must become on the page.

A tally says how many rows became what: ``("counted", label, outcome, bucket)`` or
``("rejected", reason)``, beside sums of values and ``("missed",)``. Labels outside the
known ones are all ``*``: which of them become ``other`` is not the matter here, nor is
all that does not count.
"""

import math
import random
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from exporter.collectors.cache import BUCKETS as RESPONSE_BUCKETS
from exporter.collectors.facts import BUCKETS as CONFIDENCE_BUCKETS
from exporter.collectors.queries import QUERY_TYPES
from tests.exporters import Page

Key = tuple[str, ...]
Tally = dict[Key, float]

OPERATIONS = ("add_fact", "delete_fact", "update_fact")
QUERY_BUCKETS = (0.01, 0.1, 1.0, 5.0)
LABEL_LIMIT = 12
ODD_SHARE = 0.02
MISSED: Key = ("missed",)
MISSED_ROWS = "hakgal_exporter_missed_rows_total"
PASSED_OVER: Key = ("rejected", "before_replacement")
NO_BUCKET = "none"
_OTHERS = tuple(f"other_{n}" for n in range(15))


class Drawn(NamedTuple):
    """A row's columns after the timestamp, and what it must become."""

    columns: tuple[object, ...]
    key: Key
    value: float = 0.0


@dataclass(frozen=True)
class Spec:
    """One table: how rows are drawn and inserted, and where they are on the page."""

    name: str
    collector: str
    columns: tuple[str, ...]
    draw: Callable[[random.Random], Drawn]
    read: Callable[[Page], Tally]
    burns_ids: bool = False

    @property
    def insert(self) -> str:
        names, marks = ", ".join(self.columns), ", ?" * len(self.columns)
        return f"INSERT INTO {self.name}(timestamp, {names}) VALUES (?{marks})"


def read_tally(spec: Spec, page: Page) -> Tally:
    """Return what the page says about a table."""
    tally = spec.read(page)
    rejected = page.by("reason", "hakgal_exporter_rejected_rows_total", table=spec.name)
    tally |= {("rejected", reason): number for reason, number in rejected.items()}
    tally[MISSED] = page.sum(MISSED_ROWS, table=spec.name)
    return {key: number for key, number in tally.items() if number}


def is_told(spec: Spec, page: Page) -> bool:
    """Say whether a page has what is counted of a table: it may be read still."""
    return page(MISSED_ROWS, table=spec.name) is not None


def rows_in(tally: Tally) -> int:
    """Return the number of rows in a tally: counted, rejected or missed."""
    return int(sum(number for key, number in tally.items() if key[0] != "sum"))


def _draw_query(rng: random.Random) -> Drawn:
    label = rng.choice(QUERY_TYPES) if rng.random() < 0.9 else rng.choice(_OTHERS)
    success, value = int(rng.random() < 0.9), _value(rng, 10.0, QUERY_BUCKETS)
    if rng.random() < ODD_SHARE:
        odd, key = _odd(rng, value)
        return Drawn((odd, label, success), key)
    outcome = "success" if success else "failure"
    key = _place(_known(label, QUERY_TYPES), outcome, QUERY_BUCKETS, value)
    return Drawn((value, label, success), key, value)


def _draw_lookup(rng: random.Random) -> Drawn:
    hit, value = int(rng.random() < 0.7), _value(rng, 1.2, RESPONSE_BUCKETS)
    cache_key = f"{rng.getrandbits(64):016x}"
    result = "hit" if hit else "miss"
    if rng.random() < 0.05:
        return Drawn((hit, cache_key, None), ("counted", "", result, NO_BUCKET))
    if rng.random() < ODD_SHARE:
        odd, key = _odd(rng, value)
        return Drawn((hit, cache_key, odd), key)
    key = _place("", result, RESPONSE_BUCKETS, value)
    return Drawn((hit, cache_key, value), key, value)


def _draw_fact(rng: random.Random) -> Drawn:
    statement = f"HasPart(Computer{rng.getrandbits(40)}, CPU)."
    value = _value(rng, 1.1, CONFIDENCE_BUCKETS)
    if rng.random() < ODD_SHARE:
        odd, key = _odd(rng, value)
        return Drawn((statement, odd), key)
    return Drawn((statement, value), _place("", "", CONFIDENCE_BUCKETS, value), value)


def _draw_event(rng: random.Random) -> Drawn:
    operation = rng.choice(OPERATIONS) if rng.random() < 0.9 else rng.choice(_OTHERS)
    details = f"HasPart(Computer{rng.getrandbits(40)}, CPU)."
    key = ("counted", _known(operation, OPERATIONS), "", "")
    return Drawn((operation, details), key)


def _odd(rng: random.Random, value: float) -> tuple[object, Key]:
    """Return a value that does not count, unlike any other, and the reason."""
    if rng.random() < 0.5:
        return -value - 0.001, ("rejected", "negative")
    return f"much {value}", ("rejected", "not_a_number")


def _value(rng: random.Random, largest: float, buckets: tuple[float, ...]) -> float:
    if rng.random() < 0.01:
        return rng.choice(buckets)
    return largest * rng.random() ** 3


def _place(label: str, outcome: str, buckets: tuple[float, ...], value: float) -> Key:
    place = bisect_left(buckets, value)
    bound = buckets[place] if place < len(buckets) else math.inf
    return "counted", label, outcome, repr(bound)


def _known(label: str, known: tuple[str, ...]) -> str:
    return label if label in known else "*"


def _histogram(page: Page, name: str, known: tuple[str, ...] = ()) -> Tally:
    """Return the buckets of a histogram one by one, and its sums."""
    tally, below = defaultdict[Key, float](float), dict[Key, float]()
    buckets = page.series(f"{name}_bucket")
    for labels, count in sorted(buckets, key=lambda found: float(found[0]["le"])):
        bound = repr(float(labels.pop("le")))
        series = tuple(sorted(labels.values()))
        tally["counted", *_series(labels, known), bound] += count - below.get(series, 0)
        below[series] = count
    for labels, total in page.series(f"{name}_sum"):
        tally["sum", *_series(labels, known)] += total
    return tally


def _series(labels: dict[str, str], known: tuple[str, ...]) -> tuple[str, str]:
    label = _known(labels["query_type"], known) if known else ""
    return label, labels.get("outcome") or labels.get("result", "")


def _read_queries(page: Page) -> Tally:
    return _histogram(page, "hakgal_query_duration_seconds", QUERY_TYPES)


def _read_lookups(page: Page) -> Tally:
    tally = _histogram(page, "hakgal_cache_response_seconds")
    names = {"hit": "hakgal_cache_hits_total", "miss": "hakgal_cache_misses_total"}
    for result, name in names.items():
        timed = sum(n for k, n in tally.items() if k[0] == "counted" and k[2] == result)
        tally["counted", "", result, NO_BUCKET] = page.sum(name) - timed
    return tally


def _read_facts(page: Page) -> Tally:
    return _histogram(page, "hakgal_fact_confidence")


def _read_events(page: Page) -> Tally:
    tally = Tally()
    for operation, number in page.by("operation", "hakgal_audit_events_total").items():
        key = ("counted", _known(operation, OPERATIONS), "", "")
        tally[key] = tally.get(key, 0) + number
    return tally


FACTS = Spec(
    *("facts", "facts", ("statement", "confidence")),
    *(_draw_fact, _read_facts),
    burns_ids=True,
)
AUDIT = Spec(
    *("audit_log", "audit", ("operation", "details")),
    *(_draw_event, _read_events),
)
QUERIES = Spec(
    *("query_times", "queries", ("query_time", "query_type", "success")),
    *(_draw_query, _read_queries),
)
CACHE = Spec(
    *("cache_events", "cache", ("hit", "cache_key", "response_time")),
    *(_draw_lookup, _read_lookups),
)
