"""Wheel and sdist, installed where nothing else is; the systemd unit."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from argparse import Namespace
from pathlib import Path

import pytest

from exporter import __version__
from exporter.config import SETTINGS, load
from exporter.web import Server
from tests.servers import ROOT

NAME = f"hakgal_exporter-{__version__}"
UNIT = ROOT / "exporter" / "packaging" / "systemd" / "hakgal-exporter.service"
DEFAULTS = UNIT.with_suffix(".default").read_text()
OPTIONS = dict(re.findall(r"(?m)^(\w+)=(.*)$", UNIT.read_text()))
# What `systemd-analyze security` calls OK; 10 is a service without any protection.
EXPOSURE_LIMIT = 1.5


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build both and return their folder."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def run(*command: str | Path) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout


def test_the_wheel_has_the_program_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(built / f"{NAME}-py3-none-any.whl") as wheel:
        names = set(wheel.namelist())
        metadata = wheel.read(f"{NAME}.dist-info/METADATA").decode()
    sources = {str(path.relative_to(ROOT)) for path in ROOT.glob("exporter/**/*.py")}
    own = {name for name in names if not name.startswith(f"{NAME}.dist-info/")}
    assert own == {*sources, "exporter/py.typed"}
    for field in ("License-Expression: Apache-2.0", "Project-URL: ", "Summary: "):
        assert f"\n{field}" in metadata
    assert "Provides-Extra: auth\n" in metadata


def test_the_source_distribution_can_be_tested(built: Path) -> None:
    with tarfile.open(built / f"{NAME}.tar.gz") as archive:
        names = {name.removeprefix(f"{NAME}/") for name in archive.getnames()}
    # What a developer has not added yet counts, unless git ignores it.
    files = "git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard"
    assert {"Makefile", "README.md", "tests/conftest.py"} <= names
    assert names - {"PKG-INFO"} <= set(run(*files).split())


def test_an_empty_environment_runs_it(built: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", environment)
    bin_folder = environment / "bin"
    python, program = bin_folder / "python", bin_folder / "hakgal-exporter"
    wheel = built / f"{NAME}-py3-none-any.whl"
    install = bin_folder / "pip", "install", "-q", "--disable-pip-version-check", wheel

    run(*install, "--no-deps")
    record = f"import exporter.recorder as r; r.Recorder({str(tmp_path / 'x.db')!r})"
    where = run(python, "-I", "-c", f"{record}.record_query(1); print(r.__file__)")
    assert Path(where.strip()).is_relative_to(environment)
    assert (tmp_path / "x.db").exists()
    done = subprocess.run([program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    missing = "hakgal-exporter: not installed: prometheus_client, psutil, tornado, yaml"
    assert done.stderr.startswith(missing)
    assert done.stderr.count("\n") == 1

    run(*install)
    assert run(program, "--version").strip() == f"hakgal-exporter {__version__}"
    run(python, "-I", "-c", "import exporter.commands.serve")


# The service


def test_the_service_is_bounded_and_does_not_restart_on_wrong_settings() -> None:
    assert OPTIONS["MemoryMax"]
    assert int(OPTIONS["TasksMax"]) > Server.max_connections
    assert OPTIONS["Restart"] == "on-failure"
    assert OPTIONS["RestartPreventExitStatus"] == "2"


def test_the_service_sees_the_processes_whose_connections_it_counts() -> None:
    assert OPTIONS["ProtectProc"] == "invisible"
    assert "PrivateUsers" not in OPTIONS
    assert OPTIONS.get("ProcSubset", "all") == "all"


def test_the_state_is_where_the_service_may_write() -> None:
    state = OPTIONS["Environment"].removeprefix("HAKGAL_STATE_FILE=")

    assert OPTIONS["ProtectSystem"] == "strict"
    assert Path(state).parent == Path("/var/lib") / OPTIONS["StateDirectory"]
    assert OPTIONS["UMask"] == "0077"


@pytest.mark.parametrize("sign", ["", "#?"], ids=["as shipped", "uncommented"])
def test_shipped_settings_are_read_and_valid(sign: str) -> None:
    file = OPTIONS["EnvironmentFile"].removeprefix("-").replace("%N", UNIT.stem)
    lines = re.findall(rf"(?m)^{sign}(HAKGAL_\w+)=(.+)$", DEFAULTS)

    assert DEFAULTS.startswith(f"# {file}:")
    assert lines
    assert {name for name, _ in lines} <= {s.environment for s in SETTINGS}
    assert load(Namespace(), dict(lines)).listen_addresses == ("127.0.0.1:8000",)


def test_systemd_finds_nothing_to_say_and_calls_the_service_hardened(
    tmp_path: Path,
) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze: install Debian's package systemd")
    unit = tmp_path / UNIT.name
    # With a program that is on every machine.
    text = re.sub("(?m)^ExecStart=.*", "ExecStart=/bin/true", UNIT.read_text())
    unit.write_text(text)
    said, judged = (
        subprocess.run(
            ["systemd-analyze", *words, unit], capture_output=True, text=True
        )
        for words in (["verify"], ["security", "--offline=true", "--no-pager"])
    )

    assert said.returncode == 0
    assert [line for line in said.stderr.splitlines() if unit.name in line] == []
    exposure = re.search(r"Overall exposure level for .*: ([0-9.]+)", judged.stdout)
    assert exposure
    assert float(exposure[1]) <= EXPOSURE_LIMIT
