"""Rows as HAK/GAL might write them, and what each must become on the page.

A tally says how many rows became what: ``("counted", label, outcome, bucket)`` or
``("rejected", reason)``, beside sums of values and ``("missed",)``. Labels outside the
known ones are all ``*``: which of them become ``other`` is not the matter here.
"""

import math
import random
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from exporter.collectors.cache import BUCKETS as RESPONSE_BUCKETS
from exporter.collectors.facts import BUCKETS as CONFIDENCE_BUCKETS
from exporter.collectors.queries import QUERY_TYPES

Key = tuple[str, ...]
Tally = dict[Key, float]
Samples = Mapping[str, Mapping[tuple[str, ...], float]]

OPERATIONS = ("add_fact", "delete_fact", "update_fact")
QUERY_BUCKETS = (0.01, 0.1, 1.0, 5.0)
LABEL_LIMIT = 12
ODD_SHARE = 0.02
MISSED: Key = ("missed",)
PASSED_OVER: Key = ("rejected", "before_replacement")
NO_BUCKET = "none"
_ODD_VALUES = ((None, "not_a_number"), (None, "negative"), (None, "infinite"))
_ODD_FLAG, _NULL = ("yes", "not_a_boolean"), (None, "null")
_OTHERS = (*(f"other_{n}" for n in range(15)), "", "two\nlines", None)


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
    read: Callable[[Samples], Tally]
    needs: str  # a series that is there as soon as anything is counted
    burns_ids: bool = False

    @property
    def insert(self) -> str:
        names, marks = ", ".join(self.columns), ", ?" * len(self.columns)
        return f"INSERT INTO {self.name}(timestamp, {names}) VALUES (?{marks})"


def read_tally(spec: Spec, samples: Samples) -> Tally:
    """Return what the page says about a table."""
    tally = spec.read(samples)
    for labels, number in samples["hakgal_exporter_rejected_rows_total"].items():
        if spec.name in labels:
            (reason,) = set(labels) - {spec.name}
            tally["rejected", reason] = number
    tally[MISSED] = samples["hakgal_exporter_missed_rows_total"][spec.name,]
    return {key: number for key, number in tally.items() if number}


def is_told(spec: Spec, samples: Samples) -> bool:
    """Say whether a page has what is counted of a table: columns may be gone."""
    is_followed = (spec.name,) in samples["hakgal_exporter_missed_rows_total"]
    return is_followed and bool(samples[spec.needs])


def rows_in(tally: Tally) -> int:
    """Return the number of rows in a tally: counted, rejected or missed."""
    return int(sum(number for key, number in tally.items() if key[0] != "sum"))


def _draw_query(rng: random.Random) -> Drawn:
    label = rng.choice(QUERY_TYPES) if rng.random() < 0.9 else rng.choice(_OTHERS)
    success, value = int(rng.random() < 0.9), _value(rng, 10.0, QUERY_BUCKETS)
    if rng.random() < ODD_SHARE:
        odd, flag, key = _odd(rng, value, _ODD_FLAG, _NULL)
        return Drawn((odd, label, flag), key)
    outcome = "success" if success else "failure"
    key = _place(_known(label, QUERY_TYPES), outcome, QUERY_BUCKETS, value)
    # Numbers in text are numbers, by the column's affinity.
    written = repr(value) if rng.random() < 0.01 else value
    return Drawn((written, label, success), key, value)


def _draw_lookup(rng: random.Random) -> Drawn:
    hit, value = int(rng.random() < 0.7), _value(rng, 1.2, RESPONSE_BUCKETS)
    cache_key = f"{rng.getrandbits(64):016x}"
    result = "hit" if hit else "miss"
    if rng.random() < 0.05:
        return Drawn((hit, cache_key, None), ("counted", "", result, NO_BUCKET))
    if rng.random() < ODD_SHARE:
        odd, flag, key = _odd(rng, value, _ODD_FLAG)
        return Drawn((flag, cache_key, odd), key)
    key = _place("", result, RESPONSE_BUCKETS, value)
    return Drawn((hit, cache_key, value), key, value)


def _draw_fact(rng: random.Random) -> Drawn:
    statement = f"HasPart(Computer{rng.getrandbits(40)}, CPU)."
    value = _value(rng, 1.1, CONFIDENCE_BUCKETS)
    if rng.random() < ODD_SHARE:
        odd, _, key = _odd(rng, value)
        return Drawn((statement, odd), key)
    return Drawn((statement, value), _place("", "", CONFIDENCE_BUCKETS, value), value)


