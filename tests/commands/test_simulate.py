"""The simulated HAK/GAL: its schema, its rows, and its manners as a writer."""

import re
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from exporter.commands import simulate
from exporter.commands.activity import Behaviour, Totals
from exporter.commands.faults import FAULTS, Saboteur, contradiction
from exporter.commands.simulate import Simulator, create
from exporter.database.reader import Database
from exporter.errors import DatabaseError
from tests.exporters import run
from tests.servers import ROOT, Process, Processes, wait_until

_STAMP = ("timestamp", "TEXT", 0, "CURRENT_TIMESTAMP")
_ID = ("id", "INTEGER", 0, None)
_TABLES = {
    "facts": [
        _ID,
        ("statement", "TEXT", 1, None),
        ("source", "TEXT", 0, None),
        _STAMP,
        ("tags", "TEXT", 0, None),
        ("confidence", "REAL", 0, "1.0"),
    ],
    "audit_log": [
        _ID,
        _STAMP,
        ("operation", "TEXT", 1, None),
        ("details", "TEXT", 0, None),
        ("user_id", "TEXT", 0, None),
        ("session_id", "TEXT", 0, None),
    ],
    "performance_metrics": [
        _ID,
        _STAMP,
        ("metric_name", "TEXT", 1, None),
        ("metric_value", "REAL", 1, None),
        ("metric_type", "TEXT", 0, "'gauge'"),
        ("tags", "TEXT", 0, None),
    ],
    "query_times": [
        _ID,
        _STAMP,
        ("query_time", "REAL", 1, None),
        ("query_type", "TEXT", 0, None),
        ("success", "BOOLEAN", 0, "TRUE"),
    ],
    "cache_events": [
        _ID,
        _STAMP,
        ("hit", "BOOLEAN", 1, None),
        ("cache_key", "TEXT", 0, None),
        ("response_time", "REAL", 0, None),
    ],
}
_COLUMNS = 'SELECT name, type, "notnull", dflt_value FROM pragma_table_info(?)'
_COUNTS = {
    "queries": "SELECT COUNT(*) FROM query_times",
    "failures": "SELECT COUNT(*) FROM query_times WHERE NOT success",
    "cache_hits": "SELECT COUNT(*) FROM cache_events WHERE hit",
    "cache_misses": "SELECT COUNT(*) FROM cache_events WHERE NOT hit",
}
_AUDIT_COUNT = "SELECT COUNT(*) FROM audit_log WHERE operation = ?"
_AUDITED = {
    "facts_added": "add_fact",
    "facts_removed": "delete_fact",
    "facts_updated": "update_fact",
}
# Each query has its look-up under the same id; only a burst searches so slowly.
_SLOW_SEARCHES = """
FROM query_times JOIN cache_events USING (id)
WHERE query_type = 'search_knowledge' AND query_time > 0.15
"""
_WRONG_RESPONSE_TIMES = """
SELECT COUNT(*) FROM query_times JOIN cache_events USING (id)
WHERE CASE WHEN hit THEN response_time NOT BETWEEN 0.0005 AND 0.005
      ELSE response_time != query_time END
"""
_TIME_RANGES = """
SELECT query_type, MIN(query_time), MAX(query_time) FROM query_times
GROUP BY query_type ORDER BY query_type
"""
_EXPECTED_TIME_RANGES = [
    ("add_fact", 0.020, 0.080),
    ("consistency_check", 0.100, 0.300),
    ("get_system_status", 0.010, 0.030),
    ("health_check", 0.010, 0.020),
    ("search_knowledge", 0.050, 0.500),
]
# Without timestamps, which are the clock's.
_QUERIES = "SELECT query_time, query_type, success FROM query_times ORDER BY id"
_LOOKUPS = "SELECT hit, cache_key, response_time FROM cache_events ORDER BY id"
_AUDIT = "SELECT operation, details, user_id, session_id FROM audit_log ORDER BY id"


class Files:
    """Both databases of one HAK/GAL, and short ways to ask them."""

    def __init__(self, folder: Path) -> None:
        self.knowledge_base = folder / "hexagonal_kb.db"
        self.performance = folder / "hakgal_performance.db"
        self.paths = (self.knowledge_base, self.performance)

    def run(
        self, duration: float, *, rate: float | None = None, seed: int = 7
    ) -> Totals:
        simulator = Simulator(*self.paths, rate=rate, seed=seed)
        return simulator.run(threading.Event(), duration)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    made = Files(tmp_path)
    create(*made.paths, facts=50)
    return made


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Files, Totals]:
    files = Files(tmp_path_factory.mktemp("long_run"))
    create(*files.paths, facts=50)
    return files, files.run(0.5, rate=100_000)


