"""The commands ``demo`` and ``simulate``: what they write, serve and leave running."""

import os
import re
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.exporters import Command, file_flags, run
from tests.servers import ROOT, Processes, wait_until
from tests.webs import TLS, Web

FACTS = "hexagonal_kb.db"
EVENTS = "hakgal_performance.db"
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


@pytest.fixture
def demo(processes: Processes, tmp_path: Path, free_port: int) -> Command:
    """Return a demo that runs in ``tmp_path``."""
    directory = f"--demo.directory={tmp_path / 'data'}"
    return Command(processes, free_port, directory).start("demo")


def count(file: Path, rows: str) -> int:
    """Return the number of rows in ``table WHERE condition``."""
    with closing(sqlite3.connect(file)) as db:
        number: int = db.execute(f"SELECT COUNT(*) FROM {rows}").fetchone()[0]
        return number


def child_of(demo: Command) -> int:
    """Return the demo's simulator."""
    pid = demo.process.pid
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def is_running(pid: int) -> bool:
    """Say whether a process runs; one that has ended but is not buried does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_demo_serves_what_it_simulates(demo: Command, tmp_path: Path) -> None:
    page = demo.page()
    assert (page("hakgal_facts") or 0) > 900
    assert page.failed == set()
    before = page.sum("hakgal_query_duration_seconds_count")

    wait_until(
        lambda: demo.page().sum("hakgal_query_duration_seconds_count") > before, 20
    )

    files = {FACTS, EVENTS, "exporter-state.json"}
    assert files <= {file.name for file in (tmp_path / "data").iterdir()}
    name, database = "hakgal_database_connections", "performance"
    wait_until(lambda: demo.page()(name, database=database) == 1, 20)


def test_demo_says_where_to_look(demo: Command, tmp_path: Path) -> None:
    host, port = demo.address
    data = tmp_path / "data"

    assert demo.output.splitlines()[:3] == [
        f"metrics: http://{host}:{port}/metrics   overview: http://{host}:{port}/",
        f"databases: {data / FACTS}, {data / EVENTS}",
        "Ctrl-C ends it.",
    ]


def test_demo_with_tls_says_so(
    processes: Processes, web: Web, tmp_path: Path, free_port: int
) -> None:
    directory = f"--demo.directory={tmp_path / 'data'}"
    flags = directory, f"--web.config.file={web.write(TLS)}"

    demo = Command(processes, free_port, *flags).start("demo")

    url = f"https://127.0.0.1:{free_port}"
    assert demo.output.startswith(f"metrics: {url}/metrics   overview: {url}/\n")


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
def test_demo_that_is_stopped_leaves_nothing_running(
    demo: Command, stop_signal: signal.Signals
) -> None:
    simulator = child_of(demo)
    assert is_running(simulator)

    demo.process.send_signal(stop_signal)

    assert demo.process.wait(10) == 0
    assert not is_running(simulator)


def test_demo_that_is_killed_leaves_no_simulator_for_long(demo: Command) -> None:
    simulator = child_of(demo)

    demo.kill()

    wait_until(lambda: not is_running(simulator), 5)


def test_demo_ends_when_its_simulator_does(demo: Command) -> None:
    os.kill(child_of(demo), signal.SIGKILL)

    assert demo.process.wait(10) == 1


def test_demo_goes_on_where_it_was_stopped(demo: Command) -> None:
    name = "hakgal_query_duration_seconds_count"
    wait_until(lambda: demo.page().sum(name) > 0, 20)
    before = demo.page()
    demo.stop()

    demo.start("demo")

    after = demo.page()
    assert after.sum(name) >= before.sum(name)
    added = "hakgal_facts_added_total"
    assert (after(added) or 0) >= (before(added) or 0) >= 1000


def test_demo_on_a_port_in_use_leaves_nothing_running(
    tmp_path: Path, taken_port: int
) -> None:
    address = f"--web.listen-address=127.0.0.1:{taken_port}"

    done = run("demo", f"--demo.directory={tmp_path}", address)

    assert done.returncode == 1
    assert "Address already in use" in done.stderr
    with closing(sqlite3.connect(tmp_path / EVENTS)) as db:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("BEGIN EXCLUSIVE")  # nobody else has it open


def test_simulate_prints_what_it_wrote(tmp_path: Path) -> None:
    files = file_flags(tmp_path)[:2]

    done = run("simulate", *files, "--rate=3000", "--duration=0.7", "--seed=7")

    assert (done.returncode, done.stderr) == (0, "")
    for pattern, (file, rows) in FIGURES.items():
        figure = re.search(pattern, done.stdout)
        assert figure, pattern
        assert int(figure[1]) == count(tmp_path / file, rows) > 0, pattern
    events = re.match(r"(\d+) rows in (\d\.\d) s \((\d+)/s\): ", done.stdout)
    assert events
    assert float(events[2]) == pytest.approx(0.7, abs=0.3)
    assert int(events[3]) == pytest.approx(3000, rel=0.3)


def test_simulate_with_the_same_seed_writes_the_same(tmp_path: Path) -> None:
    rows = []
    for name in ("a", "b"):
        files = file_flags(tmp_path / name)[:2]
        run("simulate", *files, "--rate=500", "--duration=0.3", "--seed=5")
        with closing(sqlite3.connect(tmp_path / name / EVENTS)) as db:
            query = "SELECT query_time, query_type FROM query_times LIMIT 20"
            rows.append(db.execute(query).fetchall())

    assert len(rows[0]) == 20
    assert rows[0] == rows[1]


def test_simulate_ends_when_told_to(processes: Processes, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "exporter", "simulate", *file_flags(tmp_path)[:2]]
    simulator = processes.start(*command, PYTHONPATH=str(ROOT))
    file = tmp_path / FACTS
    wait_until(lambda: file.exists() and count(tmp_path / EVENTS, "query_times"), 10)

    simulator.terminate()

    assert simulator.wait(5) == 0
    assert " rows in " in processes.output(simulator)


@pytest.mark.parametrize(
    "flag", ["--rate=0", "--rate=nan", "--duration=-1", "--seed=x"]
)
def test_simulate_refuses_what_makes_no_sense(flag: str, tmp_path: Path) -> None:
    done = run("simulate", *file_flags(tmp_path)[:2], flag)

    assert done.returncode == 2
    assert f"error: argument {flag.partition('=')[0]}: " in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_simulate_that_cannot_write_is_one_line() -> None:
    done = run("simulate", *file_flags(Path("/proc"))[:2])

    assert done.returncode == 1
    assert done.stderr.startswith("hakgal-exporter: cannot write /proc/")
    assert done.stderr.count("\n") == 1
