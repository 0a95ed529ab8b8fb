"""Rows go in, and a real Prometheus answers in PromQL what SQL says of the files."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from exporter.commands.simulate import create
from tests.exporters import Command, file_flags, make_config, read_state, run
from tests.servers import (
    Processes,
    Prometheus,
    Servers,
    adapt_config,
    find_free_port,
    start_prometheus,
    wait_until,
)

PATIENCE_SECONDS = 30
KNOWLEDGE_BASE, PERFORMANCE = "hexagonal_kb.db", "hakgal_performance.db"
OUTCOME = "iif(success, 'success', 'failure')"
BY_OUTCOME = "FROM query_times GROUP BY query_type, success"
QUERIES = "hakgal_query_duration_seconds"
MISSED = "hakgal_exporter_missed_rows_total"
# PromQL, and the same in SQL: labels in alphabetical order, then the value.
IN_PERFORMANCE = {
    f"{QUERIES}_count > 0": f"SELECT {OUTCOME}, query_type, COUNT(*) {BY_OUTCOME}",
    f"{QUERIES}_sum > 0": f"SELECT {OUTCOME}, query_type, SUM(query_time) {BY_OUTCOME}",
    f"sum by (outcome) ({QUERIES}_bucket{{le='0.1'}})": f"SELECT {OUTCOME}, COUNT(*)"
    " FROM query_times WHERE query_time <= 0.1 GROUP BY success",
    "hakgal_cache_hits_total": "SELECT COUNT(*) FROM cache_events WHERE hit",
    "hakgal_cache_misses_total": "SELECT COUNT(*) FROM cache_events WHERE NOT hit",
    "hakgal_cache_response_seconds_sum": "SELECT iif(hit, 'hit', 'miss'),"
    " SUM(response_time) FROM cache_events GROUP BY hit",
    "hakgal_last_event_timestamp_seconds{table='query_times'}": "SELECT 'query_times',"
    " strftime('%s', MAX(timestamp)) FROM query_times",
}
IN_KNOWLEDGE_BASE = {
    "hakgal_audit_events_total": "SELECT operation, COUNT(*) FROM audit_log GROUP BY 1",
    "hakgal_facts": "SELECT COUNT(*) FROM facts",
    "hakgal_facts_added_total - hakgal_fact_confidence_count": "SELECT 0",
    # What must not have happened, and what must be well.
    "sum(hakgal_exporter_rejected_rows_total)": "SELECT 0",
    f"sum({MISSED})": "SELECT 0",
    "sum(hakgal_exporter_resets_total)": "SELECT 0",
    "sum(hakgal_exporter_backlog_rows)": "SELECT 0",
    "sum(hakgal_exporter_collector_success)": "SELECT 6",
    "hakgal_up": "VALUES ('knowledge_base', 1), ('performance', 1)",
    "sum(up{job='hakgal'})": "SELECT 1",
}
EXPRESSIONS = [(q, PERFORMANCE, sql) for q, sql in IN_PERFORMANCE.items()] + [
    (q, KNOWLEDGE_BASE, sql) for q, sql in IN_KNOWLEDGE_BASE.items()
]
COUNTERS = '{job="hakgal", __name__=~"hakgal_.+_(total|count|bucket)"}[10m]'
TARGET_LABELS = {"__name__", "instance", "job", "le"}


class Monitored(NamedTuple):
    """An exporter over the databases in a folder, and a Prometheus that scrapes it."""

    folder: Path
    exporter: Command
    prometheus: Prometheus

    def sql(self, file: str, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.folder / file)) as db, db:
            return db.execute(statement).fetchall()

    def promql(self, expression: str) -> list[tuple[Any, ...]]:
        """Return what Prometheus says, in the shape in which SQL says it."""
        return [
            (*(v for k, v in sorted(labels.items()) if k not in TARGET_LABELS), value)
            for labels, value in self.prometheus.query(expression)
        ]

    def simulate(self, seconds: float) -> None:
        """Write activity as HAK/GAL would, only faster."""
        pace = "--rate=1000", f"--duration={seconds}"
        assert run("simulate", *file_flags(self.folder)[:2], *pace).returncode == 0

    def wait_until_all_is_seen(self) -> None:
        """Wait until Prometheus has all rows ever written."""
        self.wait_for(f"sum({QUERIES}_count)", PERFORMANCE, "query_times")
        lookups = "hakgal_cache_hits_total + hakgal_cache_misses_total"
        self.wait_for(lookups, PERFORMANCE, "cache_events")
        self.wait_for("sum(hakgal_audit_events_total)", KNOWLEDGE_BASE, "audit_log")
        held = self.sql(KNOWLEDGE_BASE, "SELECT COUNT(*) FROM facts")
        wait_until(lambda: self.promql("hakgal_facts") == held, PATIENCE_SECONDS)

    def wait_for(self, expression: str, file: str, table: str) -> None:
        """Wait until Prometheus has a value for each id that was given out."""
        sequence = f"SELECT seq FROM sqlite_sequence WHERE name = '{table}'"
        written = self.sql(file, sequence)
        wait_until(lambda: self.promql(expression) == written, PATIENCE_SECONDS)


@contextmanager
def monitoring(servers: Servers, folder: Path) -> Iterator[Monitored]:
    """Start an exporter over empty databases, and Prometheus; wait for a scrape."""
    create(folder / KNOWLEDGE_BASE, folder / PERFORMANCE)
    processes = Processes(folder)
    try:
        exporter = Command(processes, find_free_port(), *file_flags(folder)).start()
        host, port = exporter.address
        config = adapt_config(folder, f"{host}:{port}", scrape_interval="1s")
        prometheus = start_prometheus(servers, processes, config)
        monitored = Monitored(folder, exporter, prometheus)
        wait_until(lambda: monitored.promql("hakgal_up"), PATIENCE_SECONDS)
        yield monitored
    finally:
        processes.stop()


@pytest.fixture(scope="module")
def quiet(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Monitored]:
    """Monitor databases in which much has happened, and nothing happens any more."""
    with monitoring(servers, tmp_path_factory.mktemp("quiet")) as monitored:
        monitored.simulate(seconds=2.5)
        monitored.wait_until_all_is_seen()
        yield monitored


@pytest.mark.parametrize(
    ("expression", "file", "statement"), EXPRESSIONS, ids=[e[0] for e in EXPRESSIONS]
)
def test_prometheus_says_what_sql_says(
    expression: str, file: str, statement: str, quiet: Monitored
) -> None:
    wanted = {row[:-1]: float(row[-1]) for row in quiet.sql(file, statement)}

    found = {row[:-1]: row[-1] for row in quiet.promql(expression)}

    assert wanted
    assert {labels: found.get(labels) for labels in wanted} == pytest.approx(wanted)
    assert all(value == 0 for labels, value in found.items() if labels not in wanted)


def test_facts_added_are_those_that_were_there_to_be_read(quiet: Monitored) -> None:
    """Of the facts that were removed, some were removed between two scrapes."""
    added_ever = "SELECT COUNT(*) FROM audit_log WHERE operation = 'add_fact'"
    ((held,),) = quiet.sql(KNOWLEDGE_BASE, "SELECT COUNT(*) FROM facts")
    ((ever,),) = quiet.sql(KNOWLEDGE_BASE, added_ever)

    ((added,),) = quiet.promql("hakgal_facts_added_total")

    assert held <= added <= ever


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_quantile_is_in_the_bucket_of_the_real_one(
    share: float, quiet: Monitored
) -> None:
    times = quiet.sql(PERFORMANCE, "SELECT query_time FROM query_times ORDER BY 1")
    (real,) = times[int(share * len(times))]
    bounds = (0.0, *make_config(quiet.folder).query_buckets)

    expression = f"histogram_quantile({share}, sum by (le) ({QUERIES}_bucket))"
    ((estimate,),) = quiet.promql(expression)

    upper = next(n for n, bound in enumerate(bounds) if real <= bound)
    assert bounds[upper - 1] <= estimate <= bounds[upper]


def test_exemplar_is_a_query_that_sql_finds(quiet: Monitored) -> None:
    now = time.time()

    found = quiet.prometheus.api(
        "query_exemplars",
        query=f"{QUERIES}_bucket",
        start=str(now - 600),
        end=str(now + 600),
    )

    exemplars = [exemplar for series in found for exemplar in series["exemplars"]]
    assert len(exemplars) > 10
    for exemplar in exemplars:
        condition = f"id = {exemplar['labels']['query_id']}"
        rows = quiet.sql(
            PERFORMANCE, f"SELECT query_time FROM query_times WHERE {condition}"
        )
        assert [float(exemplar["value"])] == [time for (time,) in rows]


def test_kill_with_rows_written_and_pruned_meanwhile_loses_and_doubles_nothing(
    servers: Servers, tmp_path: Path
) -> None:
    with monitoring(servers, tmp_path) as monitored:
        monitored.simulate(seconds=1)
        monitored.wait_until_all_is_seen()
        monitored.exporter.kill()
        monitored.simulate(seconds=1)
        prune_what_was_read(monitored)
        wait_until(lambda: monitored.promql("up{job='hakgal'}") == [(0,)], 10)

        monitored.exporter.start()

        monitored.wait_until_all_is_seen()
        assert monitored.promql(f"sum({MISSED})") == [(0,)]
        check_that_nothing_fell(monitored)


def prune_what_was_read(monitored: Monitored) -> None:
    """Delete the rows that the dead exporter had counted."""
    states = read_state(monitored.folder)
    for file, table in (
        (PERFORMANCE, "query_times"),
        (PERFORMANCE, "cache_events"),
        (KNOWLEDGE_BASE, "audit_log"),
    ):
        cursor = states[table]["cursor"]
        assert cursor > 0
        monitored.sql(file, f"DELETE FROM {table} WHERE id <= {cursor}")
        assert monitored.sql(file, f"SELECT COUNT(*) > 0 FROM {table}") == [(1,)]


def check_that_nothing_fell(monitored: Monitored) -> None:
    """Compare each sample of each counter with the one before it."""
    data = monitored.prometheus.api("query", query=COUNTERS)
    assert len(data["result"]) > 200
    for series in data["result"]:
        values = [float(value) for _, value in series["values"]]
        assert values == sorted(values), series["metric"]
        assert "cpu" in series["metric"]["__name__"] or values[0] == 0