def ask(path: Path, sql: str, *parameters: object) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql, parameters).fetchall()


def number(path: Path, sql: str, *parameters: object) -> float:
    value = ask(path, sql, *parameters)[0][0]
    assert isinstance(value, (int, float))
    return value


@contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    with closing(db):
        db.execute("BEGIN IMMEDIATE")
        yield db


@contextmanager
def soon(act: Callable[[], object]) -> Iterator[None]:
    timer = threading.Timer(0.2, act)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_create_makes_the_columns_of_hakgal(files: Files) -> None:
    found = {
        table: columns
        for table in _TABLES
        for path in files.paths
        if (columns := ask(path, _COLUMNS, table))
    }
    assert found == _TABLES


@pytest.mark.parametrize("table", _TABLES)
def test_ids_are_never_used_twice(files: Files, table: str) -> None:
    sql = "SELECT sql FROM sqlite_master WHERE name = ?"
    ((created,),) = [
        *ask(files.knowledge_base, sql, table),
        *ask(files.performance, sql, table),
    ]
    assert "id INTEGER PRIMARY KEY AUTOINCREMENT" in str(created)


def test_create_makes_missing_folders(tmp_path: Path) -> None:
    files = Files(tmp_path / "new" / "folder")
    create(*files.paths)
    assert all(path.is_file() for path in files.paths)


def test_create_again_changes_nothing(files: Files) -> None:
    before = [path.read_bytes() for path in files.paths]
    create(*files.paths, facts=99, seed=1)
    assert [path.read_bytes() for path in files.paths] == before


def test_create_adds_a_missing_table_and_keeps_the_others(files: Files) -> None:
    ask(files.performance, "DROP TABLE cache_events")
    files_before = ask(files.knowledge_base, "SELECT * FROM facts")
    create(*files.paths, facts=99)
    assert ask(files.performance, "SELECT * FROM cache_events") == []
    assert ask(files.knowledge_base, "SELECT * FROM facts") == files_before


@pytest.mark.parametrize(("mode", "other"), [("wal", "delete"), ("delete", "wal")])
def test_existing_file_keeps_its_journal_mode(
    tmp_path: Path, mode: str, other: str
) -> None:
    files = Files(tmp_path)
    create(*files.paths, journal_mode=mode)
    create(*files.paths, journal_mode=other)
    for path in files.paths:
        assert ask(path, "PRAGMA journal_mode") == [(mode,)]


def test_seeded_facts_are_plausible_and_hardly_repeat(tmp_path: Path) -> None:
    files = Files(tmp_path)
    create(*files.paths, facts=2_000)
    facts = ask(files.knowledge_base, "SELECT statement, confidence FROM facts")
    assert len(facts) == 2_000
    assert len({statement for statement, _ in facts}) > 1_980
    for statement, confidence in facts:
        assert re.fullmatch(r"[A-Z]\w+\([A-Z]\w+, [A-Z]\w+\)\.", str(statement))
        assert 0.5 <= float(str(confidence)) <= 1.0


def test_path_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    obstacle = tmp_path / "file"
    obstacle.touch()
    files = Files(obstacle)
    with pytest.raises(DatabaseError, match=re.escape(str(obstacle))):
        create(*files.paths)


def test_totals_equal_what_sql_counts(long_run: tuple[Files, Totals]) -> None:
    files, totals = long_run
    for name, sql in _COUNTS.items():
        assert getattr(totals, name) == number(files.performance, sql), name
    for name, operation in _AUDITED.items():
        counted = number(files.knowledge_base, _AUDIT_COUNT, operation)
        assert getattr(totals, name) == counted > 0, name
    facts = 50 + totals.facts_added - totals.facts_removed
    assert number(files.knowledge_base, "SELECT COUNT(*) FROM facts") == facts
    audit_rows = number(files.knowledge_base, "SELECT COUNT(*) FROM audit_log")
    assert totals.audit_rows == audit_rows


def test_shares_are_those_of_the_old_simulator(long_run: tuple[Files, Totals]) -> None:
    files, totals = long_run
    burst_queries = number(files.performance, f"SELECT COUNT(*) {_SLOW_SEARCHES}")
    rounds = totals.queries - burst_queries
    assert 0.03 < burst_queries / 5 / rounds < 0.07
    lookups = totals.cache_hits + totals.cache_misses
    assert 0.65 < totals.cache_hits / lookups < 0.75
    assert 0.01 < totals.failures / totals.queries < 0.03
    additions = (
        "SELECT COUNT(*) FROM query_times WHERE query_type = 'add_fact' AND success"
    )
    assert totals.facts_added == number(files.performance, additions)


