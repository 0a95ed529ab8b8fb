"""The commands ``simulate``, which stands in for HAK/GAL, and ``demo``.

Only this module and the recorder write to databases; tests create theirs with it.
"""

import argparse
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from exporter import config
from exporter.commands import Stop
from exporter.commands.faults import (
    ADD_FACT,
    FAULTS,
    IDLE,
    Activity,
    draw_fact,
    incident,
)
from exporter.errors import ConfigError, DatabaseError
from exporter.recorder import PERFORMANCE_SCHEMA

# HAK/GAL's own tables. The recorder creates those of the other database.
KNOWLEDGE_BASE_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (
    id INTEGER PRIMARY KEY AUTOINCREMENT, statement TEXT NOT NULL, source TEXT,
    timestamp TEXT DEFAULT CURRENT_TIMESTAMP, tags TEXT, confidence REAL DEFAULT 1.0
);
CREATE TABLE IF NOT EXISTS audit_log (
    id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT DEFAULT CURRENT_TIMESTAMP,
    operation TEXT NOT NULL, details TEXT, user_id TEXT, session_id TEXT
);
"""
READ_FOR_EVER = "BEGIN; SELECT 1 FROM query_times LIMIT 1; SELECT 1 FROM facts LIMIT 1"
# Keeps readers out, also in WAL mode. The commit leaves frames in the logs: without
# these, the exporter could read the files past the lock.
LOCK = """
PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE;
CREATE TABLE main.simulated(lock); CREATE TABLE knowledge_base.simulated(lock);
DROP TABLE main.simulated; DROP TABLE knowledge_base.simulated; COMMIT
"""
COUNTS = """{queries} queries ({failed} failed), {hits} cache hits, {misses} misses,\
 {add_fact} facts added, {delete_fact} removed, {audit_rows} audit rows"""
FILES = {  # in the demo's directory, by environment variable
    "HAKGAL_DATABASE_KNOWLEDGE_BASE": "hexagonal_kb.db",
    "HAKGAL_DATABASE_PERFORMANCE": "hakgal_performance.db",
    "HAKGAL_STATE_FILE": "exporter-state.json",
}
LOCK_SECONDS = 10.0  # the longest wait for another program's lock
MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.02, 0.5  # between two commits


def demo(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Create databases, simulate HAK/GAL's activity and serve metrics."""
    parser.add_argument(
        "--demo.directory",
        dest="directory",
        metavar="DIR",
        default=os.environ.get("HAKGAL_DEMO_DIRECTORY", "data"),
        help="Keep the databases and the state file here. Default: data.",
    )
    config.add_flags(parser)
    flags = parser.parse_args(words)
    places = {name: str(Path(flags.directory, file)) for name, file in FILES.items()}
    given = {name: text for name, text in os.environ.items() if text}
    return _demo(config.load(flags, places | given))


def _demo(settings: config.Config) -> int:
    """Simulate in a child process, which ends with its input: even if we are killed.

    In this process, our reads would drop the simulator's POSIX locks.
    """
    knowledge_base, performance = settings.knowledge_base, settings.performance
    if not (knowledge_base and performance):
        raise ConfigError(["demo: got none for a database, want two files"])
    # Imported here: simulate needs no server.
    from exporter.commands.serve import run
    from exporter.web.config import read

    web = read(settings.web_config_file, {}) if settings.web_config_file else None
    scheme = "https" if web and web.tls else "http"
    create(knowledge_base, performance, facts=1000)
    command = [sys.executable, "-m", "exporter", "simulate"]
    command += ["--incidents", "--until-eof"]
    command += [f"--database.knowledge-base={knowledge_base}"]
    command += [f"--database.performance={performance}"]
    for address in settings.listen_addresses:
        url = f"{scheme}://{'localhost' if address.startswith(':') else ''}{address}"
        print(f"metrics: {url}{settings.telemetry_path}   overview: {url}/")
    print(f"databases: {knowledge_base}, {performance}")
    print("Press Ctrl-C to stop.", flush=True)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as simulator:
        return run(settings, lambda: simulator.poll() is None)


