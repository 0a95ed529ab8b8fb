"""The stack of one machine, with the simulated HAK/GAL and with files of one's own.

In order: each test leaves the stack up for the next.
"""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.compose.stack import PATIENCE_SECONDS, Stack, open_sockets, running
from tests.servers import ROOT, wait_until

DEMO = "docker compose --profile demo up --detach --wait"
END = "docker compose --project-name hakgal --profile demo down --volumes"
OWN = "docker compose up --detach --wait"
RELOAD = "docker compose kill --signal HUP prometheus"
BASE = ("--file", "docker-compose.yml")
SCALE = ("--file", "docker-compose.scale.yml")
SERVICES = ("exporter", "prometheus", "alertmanager", "hakgal", "inbox")
VOLUMES = {"hakgal", "exporter-state", "prometheus", "alertmanager"}
VOLUMES |= {"grafana", "grafana-password"}
TALK = {
    ("alertmanager", "inbox"),
    ("alertmanager", "prometheus"),
    ("exporter", "prometheus"),
    ("inbox", "prometheus"),  # Prometheus needs Alertmanager, which needs the inbox
}
QUERIES = "hakgal_query_duration_seconds_count"
RESETS = "hakgal_exporter_resets_total"
COUNT_ROWS = """
import sqlite3
db = sqlite3.connect("/data/hakgal_performance.db")
print(*db.execute("SELECT COUNT(*) FROM query_times").fetchone())
"""
READ_PASSWORD = """
import os
status = os.stat("/state/admin-password")
print(oct(status.st_mode), status.st_uid, open("/state/admin-password").read())
"""
MAKE_FILES = """
import os, sys
from pathlib import Path
from exporter.commands.simulate import create
os.setgid(1000), os.setuid(1000), os.umask(0o077)
folder = Path(sys.argv[1])
create(folder / "hexagonal_kb.db", folder / "hakgal_performance.db", facts=7)
"""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def listening() -> set[str]:
    """Return what was open before the stack came."""
    return open_sockets()


@pytest.fixture(scope="module")
def stack(listening: set[str]) -> Iterator[Stack]:
    with running(Stack(DEMO)) as started:
        yield started


@pytest.mark.parametrize("profile", [(), ("--profile", "demo")], ids=["own", "demo"])
@pytest.mark.parametrize("files", [BASE, (*BASE, *SCALE)], ids=["base", "scale"])
def test_what_the_files_say_is_valid_and_open_to_this_machine_only(
    files: tuple[str, ...], profile: tuple[str, ...]
) -> None:
    command = ["docker", "compose", *files, *profile, "config", "--format", "json"]
    services = json.loads(subprocess.check_output(command, cwd=ROOT))["services"]
    assert "grafana" in services
    for service in services.values():
        assert {port["host_ip"] for port in service.get("ports", ())} <= {"127.0.0.1"}
        for mount in service.get("volumes", ()):
            assert mount["type"] == "volume" or mount["read_only"]
            assert mount["type"] == "volume" or Path(mount["source"]).exists()


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_what_the_image_fetches_is_there_for_both_kinds_of_machine(
    machine: str, tmp_path: Path
) -> None:
    lock = ROOT / "exporter" / "packaging" / "requirements.lock"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", "--python-version=3.14"]
    command += [f"--platform=manylinux_2_{minor}_{machine}" for minor in (17, 28)]
    command += [f"--dest={tmp_path}", f"--requirement={lock}"]
    subprocess.run(command, check=True)
    assert len([*tmp_path.iterdir()]) == lock.read_text().count("==")


def test_everything_is_healthy_scraped_and_judged(stack: Stack) -> None:
    assert stack.is_healthy(*SERVICES)
    files = (ROOT / "prometheus" / "rules").glob("*.yml")
    groups = sum(file.read_text().count("  - name: ") for file in files)
    for query in (
        'count(up{job!="grafana"} == 1) == 3',  # Grafana is not here
        "sum(rate(hakgal_query_duration_seconds_count[1m])) > 0",
        f"count(prometheus_rule_group_rules) == {groups}",
        "sum(increase(prometheus_rule_evaluation_failures_total[1m])) == 0",
    ):
        ask = partial(stack.prometheus().query, query)
        wait_until(ask, PATIENCE_SECONDS)


def test_prometheus_reaches_alertmanager_and_it_the_inbox(stack: Stack) -> None:
    found = stack.prometheus().api("alertmanagers")["activeAlertmanagers"]
    assert [a["url"] for a in found] == ["http://alertmanager:9093/api/v2/alerts"]
    beat = "first heartbeat"
    wait_until(lambda: beat in stack.compose("logs", "inbox"), PATIENCE_SECONDS)


