"""The stand-in for HAK/GAL: its files, its rows, its faults, and its manners."""

import re
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from exporter.commands.faults import FAULTS, INCIDENTS, incident
from exporter.commands.simulate import create
from tests.exporters import WAIT_SECONDS, file_flags, run
from tests.servers import ROOT, Process, Processes, wait_until

FACTS, EVENTS = "hexagonal_kb.db", "hakgal_performance.db"
# Faster than any machine can: one commit of 5,000 rows, and no more.
ONE_COMMIT = "--rate=1e9", "--duration=0.001"
# What simulate prints, and where that is in the files.
TOTALS = {
    r"(\d+) queries": "query_times",
    r"\((\d+) failed\)": "query_times WHERE NOT success",
    r"(\d+) cache hits": "cache_events WHERE hit",
    r"(\d+) misses": "cache_events WHERE NOT hit",
    r"(\d+) facts added": "audit_log WHERE operation = 'add_fact'",
    r"(\d+) removed": "audit_log WHERE operation = 'delete_fact'",
    r"(\d+) audit rows": "audit_log",
}
CAUSED = [  # without a fault, inside HAK/GAL's own limits
    ("", "AVG(query_time) BETWEEN 0.06 AND 0.1 FROM query_times"),
    ("", "AVG(hit) BETWEEN 0.8 AND 0.95 FROM cache_events"),
    ("", "AVG(NOT success) < 0.05 FROM query_times"),
    ("slow-queries", "AVG(query_time) BETWEEN 0.6 AND 2 FROM query_times"),
    ("failures", "AVG(NOT success) BETWEEN 0.4 AND 0.6 FROM query_times"),
    ("cache-misses", "AVG(hit) < 0.2 FROM cache_events"),
    ("query-types", "COUNT(DISTINCT query_type) > 100 FROM query_times"),
    ("broken-rows", "AVG(query_time IN ('soon', -1, 9e999)) > 0.4 FROM query_times"),
    ("prune-unread", "COUNT(*) = 1 AND MAX(id) > 100 FROM query_times"),
    ("no-writes", "COUNT(*) = 0 FROM query_times"),
    ("facts-lost failures", "COUNT(*) = 0 FROM facts"),
    ("facts-lost failures", "AVG(NOT success) BETWEEN 0.4 AND 0.6 FROM query_times"),
]
REFUSED = {
    "--rate=nan": "argument --rate: got nan, want a number above 0",
    "--fault=lock --fault=failures": "--fault: cannot combine lock and failures",
    "--fault=earthquake": "argument --fault: invalid choice: 'earthquake'",
}
QUERIES = "query_time, query_type, success, hit, cache_key, response_time"
QUERIES += " FROM query_times JOIN cache_events USING (id) ORDER BY id LIMIT 200"
PATIENCE = "from exporter.commands import simulate; simulate.LOCK_SECONDS = {}"
PATIENCE += "; from exporter.__main__ import main; raise SystemExit(main())"
# A quarter of an hour takes 0.9 s.
HASTE = "from exporter.commands import simulate; then = simulate.incident"
HASTE += "; simulate.incident = lambda seconds: then(seconds * 1000)"
HASTE += "; from exporter.__main__ import main; raise SystemExit(main())"
PATIENT = sys.executable, "-c", PATIENCE.format(60)
Started = Callable[..., Process]


@pytest.fixture
def started(processes: Processes, tmp_path: Path) -> Started:
    """Return what starts the command, with flags, beside the test."""
    words = "simulate", *file_flags(tmp_path)[:2]
    return lambda *flags: processes.start(
        *PATIENT, *words, *flags, PYTHONPATH=str(ROOT)
    )


def simulate(folder: Path, *flags: str, program: str = "") -> CompletedProcess[str]:
    return run("simulate", *file_flags(folder)[:2], *flags, program=program)


def select(folder: Path, what: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / EVENTS)) as db:
        db.execute("ATTACH ? AS facts", [str(folder / FACTS)])
        return db.execute(f"SELECT {what}").fetchall()


def is_locked(file: Path) -> bool:
    with closing(sqlite3.connect(file, timeout=0.1)) as db:
        try:
            return not db.execute("SELECT COUNT(*) FROM sqlite_schema").fetchall()
        except sqlite3.OperationalError:
            return True


def test_totals_are_what_is_in_the_files(tmp_path: Path) -> None:
    done = simulate(tmp_path, "--rate=2000", "--duration=0.5", "--seed=7")
    assert (done.returncode, done.stderr) == (0, "")
    for pattern, rows in TOTALS.items():
        (total,) = re.findall(pattern, done.stdout)
        assert select(tmp_path, f"COUNT(*) FROM {rows}") == [(int(total),)] > [(0,)]
    ((rows, seconds),) = re.findall(r"^(\d+) rows in ([\d.]+) s ", done.stdout)
    assert 1000 <= int(rows) <= 2000 * float(seconds) + 200  # no round is cut short
    assert {path.name for path in tmp_path.iterdir()} == {FACTS, EVENTS}


