"""Wheel and sdist: built from the checkout, installed where nothing else is."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from exporter import __version__
from tests.servers import ROOT

NAME = f"hakgal_exporter-{__version__}"


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
    tracked = run("git", "-C", ROOT, "ls-files").split()
    assert {
        "Makefile",
        "README.md",
        "tests/conftest.py",
        "exporter/__main__.py",
    } <= names
    assert names - {"PKG-INFO"} <= {*tracked, *untracked()}


def untracked() -> list[str]:
    """Return what a developer has not added yet, as git does not ignore it."""
    command = ["git", "-C", str(ROOT), "ls-files", "--others", "--exclude-standard"]
    return run(*command).split()


def test_an_empty_environment_runs_it(built: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", environment)
    pip, python, program = (
        environment / "bin" / name for name in ("pip", "python", "hakgal-exporter")
    )
    wheel = built / f"{NAME}-py3-none-any.whl"
    install: list[str | Path] = [
        pip,
        "install",
        "--quiet",
        "--disable-pip-version-check",
        wheel,
    ]

    run(*install, "--no-deps")
    record = f"import exporter.recorder as r; r.Recorder({str(tmp_path / 'x.db')!r})"
    where = run(python, "-I", "-c", f"{record}.record_query(1); print(r.__file__)")
    assert Path(where.strip()).is_relative_to(environment)
    assert (tmp_path / "x.db").exists()
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    missing = "hakgal-exporter: not installed: prometheus_client, psutil, tornado, yaml"
    assert done.stderr.startswith(missing)
    assert done.stderr.count("\n") == 1

    run(*install)
    assert run(program, "--version").strip() == f"hakgal-exporter {__version__}"
    run(python, "-I", "-c", "import exporter.commands.serve")
