"""The old monitor's ``config.json``: where each of its settings is now.

Nothing of it is read by the exporter. A command says once what to put where.
"""

import difflib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from exporter.errors import ConfigError
from exporter.old_report import LIMITS, SEVERITIES, Limit, Report
from exporter.settings import parse_address

THRESHOLDS_FILE = "prometheus/rules/thresholds.yml"
LEVELS = {
    "DEBUG": "debug",
    "INFO": "info",
    "WARN": "warn",
    "WARNING": "warn",
    "ERROR": "error",
    "CRITICAL": "error",
    "FATAL": "error",
}


def read_old(path: Path) -> Report:
    """Return what the keys of an old ``config.json`` have become.

    Raises:
        ConfigError: it cannot be read, or is no such file.
    """
    try:
        root = json.loads(path.read_text("utf-8"))
    except OSError as error:
        got = f"{str(path)!r} ({error.strerror})"
        message = f"flag --old-config: got {got}, want a file that can be read"
        raise ConfigError([message]) from error
    except (ValueError, RecursionError) as error:
        message = f"{path}: not JSON ({error}): the old monitor ran on its defaults"
        raise ConfigError([f"{message}, and so does the exporter"]) from error
    if not isinstance(root, dict):
        got = json.dumps(root)[:40]
        raise ConfigError([f"{path}: got {got}, want the old monitor's config.json"])
    report = Report()
    for key, value in flatten(root):
        if key in _PLACES:
            _PLACES[key](report, key, value)
        else:
            hint = difflib.get_close_matches(key, _PLACES, n=1, cutoff=0.8)
            also = f"; did it mean {hint[0]!r}?" if hint else ""
            text = f"{key}: got an unknown key, which the old monitor ignored{also}"
            report.problems.append(text)
    return report


def is_old(keys: set[str]) -> bool:
    """Tell whether a file with these keys is the old monitor's."""
    return bool(keys & OLD_KEYS)


def flatten(root: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield dotted names and values; the old monitor merged one level deep."""
    for key, value in root.items():
        if key in _SECTIONS and isinstance(value, dict):
            yield from ((f"{key}.{name}", inner) for name, inner in value.items())
        else:
            yield key, value


def _database(report: Report, key: str, value: object) -> None:
    if not isinstance(value, str) or not value or not value.isprintable():
        report.refuse(key, value, "a path")
        return
    report.settings["database.performance"] = value
    report.say(key, value, f"--database.performance={value}")


def _interval(report: Report, key: str, value: object) -> None:
    where = "global.scrape_interval in prometheus/prometheus.yml; leave its 15s, for"
    report.say(key, value, f"{where} which the rules are made: no event is lost by it")


def _history(report: Report, key: str, value: object) -> None:
    where = "Prometheus keeps the history, by time: --storage.tsdb.retention.time"
    report.say(key, value, where)


def _samples(report: Report, key: str, value: object) -> None:
    where = "not needed: a histogram counts every query, not the newest ones"
    report.say(key, value, where)


def _limit(report: Report, key: str, value: object) -> None:
    limit = LIMITS[key.partition(".")[2]]
    given: dict[str, Any] = value if isinstance(value, dict) else {"warning": value}
    for name, number in given.items():
        where = f"{key}.{name}" if isinstance(value, dict) else key
        if name not in SEVERITIES:
            wanted = ", ".join(SEVERITIES)
            text = f"{where}: got an unknown key, want one of {wanted}"
            report.problems.append(text)
        elif not _is_number(number):
            report.refuse(where, number, "a number from 0")
        elif name == ("max" if limit.low_is_bad else "min"):
            text = f"only a {'low' if limit.low_is_bad else 'high'} value is bad"
            report.say(where, number, f"no rule has it: {text}")
        else:
            ours = number / limit.divisor
            report.limits[limit.quantity, SEVERITIES[name]] = limit, ours
            report.say(where, number, _limit_place(limit, SEVERITIES[name], ours))


def _limit_place(limit: Limit, severity: str, value: float) -> str:
    series = f"hakgal:{limit.quantity}:threshold"
    same = ", as it is there" if value == getattr(limit, severity) else ""
    return f"{THRESHOLDS_FILE}, {series}, {severity}: {value:.12g}{same}"


def _page(report: Report, key: str, value: object) -> None:
    report.say(key, value, "not needed: Grafana shows the dashboards, on :3000")


def _host(report: Report, key: str, value: object) -> None:
    host = f"[{value}]" if ":" in str(value) else value
    try:
        parse_address(f"{host}:{report.port}")
    except ValueError:
        host = None
    if not isinstance(host, str):
        report.refuse(key, value, "an address")
        return
    report.host = host
    report.say(key, value, "--web.listen-address, see below")


def _port(report: Report, key: str, value: object) -> None:
    # To Python, true is a 1.
    if type(value) is not int or not 0 < value < 65536:
        report.refuse(key, value, "a port up to 65535")
        return
    report.port = value
    where = "--web.listen-address, see below, and prometheus/targets/hakgal.yml"
    report.say(key, value, where)


def _level(report: Report, key: str, value: object) -> None:
    level = LEVELS.get(str(value).upper())
    if level is None:
        report.refuse(key, value, f"one of {', '.join(LEVELS)}")
        return
    report.settings["log.level"] = level
    report.say(key, value, f"--log.level={level}")


def _format(report: Report, key: str, value: object) -> None:
    report.say(key, value, "--log.format, which is logfmt or json")


def _is_number(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= float(str(value)) < math.inf


_PLACES: dict[str, Callable[[Report, str, Any], None]] = {
    "database_path": _database,
    "monitoring_interval": _interval,
    "max_history_size": _history,
    "max_query_samples": _samples,
    **{f"alert_thresholds.{name}": _limit for name in LIMITS},
    "flask.host": _page,
    "flask.port": _page,
    "flask.debug": _page,
    "prometheus.host": _host,
    "prometheus.port": _port,
    "logging.level": _level,
    "logging.format": _format,
}
_SECTIONS = {name.partition(".")[0] for name in _PLACES if "." in name}
# Not those that might stand in another program's file as well.
OLD_KEYS = {name.partition(".")[0] for name in _PLACES} - {"prometheus", "logging"}
