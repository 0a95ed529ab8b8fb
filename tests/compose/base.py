"""The stack of one machine, with the simulated HAK/GAL and with files of one's own.

In order: each test leaves the stack up for the next.
"""

import json
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.compose.stack import Stack, get, open_sockets, post, running
from tests.servers import ROOT, wait_until

DEMO = "docker compose --profile demo up --detach --wait"
OWN = "docker compose up --detach --wait"
BASE = ("--file", "docker-compose.yml")
SCALE = ("--file", "docker-compose.scale.yml")
SERVICES = ("exporter", "prometheus", "alertmanager", "hakgal", "inbox")
VOLUMES = {
    "hakgal_hakgal",
    "hakgal_exporter-state",
    "hakgal_prometheus",
    "hakgal_alertmanager",
    "hakgal_grafana",
    "hakgal_grafana-password",
}
TALK = {
    ("alertmanager", "inbox"),
    ("alertmanager", "prometheus"),
    ("exporter", "prometheus"),
    ("inbox", "prometheus"),  # Prometheus needs Alertmanager, which needs the inbox
}
QUERIES = "hakgal_query_duration_seconds_count"
RESETS = "hakgal_exporter_resets_total"
PATIENCE_SECONDS = 120.0
COUNT_ROWS = """
import sqlite3
db = sqlite3.connect("file:/data/hakgal_performance.db?mode=ro", uri=True)
print(*db.execute("SELECT COUNT(*) FROM query_times").fetchone())
"""
READ_PASSWORD = """
import os, sys
file = "/state/admin-password"
status = os.stat(file)
print(oct(status.st_mode), status.st_uid, open(file).read())
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


@pytest.fixture(scope="module")
def containers(stack: Stack) -> dict[str, dict[str, Any]]:
    return stack.containers()


@pytest.mark.parametrize("profile", [(), ("--profile", "demo")], ids=["own", "demo"])
@pytest.mark.parametrize("files", [BASE, (*BASE, *SCALE)], ids=["base", "scale"])
def test_what_the_files_say_is_valid_and_open_to_this_machine_only(
    files: tuple[str, ...], profile: tuple[str, ...]
) -> None:
    command = ["docker", "compose", *files, *profile, "config", "--format", "json"]
    shown = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    services = json.loads(shown.stdout)["services"]
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
    platforms = (f"manylinux_2_{minor}_{machine}" for minor in (17, 28))
    wanted = ["--python-version=3.14", *(f"--platform={p}" for p in platforms)]
    fixed = ["--no-deps", "--only-binary=:all:", "--require-hashes"]
    lock = ROOT / "exporter" / "requirements.lock"
    command = [sys.executable, "-m", "pip", "download", "--quiet", *fixed, *wanted]
    subprocess.run(
        [*command, f"--dest={tmp_path}", f"--requirement={lock}"], check=True
    )
    assert len([*tmp_path.iterdir()]) == lock.read_text().count("==")


def up(stack: Stack) -> dict[str, float]:
    """Return whether Prometheus reaches each job; Grafana is not here."""
    found = stack.prometheus().query('up{job!="grafana"}')
    return {labels["job"]: value for labels, value in found}


def test_everything_is_healthy_and_scraped(stack: Stack) -> None:
    assert stack.is_healthy(*SERVICES)
    jobs = dict.fromkeys(("hakgal", "prometheus", "alertmanager"), 1.0)
    wait_until(lambda: up(stack) == jobs, PATIENCE_SECONDS)
    wait_until(lambda: stack.page().sum(QUERIES) > 0, PATIENCE_SECONDS)
    query = "sum(rate(hakgal_query_duration_seconds_count[1m])) > 0"
    wait_until(lambda: stack.prometheus().query(query), PATIENCE_SECONDS)


def test_rules_are_loaded_and_well(stack: Stack) -> None:
    def groups() -> list[Any]:
        found: list[Any] = stack.prometheus().api("rules")["groups"]
        return found

    files = (ROOT / "prometheus" / "rules").glob("*.yml")
    shipped = {
        g["name"] for f in files for g in yaml.safe_load(f.read_text())["groups"]
    }
    assert {group["name"] for group in groups()} == shipped

    def evaluated() -> bool:
        rules = [rule for group in groups() for rule in group["rules"]]
        return all(rule["health"] == "ok" for rule in rules)

    wait_until(evaluated, PATIENCE_SECONDS)


def test_prometheus_reaches_alertmanager_and_it_the_inbox(stack: Stack) -> None:
    found = stack.prometheus().api("alertmanagers")["activeAlertmanagers"]
    assert [a["url"] for a in found] == ["http://alertmanager:9093/api/v2/alerts"]

    def heartbeat() -> bool:
        return "first heartbeat" in stack.compose("logs", "inbox")

    wait_until(heartbeat, PATIENCE_SECONDS)


@pytest.mark.parametrize("name", [*SERVICES, "grafana-password"])
def test_containers_can_do_nothing_that_they_need_not(
    containers: dict[str, dict[str, Any]], name: str
) -> None:
    container = containers[name]
    config, host = container["Config"], container["HostConfig"]
    user = config["User"].partition(":")[0]
    # The images of Prometheus and Alertmanager name theirs.
    assert user.isdecimal() or user == "nobody", user
    assert user != "0"
    assert host["ReadonlyRootfs"]
    assert not host["Privileged"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert 0 < host["PidsLimit"] <= 600
    assert 0 < host["Memory"] <= 2 << 30
    assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
    assert not host["Devices"]
    assert host["PidMode"] == ""
    assert host["IpcMode"] == "private"
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


def test_a_container_cannot_write_beside_its_volumes(stack: Stack) -> None:
    program = "open('/opt/hakgal-exporter/x', 'w')"
    with pytest.raises(AssertionError, match="Read-only file system"):
        stack.python("exporter", program)
    with pytest.raises(AssertionError, match="Read-only file system"):
        stack.python("exporter", "open('/data/x', 'w')")


def test_nothing_listens_beyond_loopback(stack: Stack, listening: set[str]) -> None:
    published = [
        binding
        for container in stack.containers().values()
        for bindings in container["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    ]
    assert len(published) == 4
    assert {binding["HostIp"] for binding in published} == {"127.0.0.1"}
    assert open_sockets() <= listening


def test_only_what_talks_together_shares_a_network(
    containers: dict[str, dict[str, Any]],
) -> None:
    networks = {
        name: set(c["NetworkSettings"]["Networks"]) - {"none"}
        for name, c in containers.items()
    }
    pairs = combinations(sorted(networks), 2)
    sharing = {(a, b) for a, b in pairs if networks[a] & networks[b]}
    assert sharing == TALK
    outside = {name for name, shared in networks.items() if "hakgal_outside" in shared}
    assert outside == {"alertmanager"}


def test_alertmanagers_way_out_is_the_network_that_has_one(
    stack: Stack, containers: dict[str, dict[str, Any]]
) -> None:
    routes = Path(f"/proc/{stack.pid('alertmanager')}/net/route").read_text()
    fields = [line.split() for line in routes.splitlines()[1:]]
    (gateway,) = [f[2] for f in fields if f[1] == "00000000"]  # to everywhere
    shared = containers["alertmanager"]["NetworkSettings"]["Networks"]
    address = socket.inet_aton(shared["hakgal_outside"]["Gateway"])
    assert int(gateway, 16) == int.from_bytes(address, sys.byteorder)


def test_the_exporter_sees_no_alertmanager(stack: Stack) -> None:
    program = "import socket; socket.getaddrinfo('alertmanager', 9093)"
    with pytest.raises(AssertionError, match="gaierror"):
        stack.python("exporter", program)


def test_check_is_content_in_its_container(stack: Stack) -> None:
    printed = stack.compose("exec", "-T", "exporter", "hakgal-exporter", "check")
    assert "no problems" in printed


def test_a_fault_arrives_as_a_notification(stack: Stack) -> None:
    fault = "hakgal-exporter simulate --fault broken-rows --rate 50 --duration 150"
    files = "--database.knowledge-base /data/hexagonal_kb.db"
    files += " --database.performance /data/hakgal_performance.db"
    stack.compose("exec", "-T", "--detach", "hakgal", *f"{fault} {files}".split())
    (told,) = wait_until(lambda: stack.told_of("HakgalRowsRejected"), 300)
    assert "HakgalRowsRejected on exporter:8000, reason negative" in told
    assert "WARNING" in told


def test_a_killed_exporter_loses_and_doubles_nothing(stack: Stack) -> None:
    load = "hakgal-exporter simulate --rate 300 --duration 20"
    files = "--database.knowledge-base /data/hexagonal_kb.db"
    files += " --database.performance /data/hakgal_performance.db"
    resets = stack.page().sum(RESETS)
    stack.compose("exec", "-T", "--detach", "hakgal", *f"{load} {files}".split())
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
    counted = page.sum(QUERIES)
    rejected = page.sum("hakgal_exporter_rejected_rows_total", table="query_times")
    assert written > 1000
    assert counted + rejected == written
    assert page.sum("hakgal_exporter_missed_rows_total", table="query_times") == 0
    assert page.sum(RESETS) == resets
    stack.up()


def settled(stack: Stack) -> Any:
    page = stack.page()
    return page if page.sum("hakgal_exporter_backlog_rows") == 0 else None


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_comes_back_from_a_restart(stack: Stack, name: str) -> None:
    before = stack.pid(name)
    stack.compose("restart", "--timeout", "20", name)
    wait_until(lambda: stack.is_healthy(*SERVICES), PATIENCE_SECONDS)
    assert stack.pid(name) != before


def test_volumes_keep_their_data_and_nothing_else_stays(stack: Stack) -> None:
    moment = time.time()
    counted, resets = stack.page().sum(QUERIES), stack.page().sum(RESETS)
    silence = silence_everything(stack)
    password = read_password(stack)
    stack.compose("down", "--timeout", "20")
    assert stack.docker("ps", "--all", "--quiet") == ""
    networks = stack.docker("network", "ls", "--format", "{{.Name}}").split()
    assert sorted(networks) == ["bridge", "host", "none"]
    assert set(stack.docker("volume", "ls", "--quiet").split()) == VOLUMES
    stack.up()
    assert stack.page().sum(QUERIES) >= counted
    assert stack.page().sum(RESETS) == resets
    past = stack.prometheus().api("query", query="up", time=str(moment))
    assert past["result"]
    url = stack.url("ALERTMANAGER_PORT")
    assert get(f"{url}/api/v2/silence/{silence}")["status"]["state"] == "active"
    assert read_password(stack) == password


def silence_everything(stack: Stack) -> str:
    now = datetime.now(UTC)
    matcher = {"name": "job", "value": "hakgal", "isRegex": False}
    silence = {
        "matchers": [matcher],
        "startsAt": now.isoformat(),
        "endsAt": (now + timedelta(hours=1)).isoformat(),
        "createdBy": "test",
        "comment": "kept?",
    }
    answer = post(f"{stack.url('ALERTMANAGER_PORT')}/api/v2/silences", silence)
    return str(answer["silenceID"])


def read_password(stack: Stack) -> str:
    """Return mode, owner and text; only Grafana's user may read it."""
    command = ["run", "--rm", "--entrypoint", "python", "grafana-password"]
    printed = stack.compose(*command, "-c", READ_PASSWORD)
    mode, owner, password = printed.split()
    assert (mode, owner) == ("0o100400", "472")
    assert len(password) == 32
    return password


