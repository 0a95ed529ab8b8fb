"""``check --old-config``: where the old monitor's settings are now."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.old_report import LIMITS
from exporter.settings import parse_address
from tests.exporters import run
from tests.servers import ROOT, Servers

DEFAULTS: dict[str, Any] = {
    "database_path": "data/hakgal_performance.db",
    "monitoring_interval": 1.0,
    "max_history_size": 1000,
    "max_query_samples": 1000,
    "alert_thresholds": {
        "query_latency_ms": 100,
        "cache_hit_rate_percent": 80,
        "cpu_percent": 80,
        "memory_percent": 85,
    },
    "flask": {"host": "0.0.0.0", "port": 5000, "debug": False},
    "prometheus": {"host": "0.0.0.0", "port": 8000},
    "logging": {
        "level": "INFO",
        "format": "%(asctime)s [%(levelname)s] %(name)s: %(message)s",
    },
}
THRESHOLDS = ROOT / "prometheus" / "rules" / "thresholds.yml"


def check(folder: Path, content: object) -> tuple[int, list[str]]:
    """Check a configuration and return exit code and lines."""
    file = folder / "config.json"
    text = content if isinstance(content, str) else json.dumps(content)
    file.write_text(text)
    done = run("check", f"--old-config={file}")
    assert not (done.stdout and done.stderr)
    return done.returncode, (done.stdout or done.stderr).splitlines()


def test_the_old_defaults_are_the_new_ones(tmp_path: Path) -> None:
    code, lines = check(tmp_path, DEFAULTS)

    assert code == 0
    latency = "hakgal:query_duration_seconds:threshold, warning: 0.1, as it is there"
    assert (
        "ok       alert_thresholds.query_latency_ms 100:"
        f" prometheus/rules/thresholds.yml, {latency}"
    ) in lines
    assert len([line for line in lines if line.startswith("ok  ")]) == 15
    assert lines[15:] == [
        "keys that are not in it need nothing: the new defaults are the old ones",
        "",
        "exporter.yml, for --config.file:",
        'database.performance: "data/hakgal_performance.db"',
        'log.level: "info"',
        "",
        "no problems",
    ]


def test_other_values_are_converted_and_ready_to_copy(tmp_path: Path) -> None:
    code, lines = check(
        tmp_path,
        {
            "database_path": "/srv/hak gal/p.db",
            "alert_thresholds": {
                "query_latency_ms": 250,
                "cpu_percent": {"max": 97.5},
                "cache_hit_rate_percent": {"min": 70, "critical": 40},
            },
            "prometheus": {"host": "127.0.0.1", "port": 9123},
            "logging": {"level": "WARNING"},
        },
    )

    assert code == 0
    assert lines[lines.index("") :] == [
        "",
        "exporter.yml, for --config.file:",
        'database.performance: "/srv/hak gal/p.db"',
        'log.level: "warn"',
        'web.listen-address: "127.0.0.1:9123"',
        "",
        "prometheus/targets/hakgal.yml, instead of localhost:8000:",
        "    - localhost:9123",
        "",
        "prometheus/rules/thresholds.yml, at its end; they win for this instance:",
        line("query_duration_seconds", 0.25, "warning", "seconds"),
        line("cpu_utilisation", 0.975, "warning", "ratio"),
        "      # 0.975 is beyond the critical limit, 0.95: give this instance its own"
        " of that as well.",
        line("cache_hits_per_lookup", 0.7, "warning", "ratio"),
        line("cache_hits_per_lookup", 0.4, "critical", "ratio"),
        "",
        "no problems",
    ]


@pytest.mark.parametrize(
    ("host", "address"), [("::1", "[::1]:8001"), ("::", ":8001"), ("", ":8001")]
)
def test_address_is_one_for_the_exporter(
    host: str, address: str, tmp_path: Path
) -> None:
    _, lines = check(tmp_path, {"prometheus": {"host": host, "port": 8001}})

    assert f'web.listen-address: "{address}"' in lines
    parse_address(address)


def test_path_is_the_same_in_yaml(tmp_path: Path) -> None:
    path = '/srv/\N{GRINNING FACE} "é"\\/p.db'

    _, lines = check(tmp_path, {"database_path": path})

    at = lines.index("exporter.yml, for --config.file:")
    assert yaml.safe_load(lines[at + 1]) == {"database.performance": path}


def line(quantity: str, value: float, severity: str, unit: str) -> str:
    labels = f'severity: {severity}, unit: {unit}, instance: "localhost:9123"'
    return (
        f"      - {{record: hakgal:{quantity}:threshold, expr: {value},"
        f" labels: {{{labels}}}}}"
    )


def test_what_is_to_be_copied_is_understood_where_it_belongs(
    servers: Servers, folder: Path
) -> None:
    database = str(folder / "hakgal_performance.db")
    limits = {"cpu_percent": {"warning": 90, "critical": 99}}
    old = {"database_path": database, "alert_thresholds": limits}
    _, lines = check(folder, old)
    settings, rules = folder / "exporter.yml", folder / "thresholds.yml"
    at = lines.index("exporter.yml, for --config.file:")
    settings.write_text(lines[at + 1] + "\n")
    added = [text for text in lines if text.startswith("      - {record")]
    rules.write_text(THRESHOLDS.read_text() + "\n".join(added) + "\n")

    code, said = servers.run("promtool", "check", "rules", rules)
    done = run("check", f"--config.file={settings}", "--web.listen-address=127.0.0.1:0")

    assert (code, len(added)) == (0, 2), said
    assert f"ok       {database}: table query_times (id, " in done.stdout


def test_limits_are_those_of_the_file() -> None:
    (group,) = yaml.safe_load(THRESHOLDS.read_text())["groups"]
    shipped = {
        (rule["record"], rule["labels"].get("severity")): rule
        for rule in group["rules"]
    }

    for limit in LIMITS.values():
        for severity in ("warning", "critical"):
            rule = shipped[f"hakgal:{limit.quantity}:threshold", severity]
            assert rule["expr"] == getattr(limit, severity)
            assert rule["labels"]["unit"] == limit.unit


PROBLEMS = {
    "unknown": (
        {"monitoring_intervall": 2},
        "monitoring_intervall: got an unknown key,"
        " which the old monitor ignored; did it mean 'monitoring_interval'?",
    ),
    "unknown in a section": (
        {"flask": {"threads": 2}},
        "flask.threads: got an unknown key, which the old monitor ignored",
    ),
    "limit": (
        {"alert_thresholds": {"cpu_percent": "high"}},
        'alert_thresholds.cpu_percent: got "high", want a number from 0',
    ),
    "part of a limit": (
        {"alert_thresholds": {"cpu_percent": {"top": 3}}},
        "alert_thresholds.cpu_percent.top: got an unknown key, want one of warning,"
        " max, min, critical",
    ),
    "path": ({"database_path": None}, "database_path: got null, want a path"),
    "port": (
        {"prometheus": {"port": "8000"}},
        'prometheus.port: got "8000", want a port up to 65535',
    ),
    "port of true": (
        {"prometheus": {"port": True}},
        "prometheus.port: got true, want a port up to 65535",
    ),
    "host": ({"prometheus": {"host": 1}}, "prometheus.host: got 1, want an address"),
    "two hosts": (
        {"prometheus": {"host": "a b"}},
        'prometheus.host: got "a b", want an address',
    ),
    "no text": (
        {"database_path": "/srv/\ud800"},
        'database_path: got "/srv/\\ud800", want a path',
    ),
    "key for a terminal": (
        {"\x1b[2J\ud800": 1},
        r"\x1b[2J\ud800: got an unknown key, which the old monitor ignored",
    ),
    "level": (
        {"logging": {"level": "LOUD"}},
        'logging.level: got "LOUD", want one of'
        " DEBUG, INFO, WARN, WARNING, ERROR, CRITICAL, FATAL",
    ),
}


@pytest.mark.parametrize("case", PROBLEMS.values(), ids=PROBLEMS)
def test_what_has_no_place_is_a_problem(
    case: tuple[dict[str, Any], str], tmp_path: Path
) -> None:
    content, problem = case

    code, lines = check(tmp_path, content)

    assert code == 2
    assert f"PROBLEM  {problem}" in lines
    assert lines[-1] == "1 problem"


def test_a_limit_on_the_harmless_side_has_no_rule(tmp_path: Path) -> None:
    limits = {"cpu_percent": {"min": 3}, "cache_hit_rate_percent": {"max": 99}}

    code, lines = check(tmp_path, {"alert_thresholds": limits})

    assert code == 0
    assert lines[:2] == [
        "ok       alert_thresholds.cpu_percent.min 3: no rule has it: only a high"
        " value is bad",
        "ok       alert_thresholds.cache_hit_rate_percent.max 99: no rule has it: only"
        " a low value is bad",
    ]


@pytest.mark.parametrize("text", ['{"flask": ', "\x00", "[" * 100000], ids="abc")
def test_a_broken_file_is_one_line(text: str, tmp_path: Path) -> None:
    code, lines = check(tmp_path, text)

    assert code == 2
    (said,) = lines
    assert said.startswith(f"hakgal-exporter: {tmp_path}/config.json: not JSON (")
    assert said.endswith(
        "the old monitor ran on its defaults, and so does the exporter"
    )


def test_a_file_that_is_something_else_is_one_line(tmp_path: Path) -> None:
    assert check(tmp_path, [1, 2]) == (
        2,
        [
            f"hakgal-exporter: {tmp_path}/config.json: got [1, 2], want the old"
            " monitor's config.json"
        ],
    )


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = run("check", f"--old-config={tmp_path}/none.json")

    assert (done.returncode, done.stderr) == (
        2,
        f"hakgal-exporter: flag --old-config: got '{tmp_path}/none.json' (No such file"
        " or directory), want a file that can be read\n",
    )


@pytest.mark.parametrize("command", ["", "check"])
def test_who_gives_it_as_the_new_one_is_told(command: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(DEFAULTS))

    done = run(*command.split(), f"--config.file={file}")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"hakgal-exporter: flag --config.file: got '{file}', the old monitor's"
        " configuration, want a YAML file; 'hakgal-exporter check"
        f" --old-config={file}' says what to put where\n"
    )
