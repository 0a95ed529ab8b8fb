"""The compose files as files; `make compose-test` starts them."""

import configparser
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers import ROOT, Servers

COMPOSE, SCALE = ROOT / "docker-compose.yml", ROOT / "docker-compose.scale.yml"
ENVIRONMENT = ROOT / ".env.example"
LOCK = ROOT / "exporter" / "packaging" / "requirements.lock"
BUILD_LOCK = ROOT / "exporter" / "packaging" / "requirements-build.lock"


def load(path: Path) -> Any:
    """Return a file's content; compose's own tag is what it stands before."""
    return yaml.safe_load(path.read_text().replace("!override ", ""))


SERVICES = load(COMPOSE)["services"]
VOLUMES = load(COMPOSE)["volumes"] | load(SCALE)["volumes"]
HARDENED = load(SCALE)["services"] | SERVICES
each_service = pytest.mark.parametrize(
    "service",
    [
        pytest.param(service, id=f"{path.stem}-{name}")
        for path in (COMPOSE, SCALE)
        for name, service in load(path)["services"].items()
    ],
)


@each_service
def test_services_are_pinned_and_closed(service: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    image = service.get("image", "hakgal-exporter:local")  # or that of another file
    pinned = r"hakgal-exporter:local|[a-z]+/[a-z-]+:v?\d+\.\d+\.\d+"
    assert re.fullmatch(pinned, image)
    for mount in service.get("volumes", []):
        source = mount.rpartition(":/")[0] if mount.count(":/") == 1 else mount
        assert mount.endswith(":ro") or source in VOLUMES, mount


@pytest.mark.parametrize("name", [*SERVICES, "victoriametrics"])
def test_services_are_hardened(name: str) -> None:
    service = HARDENED[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] > 0
    assert service["mem_limit"]
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert "privileged" not in service


def test_env_example_names_what_the_files_read_and_nothing_else() -> None:
    compose, example = COMPOSE.read_text(), ENVIRONMENT.read_text()
    read = set(re.findall(r"\$\{([A-Z0-9_]+)", compose))
    assert set(re.findall(r"^#?([A-Z0-9_]+)=", example, re.MULTILINE)) == read
    defaults = dict(re.findall(r"\$\{([A-Z0-9_]+):-([^}]*)\}", compose))
    shown = re.findall(r"^#([A-Z0-9_]+_PORT|PROMETHEUS_RET\w+)=(.*)$", example, re.M)
    assert shown
    assert all(defaults[name] == value for name, value in shown)


def test_no_link_leads_to_a_port_that_can_be_moved() -> None:
    text = COMPOSE.read_text() + SCALE.read_text()
    movable = re.findall(r"_URL:-http://localhost:\$\{\w+_PORT:", text)
    assert len(movable) == text.count("http://localhost") > 0


def test_alertmanager_of_the_stack_differs_in_the_inbox_only() -> None:
    shipped = (ROOT / "alertmanager/alertmanager.yml").read_text()
    ours = (ROOT / "alertmanager/alertmanager.compose.yml").read_text()
    there = shipped.replace("http://localhost:9099/", "http://inbox:9099/")
    _, head, without_head = there.partition("# Unused by the inbox")
    assert there != shipped
    assert ours.endswith(head + without_head)


def test_prometheus_of_replicas_differs_in_the_store_and_a_label_only() -> None:
    shipped = load(ROOT / "prometheus/prometheus.yml")
    ours = load(ROOT / "prometheus/prometheus-scale.yml")
    labels = "grafana_url|runbook_url_base|replica"
    assert ours["global"]["external_labels"].pop("replica") == "${PROMETHEUS_REPLICA}"
    (write,) = ours.pop("remote_write")
    drop = {"action": "labeldrop", "regex": labels}
    assert write["write_relabel_configs"] == [drop]
    assert ours["alerting"].pop("alert_relabel_configs") == [drop]
    assert shipped["alerting"].pop("alert_relabel_configs")
    assert ours == shipped


def test_promtool_accepts_the_configuration_of_replicas(servers: Servers) -> None:
    config = ROOT / "prometheus/prometheus-scale.yml"
    code, output = servers.run("promtool", "check", "config", config)
    assert code == 0, output


@pytest.mark.parametrize("place", ["compose", "scale"])
def test_targets_are_services(place: str) -> None:
    folder = ROOT / "prometheus" / "targets" / place
    services = SERVICES if place == "compose" else HARDENED
    shipped = {path.name for path in folder.parent.glob("*.yml")}
    assert {path.name for path in folder.iterdir()} == shipped
    for path in folder.iterdir():
        targets = [t for group in load(path) for t in group["targets"]]
        assert targets
        assert {target.partition(":")[0] for target in targets} <= set(services)


def test_the_image_has_the_versions_that_are_tested() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = table["project"]["optional-dependencies"]
    needed = [*table["project"]["dependencies"], *extras["auth"]]
    names = {re.split("[<>=]", requirement)[0] for requirement in needed}
    tested = {pin for pin in extras["dev"] if pin.partition("==")[0] in names}
    wanted = {LOCK: tested, BUILD_LOCK: set(table["build-system"]["requires"])}
    for lock, pins in wanted.items():
        assert pins
        assert pins <= set(re.findall(r"^\S+==\S+", lock.read_text(), re.MULTILINE))


def test_the_healthcheck_has_the_settings_of_the_service() -> None:
    """TLS too: both read the environment, and flags of one are not the other's."""
    image = (ROOT / "exporter" / "packaging" / "Dockerfile").read_text()
    assert '\n    CMD ["hakgal-exporter", "healthcheck"]\n' in image
    assert '\nENTRYPOINT ["hakgal-exporter"]\n' in image
    assert not {"command", "entrypoint", "healthcheck"} & {*SERVICES["exporter"]}


def test_grafana_leaves_the_plugins_of_its_read_only_image_alone() -> None:
    """Grafana 13 has the data source for Prometheus as one, and would unload it."""
    settings = configparser.ConfigParser()
    settings.read_string((ROOT / "grafana" / "grafana.ini").read_text())
    assert settings.getboolean("plugins", "preinstall_disabled")
    assert not settings.getboolean("plugins", "plugin_admin_enabled")


def make_password(folder: Path, given: str) -> str:
    (folder / "given").write_text(given)
    program = str(ROOT / "grafana" / "password.py")
    command = [sys.executable, program, str(folder / "made"), str(folder / "given")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (folder / "made").read_text()


def test_grafanas_password_is_drawn_once(tmp_path: Path) -> None:
    (tmp_path / "made.new").touch(0o400)  # as a power cut leaves it
    drawn = make_password(tmp_path, given="")
    assert len(drawn) == 32
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o400
    assert make_password(tmp_path, given="another") == drawn
    assert {path.name for path in tmp_path.iterdir()} == {"made", "given"}
    (tmp_path / "made").unlink()
    assert make_password(tmp_path, given="") != drawn


def test_grafanas_password_can_be_given(tmp_path: Path) -> None:
    assert make_password(tmp_path, given="correct horse\n") == "correct horse"