def test_query_times_stay_within_those_of_the_old_simulator(
    long_run: tuple[Files, Totals],
) -> None:
    files, _ = long_run
    found = ask(files.performance, _TIME_RANGES)
    assert [row[0] for row in found] == [row[0] for row in _EXPECTED_TIME_RANGES]
    for (_, least, most), (_, lower, upper) in zip(
        found, _EXPECTED_TIME_RANGES, strict=True
    ):
        assert lower <= float(str(least)) < float(str(most)) <= upper


def test_bursts_miss_the_cache(long_run: tuple[Files, Totals]) -> None:
    files, _ = long_run
    assert number(files.performance, f"SELECT COUNT(*) {_SLOW_SEARCHES}") > 0
    assert number(files.performance, f"SELECT COUNT(*) {_SLOW_SEARCHES} AND hit") == 0


def test_hits_are_fast_and_misses_take_as_long_as_their_query(
    long_run: tuple[Files, Totals],
) -> None:
    files, _ = long_run
    wrong = number(files.performance, _WRONG_RESPONSE_TIMES)
    assert wrong == 0


def test_timestamps_are_those_of_sqlite(long_run: tuple[Files, Totals]) -> None:
    files, _ = long_run
    odd = (
        "SELECT COUNT(*) FROM query_times WHERE timestamp IS NOT datetime(timestamp)"
        " OR abs(julianday('now') - julianday(timestamp)) > 1"
    )
    assert number(files.performance, odd) == 0


def test_same_seed_gives_the_same_rows_at_any_rate(tmp_path: Path) -> None:
    runs = []
    for rate in 20_000, 60_000:
        files = Files(tmp_path / str(rate))
        create(*files.paths, facts=50)
        files.run(0.1, rate=rate)
        tables = [ask(files.performance, sql) for sql in (_QUERIES, _LOOKUPS)]
        runs.append([*tables, ask(files.knowledge_base, _AUDIT)])
    for first, second in zip(*runs, strict=True):
        common = min(len(first), len(second))
        assert first[:common] == second[:common] != []


def test_other_seed_gives_other_rows(tmp_path: Path) -> None:
    first, second = Files(tmp_path / "first"), Files(tmp_path / "second")
    for seed, files in enumerate((first, second)):
        create(*files.paths)
        files.run(0.02, rate=5_000, seed=seed)
    rows = [ask(files.performance, _QUERIES) for files in (first, second)]
    assert rows[0][:10] != rows[1][:10]


def test_rate_is_kept_on_average(files: Files) -> None:
    totals = files.run(0.6, rate=1_000)
    # Above: a round cannot be split. Below: a busy machine may miss the last batches.
    assert 300 < totals.events < 620
    assert totals.events_per_second == totals.events / totals.seconds


def test_own_pace_writes_one_round_at_a_time(files: Files) -> None:
    totals = files.run(0.05)
    assert totals.queries in {1, 6}
    assert totals.queries == totals.cache_hits + totals.cache_misses


def test_stop_is_prompt_between_rounds(files: Files) -> None:
    stop = threading.Event()
    started = time.monotonic()
    pauses = Behaviour(pause_seconds=(60.0, 60.0))
    with soon(stop.set):
        totals = Simulator(*files.paths, behaviour=pauses).run(stop)
    assert time.monotonic() - started < 5
    assert totals.queries > 0


def test_nothing_is_written_once_stopped(files: Files) -> None:
    stop = threading.Event()
    stop.set()
    assert Simulator(*files.paths, rate=1_000).run(stop) == Totals()
    assert number(files.performance, _COUNTS["queries"]) == 0


def test_last_writer_leaves_no_side_files(files: Files) -> None:
    files.run(0.05, rate=2_000)
    folder = files.performance.parent
    assert sorted(folder.iterdir()) == sorted(files.paths)


def test_failed_additions_add_nothing(files: Files) -> None:
    failing = Behaviour(failure_share=1.0, removal_share=0.0, update_share=0.0)
    simulator = Simulator(*files.paths, rate=10_000, seed=7, behaviour=failing)
    totals = simulator.run(threading.Event(), 0.05)
    assert totals.failures == totals.queries > 0
    assert totals.facts_added == totals.audit_rows == 0


