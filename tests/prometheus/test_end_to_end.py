"""Rows go in, and a real Prometheus has them all: once, over TLS, with a password."""

import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from exporter.commands.simulate import create
from tests.exporters import Command, file_flags, read_state, run
from tests.servers import (
    Processes,
    Prometheus,
    Servers,
    adapt_config,
    find_free_port,
    start_prometheus,
    wait_until,
)
from tests.webs import CLIENTS, Web, users

PATIENCE_SECONDS = 30
KNOWLEDGE_BASE, PERFORMANCE = "hexagonal_kb.db", "hakgal_performance.db"
UP = 'up{job="hakgal"}'
# Where a table is, and how Prometheus has all of its rows.
TABLES = {
    "query_times": (PERFORMANCE, "sum(hakgal_query_duration_seconds_count)"),
    "cache_events": (
        PERFORMANCE,
        "hakgal_cache_hits_total + hakgal_cache_misses_total",
    ),
    "audit_log": (KNOWLEDGE_BASE, "sum(hakgal_audit_events_total)"),
}
LAST_ID = "SELECT seq FROM sqlite_sequence WHERE name = '{}'"
COUNTERS = '{job="hakgal", __name__=~"hakgal_.+_(total|count|bucket)"}[10m]'


class Monitored(NamedTuple):
    """A protected exporter over the databases in a folder, and its Prometheus."""

    folder: Path
    exporter: Command
    prometheus: Prometheus
    web: Web

    def sql(self, file: str, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.folder / file)) as db, db:
            return db.execute(statement).fetchall()

    def simulate(self) -> None:
        """Write activity as HAK/GAL would, only faster."""
        pace = "--rate=1000", "--duration=1"
        assert run("simulate", *file_flags(self.folder)[:2], *pace).returncode == 0

    def wait_until(self, wanted: dict[str, list[tuple[Any, ...]]]) -> None:
        """Wait until Prometheus has a value for each expression."""
        ask = self.prometheus.query
        wait_until(
            lambda: {e: [(v,) for _, v in ask(e)] for e in wanted} == wanted,
            PATIENCE_SECONDS,
        )

    def wait_until_all_is_seen(self) -> None:
        """Wait until Prometheus has a value for each id that was given out."""
        written = {
            "hakgal_facts": self.sql(KNOWLEDGE_BASE, "SELECT COUNT(*) FROM facts")
        }
        for table, (file, seen) in TABLES.items():
            written[seen] = self.sql(file, LAST_ID.format(table))
        self.wait_until(written)


@pytest.fixture(scope="module")
def monitored(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Monitored]:
    folder = tmp_path_factory.mktemp("protected")
    create(folder / KNOWLEDGE_BASE, folder / PERFORMANCE)
    web, processes = Web(folder), Processes(folder)
    flag = f"--web.config.file={web.write(CLIENTS, users(prometheus='secret'))}"
    flags = *file_flags(folder), flag
    try:
        exporter = Command(processes, find_free_port(), *flags).start()
        config = configure(folder, ":".join(map(str, exporter.address)), web)
        prometheus = start_prometheus(servers, processes, config)
        yield Monitored(folder, exporter, prometheus, web)
    finally:
        processes.stop()


def configure(folder: Path, exporter: str, web: Web) -> Path:
    """Make the commented lines of the shipped configuration count, and their files."""
    config = adapt_config(folder, exporter, scrape_interval="1s")
    # Examples have no blank behind the sign, or two; comments have one.
    example = r"(?m)^    #((?:  )?\w+:)"
    text, count = re.subn(example, r"    \1", config.read_text())
    assert count == 9
    config.write_text(text.replace("hakgal.example.org", "localhost"))
    secrets = config.parent / "secrets"
    secrets.mkdir()
    certificate, key = web.clients.issue("prometheus")
    shutil.copy(web.servers.file, secrets / "hakgal-ca.pem")
    shutil.copy(certificate, secrets / "prometheus.crt")
    shutil.copy(key, secrets / "prometheus.key")
    (secrets / "hakgal-password").write_text("secret")
    return config


def test_another_password_is_no_scrape(monitored: Monitored) -> None:
    monitored.wait_until({UP: [(1,)], "sum(hakgal_up)": [(2,)]})
    monitored.web.write(CLIENTS, users(prometheus="another"))
    monitored.wait_until({UP: [(0,)]})
    targets = monitored.prometheus.api("targets")["activeTargets"]
    (error,) = (t["lastError"] for t in targets if t["labels"]["job"] == "hakgal")
    assert "401 Unauthorized" in error
    monitored.web.write(CLIENTS, users(prometheus="secret"))
    monitored.wait_until({UP: [(1,)]})


def test_kill_with_rows_written_and_pruned_meanwhile_loses_and_doubles_nothing(
    monitored: Monitored,
) -> None:
    monitored.simulate()
    monitored.wait_until_all_is_seen()
    monitored.exporter.kill()
    monitored.simulate()
    for table, (file, _) in TABLES.items():  # what the dead exporter had counted
        cursor = read_state(monitored.folder)[table]["cursor"]
        monitored.sql(file, f"DELETE FROM {table} WHERE id <= {cursor}")
        assert monitored.sql(file, f"SELECT COUNT(*) > 0 FROM {table}") == [(1,)]
    monitored.wait_until({UP: [(0,)]})

    monitored.exporter.start()

    monitored.wait_until_all_is_seen()
    monitored.wait_until({"sum(hakgal_exporter_missed_rows_total)": [(0,)]})
    counters = monitored.prometheus.api("query", query=COUNTERS)["result"]
    assert len(counters) > 200
    for series in counters:
        values = [float(value) for _, value in series["values"]]
        assert values == sorted(values), f"fell: {series['metric']}"
