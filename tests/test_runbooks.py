"""The runbooks: who follows one at night shall not find that a name in it is wrong."""

import argparse
import ast
import json
import re
import shlex
import subprocess
from contextlib import closing
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter import config
from exporter.__main__ import main
from exporter.collectors import TABLE_COLLECTORS
from exporter.config import SETTINGS
from exporter.counting.state import NO_RESETS
from exporter.counting.table import BEFORE_REPLACEMENT
from tests.databases import Files
from tests.exporters import make_config, make_exporter
from tests.schemas import INSTALLATIONS, Application
from tests.servers import (
    HTTP,
    ROOT,
    Processes,
    Servers,
    answers,
    find_free_port,
    start_prometheus,
    wait_until,
)
from tests.test_contract import full_page

RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text()
SECTIONS: dict[str, str] = dict(
    re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOKS, re.DOTALL | re.MULTILINE)
)
PARTS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]
LINES = 75  # of a section, code and all: two screens of a phone
RULES = ROOT / "prometheus" / "rules"
SQL = re.compile(r'^hakgal_sql "\$(KB|PERF)" "([^"]+)"$', re.MULTILINE)
NEWEST_ROWS = re.compile(r"FROM \w+ ORDER BY id DESC LIMIT \d+$")
SAFE_SQLITE = (
    'hakgal_sql() { sudo -u "$APP_USER" timeout 10 sqlite3 -readonly ',
    'sudo -u "$APP_USER" sqlite3 "$PERF" \'PRAGMA wal_checkpoint(TRUNCATE)\'',
    "ps ",
)
# What stands in the tables of messages, but comes from the system or Prometheus.
FOREIGN_MESSAGES = {
    "503",
    "404",
    "Permission denied",
    "connection refused",
    "context deadline exceeded",
    "limit exceeded",
    "no such host",
}
# A Prometheus that has what its own metrics are about.
WATCHING = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: [rules.json]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ["{alertmanager}"]}}]}}]}}
scrape_configs:
  - {{job_name: alertmanager, static_configs: [{{targets: ["{alertmanager}"]}}]}}
"""


BAD_QUERIES: list[tuple[str, Any]] = [
    ("success", None),
    ("success", "yes"),
    ("query_time", "slow"),
    ("query_time", -0.25),
    ("query_time", 9e999),
]
BAD_LOOKUPS: list[tuple[str, Any]] = [
    ("hit", "no"),
    ("response_time", "?"),
    ("response_time", -1),
    ("response_time", 9e999),
]
BAD_CONFIDENCES = (None, "low", -0.5, 9e999)


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks in one language."""
    found = re.findall(
        rf"^ *```{language}\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE
    )
    return [str(block) for block in found]


def inline_code(text: str) -> list[str]:
    """Return what is set as code within sentences and tables."""
    prose = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", prose)


def first_cells(section: str) -> list[str]:
    """Return the code in the first column of a section's tables, below the heads."""
    body = re.sub(r"^\|.*\n\|---.*$", "", SECTIONS[section], flags=re.MULTILINE)
    rows = re.findall(r"^\|([^|]+)\|", body, re.MULTILINE)
    return [code for row in rows for code in inline_code(row)]


