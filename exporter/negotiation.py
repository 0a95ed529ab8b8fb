"""What a client asks for in its headers: format, coding and time.

The client library's own choice is not used: it ignores q-values, labels an
OpenMetrics 1.0 body with whatever version was asked for, and raises TypeError on
a malformed one.
"""

import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from prometheus_client import exposition
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

DEFAULT_TIMEOUT_SECONDS = 10.0  # Prometheus' own default scrape timeout
LONGEST_TIMEOUT_SECONDS = 3600.0  # above this the header is not believable
LONGEST_BUDGET_SECONDS = 60.0  # no reader should hold on to a database for longer
LEAST_BUDGET_SECONDS = 0.5  # with less, all would fail, and be logged as failing
OFFSET_SECONDS = 0.5  # for writing, compressing and transporting the page

_OPENMETRICS_TYPE = "application/openmetrics-text"
_OPENMETRICS_VERSIONS = ("", "0.0.1", "1.0.0")
_QUALITY = re.compile(r"0?\.[0-9]+|0\.?|1(\.0*)?")


class Format(NamedTuple):
    """An exposition format and the function that writes it."""

    content_type: str
    generate: Callable[[Collector], bytes]


TEXT = Format(exposition.CONTENT_TYPE_PLAIN_0_0_4, exposition.generate_latest)
OPENMETRICS = Format(
    openmetrics.CONTENT_TYPE_LATEST,
    # Our names need no escaping, and this one does not look for what does.
    partial(openmetrics.generate_latest, escaping=openmetrics.ALLOWUTF8),
)


def choose_format(accept: str) -> Format:
    """Choose the format for an Accept header; text where nothing else fits."""
    wanted: dict[str, float] = {}
    for name, parameters, quality in _elements(accept):
        version = parameters.get("version", "")
        if name != _OPENMETRICS_TYPE or version in _OPENMETRICS_VERSIONS:
            wanted[name] = max(quality, wanted.get(name, 0.0))
    rich = _rank(wanted, _OPENMETRICS_TYPE)
    text = _rank(wanted, "text/plain")
    # Both match a lone */*, which people send (curl, browsers): they get text.
    is_named = rich[1] > 0
    return OPENMETRICS if rich > text or (rich == text and is_named) else TEXT


def accepts_gzip(accept_encoding: str) -> bool:
    """Tell whether an Accept-Encoding header asks for gzip."""
    wanted = {name: quality for name, _, quality in _elements(accept_encoding)}
    quality = wanted.get("gzip", wanted.get("*", 0.0))
    return quality > 0.0 and quality >= wanted.get("identity", 0.0)


def budget_seconds(scrape_timeout: str) -> float:
    """Return the seconds that a scrape may take, from Prometheus' timeout header."""
    try:
        timeout = float(scrape_timeout)
    except ValueError:
        timeout = math.nan
    if not 0.0 < timeout <= LONGEST_TIMEOUT_SECONDS:
        timeout = DEFAULT_TIMEOUT_SECONDS
    budget = max(timeout - OFFSET_SECONDS, timeout / 2, LEAST_BUDGET_SECONDS)
    return min(budget, LONGEST_BUDGET_SECONDS)


def _elements(header: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield name, parameters and quality of each well-formed element."""
    for element in header.lower().split(","):
        name, *pairs = element.split(";")
        split = (pair.partition("=") for pair in pairs)
        parameters = {key.strip(): value.strip(' \t"') for key, _, value in split}
        quality = parameters.get("q", "1")
        if _QUALITY.fullmatch(quality):
            yield name.strip(), parameters, float(quality)


def _rank(wanted: dict[str, float], media_type: str) -> tuple[float, int]:
    """Return quality and specificity of the most specific range that matches."""
    group = media_type.partition("/")[0]
    ranges = ("*/*", f"{group}/*", media_type)
    specificity = max((i for i, name in enumerate(ranges) if name in wanted), default=0)
    quality = wanted.get(ranges[specificity], 0.0)
    return (quality, specificity) if quality else (0.0, 0)
