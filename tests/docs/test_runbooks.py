"""The runbooks: who follows one at night shall not find that a name in it is wrong."""

import ast
import re
import shlex
import subprocess
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from exporter.collectors import TABLE_COLLECTORS
from exporter.config import SETTINGS
from exporter.counting.table import BEFORE_REPLACEMENT, NO_RESETS
from tests.contract.metrics import series
from tests.databases import Files
from tests.docs.reading import blocks, inline_code
from tests.exporters import make_config, run
from tests.prometheus.shipped import ALERTS, RECORDED, selectors
from tests.servers import ROOT, Servers

TEXT = (ROOT / "docs" / "runbooks.md").read_text()
SECTIONS: dict[str, str] = dict(re.findall(r"(?ms)^## (\w+)\n(.*?)(?=^## |\Z)", TEXT))
CODE = inline_code(TEXT)
SHELL = blocks(TEXT, "sh")
PARTS = ["Meaning", "Impact", "What to look at", "What to do"]
SQL = re.compile(r'^ *hakgal_sql "\$(KB|PERF)" "([^"]+)"$', re.MULTILINE)
STATEMENTS = [found for block in SHELL for found in SQL.findall(block)]
SAFE_SQLITE = (
    'hakgal_sql() { sudo -u "$APP_USER" timeout 10 sqlite3 -readonly ',
    'sudo -u "$APP_USER" sqlite3 "$PERF" \'PRAGMA wal_checkpoint(TRUNCATE)\'',
    "ps ",
)
# What stands in the tables of messages, but comes from the system or Prometheus.
FOREIGN_MESSAGES = {
    *("503", "404", "Permission denied", "connection refused", "no such host"),
    *("context deadline exceeded", "limit exceeded"),
}
BAD: dict[str, dict[str, tuple[Any, ...]]] = {
    "query_times": {"success": (None, "yes"), "query_time": ("slow", -0.25, 9e999)},
    "cache_events": {"hit": ("no",), "response_time": ("?", -1, 9e999)},
    "facts": {"confidence": (None, "low", -0.5, 9e999)},
}


def first_cells(section: str) -> set[str]:
    """Return the code in the first column of a section's tables, below the heads."""
    body = re.sub(r"(?m)^\|.*\n\|---.*$", "", SECTIONS[section])
    rows = re.findall(r"(?m)^\|([^|]+)\|", body)
    return {code for row in rows for code in inline_code(row)}


def commands(program: str) -> list[list[str]]:
    """Return the words of each command line that starts with a program."""
    text = "\n".join(SHELL).replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith(f"{program} ")]
    return [shlex.split(line.partition(" | ")[0], comments=True)[1:] for line in lines]