@pytest.mark.parametrize("name", [*SERVICES, "grafana-password"])
def test_containers_can_do_nothing_that_they_need_not(stack: Stack, name: str) -> None:
    container = stack.containers()[name]
    config, host = container["Config"], container["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert not host["CapAdd"]
    assert not host["Devices"]
    assert (host["PidMode"], host["IpcMode"]) == ("", "private")
    assert host["NetworkMode"] != "host"
    for mount in container["Mounts"]:
        assert mount["Type"] == "volume" or not mount["RW"], mount
        assert "docker.sock" not in mount["Source"]
    assert not any("PASSWORD=" in line or "TOKEN=" in line for line in config["Env"])


@pytest.mark.parametrize("name", SERVICES)
def test_the_kernel_agrees(stack: Stack, name: str) -> None:
    status = Path(f"/proc/{stack.pid(name)}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert "0" not in fields["Uid"].split()
    assert {int(fields[f"Cap{kind}"], 16) for kind in ("Eff", "Prm", "Bnd")} == {0}
    assert fields["NoNewPrivs"] == "1"


def test_nothing_listens_beyond_loopback(stack: Stack, listening: set[str]) -> None:
    ports = [c["NetworkSettings"]["Ports"] for c in stack.containers().values()]
    bindings = [b for p in ports for published in p.values() for b in published or ()]
    assert [binding["HostIp"] for binding in bindings] == 4 * ["127.0.0.1"]
    assert open_sockets() <= listening


def test_only_what_talks_together_shares_a_network(stack: Stack) -> None:
    containers = stack.containers().items()
    networks = {name: c["NetworkSettings"]["Networks"] for name, c in containers}
    shared = {name: set(found) - {"none"} for name, found in networks.items()}
    pairs = combinations(sorted(networks), 2)
    assert {(a, b) for a, b in pairs if shared[a] & shared[b]} == TALK
    outside = {name for name, found in shared.items() if "hakgal_outside" in found}
    assert outside == {"alertmanager"}
    program = "import socket; socket.getaddrinfo('alertmanager', 9093)"
    with pytest.raises(AssertionError, match="gaierror"):
        stack.python("exporter", program)
    # Its way out is the network that has one, and no other.
    routes = Path(f"/proc/{stack.pid('alertmanager')}/net/route").read_text()
    fields = [line.split() for line in routes.splitlines()[1:]]
    (gateway,) = [f[2] for f in fields if f[1] == "00000000"]  # to everywhere
    there = networks["alertmanager"]["hakgal_outside"]["Gateway"]
    assert int(gateway, 16) == int.from_bytes(socket.inet_aton(there), sys.byteorder)


def test_a_fault_arrives_as_a_notification(stack: Stack) -> None:
    assert "no problems" in stack.check()
    stack.simulate("--fault broken-rows --rate 50 --duration 150")
    (told,) = wait_until(lambda: stack.told_of("HakgalRowsRejected"), PATIENCE_SECONDS)
    assert "HakgalRowsRejected on exporter:8000, reason negative" in told
    assert "WARNING" in told
    assert f"Dashboard: {stack.url('GRAFANA_PORT')}/d/" in told
    assert f"Silence: {stack.url('ALERTMANAGER_PORT')}/#/silences/new?" in told
    assert re.search("What to do: https://.*/runbooks.md#hakgalrowsrejected", told)


def test_the_documented_reload_is_not_refused(stack: Stack) -> None:
    moment = time.time()
    stack.play(RELOAD)
    query = f"prometheus_config_last_reload_success_timestamp_seconds > {moment}"
    wait_until(partial(stack.prometheus().query, query), PATIENCE_SECONDS)


def test_a_killed_exporter_loses_and_doubles_nothing(stack: Stack) -> None:
    resets = stack.page().sum(RESETS)
    stack.simulate("--rate 300 --duration 20")
    for _ in range(3):
        time.sleep(4)
        restarts = stack.containers()["exporter"]["RestartCount"]
        os.kill(stack.pid("exporter"), signal.SIGKILL)

        def is_back(before: int = restarts) -> bool:
            count: int = stack.containers()["exporter"]["RestartCount"]
            return count > before and stack.is_healthy("exporter")

        wait_until(is_back, PATIENCE_SECONDS)
    time.sleep(10)  # until the load is over
    stack.compose("stop", "hakgal")
    counting = ["run", "--rm", "--entrypoint", "python", "hakgal", "-c", COUNT_ROWS]
    written = int(stack.compose(*counting))
    page = wait_until(lambda: settled(stack), PATIENCE_SECONDS)
    rejected = page.sum("hakgal_exporter_rejected_rows_total", table="query_times")
    assert written > 1000
    assert page.sum(QUERIES) + rejected == written
    assert page.sum("hakgal_exporter_missed_rows_total", table="query_times") == 0
    assert page.sum(RESETS) == resets
    stack.up()


def settled(stack: Stack) -> Any:
    page = stack.page()
    return page if page.sum("hakgal_exporter_backlog_rows") == 0 else None


def test_volumes_keep_their_data_and_nothing_else_stays(stack: Stack) -> None:
    moment = time.time()
    counted, resets = stack.page().sum(QUERIES), stack.page().sum(RESETS)
    password = read_password(stack)
    silence = amtool(stack, "silence", "add", "job=hakgal", "--comment=kept?")
    stack.compose("down", "--timeout", "20")
    assert stack.docker("ps", "--all", "--quiet") == ""
    networks = stack.docker("network", "ls", "--format", "{{.Name}}").split()
    assert sorted(networks) == ["bridge", "host", "none"]
    volumes = stack.docker("volume", "ls", "--quiet").split()
    assert {name.removeprefix("hakgal_") for name in volumes} == VOLUMES
    stack.up()
    assert stack.page().sum(QUERIES) >= counted
    assert stack.page().sum(RESETS) == resets
    past = stack.prometheus().api("query", query="up", time=str(moment))
    assert past["result"]
    assert amtool(stack, "silence", "query", "--quiet") == silence
    assert read_password(stack) == password
    # Its volumes stay for what comes next, which has to find a clean place.
    stack.compose("down", "--timeout", "20")


def amtool(stack: Stack, *words: str) -> str:
    url = "--alertmanager.url=http://127.0.0.1:9093"
    return stack.compose("exec", "-T", "alertmanager", "amtool", url, *words).strip()


def read_password(stack: Stack) -> str:
    """Return Grafana's password: drawn here, and only its user may read it."""
    command = ["run", "--rm", "--entrypoint", "python", "grafana-password"]
    mode, owner, password = stack.compose(*command, "-c", READ_PASSWORD).split()
    assert (mode, owner) == ("0o100400", "472")
    assert len(password) == 32
    return password


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make files of one's own, as HAK/GAL's user, readable to nobody else."""
    made = tmp_path_factory.mktemp("own")
    os.chown(made, 1000, 1000)
    for parent in (made.parent, made.parent.parent):
        parent.chmod(0o755)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MAKE_FILES, str(made)]
    subprocess.run(command, env=environment, check=True)
    return made


def own(folder: Path, uid: str) -> Stack:
    user = {"HAKGAL_UID": uid, "HAKGAL_GID": uid}
    return Stack(OWN, HAKGAL_DIRECTORY=str(folder), **user)


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Return owner and mode of all files."""
    found = {path.name: path.stat() for path in folder.iterdir()}
    return {name: (status.st_uid, status.st_mode) for name, status in found.items()}


def test_own_files_are_read_and_left_as_they_are(folder: Path) -> None:
    before = listing(folder)
    with running(own(folder, "1000")) as stack:
        assert "hakgal" not in stack.containers()
        assert stack.page()("hakgal_facts") == 7
        assert stack.page().sum(RESETS) == 0
        facts = "max_over_time(hakgal_facts[1h])"
        found = wait_until(partial(stack.prometheus().query, facts), PATIENCE_SECONDS)
        assert [value for _, value in found] == [7], "the demo's rows are in there"
        stack.play(END)
        volumes = stack.docker("volume", "ls", "--quiet").split()
        used = VOLUMES - {"hakgal"}
        assert {name.removeprefix("hakgal-own_") for name in volumes} == used
        with closing(sqlite3.connect(folder / "hexagonal_kb.db")) as db:
            with db:
                db.execute("INSERT INTO facts(statement) VALUES ('eighth')")
            wait_until(lambda: stack.page()("hakgal_facts") == 8, PATIENCE_SECONDS)
        assert "no problems" in stack.check()
    assert listing(folder) == before


def test_check_says_what_is_wrong_with_the_user_which_can_be_mended(
    folder: Path,
) -> None:
    with running(own(folder, "1001")) as stack:
        up = stack.page().by("database", "hakgal_up")
        assert up == {"knowledge_base": 0, "performance": 0}
        with pytest.raises(AssertionError, match="Permission denied"):
            stack.check()
        mended = own(folder, "1000")
        mended.up()
        assert "no problems" in mended.check()
