"""The stand-in for HAK/GAL: its files, its rows, its faults, and its manners."""

import re
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from exporter.commands.faults import FAULTS
from exporter.commands.simulate import create
from tests.exporters import file_flags, run
from tests.servers import ROOT, Process, Processes, wait_until

FACTS, EVENTS = "hexagonal_kb.db", "hakgal_performance.db"
# What simulate prints, and what it means in the files.
FIGURES = {
    r"(\d+) queries": (EVENTS, "query_times"),
    r"\((\d+) failed\)": (EVENTS, "query_times WHERE NOT success"),
    r"(\d+) cache hits": (EVENTS, "cache_events WHERE hit"),
    r"(\d+) misses": (EVENTS, "cache_events WHERE NOT hit"),
    r"(\d+) facts added": (FACTS, "audit_log WHERE operation = 'add_fact'"),
    r"(\d+) removed": (FACTS, "audit_log WHERE operation = 'delete_fact'"),
    r"(\d+) audit rows": (FACTS, "audit_log"),
}
# Only in a burst does a search take so long; a look-up has the id of its query.
BURST = "query_times JOIN cache_events USING (id) WHERE query_time > 0.15"
BURST += " AND query_type = 'search_knowledge'"
SHARES = {
    f"SELECT COUNT(*) / 5.0 / (SELECT COUNT(*) FROM query_times) FROM {BURST}": 0.04,
    f"SELECT AVG(hit) FROM {BURST}": 0.0,
    "SELECT AVG(hit) FROM cache_events": 0.7,
    "SELECT AVG(NOT success) FROM query_times": 0.02,
    "SELECT AVG(query_time) FROM query_times": 0.13,
}
CAUSED = [
    ("slow-queries", "AVG(query_time) BETWEEN 0.6 AND 2 FROM query_times"),
    ("failures", "AVG(NOT success) BETWEEN 0.4 AND 0.6 FROM query_times"),
    ("cache-misses", "AVG(hit) < 0.2 FROM cache_events"),
    ("query-types", "COUNT(DISTINCT query_type) > 100 FROM query_times"),
    ("broken-rows", "AVG(query_time = 'soon') BETWEEN 0.1 AND 0.2 FROM query_times"),
    ("broken-rows", "AVG(abs(query_time) >= 1) BETWEEN 0.3 AND 0.4 FROM query_times"),
    ("prune-unread", "COUNT(*) = 1 AND MAX(id) > 100 FROM query_times"),
    ("no-writes", "COUNT(*) = 0 FROM query_times"),
    ("facts-lost failures", "AVG(NOT success) BETWEEN 0.4 AND 0.6 FROM query_times"),
]
REFUSED = {
    "--rate=nan": "argument --rate: got nan, want a number above 0",
    "--fault=lock --fault=failures": "--fault: lock and failures exclude each other",
    "--fault=earthquake": "argument --fault: invalid choice: 'earthquake'",
}
QUERIES = "SELECT query_time, query_type, success, hit, cache_key, response_time"
QUERIES += " FROM query_times JOIN cache_events USING (id) ORDER BY id LIMIT 200"
AUDIT = "SELECT operation, details, user_id FROM audit_log ORDER BY id LIMIT 50"
IMPATIENT = "from exporter.commands import simulate; simulate.LOCK_SECONDS = 0.2"
IMPATIENT += "; from exporter.__main__ import main; raise SystemExit(main())"
Simulate = Callable[..., Process]
Calm = tuple[Path, str]


@pytest.fixture
def started(processes: Processes, tmp_path: Path) -> Simulate:
    """Return what starts ``simulate`` with flags, beside the test."""
    command = (sys.executable, "-m", "exporter", "simulate", *file_flags(tmp_path)[:2])
    return lambda *flags: processes.start(*command, *flags, PYTHONPATH=str(ROOT))


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Calm:
    """Return a folder with much calm activity, and what was printed."""
    folder = tmp_path_factory.mktemp("calm")
    done = simulate(folder, "--rate=30000", "--duration=1", "--seed=7")
    assert (done.returncode, done.stderr) == (0, "")
    return folder, done.stdout


def make(folder: Path, journal_mode: str = "wal", facts: int = 0) -> None:
    create(folder / FACTS, folder / EVENTS, facts)
    for name in (FACTS, EVENTS):
        ask(folder / name, f"PRAGMA journal_mode = {journal_mode}")


def simulate(folder: Path, *flags: str, program: str = "") -> CompletedProcess[str]:
    return run("simulate", *file_flags(folder)[:2], *flags, program=program)


def ask(file: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(file, timeout=0.1)) as db:
        return db.execute(sql).fetchall()


def is_locked(file: Path) -> bool:
    try:
        return not ask(file, "SELECT COUNT(*) FROM sqlite_schema")
    except sqlite3.OperationalError:
        return True


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_what_is_there_is_kept(tmp_path: Path, mode: str) -> None:
    make(tmp_path, mode, facts=50)
    before = [(tmp_path / name).read_bytes() for name in (FACTS, EVENTS)]
    create(tmp_path / FACTS, tmp_path / EVENTS, facts=99)
    assert [(tmp_path / name).read_bytes() for name in (FACTS, EVENTS)] == before
    assert ask(tmp_path / FACTS, "PRAGMA journal_mode") == [(mode,)]
    ask(tmp_path / EVENTS, "DROP TABLE cache_events")
    make(tmp_path, facts=99)
    assert ask(tmp_path / EVENTS, "SELECT * FROM cache_events") == []
    assert len(ask(tmp_path / FACTS, "SELECT * FROM facts")) == 50