def _draw_event(rng: random.Random) -> Drawn:
    operation = rng.choice(OPERATIONS) if rng.random() < 0.9 else rng.choice(_OTHERS)
    details = f"HasPart(Computer{rng.getrandbits(40)}, CPU)."
    key = ("counted", _known(operation, OPERATIONS), "", "")
    return Drawn((operation or "", details), key)


def _odd(
    rng: random.Random, value: float, *more: tuple[str | None, str]
) -> tuple[object, object, Key]:
    """Return a value and a flag one of which does not count, and the reason."""
    flag, reason = rng.choice((*_ODD_VALUES, *more))
    match reason:
        case "null" | "not_a_boolean":
            return value, flag and f"{flag} {value}", ("rejected", reason)
        case "negative":
            return -value - 0.001, 1, ("rejected", reason)
        case "infinite" if rng.random() < 0.1:  # all alike: more could be mistaken
            return math.inf, 1, ("rejected", reason)
    odd = rng.choice((rng.randbytes(8), f"much {value}", f"{value} s"))
    return odd, 1, ("rejected", "not_a_number")


def _value(rng: random.Random, largest: float, buckets: tuple[float, ...]) -> float:
    if rng.random() < 0.01:
        return rng.choice(buckets)
    return largest * rng.random() ** 3


def _place(label: str, outcome: str, buckets: tuple[float, ...], value: float) -> Key:
    place = bisect_left(buckets, value)
    bound = buckets[place] if place < len(buckets) else math.inf
    return "counted", label, outcome, repr(bound)


def _known(label: str | None, known: tuple[str, ...]) -> str:
    return label if label in known else "*"


def _histogram(samples: Samples, name: str, known: tuple[str, ...] = ()) -> Tally:
    """Return the buckets of a histogram one by one, and its sums."""
    tally: Tally = {}
    below: dict[tuple[str, ...], float] = {}
    buckets = samples[f"{name}_bucket"].items()
    for labels, count in sorted(buckets, key=lambda item: float(item[0][-1])):
        series = labels[:-1]
        key = ("counted", *_series(series, known), repr(float(labels[-1])))
        tally[key] = tally.get(key, 0) + count - below.get(series, 0)
        below[series] = count
    for labels, total in samples[f"{name}_sum"].items():
        sum_key = ("sum", *_series(labels, known))
        tally[sum_key] = tally.get(sum_key, 0) + total
    return tally


def _series(labels: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, str]:
    outcome = labels[0] if labels else ""
    return (_known(labels[1], known) if known else "", outcome)


def _read_queries(samples: Samples) -> Tally:
    return _histogram(samples, "hakgal_query_duration_seconds", QUERY_TYPES)


def _read_lookups(samples: Samples) -> Tally:
    tally = _histogram(samples, "hakgal_cache_response_seconds")
    names = {"hit": "hakgal_cache_hits_total", "miss": "hakgal_cache_misses_total"}
    for result, name in names.items():
        timed = sum(n for k, n in tally.items() if k[0] == "counted" and k[2] == result)
        tally["counted", "", result, NO_BUCKET] = samples[name][()] - timed
    return tally


def _read_facts(samples: Samples) -> Tally:
    return _histogram(samples, "hakgal_fact_confidence")


def _read_events(samples: Samples) -> Tally:
    tally: Tally = {}
    for (operation,), number in samples["hakgal_audit_events_total"].items():
        key = ("counted", _known(operation, OPERATIONS), "", "")
        tally[key] = tally.get(key, 0) + number
    return tally


FACTS = Spec(
    *("facts", "facts", ("statement", "confidence")),
    *(_draw_fact, _read_facts, "hakgal_fact_confidence_count"),
    burns_ids=True,
)
AUDIT = Spec(
    *("audit_log", "audit", ("operation", "details")),
    *(_draw_event, _read_events, "hakgal_audit_events_total"),
)
QUERIES = Spec(
    *("query_times", "queries", ("query_time", "query_type", "success")),
    *(_draw_query, _read_queries, "hakgal_query_duration_seconds_count"),
)
CACHE = Spec(
    *("cache_events", "cache", ("hit", "cache_key", "response_time")),
    *(_draw_lookup, _read_lookups, "hakgal_cache_response_seconds_count"),
)
