"""Let time pass faster: divide the durations in a configuration file.

Whole values (``for: 5m``), ranges (``[5m]``, ``[1h:1m]``) and offsets are rewritten,
and the limits that are times to wait. Names such as ``rate5m``, texts and comments
stay as they are, and so does what queries take: that is in the rows.
"""

import re

_SECOND, _HOUR, _DAY = 1000, 3_600_000, 86_400_000
_UNITS = {"ms": 1, "s": _SECOND, "m": 60_000, "h": _HOUR}
_UNITS |= {"d": _DAY, "w": 7 * _DAY, "y": 365 * _DAY}
_PART = r"(\d+)(ms|[smhdwy])"
_DURATION = r"(?:\d+(?:ms|[smhdwy]))+"
_PLACES = (
    rf"^[ -]*\w+: +(?P<value>{_DURATION}) *(?:#.*)?$",
    rf"\[(?P<range>{_DURATION})(?::(?P<step>{_DURATION})?)?\]",
    rf"\boffset (?P<offset>{_DURATION})",
)
_PLACE = re.compile("|".join(_PLACES), re.MULTILINE)
_WAITS = "checkpoint_age|disk_full|events_stalled|scrape_duration"
_LIMIT = re.compile(rf"(record: hakgal:(?:{_WAITS})_seconds:threshold, expr: )([^,]+)")


def scale(text: str, factor: float) -> str:
    """Return a configuration in which everything takes ``factor`` times less time."""

    def shortened(place: re.Match[str]) -> str:
        whole = place[0]
        for name in ("step", "range", "value", "offset"):
            start, end = place.start(name) - place.start(), place.end(name)
            if place[name]:
                end -= place.start()
                whole = whole[:start] + shorten(place[name], factor) + whole[end:]
        return whole

    text = _LIMIT.sub(lambda limit: f"{limit[1]}({limit[2]}) / {factor:g}", text)
    return _PLACE.sub(shortened, text)


def shorten(duration: str, factor: float) -> str:
    """Return a duration divided, in whole milliseconds: 1m30s by 60 is 1500ms."""
    length = milliseconds(duration)
    return f"{max(1, round(length / factor)) if length else 0}ms"


def milliseconds(duration: str) -> int:
    """Return the length of a duration such as ``1h30m``."""
    return sum(int(n) * _UNITS[unit] for n, unit in re.findall(_PART, duration))