def metrics_in(expression: str) -> set[str]:
    """Return the names of the metrics in PromQL."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]", "", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_\w+)\s*\([^)]*\)", "", bare)
    names = set(re.findall(r"(?<![\w:])[a-zA-Z_:][\w:]*(?![\w:]|\s*\()", bare))
    return names - {"and", "or", "unless", "offset", "bool", "by"}


def commands(program: str) -> list[list[str]]:
    """Return the words of each command line that starts with a program."""
    text = "\n".join(blocks(RUNBOOKS, "sh")).replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith(f"{program} ")]
    return [shlex.split(line.partition(" | ")[0], comments=True)[1:] for line in lines]


def statements() -> list[tuple[str, str]]:
    """Return the SQL that is to be run, each with its database."""
    return [pair for block in blocks(RUNBOOKS, "sh") for pair in SQL.findall(block)]


def texts_of_the_exporter() -> str:
    """Return all text in the exporter's code, one piece a line."""
    trees = [ast.parse(p.read_text()) for p in (ROOT / "exporter").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    values = [node.value for node in nodes if isinstance(node, ast.Constant)]
    return "\n".join(value for value in values if isinstance(value, str))


QUERIES = blocks(RUNBOOKS, "promql")
METRIC = r"(hakgal|process|prometheus|alertmanager|scrape|instance(_[a-z]+)*)[_:][\w:]+"
NAMED = {name for query in QUERIES for name in metrics_in(query)} | {
    code for code in inline_code(RUNBOOKS) if re.fullmatch(METRIC, code)
} - {"hakgal_sql"}  # a word of the runbooks' own shell
RECORDED = {name for name in NAMED if ":" in name}
OURS = {name for name in NAMED - RECORDED if name.startswith("hakgal_")}


@pytest.fixture(scope="module")
def groups() -> list[dict[str, Any]]:
    """Return the groups of the shipped rules, which come with other commits."""
    files = sorted(RULES.glob("*.yml"))
    if not files:
        pytest.skip("no rules yet")
    return [g for file in files for g in yaml.safe_load(file.read_text())["groups"]]


@pytest.mark.parametrize("alert", SECTIONS)
def test_section_has_its_four_parts_and_fits(alert: str) -> None:
    section = SECTIONS[alert]

    assert re.findall(r"^\*\*(\w+):\*\*", section, re.MULTILINE) == PARTS
    assert len(section.splitlines()) <= LINES
    diagnosis = section.partition("**Diagnosis:**")[2].partition("**Mitigation:**")[0]
    assert blocks(diagnosis, "promql")
    assert blocks(diagnosis, "sh")


def test_contents_lists_the_sections_in_order() -> None:
    contents = RUNBOOKS.partition("\n## ")[0]

    listed = re.findall(r"\[(\w+)\]\(#(\w+)\)", contents)

    assert listed == [(alert, alert.lower()) for alert in SECTIONS]


def test_links_lead_to_headings() -> None:
    headings = re.findall(r"^## (.+)$", RUNBOOKS, re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}

    assert set(re.findall(r"\]\(#([^)]+)\)", RUNBOOKS)) <= anchors


def test_each_alert_has_a_section_and_each_section_an_alert(
    groups: list[dict[str, Any]],
) -> None:
    alerts = [rule for g in groups for rule in g["rules"] if "alert" in rule]

    assert {rule["alert"] for rule in alerts} == SECTIONS.keys()
    for rule in alerts:
        anchor = f"#{rule['alert'].lower()}"
        assert rule["annotations"]["runbook_url"].endswith(anchor)


def test_sections_are_in_the_order_of_the_alerts(groups: list[dict[str, Any]]) -> None:
    in_slo = {"HakgalErrorBudgetBurn"}  # in a file of its own
    alerts = [r["alert"] for g in groups for r in g["rules"] if "alert" in r]

    order = [alert for alert in dict.fromkeys(alerts) if alert not in in_slo]

    assert [alert for alert in SECTIONS if alert not in in_slo] == order


def test_recorded_series_are_recorded(groups: list[dict[str, Any]]) -> None:
    recorded = {r["record"] for g in groups for r in g["rules"] if "record" in r}

    assert recorded >= RECORDED


def test_metrics_of_the_exporter_are_on_its_page(tmp_path: Path) -> None:
    with Files(tmp_path) as files:
        files.add_fact()
        page = full_page(make_exporter(make_config(tmp_path)))

    families = page.families.values()
    assert {s.name for f in families for s in f.samples} | page.names >= OURS


def test_reasons_are_those_that_exist(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    tables = [collector.table(config) for collector in TABLE_COLLECTORS.values()]
    rejected = {reason for table in tables for reason in table.reasons}
    assert set(first_cells("HakgalRowsRejected")) == rejected - {BEFORE_REPLACEMENT}
    assert f"`{BEFORE_REPLACEMENT}`" in SECTIONS["HakgalRowsRejected"]
    # The last one is the alert's own: seen from outside, reported by nobody.
    reasons = {*NO_RESETS, "counters_fell"}
    assert set(first_cells("HakgalCountersReset")) == reasons


@pytest.mark.parametrize(
    "section", ["HakgalExporterDown", "HakgalDatabaseDown", "HakgalCollectorFailing"]
)
def test_messages_are_those_of_the_exporter(section: str) -> None:
    said = texts_of_the_exporter()
    messages = {code for code in first_cells(section) if not re.search("[=/]", code)}

    parts = [part for m in messages - FOREIGN_MESSAGES for part in m.split("…")]

    assert parts
    assert [part for part in parts if part.strip() not in said] == []


def test_logs_are_searched_for_what_the_exporter_writes() -> None:
    said = texts_of_the_exporter()
    searches = re.findall(r"^logs exporter \| grep (.+?) \| tail", RUNBOOKS, re.M)

    words = [w for search in searches for w in shlex.split(search) if w != "-e"]

    assert words
    assert [word for word in words if word not in said] == []


def test_log_fields_are_those_of_the_exporter() -> None:
    said = texts_of_the_exporter()
    fields = [c for c in inline_code(RUNBOOKS) if c.startswith(("msg=", "what="))]

    words = {word.partition("=")[2] for field in fields for word in field.split()}

    assert words
    assert [word for word in words if word not in said.splitlines()] == []


def test_settings_and_flags_exist() -> None:
    known = {f"--{s.name}" for s in SETTINGS} | {
        f"--no-{s.name}" for s in SETTINGS if s.name.startswith("collector.")
    }
    flags = {c for c in inline_code(RUNBOOKS) if re.fullmatch(r"--[\w.-]+", c)}

    assert {flag for flag in flags if not flag.startswith("--storage.")} <= known
    exported = set(re.findall(r"export (HAKGAL_\w+)=", RUNBOOKS))
    assert exported <= {setting.environment for setting in SETTINGS}


def test_commands_of_the_exporter_are_understood(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = argparse.ArgumentParser()
    config.add_flags(parser)
    found = commands("hakgal-exporter")

    assert found
    for command, *flags in found:
        parser.parse_args(flags)
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert f"usage: hakgal-exporter {command}" in capsys.readouterr().out


def test_shell_is_well_formed() -> None:
    for block in blocks(RUNBOOKS, "sh"):
        script = "\n".join(line.strip() for line in block.splitlines())
        done = subprocess.run(
            ["bash", "-n"], input=script, text=True, capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), block


def test_databases_are_opened_only_as_the_application() -> None:
    """Another user's read can make side files that stop HAK/GAL."""
    lines = [line.strip() for b in blocks(RUNBOOKS, "sh") for line in b.splitlines()]
    opening = [line for line in lines if "sqlite3" in line.replace("APP_USER", "")]

    assert [line for line in opening if not line.startswith(SAFE_SQLITE)] == []
    calls = "\n".join(lines).count('hakgal_sql "')
    assert calls == len(statements())


@pytest.mark.parametrize("position", range(len(statements())))
def test_statements_read_only_the_newest_rows(position: int, tmp_path: Path) -> None:
    """A long read makes HAK/GAL wait, or its log grow."""
    database, sql = statements()[position]
    with Files(tmp_path) as files:
        file = files.knowledge_base if database == "KB" else files.performance
        file.run("PRAGMA query_only = ON")

        file.run(sql)
        plan = [row[3] for row in file.run(f"EXPLAIN QUERY PLAN {sql}")]

    scans = [step for step in plan if re.match("SCAN (?!sqlite_|CONSTANT)", step)]
    assert not scans or NEWEST_ROWS.search(sql)


@pytest.mark.parametrize("kind", INSTALLATIONS)
def test_statements_work_on_the_tables_that_people_have(
    kind: str, tmp_path: Path
) -> None:
    facts, audit = INSTALLATIONS[kind]
    with closing(Application(tmp_path, facts, audit)) as knowledge_base:
        knowledge_base.add()
        for sql in (sql for database, sql in statements() if database == "KB"):
            if "FROM audit_log" in sql and audit:
                knowledge_base.run(sql.replace("operation", audit.label))
            # Without an id or a confidence, no alert leads there.
            if "FROM facts" in sql and facts.has_id and facts.has_confidence:
                knowledge_base.run(sql.replace("FROM facts", f"FROM {facts.table}"))


def test_statements_find_each_rejected_row(tmp_path: Path) -> None:
    found = SQL.findall(SECTIONS["HakgalRowsRejected"])
    with Files(tmp_path) as files:
        of = {"KB": files.knowledge_base, "PERF": files.performance}
        files.add_query()
        bad = {files.add_query(**{column: value}) for column, value in BAD_QUERIES}
        assert {row[0] for row in of[found[0][0]].run(found[0][1])} == bad
        files.add_cache(response_time=None)
        bad = {files.add_cache(**{column: value}) for column, value in BAD_LOOKUPS}
        assert {row[0] for row in of[found[1][0]].run(found[1][1])} == bad
        files.add_fact()
        bad = {files.add_fact(confidence=value) for value in BAD_CONFIDENCES}
        assert {row[0] for row in of[found[2][0]].run(found[2][1])} == bad


def test_promtool_understands_each_query(servers: Servers, tmp_path: Path) -> None:
    rules = [
        {"record": f"runbooks:query_{n}:checked", "expr": query}
        for n, query in enumerate(QUERIES)
    ]
    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"groups": [{"name": "runbooks", "rules": rules}]}))

    code, output = servers.run("promtool", "check", "rules", path)

    assert code == 0, output
    assert f"{len(rules)} rules found" in output