def test_down_with_volumes_leaves_nothing(stack: Stack) -> None:
    stack.compose("down", "--volumes", "--timeout", "20")
    assert stack.docker("volume", "ls", "--quiet") == ""


# Without the profile, with files of one's own.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a HAK/GAL's files, as its user, readable to nobody else."""
    made = tmp_path_factory.mktemp("own")
    os.chown(made, 1000, 1000)
    for parent in (made.parent, made.parent.parent):
        parent.chmod(0o755)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MAKE_FILES, str(made)]
    subprocess.run(command, env=environment, check=True)
    return made


def own_environment(folder: Path, uid: str = "1000") -> dict[str, str]:
    return {"HAKGAL_DIRECTORY": str(folder), "HAKGAL_UID": uid, "HAKGAL_GID": uid}


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Return owner and mode of all files."""
    found = {path.name: path.stat() for path in folder.iterdir()}
    return {name: (s.st_uid, stat.S_IMODE(s.st_mode)) for name, s in found.items()}


def test_own_files_are_read_and_left_as_they_are(folder: Path) -> None:
    before = listing(folder)
    with running(Stack(OWN, **own_environment(folder))) as stack:
        assert "hakgal" not in stack.containers()
        assert stack.page()("hakgal_facts") == 7
        with closing(sqlite3.connect(folder / "hexagonal_kb.db")) as db:
            with db:
                db.execute("INSERT INTO facts(statement) VALUES ('eighth')")
            wait_until(lambda: stack.page()("hakgal_facts") == 8, PATIENCE_SECONDS)
        printed = stack.compose("exec", "-T", "exporter", "hakgal-exporter", "check")
        assert "no problems" in printed
    after = listing(folder)
    assert after == before


def test_check_says_what_is_wrong_with_the_user(folder: Path) -> None:
    stack = Stack(OWN, **own_environment(folder, uid="1001"))
    with running(stack):
        assert stack.page().by("database", "hakgal_up") == {
            "knowledge_base": 0,
            "performance": 0,
        }
        with pytest.raises(AssertionError, match="Permission denied"):
            stack.compose("exec", "-T", "exporter", "hakgal-exporter", "check")
