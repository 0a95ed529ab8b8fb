"""The command ``demo``: what it makes, serves, prints and leaves running."""

import signal
from pathlib import Path

import psutil
import pytest

from exporter.commands.simulate import create
from tests.exporters import WAIT_SECONDS, Command, run
from tests.servers import ROOT, Processes, wait_until

FACTS, EVENTS = "hexagonal_kb.db", "hakgal_performance.db"
QUERIES = "hakgal_query_duration_seconds_count"
CONNECTIONS = "hakgal_database_connections"
# Read by each Python that starts: takes away what Windows lacks.
WITHOUT_POSIX = """
import builtins, os, select, signal, sys
import psutil  # on that system it would not need these
sys.modules |= {"fcntl": None, "resource": None}
del os.O_DIRECTORY, os.geteuid, os.getuid, select.poll
del signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.pthread_sigmask

def without_proc(call):
    def called(path, *arguments, **options):
        if str(path) in ("/proc", "/proc/locks"):
            raise FileNotFoundError(path)
        return call(path, *arguments, **options)
    return called
os.listdir, builtins.open = without_proc(os.listdir), without_proc(open)
"""


@pytest.fixture
def demo(processes: Processes, tmp_path: Path, free_port: int) -> Command:
    """Return a demo in ``tmp_path``, not started yet."""
    return Command(processes, free_port, f"--demo.directory={tmp_path / 'data'}")


def simulators(folder: Path) -> list[psutil.Process]:
    """Return those that write into a demo's folder; one that has ended has no words."""
    words = {"simulate", f"--database.performance={folder / 'data' / EVENTS}"}
    running = psutil.process_iter(["cmdline"])
    return [one for one in running if words <= set(one.info["cmdline"] or ())]


def test_serves_what_it_simulates(demo: Command, tmp_path: Path) -> None:
    demo.start("demo").wait_until_ready()
    page = demo.page()
    assert (page.failed, page.sum("hakgal_facts") > 900) == (set(), True)
    wait_until(lambda: demo.page().sum(QUERIES) > page.sum(QUERIES), WAIT_SECONDS)
    wait_until(lambda: demo.page().sum(CONNECTIONS) == 2, WAIT_SECONDS)
    url, data = "http://{}:{}".format(*demo.address), tmp_path / "data"
    assert demo.output.splitlines()[:3] == [
        f"metrics: {url}/metrics   overview: {url}/",
        f"databases: {data / FACTS}, {data / EVENTS}",
        "Press Ctrl-C to stop.",
    ]


def test_where_the_system_has_no_posix_the_rest_works(
    demo: Command, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_POSIX)
    demo.start("demo", PYTHONPATH=f"{tmp_path}:{ROOT}").wait_until_ready()
    page = demo.page()
    assert (page.failed, page.sum("hakgal_facts") > 900) == (set(), True)
    assert page.by("database", CONNECTIONS) == {}
    assert demo.stop() == 0
    assert (tmp_path / "data" / "exporter-state.json").exists()


def test_files_that_are_named_and_their_facts_are_kept(
    demo: Command, tmp_path: Path
) -> None:
    create(tmp_path / "own.db", tmp_path / EVENTS, facts=7)
    demo.flags += (f"--database.knowledge-base={tmp_path / 'own.db'}",)
    demo.start("demo").wait_until_ready()
    assert 1 <= (demo.page()("hakgal_facts") or 0) <= 100
    assert not (tmp_path / "data" / FACTS).exists()


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
def test_leaves_nothing_running_when_stopped(
    demo: Command, tmp_path: Path, stop_signal: signal.Signals
) -> None:
    process = demo.start("demo").process
    assert len(simulators(tmp_path)) == 1
    process.send_signal(stop_signal)
    assert process.wait(WAIT_SECONDS) == 0
    assert simulators(tmp_path) == []
    assert list((tmp_path / "data").glob("*-wal")) == []


def test_leaves_no_simulator_when_killed(demo: Command, tmp_path: Path) -> None:
    demo.start("demo")
    assert len(simulators(tmp_path)) == 1
    demo.kill()
    wait_until(lambda: simulators(tmp_path) == [], WAIT_SECONDS)


def test_ends_when_its_simulator_does(demo: Command, tmp_path: Path) -> None:
    demo.start("demo")
    simulators(tmp_path)[0].kill()
    assert demo.process.wait(WAIT_SECONDS) == 1


def test_port_in_use_leaves_nothing_running(tmp_path: Path, taken_port: int) -> None:
    address = f"--web.listen-address=127.0.0.1:{taken_port}"
    done = run("demo", f"--demo.directory={tmp_path / 'data'}", address)
    assert done.returncode == 1
    assert "Address already in use" in done.stderr
    assert simulators(tmp_path) == []


def test_without_a_database_is_refused(tmp_path: Path) -> None:
    done = run("demo", f"--demo.directory={tmp_path}", "--database.performance=none")
    assert done.returncode == 2
    assert done.stderr.startswith("hakgal-exporter: demo: got none for a database")
