"""An old installation moves by docs/migration.md, as it is written there."""

import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from exporter.commands.backfill import MEASURES
from exporter.commands.simulate import create
from tests.commands.old_monitor import Collection, collections, write_history
from tests.exporters import WAIT_SECONDS, Command
from tests.grafana import dashboards
from tests.servers import (
    ROOT,
    Processes,
    Prometheus,
    Servers,
    adapt_config,
    find_free_port,
    start_prometheus,
    wait_until,
)

DOCUMENT = (ROOT / "docs" / "migration.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", DOCUMENT, re.DOTALL)
SHELL = [text for kind, text in BLOCKS if kind == "sh"]
FIRST = dict(reversed(BLOCKS))
DATABASE = "srv/hakgal/hakgal_performance.db"
wait = partial(wait_until, seconds=WAIT_SECONDS)
HIT_RATIO = "instance:hakgal_cache_hits_per_lookup:ratio_rate5m"
LOOKUPS = "sum(hakgal_cache_hits_total) + sum(hakgal_cache_misses_total)"
QUERIES = "hakgal_query_duration_seconds_count"
PANELS = {
    f"{panel.name}, {old}": (old, divisor, dashboards.fill(target["expr"]))
    for panel in dashboards.panels()
    for target in panel.targets
    for old, (name, divisor) in MEASURES.items()
    if not target["instant"] and re.fullmatch(rf"{name}\{{[^}}]*\}}", target["expr"])
}
COMMANDS = (  # what an installation has; the test starts what systemctl should
    "opt/hakgal-exporter/bin/hakgal-exporter",
    *("bin/systemctl", "bin/chown"),
    *("srv/hakgal/stop_system.sh", "srv/hakgal/start_system.sh"),
)
# HAK/GAL: what the document says, and then an event every 50 ms, all the time.
HAKGAL = """
{block}
import sys, threading
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set())).start()
while not stop.wait(0.05):
    recorder.record_query(0.3, "search_knowledge")
    recorder.record_cache_event(hit=False)
recorder.close()
"""


class Moved(NamedTuple):
    """A machine after the move."""

    root: Path
    history: list[Collection]
    report: str
    prometheus: Prometheus