def said_by_the_exporter() -> str:
    """Return all text in the exporter's code, one piece a line."""
    trees = [ast.parse(p.read_text()) for p in (ROOT / "exporter").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    values = [node.value for node in nodes if isinstance(node, ast.Constant)]
    return "\n".join(value for value in values if isinstance(value, str))


def test_each_alert_has_a_section_in_the_order_of_the_contents() -> None:
    contents = re.findall(r"\[(\w+)\]\(#(\w+)\)", TEXT.partition("\n## ")[0])
    in_order = [name for name in SECTIONS if name != "HakgalErrorBudgetBurn"]
    alerts = dict.fromkeys(alert.name for alert in ALERTS)

    for section in SECTIONS.values():
        assert re.findall(r"^\*\*([\w ]+):\*\*", section, re.MULTILINE) == PARTS
    assert contents == [(alert, alert.lower()) for alert in SECTIONS]
    assert alerts.keys() == SECTIONS.keys()
    assert in_order == [name for name in alerts if name in in_order]


def test_series_exist() -> None:
    """Those that Prometheus and Alertmanager have themselves, they are asked for."""
    queries = "\n".join(blocks(TEXT, "promql"))
    named = {s.metric for s in selectors(queries)} | set(CODE)
    ours = {n for n in named if re.fullmatch(r"(hakgal|instance)\w*[_:][\w:]+", n)}

    assert ours
    ours.discard("hakgal_sql")  # a word of the runbooks' own shell
    assert {name for name in ours - RECORDED if not series(name)} == set()


def test_reasons_are_those_that_exist(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    tables = [collector.table(config) for collector in TABLE_COLLECTORS.values()]
    rejected = {reason for table in tables for reason in table.reasons}

    assert first_cells("HakgalRowsRejected") == rejected - {BEFORE_REPLACEMENT}
    assert f"`{BEFORE_REPLACEMENT}`" in SECTIONS["HakgalRowsRejected"]
    # The last one is the alert's own: seen from outside, reported by nobody.
    assert first_cells("HakgalCountersReset") == {*NO_RESETS, "counters_fell"}


def test_messages_and_log_lines_are_those_of_the_exporter() -> None:
    said = said_by_the_exporter()
    sections = "HakgalExporterDown", "HakgalDatabaseDown", "HakgalCollectorFailing"
    cells = [cell for section in sections for cell in first_cells(section)]
    messages = {cell for cell in cells if not re.search("[=/]", cell)}
    parts = [part for m in messages - FOREIGN_MESSAGES for part in m.split("…")]
    searches = re.findall(r"(?m)^logs exporter \| grep (.+?) \| tail", "\n".join(SHELL))
    words = [w for search in searches for w in shlex.split(search) if w != "-e"]
    fields = [c for c in CODE if c.startswith(("msg=", "what="))]
    whole = {w.partition("=")[2] for field in fields for w in field.split()}

    assert all((messages, words, whole))
    assert [text for text in parts + words if text.strip() not in said] == []
    assert whole <= set(said.splitlines())


def test_commands_flags_and_variables_of_the_exporter_exist() -> None:
    known = {f"--{s.name}" for s in SETTINGS}
    known |= {f"--no-{s.name}" for s in SETTINGS if s.name.startswith("collector.")}
    flags = {code for code in CODE if re.fullmatch(r"--[\w.-]+", code)}
    exported = re.findall(r"export (HAKGAL_\w+)=", "\n".join(SHELL))

    assert {f for f in flags if not f.startswith("--storage.")} <= known
    assert exported
    assert set(exported) <= {setting.environment for setting in SETTINGS}
    for command in {words[0] for words in commands("hakgal-exporter")}:
        usage = run(command, "--help").stdout
        assert usage.startswith(f"usage: hakgal-exporter {command}")


@pytest.mark.parametrize("program", ["amtool", "promtool", "prometheus"])
def test_commands_and_flags_of_the_servers_exist(
    servers: Servers, program: str
) -> None:
    named = [code for code in CODE if code.startswith("--storage.")]
    for words in commands(program) if program != "prometheus" else [named]:
        flags = {word.partition("=")[0] for word in words if word.startswith("--")}
        subcommand = takewhile(re.compile(r"[a-z][a-z-]*$").match, words)
        names = [program, *subcommand]
        _, output = servers.run(program, *names[1:], "--help")
        assert f"usage: {' '.join(names)} " in f"{output} ".replace("\n", " ")
        assert [flag for flag in flags if f"{flag}=" not in output] == []


def test_shell_is_well_formed() -> None:
    for block in SHELL:
        done = subprocess.run(
            ["bash", "-n"], input=block, text=True, capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), block


# SQL, beside an application that must not be harmed


def test_databases_are_opened_only_as_the_application() -> None:
    """Another user's read can make side files that stop HAK/GAL."""
    lines = [line.strip() for block in SHELL for line in block.splitlines()]
    opening = [line for line in lines if "sqlite3" in line.replace("APP_USER", "")]

    assert [line for line in opening if not line.startswith(SAFE_SQLITE)] == []
    assert "\n".join(lines).count('hakgal_sql "') == len(STATEMENTS) > 0


def test_statements_read_only_the_newest_rows(tmp_path: Path) -> None:
    """A long read makes HAK/GAL wait, or its log grow."""
    newest = re.compile(r"FROM \w+ ORDER BY id DESC LIMIT \d+$")
    with Files(tmp_path) as files:
        of = {"KB": files.knowledge_base, "PERF": files.performance}
        for file in of.values():
            file.run("PRAGMA query_only = ON")
        for database, sql in STATEMENTS:
            of[database].run(sql)
            plan = [row[3] for row in of[database].run(f"EXPLAIN QUERY PLAN {sql}")]
            scans = [s for s in plan if re.match("SCAN (?!sqlite_|CONSTANT)", s)]
            assert not scans or newest.search(sql), sql


def test_statements_find_each_rejected_row(tmp_path: Path) -> None:
    found = SQL.findall(SECTIONS["HakgalRowsRejected"])
    with Files(tmp_path) as files:
        of = {"KB": files.knowledge_base, "PERF": files.performance}
        files.add_cache(response_time=None)
        adding = files.add_query, files.add_cache, files.add_fact
        assert len(found) == len(BAD)
        for n, (database, sql) in enumerate(found):
            add: Callable[..., int] = adding[n]
            columns = [*BAD.values()][n]
            add()
            bad = {
                add(**{c: value}) for c, values in columns.items() for value in values
            }
            assert {row[0] for row in of[database].run(sql)} == bad