def test_removal_from_an_empty_knowledge_base_counts_nothing(tmp_path: Path) -> None:
    files = Files(tmp_path)
    create(*files.paths)
    removing = Behaviour(failure_share=1.0, removal_share=1.0)
    simulator = Simulator(*files.paths, rate=10_000, seed=7, behaviour=removing)
    totals = simulator.run(threading.Event(), 0.05)
    assert totals.queries > 0
    assert totals.facts_removed == totals.facts_updated == totals.audit_rows == 0


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_locked_database_is_waited_for(tmp_path: Path, mode: str) -> None:
    files = Files(tmp_path)
    create(*files.paths, facts=50, journal_mode=mode)
    with locked(files.performance) as db, soon(lambda: db.execute("COMMIT")):
        totals = files.run(0.05, rate=2_000)
    assert totals.queries == number(files.performance, _COUNTS["queries"]) > 0


def test_stop_is_noticed_behind_a_lock(files: Files) -> None:
    stop = threading.Event()
    simulator = Simulator(*files.paths, rate=2_000)
    with locked(files.performance), soon(stop.set):
        totals = simulator.run(stop)
    assert totals.queries == number(files.performance, _COUNTS["queries"]) == 0


def test_lock_that_outlasts_patience_is_reported(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate, "_LOCK_PATIENCE_SECONDS", 0.0)
    simulator = Simulator(*files.paths, rate=2_000, seed=7)
    with (
        locked(files.knowledge_base),
        pytest.raises(DatabaseError, match=r"hexagonal_kb\.db: database is locked"),
    ):
        simulator.run(threading.Event())
    assert simulator.totals.facts_added == 0
    queries = number(files.performance, _COUNTS["queries"])
    assert simulator.totals.queries == queries > 0


@pytest.mark.parametrize("table", ["facts", "audit_log", "query_times", "cache_events"])
def test_missing_table_is_named_with_what_makes_it(files: Files, table: str) -> None:
    for path in files.paths:
        ask(path, f"DROP TABLE IF EXISTS {table}")
    with pytest.raises(DatabaseError, match=rf"no such table: {table}; .*create makes"):
        files.run(1.0, rate=5_000)


def test_missing_file_is_not_made_by_a_run(tmp_path: Path) -> None:
    files = Files(tmp_path)
    with pytest.raises(DatabaseError, match=r"hakgal_performance\.db.*create makes"):
        files.run(1.0)
    assert list(tmp_path.iterdir()) == []


def sabotage(files: Files, *faults: str, duration: float = 0.1) -> Totals:
    saboteur = Saboteur(*files.paths, faults=faults, rate=5_000, seed=7)
    return saboteur.run(threading.Event(), duration)


def simulate_with(processes: Processes, files: Files, *flags: str) -> Process:
    """Start ``simulate`` as a process of its own: locks are a process' own."""
    command = [sys.executable, "-m", "exporter", "simulate", *name(files), *flags]
    return processes.start(*command, PYTHONPATH=str(ROOT))


def name(files: Files) -> list[str]:
    """Return the flags that name the files."""
    knowledge_base, performance = files.paths
    return [
        f"--database.knowledge-base={knowledge_base}",
        f"--database.performance={performance}",
    ]


def is_locked(path: Path) -> bool:
    """Say whether the exporter is kept out."""
    database = Database("any", path)
    try:
        database.read(lambda db, look: None, time.monotonic() + 0.1)
    except DatabaseError:
        return True
    return False


def test_no_fault_is_normal_behaviour(tmp_path: Path) -> None:
    rows = []
    for kind in Simulator, Saboteur:
        files = Files(tmp_path / kind.__name__)
        create(*files.paths, facts=50)
        kind(*files.paths, rate=5_000, seed=7).run(threading.Event(), 0.1)
        rows.append(ask(files.performance, _QUERIES))
    assert rows[0][:100] == rows[1][:100] != []