@pytest.fixture(scope="module")
def moved(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Moved]:
    """Take all steps in their order, while HAK/GAL goes on writing."""
    root = tmp_path_factory.mktemp("machine")
    processes = Processes(root)
    address = f"127.0.0.1:{find_free_port()}"
    config = set_up(root, address)
    history = list(collections(int(time.time()) // 60 * 60 - 60, 7 * 86400))
    write_history(root / DATABASE, history)
    stop_old, start, bring, run_prometheus, _ = SHELL
    run = partial(shell, root, servers, HAKGAL_BACKFILL_INSTANCE=address)
    try:
        with hakgal(root):
            run(stop_old)
            assert "no problems" in run(start, HAKGAL_WEB_LISTEN_ADDRESS=address)
            file = f"--config.file={root}/etc/hakgal-exporter/exporter.yml"
            Command(processes, int(address.rpartition(":")[2]), file).start()
            report = run(bring)
            run(run_prometheus)
            prometheus = start_prometheus(servers, processes, config)
            # With nothing new after the first scrape, it would have no value for ever.
            wait(partial(prometheus.query, HIT_RATIO))
        yield Moved(root, history, report, prometheus)
    finally:
        processes.stop()


def set_up(root: Path, address: str) -> Path:
    """Make what the document finds; return the configuration of Prometheus."""
    for name in ("etc/hakgal-exporter", "var/lib/hakgal-exporter", "var/tmp"):
        (root / name).mkdir(parents=True)
    for name in COMMANDS:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        command = f"exec {sys.executable} -m exporter" if "exporter" in name else ":"
        (root / name).write_text(f'#!/bin/sh\n{command} "$@"\n')
        (root / name).chmod(0o755)
    create(root / "srv/hakgal/hexagonal_kb.db", root / DATABASE, facts=5000)
    (root / "etc/hakgal-exporter/exporter.yml").write_text(at(root, FIRST["yaml"]))
    config = adapt_config(root / "etc", address, scrape_interval="1s")
    config.write_text(config.read_text().replace("_interval: 15s", "_interval: 1s"))
    (root / "var/lib/prometheus").mkdir()
    (root / "var/lib/prometheus/metrics2").symlink_to(config.parent / "data")
    (config.parent / "data").mkdir()
    return config


def at(root: Path, text: str) -> str:
    """Return text of the document with a folder for /."""
    return re.sub(r"(?<![\w.])/(opt|srv|etc|var)/", rf"{root}/\1/", text)


def count(root: Path, table: str) -> int:
    """Return how many rows a table of the performance database has."""
    with closing(sqlite3.connect(root / DATABASE)) as db:
        ((rows,),) = db.execute(f"SELECT COUNT(*) FROM {table}").fetchall()
    return int(rows)


def shell(root: Path, servers: Servers, script: str, **environment: str) -> str:
    """Run a block, which must succeed; return what it printed."""
    path = f"{root}/bin:{servers.folder}/bin:{os.environ['PATH']}"
    env = os.environ | environment | {"PATH": path, "PYTHONPATH": str(ROOT)}
    command = ["sh", "-euc", f"exec 2>&1 </dev/null; {at(root, script)}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env)
    assert done.returncode == 0, done.stdout
    return done.stdout


@contextmanager
def hakgal(root: Path) -> Iterator[None]:
    """Let HAK/GAL write with the recorder for as long as the block lasts."""
    program = HAKGAL.format(block=at(root, FIRST["python"]))
    command, pipe = [sys.executable, "-c", program], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, cwd=ROOT) as process:
        wait(partial(count, root, "query_times"))
        yield
        process.communicate()
    assert process.returncode == 0


def test_no_event_is_lost_or_counted_twice(moved: Moved) -> None:
    queries, lookups = (count(moved.root, t) for t in ("query_times", "cache_events"))

    counted = f"sum({QUERIES}) == {queries} and {LOOKUPS} == {lookups}"
    assert wait(partial(moved.prometheus.query, counted))
    for name in (QUERIES, "hakgal_cache_misses_total"):
        assert moved.prometheus.query(f"sum(resets({name}[3h]))") == [({}, 0)]
    assert "cache_misses: 10080 rows, left out: the exporter counts" in moved.report


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_shows_the_week_of_the_old_monitor(panel: str, moved: Moved) -> None:
    old, divisor, query = PANELS[panel]
    moments = [moment for moment, _ in moved.history]
    span = {"start": str(moments[0]), "end": str(moments[-1]), "step": "60"}
    (series,) = moved.prometheus.api("query_range", query=query, **span)["result"]

    expected = {moment: values[old] / divisor for moment, values in moved.history}
    assert {moment: float(value) for moment, value in series["values"]} == expected


def table_under(heading: str) -> list[list[str]]:
    """Return the rows of the table under a heading of the document."""
    section = DOCUMENT.partition(f"### {heading}\n")[2].partition("\n#")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", r)[1:-1]] for r in rows]


@pytest.mark.parametrize("query", [row[1].strip("`") for row in table_under("Metrics")])
def test_each_query_of_the_document_has_an_answer(query: str, moved: Moved) -> None:
    if query.startswith("ALERTS"):  # none, when all is well
        query = f"count({query}) or vector(0)"
    ((_, value),) = wait(partial(moved.prometheus.query, query))
    assert value >= 0


def test_the_last_look_is_zero(moved: Moved) -> None:
    assert moved.prometheus.query(FIRST["promql"]) == [({}, 0)]


def test_thresholds_of_the_document_are_those_of_the_rules() -> None:
    rules = (ROOT / "prometheus" / "rules" / "thresholds.yml").read_text()
    for _, series, *limits, _ in table_under("Thresholds"):
        for limit, severity in zip(limits, ("warning", "critical"), strict=True):
            record = f"record: {series.strip('`')}, expr: {limit}"
            assert f"{record}, labels: {{severity: {severity}" in rules


def test_the_way_back_is_open(moved: Moved, servers: Servers) -> None:
    """Last of all: the old monitor may write again."""
    shell(moved.root, servers, SHELL[-1])

    write_history(moved.root / DATABASE, moved.history)
    assert count(moved.root, "performance_metrics") == 2 * 9 * 7 * 1440