@pytest.mark.parametrize("program", ["amtool", "promtool"])
def test_flags_of_the_tools_exist(servers: Servers, program: str) -> None:
    found = commands(program)

    assert found
    for words in found:
        flags = {word.partition("=")[0] for word in words if word.startswith("--")}
        subcommand = takewhile(str.isalpha, (word.replace("-", "") for word in words))
        names = words[: len(list(subcommand))]
        _, output = servers.run(program, *names, "--help")
        assert f"usage: {program} {' '.join(names)} " in f"{output} ".replace("\n", " ")
        assert [flag for flag in flags if f"{flag}=" not in output] == []


def test_flags_of_prometheus_exist(servers: Servers) -> None:
    flags = {code for code in inline_code(RUNBOOKS) if code.startswith("--storage.")}

    _, output = servers.run("prometheus", "--help")

    assert flags
    assert [flag for flag in flags if f"{flag}=" not in output] == []


def test_the_servers_own_metrics_exist(
    servers: Servers, processes: Processes, tmp_path: Path
) -> None:
    alertmanager = start_alertmanager(servers, processes, tmp_path)
    config = tmp_path / "prometheus.yml"
    config.write_text(WATCHING.format(alertmanager=alertmanager))
    rule = {"alert": "Always", "expr": "vector(1)"}
    groups = {"groups": [{"name": "own", "rules": [rule]}]}
    (tmp_path / "rules.json").write_text(json.dumps(groups))
    prometheus = start_prometheus(servers, processes, config)
    wanted = NAMED - RECORDED - OURS

    def missing() -> set[str]:
        with HTTP.open(f"{prometheus.url}/metrics") as answer:
            itself = set(re.findall(r"^# HELP (\S+)", answer.read().decode(), re.M))
        return wanted - itself - {*prometheus.api("label/__name__/values")}

    wait_until(lambda: not missing() or None, 30)


def start_alertmanager(servers: Servers, processes: Processes, folder: Path) -> str:
    """Start an Alertmanager that tells nobody, and return its address."""
    address = f"127.0.0.1:{find_free_port()}"
    config = folder / "alertmanager.yml"
    config.write_text("{route: {receiver: nobody}, receivers: [{name: nobody}]}")
    process = processes.start(
        servers.program("alertmanager"),
        f"--config.file={config}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    )

    def ready() -> bool:
        assert process.poll() is None, processes.output(process)
        return answers(f"http://{address}/-/ready")

    wait_until(ready, 30)
    return address
