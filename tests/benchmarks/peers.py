"""The exporters that the product is compared with, fetched beside the system.

query-exporter from PyPI in an environment of its own; node_exporter from Debian's
packages, by ``.ci/servers``. Both stay in the folder of the other servers.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.data import Files
from tests.benchmarks.programs import Program, running
from tests.servers import ROOT, find_free_port

QUERY_EXPORTER = "query-exporter==5.0.2"
CONFIG = Path(__file__).with_name("query-exporter.yml")


def folder() -> Path:
    """Return the folder of the servers; HAKGAL_SERVERS names another one."""
    return ROOT / os.environ.get("HAKGAL_SERVERS", ".servers")


def node_exporter_path() -> Path:
    """Return where node_exporter is once it has been fetched."""
    return folder() / "node-exporter" / "bin" / "node_exporter"


def query_exporter_path() -> Path:
    """Return where query-exporter is once it has been installed."""
    return folder() / "query-exporter" / "bin" / "query-exporter"


def install() -> None:
    """Fetch whatever is missing.

    Raises:
        CalledProcessError: no apt, no package registry, no network.
    """
    if not node_exporter_path().exists():
        subprocess.run([ROOT / ".ci" / "servers", "node-exporter"], check=True)
    if not query_exporter_path().exists():
        home = folder() / "query-exporter"
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        pip = (home / "bin" / "python", "-m", "pip", "install", "--quiet")
        options = ("--disable-pip-version-check", "--no-input")
        subprocess.run([*pip, *options, QUERY_EXPORTER], check=True)


def versions() -> dict[str, str]:
    """Return what those that are there say of their version."""
    paths = {
        "node_exporter": node_exporter_path(),
        "query_exporter": query_exporter_path(),
    }
    return {name: _version(path) for name, path in paths.items() if path.exists()}


@contextmanager
def node_exporter(folder: Path) -> Iterator[Program | None]:
    """Run node_exporter with its defaults; None if it was not fetched."""
    path, port = node_exporter_path(), find_free_port()
    if not path.exists():
        yield None
        return
    listen = f"--web.listen-address=127.0.0.1:{port}"
    with running(folder / "node.log", path, listen, port=port) as program:
        program.wait_for("/")
        yield program


@contextmanager
def query_exporter(files: Files) -> Iterator[Program | None]:
    """Run query-exporter over these files; None if it was not installed."""
    path, port = query_exporter_path(), find_free_port()
    if not path.exists():
        yield None
        return
    with running(
        files.folder / "query-exporter.log",
        *(path, "--host=127.0.0.1", f"--port={port}", f"--config={CONFIG}"),
        port=port,
        KNOWLEDGE_BASE_DSN=f"sqlite:///{files.knowledge_base.absolute()}",
        PERFORMANCE_DSN=f"sqlite:///{files.performance.absolute()}",
    ) as program:
        program.wait_for("/")
        yield program


def _version(program: Path) -> str:
    done = subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=True
    )
    return (done.stdout + done.stderr).splitlines()[0]