def test_same_seed_gives_the_same_rows_at_any_rate(tmp_path: Path) -> None:
    rows = []
    for name, seed, rate in (("a", 5, 2000), ("b", 5, 9000), ("c", 6, 2000)):
        flags = f"--seed={seed}", f"--rate={rate}", "--duration=0.5"
        assert simulate(tmp_path / name, *flags).returncode == 0
        rows.append(select(tmp_path / name, QUERIES))
    assert len(rows[0]) == 200
    assert rows[0] == rows[1] != rows[2]


@pytest.mark.parametrize(("faults", "finding"), CAUSED)
def test_faults_are_in_the_rows(tmp_path: Path, faults: str, finding: str) -> None:
    create(tmp_path / FACTS, tmp_path / EVENTS, facts=50)
    flags = [f"--fault={fault}" for fault in faults.split()]
    assert simulate(tmp_path, *flags, *ONE_COMMIT).returncode == 0
    assert select(tmp_path, finding) == [(True,)]


def test_incidents_come_in_turn_between_calm_times(tmp_path: Path) -> None:
    calm = {incident(60 * minute) for minute in (0, 4, 12, 14, 15, 19)}
    assert calm == {None}
    assert [incident(300 + 900 * n) for n in range(8)] == [*INCIDENTS, INCIDENTS[0]]

    flags = "--incidents", "--rate=2000", f"--duration={0.9 * len(INCIDENTS)}"
    done = simulate(tmp_path, *flags, program=HASTE)

    assert (done.returncode, done.stderr) == (0, "")
    queries, failed, *_ = map(int, re.findall(r"(\d+) (?:queries|failed)", done.stdout))
    assert failed > 0.04 * queries  # twice as many as without
    pruned = "MAX(id) > 2 * COUNT(*), TOTAL(query_time = 'soon') > 0 FROM query_times"
    assert select(tmp_path, pruned) == [(True, True)]


def test_logs_grow_past_what_a_checkpoint_would_leave(
    started: Started, processes: Processes, tmp_path: Path
) -> None:
    simulator = started("--fault=wal-growth", "--rate=60000")
    # 1,000 pages of 4 KiB are SQLite's limit for a log that can be emptied.
    wait_until(
        lambda: sum(log.stat().st_size > 5e6 for log in tmp_path.glob("*-wal")) == 2,
        WAIT_SECONDS,
    )
    simulator.terminate()
    assert simulator.wait(WAIT_SECONDS) == 0
    assert " rows in " in processes.output(simulator)
    assert list(tmp_path.glob("*-wal")) == []


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_lock_keeps_readers_out(started: Started, tmp_path: Path, mode: str) -> None:
    files = [tmp_path / FACTS, tmp_path / EVENTS]
    create(files[0], files[1], facts=5)
    for file in files:
        with closing(sqlite3.connect(file)) as db:
            db.execute(f"PRAGMA journal_mode = {mode}")
    simulator = started("--fault=lock")
    wait_until(lambda: all(map(is_locked, files)), WAIT_SECONDS)
    simulator.send_signal(signal.SIGINT)
    assert simulator.wait(WAIT_SECONDS) == 0
    assert not any(map(is_locked, files))
    assert select(tmp_path, "COUNT(*) FROM facts") == [(5,)]
    assert sorted(tmp_path.glob("*.db*")) == sorted(files)


def test_waits_for_a_lock(started: Started, tmp_path: Path) -> None:
    create(tmp_path / FACTS, tmp_path / EVENTS)
    with closing(sqlite3.connect(tmp_path / FACTS, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        patient = started(*ONE_COMMIT)
        done = simulate(tmp_path, *ONE_COMMIT, program=PATIENCE.format(0.2))
        assert done.returncode == 1
        assert "database is locked; end the program that holds" in done.stderr
        assert patient.poll() is None
    assert patient.wait(WAIT_SECONDS) == 0


@pytest.mark.parametrize(("flags", "problem"), REFUSED.items())
def test_nonsense_is_refused(tmp_path: Path, flags: str, problem: str) -> None:
    done = simulate(tmp_path, *flags.split())
    assert done.returncode == 2
    assert problem in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_explains_each_fault() -> None:
    lines = {f"  {fault:13} {text}" for fault, text in FAULTS.items()}
    assert lines <= set(run("simulate", "--help").stdout.splitlines())
