"""An old installation moves by docs/migration.md, as it is written there.

``pytest -rP tests/backfill/test_migration.py`` shows how much was moved, how fast.
"""

import calendar
import json
import os
import re
import signal
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

from exporter.old_config import read_old
from exporter.simulate import create
from tests.backfill.old_monitor import (
    Collection,
    collections,
    write_events,
    write_history,
)
from tests.servers import (
    ROOT,
    Processes,
    Prometheus,
    Servers,
    adapt_config,
    answers,
    find_free_port,
    find_servers,
    wait_until,
)

DOCUMENT = (ROOT / "docs" / "migration.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", DOCUMENT, re.DOTALL)
SHELL = [text for kind, text in BLOCKS if kind == "sh"]
PATIENCE_SECONDS = 60
QUERIES = "hakgal_query_duration_seconds"
HOUR = 3600
# What the document's own lines write first.
RECORDED = "SELECT COUNT(*) FROM query_times WHERE query_time = 0.012"
# The old monitor: rows each second, until it is told to stop.
OLD_MONITOR = """
import sys, time
from pathlib import Path
from tests.backfill.old_monitor import collections, write_history
while True:
    now = int(time.time())
    write_history(Path(sys.argv[1]), collections(now + 1, 1, 1))
    time.sleep(1)
"""
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
# What there is instead of a machine with systemd.
SYSTEMCTL = """#!/bin/sh
case "$*" in
"enable --now hakgal-exporter")
    export HAKGAL_CONFIG_FILE={root}/etc/hakgal-exporter/exporter.yml
    hakgal-exporter >{root}/exporter.log 2>&1 & echo $! >{root}/exporter.pid ;;
"disable --now hakgal-exporter") kill "$(cat {root}/exporter.pid)" ;;
"start prometheus")
    prometheus --config.file={config} --storage.tsdb.path={root}/var/lib/prometheus \\
        --web.listen-address=127.0.0.1:{prometheus} \\
        >{root}/prometheus.log 2>&1 & echo $! >{root}/prometheus.pid ;;
*) exit 1 ;;
esac
"""