@pytest.mark.parametrize(
    ("fault", "sql", "least", "most"),
    [
        ("slow-queries", "SELECT AVG(query_time) FROM query_times", 0.6, 2.0),
        ("failures", "SELECT AVG(NOT success) FROM query_times", 0.4, 0.6),
        ("cache-misses", "SELECT AVG(hit) FROM cache_events", 0.0, 0.2),
        ("query-types", "SELECT COUNT(DISTINCT query_type) FROM query_times", 101, 150),
        ("broken-rows", "SELECT AVG(query_time < 0) FROM query_times", 0.1, 0.2),
        ("broken-rows", "SELECT AVG(query_time = 9e999) FROM query_times", 0.1, 0.2),
        ("broken-rows", "SELECT AVG(query_time = 'soon') FROM query_times", 0.1, 0.2),
        ("prune-unread", "SELECT COUNT(*) FROM query_times", 1, 1),
        ("prune-unread", "SELECT COUNT(*) FROM cache_events", 1, 1),
        ("prune-unread", "SELECT MAX(id) FROM query_times", 100, 1_000_000),
        ("no-writes", "SELECT COUNT(*) FROM query_times", 0, 0),
    ],
)
def test_fault_is_in_the_rows(
    files: Files, fault: str, sql: str, least: float, most: float
) -> None:
    sabotage(files, fault, duration=0.3)
    assert least <= number(files.performance, sql) <= most


def test_faults_come_together(files: Files) -> None:
    sabotage(files, "slow-queries", "failures", "broken-rows")
    slow = "SELECT MAX(query_time) FROM query_times WHERE typeof(query_time) = 'real'"
    assert number(files.performance, f"{slow} AND query_time < 9e999") > 1.0
    failed = "SELECT AVG(NOT success) FROM query_times"
    assert 0.3 < number(files.performance, failed) < 0.7


def test_lost_facts_are_removed_one_by_one_until_none_is_left(files: Files) -> None:
    totals = sabotage(files, "facts-lost", duration=0.5)
    assert (totals.facts_added, totals.facts_removed) == (0, 50)
    assert number(files.knowledge_base, "SELECT COUNT(*) FROM facts") == 0


def test_log_grows_past_what_a_checkpoint_would_leave(files: Files) -> None:
    log = files.performance.with_name(files.performance.name + "-wal")
    stop = threading.Event()
    saboteur = Saboteur(*files.paths, faults=["wal-growth"], rate=60_000, seed=7)
    thread = threading.Thread(target=saboteur.run, args=[stop])
    thread.start()
    # 1,000 pages of 4 KiB are SQLite's limit for a log that can be emptied.
    wait_until(lambda: log.exists() and log.stat().st_size > 6 * 2**20, 20)
    stop.set()
    thread.join()
    assert not log.exists()


def test_log_cannot_grow_without_one(tmp_path: Path) -> None:
    files = Files(tmp_path)
    create(*files.paths, journal_mode="delete")
    with pytest.raises(
        DatabaseError, match=r"hexagonal_kb\.db .*journal mode is delete"
    ):
        sabotage(files, "wal-growth")


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_lock_keeps_readers_out_until_it_is_told_to_end(
    processes: Processes, tmp_path: Path, mode: str, stop_signal: signal.Signals
) -> None:
    files = Files(tmp_path)
    create(*files.paths, facts=5, journal_mode=mode)
    locker = simulate_with(processes, files, "--fault=lock")
    wait_until(lambda: all(map(is_locked, files.paths)), 10)
    locker.send_signal(stop_signal)
    assert locker.wait(5) == 0
    assert not any(map(is_locked, files.paths))
    assert number(files.knowledge_base, "SELECT COUNT(*) FROM facts") == 5
    assert sorted(tmp_path.glob("*.db*")) == sorted(files.paths)


def test_lock_that_somebody_else_has_is_reported(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = sqlite3.connect(files.knowledge_base)
    monkeypatch.setattr(simulate, "_LOCK_PATIENCE_SECONDS", 0.0)
    with closing(holder), holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(
            DatabaseError, match=r"hexagonal_kb\.db: database is locked"
        ):
            sabotage(files, "lock")


@pytest.mark.parametrize(
    "faults",
    [("lock", "failures"), ("no-writes", "lock"), ("facts-lost", "query-types")],
)
def test_faults_that_exclude_each_other_are_refused(
    files: Files, faults: tuple[str, str]
) -> None:
    done = run("simulate", *(f"--fault={fault}" for fault in faults), *name(files))
    assert done.returncode == 2
    assert f"--fault: {faults[0]} and {faults[1]} exclude each other" in done.stderr


def test_unknown_fault_is_refused_with_the_known_ones(files: Files) -> None:
    done = run("simulate", "--fault=earthquake", *name(files))
    assert done.returncode == 2
    assert all(fault in done.stderr for fault in FAULTS)


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_explained_and_goes_with_itself(fault: str) -> None:
    assert f"  {fault:13} {FAULTS[fault].does}\n" in run("simulate", "--help").stdout
    assert contradiction([fault, fault]) is None
