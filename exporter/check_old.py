"""Say what to put where of an old ``config.json``."""

import json
from collections.abc import Iterator
from pathlib import Path

from exporter.old_config import THRESHOLDS_FILE, read_old
from exporter.old_report import Report


def check_old(path: Path) -> int:
    """Print what became of each key, and what to copy; return 0 or 2.

    Raises:
        ConfigError: it cannot be read, or is no such file.
    """
    report = read_old(path)
    for line in report.found:
        print(f"ok       {_printable(line)}")
    for line in report.problems:
        print(f"PROBLEM  {_printable(line)}")
    print("keys that are not in it need nothing: the new defaults are the old ones")
    for block in (_settings(report), _targets(report), _limits(report)):
        for line in block:
            print(line)
    problems = len(report.problems)
    print(f"\n{problems or 'no'} problem{'' if problems == 1 else 's'}")
    return 2 if problems else 0


def _printable(line: str) -> str:
    """Return a line with escapes for what no terminal should get, or none can print."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def _settings(report: Report) -> Iterator[str]:
    settings = dict(report.settings)
    host = "" if report.host in ("0.0.0.0", "[::]", "") else report.host
    if (host, report.port) != ("", 8000):
        settings["web.listen-address"] = f"{host}:{report.port}"
    if settings:
        yield "\nexporter.yml, for --config.file:"
        for name, text in settings.items():
            # JSON's strings are YAML's, but for what takes two escapes in JSON only.
            yield f"{name}: {json.dumps(text, ensure_ascii=False)}"


def _targets(report: Report) -> Iterator[str]:
    if report.port != 8000:
        yield "\nprometheus/targets/hakgal.yml, instead of localhost:8000:"
        yield f"    - {report.instance}"


def _limits(report: Report) -> Iterator[str]:
    lines = list(_limit_lines(report))
    if lines:
        yield f"\n{THRESHOLDS_FILE}, at its end; they win for this instance:"
        yield from lines


def _limit_lines(report: Report) -> Iterator[str]:
    for (quantity, severity), (limit, value) in report.limits.items():
        if value == getattr(limit, severity):
            continue
        labels = f'severity: {severity}, unit: {limit.unit}, instance: "{{}}"'
        yield (
            f"      - {{record: hakgal:{quantity}:threshold, expr: {value:.12g},"
            f" labels: {{{labels.format(report.instance)}}}}}"
        )
        crosses = value < limit.critical if limit.low_is_bad else value > limit.critical
        if (quantity, "critical") not in report.limits and crosses:
            beyond = f"{value:.12g} is beyond the critical limit, {limit.critical:g}"
            yield f"      # {beyond}: give this instance its own of that as well."