def test_totals_are_what_is_in_the_files(calm: Calm) -> None:
    folder, printed = calm
    for pattern, (file, rows) in FIGURES.items():
        figure = re.search(pattern, printed)
        assert figure, pattern
        ((count,),) = ask(folder / file, f"SELECT COUNT(*) FROM {rows}")
        assert int(figure[1]) == count > 0, pattern
    head = re.match(r"(\d+) rows in [\d.]+ s \((\d+)/s\): ", printed)
    assert head
    assert 0 < int(head[2]) <= 30_000 * 1.2  # a slow machine writes less
    assert {path.name for path in folder.iterdir()} == {FACTS, EVENTS}


@pytest.mark.parametrize(("sql", "share"), SHARES.items())
def test_calm_is_as_the_old_simulator(calm: Calm, sql: str, share: float) -> None:
    assert ask(calm[0] / EVENTS, sql) == [(pytest.approx(share, rel=0.2),)]


def test_same_seed_gives_the_same_rows_at_any_rate(tmp_path: Path) -> None:
    rows = []
    for name, seed, rate in (("a", 5, 2000), ("b", 5, 9000), ("c", 6, 2000)):
        make(tmp_path / name, facts=20)
        flags = f"--seed={seed}", f"--rate={rate}", "--duration=0.5"
        assert simulate(tmp_path / name, *flags).returncode == 0
        queries = ask(tmp_path / name / EVENTS, QUERIES)
        rows.append((queries, ask(tmp_path / name / FACTS, AUDIT)))
    assert [len(part) for part in rows[0]] == [200, 50]
    assert rows[0] == rows[1] != rows[2]


@pytest.mark.parametrize(("faults", "finding"), CAUSED)
def test_faults_are_in_the_rows(tmp_path: Path, faults: str, finding: str) -> None:
    flags = [f"--fault={fault}" for fault in faults.split()]
    assert simulate(tmp_path, *flags, "--rate=5000", "--duration=0.3").returncode == 0
    assert ask(tmp_path / EVENTS, f"SELECT {finding}") == [(True,)]


def test_facts_are_lost_until_none_is_left(tmp_path: Path) -> None:
    make(tmp_path, facts=50)
    done = simulate(tmp_path, "--fault=facts-lost", "--rate=5000", "--duration=0.3")
    assert ", 0 facts added, 50 removed, " in done.stdout
    assert ask(tmp_path / FACTS, "SELECT * FROM facts") == []


def test_logs_grow_past_what_a_checkpoint_would_leave(
    started: Simulate, processes: Processes, tmp_path: Path
) -> None:
    simulator = started("--fault=wal-growth", "--rate=60000")
    logs = [tmp_path / f"{name}-wal" for name in (FACTS, EVENTS)]
    # 1,000 pages of 4 KiB are SQLite's limit for a log that can be emptied.
    wait_until(lambda: all(x.exists() and x.stat().st_size > 5e6 for x in logs), 20)
    simulator.terminate()
    assert simulator.wait(5) == 0
    assert " rows in " in processes.output(simulator)
    assert not any(log.exists() for log in logs)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_lock_keeps_readers_out(started: Simulate, tmp_path: Path, mode: str) -> None:
    make(tmp_path, mode, facts=5)
    files = [tmp_path / FACTS, tmp_path / EVENTS]
    simulator = started("--fault=lock")
    wait_until(lambda: all(map(is_locked, files)), 10)
    simulator.send_signal(signal.SIGINT)
    assert simulator.wait(5) == 0
    assert not any(map(is_locked, files))
    assert len(ask(tmp_path / FACTS, "SELECT * FROM facts")) == 5
    assert sorted(tmp_path.glob("*.db*")) == sorted(files)


@pytest.mark.parametrize("fault", ["", "--fault=lock"])
def test_waits_for_a_lock(started: Simulate, tmp_path: Path, fault: str) -> None:
    make(tmp_path)
    with closing(sqlite3.connect(tmp_path / FACTS, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        simulator = started("--duration=0.1", *fault.split())
        time.sleep(1.5)
        assert simulator.poll() is None
        done = simulate(tmp_path, *fault.split(), program=IMPATIENT)
        assert done.returncode == 1
        assert "database is locked; end the program that holds" in done.stderr
    assert simulator.wait(12) == 0


@pytest.mark.parametrize(("flags", "problem"), REFUSED.items())
def test_nonsense_is_refused(tmp_path: Path, flags: str, problem: str) -> None:
    done = simulate(tmp_path, *flags.split())
    assert done.returncode == 2
    assert problem in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_one_line() -> None:
    done = simulate(Path("/proc"))
    assert done.returncode == 1
    shape = r"hakgal-exporter: cannot write /proc/.+; give a file that .+\n"
    assert re.fullmatch(shape, done.stderr)


def test_help_explains_each_fault() -> None:
    shown = run("simulate", "--help").stdout
    assert [f for f, text in FAULTS.items() if f"  {f:13} {text}\n" not in shown] == []