class Machine(NamedTuple):
    """A folder that stands for /, and what is different in it from the document."""

    root: Path
    ports: dict[str, int]
    environment: dict[str, str]
    said: list[str]

    @property
    def database(self) -> Path:
        return self.root / "srv/hakgal/hakgal_performance.db"

    @property
    def prometheus(self) -> Prometheus:
        return Prometheus(f"http://127.0.0.1:{self.ports['prometheus']}")

    def place(self, text: str) -> str:
        """Return text of the document with this machine's paths and addresses."""
        text = re.sub(r"(?<![\w.])/(opt|srv|etc|var)/", rf"{self.root}/\1/", text)
        text = text.replace("localhost:9090", self.prometheus.url[len("http://") :])
        return text.replace("7 days ago", "30 minutes ago")  # for the test's sake

    def run(self, script: str) -> str:
        """Run a block, which must succeed; return what it printed."""
        started = time.monotonic()
        done = subprocess.run(
            ["sh", "-euc", self.place(script)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        self.said.append(f"{time.monotonic() - started:.1f} s: {script}{done.stdout}")
        return done.stdout

    def sql(self, statement: str) -> int:
        """Return the number that a statement finds in the performance database."""
        with closing(sqlite3.connect(self.database)) as db:
            ((number,),) = db.execute(statement).fetchall()
        return int(number)

    def wait_for_count(self, count: int) -> None:
        """Wait until Prometheus has so many queries."""
        wanted = f"sum({QUERIES}_count) == {count}"
        wait_until(partial(self.prometheus.query, wanted), PATIENCE_SECONDS)


class Moved(NamedTuple):
    """A machine after the move, what there was before, and rows at the end."""

    machine: Machine
    found: list[Collection]
    first_start: int
    rows: int


@pytest.fixture(scope="module", params=find_servers(), ids=lambda s: s.folder.name)
def moved(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Moved]:
    """Run all steps in their order, while HAK/GAL goes on writing."""
    servers: Servers = request.param
    if servers.version is None:
        pytest.fail("the servers are missing; run: make servers")
    machine = set_up(servers, tmp_path_factory.mktemp("machine"))
    processes = Processes(machine.root)
    now = int(time.time())
    found = list(collections(now // 60 * 60 - 60))
    try:
        old = install_the_old_one(machine, processes, found, now)
        yield move(machine, old, found)
    finally:
        stop(machine)
        processes.stop()
        print("\n".join(machine.said))


def set_up(servers: Servers, root: Path) -> Machine:
    """Make the folders, a configuration, and the commands that the document uses."""
    for folder in ("opt/hakgal-exporter/bin", "etc/hakgal-exporter", "srv/hakgal"):
        (root / folder).mkdir(parents=True)
    for folder in ("var/lib/hakgal-exporter", "var/lib/prometheus", "var/tmp", "bin"):
        (root / folder).mkdir(parents=True)
    ports = {name: find_free_port() for name in ("exporter", "prometheus")}
    address = f"127.0.0.1:{ports['exporter']}"
    config = adapt_config(root / "etc", address, scrape_interval="1s")
    text = config.read_text().replace("evaluation_interval: 15s", "")
    config.write_text(text.replace("global:\n", "global:\n  evaluation_interval: 1s\n"))
    program = f'#!/bin/sh\nexec "{sys.executable}" -m exporter "$@"\n'
    systemctl = SYSTEMCTL.format(root=root, config=config, **ports)
    shims = {"opt/hakgal-exporter/bin/hakgal-exporter": program}
    shims |= {"bin/systemctl": systemctl, "bin/chown": "#!/bin/sh\n"}
    for name, text in shims.items():
        (root / name).write_text(text)
        (root / name).chmod(0o755)
    path = f"{root}/bin:{root}/opt/hakgal-exporter/bin:{servers.folder}/bin"
    environment = os.environ | {
        "PATH": f"{path}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HAKGAL_WEB_LISTEN_ADDRESS": address,
        "HAKGAL_BACKFILL_INSTANCE": address,
    }
    return Machine(root, ports, environment, [])


def install_the_old_one(
    machine: Machine, processes: Processes, found: list[Collection], now: int
) -> subprocess.Popen[bytes]:
    """Fill the databases as a week would have, and start the old monitor."""
    create(machine.root / "srv/hakgal/hexagonal_kb.db", machine.database, facts=5000)
    rows = write_history(machine.database, iter(found))
    rows += write_events(machine.database, now - 2 * HOUR, now - 60, each=10)
    machine.said.append(f"{rows} rows of a week")
    old = processes.start(
        *(sys.executable, "-c", OLD_MONITOR, str(machine.database)),
        PYTHONPATH=str(ROOT),
    )
    settings = {"database_path": str(machine.database), "monitoring_interval": 1.0}
    (machine.root / "srv/hakgal/config.json").write_text(json.dumps(settings))
    stop_script = machine.root / "srv/hakgal/stop_system.sh"
    stop_script.write_text(f"kill {old.pid}\n")
    (machine.root / "srv/hakgal/start_system.sh").write_text(f"date >{stop_script}\n")
    return old


def move(
    machine: Machine, old: subprocess.Popen[bytes], found: list[Collection]
) -> Moved:
    """Follow the document."""
    look, stop_old, start, bring, prometheus, compute, _ = SHELL
    assert "no problems" in machine.run(look)
    settings = next(text for kind, text in BLOCKS if kind == "yaml")
    file = machine.root / "etc/hakgal-exporter/exporter.yml"
    file.write_text(machine.place(settings))
    with hakgal(machine):
        machine.run(stop_old)
        assert old.wait(10) == -signal.SIGTERM
        assert "no problems" in machine.run(start)
        machine.run(bring)
        machine.run(prometheus)
        url = machine.prometheus.url
        wait_until(lambda: answers(f"{url}/-/ready"), PATIENCE_SECONDS)
        wait_until(
            partial(machine.prometheus.query, f"{QUERIES}_count"), PATIENCE_SECONDS
        )
        machine.run(compute)
    rows = machine.sql("SELECT COUNT(*) FROM query_times")
    machine.wait_for_count(rows)
    text = (machine.root / "etc/hakgal-exporter/first-start").read_text()
    first_start = time.strptime(text, "%Y-%m-%dT%H:%M:%SZ\n")
    return Moved(machine, found, calendar.timegm(first_start), rows)


@contextmanager
def hakgal(machine: Machine) -> Iterator[None]:
    """Let HAK/GAL write with the recorder for as long as the block lasts."""
    block = next(text for kind, text in BLOCKS if kind == "python")
    process = subprocess.Popen(
        [sys.executable, "-c", HAKGAL.format(block=machine.place(block))],
        stdin=subprocess.PIPE,
        env=machine.environment,
    )
    try:
        wait_until(lambda: machine.sql(RECORDED) > 0, PATIENCE_SECONDS)
        yield
    finally:
        process.communicate()
    assert process.returncode == 0


def stop(machine: Machine) -> None:
    """End what the shim of systemctl has started."""
    for name in ("exporter", "prometheus"):
        file = machine.root / f"{name}.pid"
        if file.exists():
            pid = int(file.read_text())
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                continue
            wait_until(partial(is_gone, pid), 20)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


def test_no_event_is_lost_or_counted_twice(moved: Moved) -> None:
    prometheus = moved.machine.prometheus
    ((_, increase),) = prometheus.query(f"sum(increase({QUERIES}_count[3h]))")

    assert increase == pytest.approx(moved.rows, rel=0.02)
    for name in (f"{QUERIES}_count", f"{QUERIES}_sum", "hakgal_cache_misses_total"):
        # One reset only: the old monitor's counter, where the events begin.
        resets = 1 if name.startswith("hakgal_cache") else 0
        assert prometheus.query(f"sum(resets({name}[3h]))") == [({}, resets)]
    lookups = moved.machine.sql("SELECT COUNT(*) FROM cache_events")
    both = "sum(hakgal_cache_hits_total) + sum(hakgal_cache_misses_total)"
    assert prometheus.query(both) == [({}, lookups)]


def test_events_from_during_the_move_are_an_increase(moved: Moved) -> None:
    """Of what came after the exporter's first start, all is seen to come."""
    began = moved.first_start
    after = moved.machine.sql(
        "SELECT COUNT(*) FROM query_times"
        f" WHERE CAST(strftime('%s', timestamp) AS INTEGER) > {began}"
    )
    query = f"sum({QUERIES}_count) - sum({QUERIES}_count @ {began})"
    ((_, seen),) = moved.machine.prometheus.query(query)
    # And what bears the time of that second and was committed when it had been read.
    assert 20 < after <= seen <= after + 20


def test_the_week_is_on_the_dashboards(moved: Moved) -> None:
    for name, old, divisor in (
        ("hakgal_facts", "facts_count", 1),
        ("instance:hakgal_cpu_utilisation:ratio_rate5m", "system_cpu_percent", 100),
        ("instance:hakgal_memory_utilisation:ratio", "system_memory_percent", 100),
    ):
        (series,) = moved.machine.prometheus.api(
            "query_range",
            query=f"sum({name})",
            start=str(moved.found[0].moment),
            end=str(moved.found[-1].moment),
            step="60",
        )["result"]
        assert [float(value) for _, value in series["values"]] == [
            c.values[old] / divisor for c in moved.found
        ]


def test_rates_of_the_past_were_computed(moved: Moved) -> None:
    blocks = moved.machine.root.glob("var/lib/prometheus/*/meta.json")
    ends = [json.loads(file.read_text())["maxTime"] for file in blocks]

    # A block that ends later would make Prometheus forget what it scraped before.
    assert len(ends) > 8
    assert max(ends) <= moved.first_start * 1000 + 1


def table_under(heading: str) -> list[list[str]]:
    """Return the rows of the table under a heading of the document."""
    section = DOCUMENT.partition(f"### {heading}\n")[2].partition("\n#")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", r)[1:-1]] for r in rows]


@pytest.mark.parametrize("query", [row[1].strip("`") for row in table_under("Metrics")])
def test_each_query_of_the_document_has_an_answer(query: str, moved: Moved) -> None:
    prometheus = moved.machine.prometheus
    if query.startswith("ALERTS"):
        prometheus.query(query)
        return
    result = wait_until(partial(prometheus.query, query), PATIENCE_SECONDS)

    assert len(result) == 1
    assert result[0][1] >= 0


def test_the_last_look_is_zero(moved: Moved) -> None:
    (query,) = (text for kind, text in BLOCKS if kind == "promql")

    assert moved.machine.prometheus.query(query) == [({}, 0)]


def test_thresholds_of_the_document_are_those_of_the_old_keys(tmp_path: Path) -> None:
    rules = (ROOT / "prometheus" / "rules" / "thresholds.yml").read_text()
    alerts = (ROOT / "prometheus" / "rules" / "alerts.yml").read_text()
    rows = table_under("Thresholds")
    assert len(rows) == 4

    for old, series, *limits, alert in rows:
        key, value = old.replace("`", "").split()
        (tmp_path / "c").write_text(
            json.dumps({"alert_thresholds": {key: float(value)}})
        )
        name = series.strip("`")
        assert (
            f"{name}, warning: {limits[0]}, as it is"
            in read_old(tmp_path / "c").found[0]
        )
        for limit, severity in zip(limits, ("warning", "critical"), strict=True):
            line = f"record: {name}, expr: {limit}, labels: {{severity: {severity}"
            assert line in rules
        assert f"alert: {alert}\n" in alerts


def test_the_way_back_is_open(moved: Moved) -> None:
    """Last of all: the exporter stops, and the old monitor may come again."""
    moved.machine.run(SHELL[-1])

    write_history(moved.machine.database, collections(int(time.time()), 1, 1))
    names = "SELECT COUNT(DISTINCT metric_name) FROM performance_metrics"
    assert moved.machine.sql(names) == 9
