"""The command ``demo``: what it makes, serves, prints and leaves running."""

import signal
from pathlib import Path

import psutil
import pytest

from exporter.commands.simulate import create
from tests.exporters import Command, run
from tests.servers import Processes, wait_until
from tests.webs import TLS, Web

FACTS, EVENTS = "hexagonal_kb.db", "hakgal_performance.db"
QUERIES = "hakgal_query_duration_seconds_count"


@pytest.fixture
def demo(processes: Processes, tmp_path: Path, free_port: int) -> Command:
    """Return a demo that runs in ``tmp_path``."""
    directory = f"--demo.directory={tmp_path / 'data'}"
    return Command(processes, free_port, directory).start("demo")


def simulators(folder: Path) -> list[psutil.Process]:
    """Return those that write into a demo's folder; one that has ended has no words."""
    words = {"simulate", f"--database.performance={folder / 'data' / EVENTS}"}
    running = psutil.process_iter(["cmdline"])
    return [one for one in running if words <= set(one.info["cmdline"] or ())]


def test_serves_what_it_simulates(demo: Command, tmp_path: Path) -> None:
    demo.wait_until_ready()
    page = demo.page()
    assert (page("hakgal_facts") or 0) > 900
    assert page.failed == set()
    wait_until(lambda: demo.page().sum(QUERIES) > page.sum(QUERIES), 20)
    (host, port), data = demo.address, tmp_path / "data"
    assert demo.output.splitlines()[:3] == [
        f"metrics: http://{host}:{port}/metrics   overview: http://{host}:{port}/",
        f"databases: {data / FACTS}, {data / EVENTS}",
        "Ctrl-C ends it.",
    ]
    assert (data / "exporter-state.json").exists()
    name, database = "hakgal_database_connections", "performance"
    wait_until(lambda: demo.page()(name, database=database) == 1, 20)


def test_says_https_with_tls(
    processes: Processes, web: Web, tmp_path: Path, free_port: int
) -> None:
    flags = f"--demo.directory={tmp_path}", f"--web.config.file={web.write(TLS)}"
    demo = Command(processes, free_port, *flags).start("demo")
    url = f"https://127.0.0.1:{free_port}"
    assert demo.output.startswith(f"metrics: {url}/metrics   overview: {url}/\n")


def test_files_that_are_named_and_their_facts_are_kept(
    processes: Processes, tmp_path: Path, free_port: int
) -> None:
    own = tmp_path / "own.db"
    create(own, tmp_path / EVENTS, facts=7)
    flags = f"--demo.directory={tmp_path}", f"--database.knowledge-base={own}"
    demo = Command(processes, free_port, *flags).start("demo")
    demo.wait_until_ready()
    assert 5 <= (demo.page()("hakgal_facts") or 0) <= 20
    assert not (tmp_path / FACTS).exists()


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
def test_leaves_nothing_running_when_stopped(
    demo: Command, tmp_path: Path, stop_signal: signal.Signals
) -> None:
    assert len(simulators(tmp_path)) == 1
    demo.process.send_signal(stop_signal)
    assert demo.process.wait(10) == 0
    assert simulators(tmp_path) == []
    assert list((tmp_path / "data").glob("*-wal")) == []


def test_leaves_no_simulator_when_killed(demo: Command, tmp_path: Path) -> None:
    assert len(simulators(tmp_path)) == 1
    demo.kill()
    wait_until(lambda: simulators(tmp_path) == [], 5)


def test_ends_when_its_simulator_does(demo: Command, tmp_path: Path) -> None:
    simulators(tmp_path)[0].kill()
    assert demo.process.wait(10) == 1


def test_goes_on_where_it_was_stopped(demo: Command) -> None:
    wait_until(lambda: demo.page().sum(QUERIES) > 0, 20)
    before = demo.page()
    demo.stop()
    after = demo.start("demo").page()
    assert after.sum(QUERIES) >= before.sum(QUERIES)
    added = "hakgal_facts_added_total"
    assert (after(added) or 0) >= (before(added) or 0) >= 1000


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