def simulate(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Write simulated activity into databases, and print the totals."""
    _add_flags(parser)
    flags = parser.parse_args(words)
    if len(faults := set(flags.fault or ())) > 1 and faults & IDLE:
        raise ConfigError([f"--fault: cannot combine {' and '.join(flags.fault)}"])
    stop, totals = Stop(), Counter[str]()
    if flags.until_eof:
        threading.Thread(target=_stop_at_eof, daemon=True).start()
    create(flags.knowledge_base, flags.performance)
    started = time.monotonic()
    try:
        _write(flags, faults, stop, totals)
    finally:
        rows, seconds = totals["rows"], time.monotonic() - started
        print(f"{rows} rows in {seconds:.1f} s ({rows / seconds:.0f}/s): ", end="")
        print(COUNTS.format_map(totals))
    return 0


def _write(
    flags: argparse.Namespace, always: set[str], stop: Stop, totals: Counter[str]
) -> None:
    """Write and count rows until stopped or the time is over."""

    def faults_now() -> set[str]:
        fault = incident(seconds) if flags.incidents else None
        return always | {fault} if fault else always

    started, seconds = time.monotonic(), 0.0
    pause = min(max(MIN_PAUSE_SECONDS, 1 / flags.rate), MAX_PAUSE_SECONDS)
    while seconds < flags.duration:
        faults, began, rows = faults_now(), seconds, 0
        rate = 0.0 if faults & IDLE else flags.rate
        with _opened(faults, flags.performance, flags.knowledge_base) as db:
            activity = Activity(db, faults, flags.seed)
            while seconds < flags.duration and faults == faults_now():
                if stop.wait(pause):
                    return
                seconds = time.monotonic() - started
                counts = activity.write(rate * (seconds - began) - rows)
                rows += counts["rows"]
                totals.update(counts)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add, text = parser.add_argument, "Write to this file; create it if it is missing."
    for name in ("knowledge_base", "performance"):
        flag = f"--database.{name.replace('_', '-')}"
        add(flag, dest=name, metavar="FILE", type=Path, required=True, help=text)
    text = "Write N rows per second. Default: 2.5, like a quiet HAK/GAL."
    add("--rate", metavar="N", type=_positive, default=2.5, help=text)
    text = "Stop after this time. Default: run until stopped."
    add("--duration", metavar="SECONDS", type=_positive, default=math.inf, help=text)
    add("--seed", metavar="N", type=int, help="Write the same rows for the same N.")
    text = "Simulate this fault; repeatable. See the list below."
    add("--fault", metavar="NAME", action="append", choices=FAULTS, help=text)
    text = "Simulate one fault after another, minutes 5 to 12 of each quarter hour."
    add("--incidents", action="store_true", help=text)
    add("--until-eof", action="store_true", help=argparse.SUPPRESS)  # for demo
    faults = (f"  {name:13} {meaning}" for name, meaning in FAULTS.items())
    parser.epilog = "\n".join(["faults:", *faults])


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"got {text}, want a number above 0")
    return number


def _stop_at_eof() -> None:
    """End with our parent, however it ends: our input ends with it."""
    os.read(0, 1)
    signal.raise_signal(signal.SIGTERM)


def create(knowledge_base: Path, performance: Path, facts: int = 0) -> None:
    """Create missing folders, files and tables; add facts to an empty table.

    Raises:
        DatabaseError: a folder, file or table could not be created.
    """
    schemas = {performance: PERFORMANCE_SCHEMA, knowledge_base: KNOWLEDGE_BASE_SCHEMA}
    for path, schema in schemas.items():
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            is_new = not path.exists()
            with closing(_connect(path)) as db:
                if is_new:
                    db.execute("PRAGMA journal_mode = WAL")
                db.executescript(schema)
    with _explained(knowledge_base), closing(_connect(knowledge_base)) as db, db:
        if facts and not db.execute("SELECT 1 FROM facts LIMIT 1").fetchall():
            generator = random.Random(0)
            db.executemany(ADD_FACT, (draw_fact(generator) for _ in range(facts)))


@contextmanager
def _opened(faults: set[str], *paths: Path) -> Iterator[sqlite3.Connection]:
    """Open both databases in one connection, with the locks that faults need."""
    with _explained(*paths), closing(_connect(*paths)) as db:
        reader = _connect(*paths) if "wal-growth" in faults else db
        with closing(reader):
            if "lock" in faults:
                db.executescript(LOCK)
            if "wal-growth" in faults:
                reader.executescript(READ_FOR_EVER)
            yield db


def _connect(path: Path, knowledge_base: Path | None = None) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level="IMMEDIATE")
    if knowledge_base:
        db.execute("ATTACH ? AS knowledge_base", [str(knowledge_base)])
    return db


@contextmanager
def _explained(*paths: Path) -> Iterator[None]:
    """Turn errors of SQLite and the file system into ones that say what to do."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        advice = "choose a file and a folder that this user can write to"
        if "locked" in str(error):
            advice = "end the program that holds the lock, or try again"
        names = " and ".join(map(str, paths))
        raise DatabaseError(f"cannot write {names}: {error}; {advice}") from error
