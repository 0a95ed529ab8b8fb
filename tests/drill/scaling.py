"""Let time pass faster: shorten the durations in a configuration file.

That is whole values (``for: 5m``), ranges, offsets, and limits that are times to wait;
not names such as ``rate5m``, texts and comments, and not what queries take.
"""

import math
import re

LONG_SECONDS, LONG_FACTOR = 600, 5  # what is longer passes faster still, beyond that
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
_UNITS |= {"d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
_PART = r"(\d+)(ms|[smhdwy])"
_DURATION = r"(?:\d+(?:ms|[smhdwy]))+"
_BEFORE, _AFTER = r"^[ -]*\w+: +|\[|(?<=\d[smhdwy]):|\boffset ", r" *(?:#.*)?$|[\]:)]"
_PLACE = re.compile(rf"({_BEFORE})({_DURATION})(?={_AFTER})", re.MULTILINE)
_WAITS = "checkpoint_age|disk_full|events_stalled|scrape_duration"
_LIMIT = re.compile(rf"(record: hakgal:(?:{_WAITS})_seconds:threshold, expr: )([^,]+)")


def scale(text: str, factor: float) -> str:
    """Return a configuration in which everything takes ``factor`` times less time."""

    def limit(place: re.Match[str]) -> str:
        length = math.prod(int(number) for number in place[2].split(" * "))
        return f"{place[1]}{seconds(f'{length}s', factor):g}"

    text = _LIMIT.sub(limit, text)
    return _PLACE.sub(lambda place: place[1] + shorten(place[2], factor), text)


def shorten(duration: str, factor: float) -> str:
    """Return a duration divided, in whole milliseconds: 1m30s by 60 is 1500ms."""
    left = seconds(duration, factor)
    return f"{max(1, round(1000 * left)) if left else 0}ms"


def seconds(duration: str, factor: float) -> float:
    """Return the seconds that are left of a duration."""
    length = sum(int(n) * _UNITS[unit] for n, unit in re.findall(_PART, duration))
    beyond = max(0.0, length - LONG_SECONDS)
    return (length - beyond + beyond / LONG_FACTOR) / factor
