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

COMPOSE = ROOT / "docker-compose.yml"
SCALE = ROOT / "docker-compose.scale.yml"
ENVIRONMENT = ROOT / ".env.example"
LOCK = ROOT / "exporter" / "requirements.lock"
BUILD_LOCK = ROOT / "exporter" / "requirements-build.lock"


class Loader(yaml.SafeLoader):
    """Takes compose's own tags for what they stand before."""


def construct(loader: Loader, node: yaml.Node) -> Any:
    assert isinstance(node, yaml.SequenceNode)
    return loader.construct_sequence(node, deep=True)


Loader.add_constructor("!override", construct)


def load(path: Path) -> Any:
    return yaml.load(path.read_text(), Loader=Loader)


SERVICES = load(COMPOSE)["services"]
each_service = pytest.mark.parametrize(
    ("name", "service"),
    [
        pytest.param(name, service, id=f"{path.stem}-{name}")
        for path in (COMPOSE, SCALE)
        for name, service in load(path)["services"].items()
    ],
)


@each_service
def test_ports_are_published_on_loopback_only(
    name: str, service: dict[str, Any]
) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_way_out_is_the_one_that_docker_takes() -> None:
    """Of several networks it takes the first by name, whatever the file's order is."""
    networks = load(COMPOSE)["networks"] | load(SCALE)["networks"]
    closed = {name for name, options in networks.items() if options}
    assert set(networks) - closed == {"outside"}
    reaching = [
        s["networks"] for s in SERVICES.values() if "outside" in s.get("networks", [])
    ]
    assert reaching
    assert all(min(names) == "outside" for names in reaching)


@each_service
def test_images_are_pinned(name: str, service: dict[str, Any]) -> None:
    image = service.get("image")
    if image is None:
        assert "extends" in service or name in SERVICES
    elif image.startswith("hakgal-exporter:"):
        assert service["build"]["dockerfile"] == "exporter/Dockerfile"
    else:
        assert re.fullmatch(r"[a-z]+/[a-z-]+:v?\d+\.\d+\.\d+", image)


@each_service
def test_nothing_but_volumes_is_writable(name: str, service: dict[str, Any]) -> None:
    volumes = load(COMPOSE)["volumes"] | load(SCALE)["volumes"]
    for mount in service.get("volumes", []):
        source = mount.rpartition(":/")[0] if mount.count(":/") == 1 else mount
        assert mount.endswith(":ro") or source in volumes, mount


@pytest.mark.parametrize("name", [*SERVICES, "victoriametrics"])
def test_services_are_hardened(name: str) -> None:
    service = (load(SCALE)["services"] | SERVICES)[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] > 0
    assert service["mem_limit"]
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert "privileged" not in service


def test_env_example_names_what_the_files_read_and_nothing_else() -> None:
    read = set(re.findall(r"\$\{([A-Z0-9_]+)", COMPOSE.read_text()))
    named = set(re.findall(r"^#?([A-Z0-9_]+)=", ENVIRONMENT.read_text(), re.MULTILINE))
    assert named == read
    defaults = dict(re.findall(r"\$\{([A-Z0-9_]+):-([^}]*)\}", COMPOSE.read_text()))
    shown = re.findall(
        r"^#([A-Z0-9_]+_PORT|PROM\w+)=(.*)$", ENVIRONMENT.read_text(), re.M
    )
    assert shown
    assert all(defaults[name] == value for name, value in shown)


def test_alertmanager_of_the_stack_differs_in_the_inbox_only() -> None:
    def without_head(text: str) -> str:
        return text[text.index("# Unused by the inbox") :]

    shipped = (ROOT / "alertmanager/alertmanager.yml").read_text()
    ours = (ROOT / "alertmanager/alertmanager.compose.yml").read_text()
    there = shipped.replace("http://localhost:9099/", "http://inbox:9099/")
    assert there != shipped
    assert without_head(ours) == without_head(there)


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
    services = SERVICES | (load(SCALE)["services"] if place == "scale" else {})
    shipped = {path.name for path in folder.parent.glob("*.yml")}
    assert {path.name for path in folder.iterdir()} == shipped
    for path in folder.iterdir():
        targets = [t for group in load(path) for t in group["targets"]]
        assert targets
        assert {target.partition(":")[0] for target in targets} <= set(services)


@pytest.mark.parametrize("lock", [LOCK, BUILD_LOCK], ids=lambda path: path.stem)
def test_what_the_image_fetches_has_a_version_and_hashes(lock: Path) -> None:
    text = re.sub("^#.*\n", "", lock.read_text(), flags=re.MULTILINE)
    entries = re.split(r"\n(?=\S)", text.replace("\\\n", " ").strip())
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_the_image_has_the_versions_that_are_tested() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = table["project"]["optional-dependencies"]
    needed = [*table["project"]["dependencies"], *extras["auth"]]
    names = {re.split("[<>=]", requirement)[0] for requirement in needed}
    tested = set(extras["dev"])
    for lock, wanted in (
        (LOCK, {pin for pin in tested if pin.partition("==")[0] in names}),
        (BUILD_LOCK, set(table["build-system"]["requires"])),
    ):
        assert wanted
        assert wanted <= set(re.findall(r"^\S+==\S+", lock.read_text(), re.MULTILINE))


def test_the_healthcheck_has_the_settings_of_the_service() -> None:
    """TLS too: both read the environment, and flags of one are not the other's."""
    image = (ROOT / "exporter" / "Dockerfile").read_text()
    assert '\n    CMD ["hakgal-exporter", "healthcheck"]\n' in image
    assert '\nENTRYPOINT ["hakgal-exporter"]\n' in image
    assert not {"command", "entrypoint", "healthcheck"} & {*SERVICES["exporter"]}


def test_grafana_leaves_the_plugins_of_its_read_only_image_alone() -> None:
    """Grafana 13 has the data source for Prometheus as one, and would unload it."""
    settings = configparser.ConfigParser()
    settings.read_string((ROOT / "grafana" / "grafana.ini").read_text())
    assert SERVICES["grafana"]["read_only"]
    assert settings.getboolean("plugins", "preinstall_disabled")
    assert not settings.getboolean("plugins", "plugin_admin_enabled")


def make_password(folder: Path, given: str) -> None:
    (folder / "given").write_text(given)
    program = str(ROOT / "grafana" / "password.py")
    command = [sys.executable, program, str(folder / "made"), str(folder / "given")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def test_grafanas_password_is_drawn_once(tmp_path: Path) -> None:
    (tmp_path / "made.new").touch(0o400)  # as a power cut leaves it
    make_password(tmp_path, given="")
    drawn = (tmp_path / "made").read_text()
    assert len(drawn) == 32
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o400
    make_password(tmp_path, given="another")
    assert (tmp_path / "made").read_text() == drawn
    assert {path.name for path in tmp_path.iterdir()} == {"made", "given"}


def test_grafanas_password_can_be_given(tmp_path: Path) -> None:
    make_password(tmp_path, given="correct horse\n")
    assert (tmp_path / "made").read_text() == "correct horse"


def test_two_drawn_passwords_differ(tmp_path: Path) -> None:
    drawn = set()
    for name in "ab":
        (tmp_path / name).mkdir()
        make_password(tmp_path / name, given="")
        drawn.add((tmp_path / name / "made").read_text())
    assert len(drawn) == 2
