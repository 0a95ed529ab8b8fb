"""Fixtures that every test may use."""

import os
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import JOURNAL_MODES, Files
from tests.exporters import Command, file_flags
from tests.servers import Processes, Servers, find_free_port, find_servers, left_out
from tests.webs import Web


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--renew-golden", action="store_true", help="write the golden files anew"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end which generation of the servers was not there."""
    for line in left_out():
        terminalreporter.write_line(line, yellow=True)


@pytest.fixture(
    scope="session",
    params=find_servers(),
    ids=lambda servers: f"{servers.folder.name}-{servers.version}",
)
def servers(request: pytest.FixtureRequest) -> Servers:
    """Run the test with each generation of the real servers; fail without them."""
    found: Servers = request.param
    if found.version is None:
        pytest.fail(f"nothing in {found.folder}: run `make servers`", pytrace=False)
    return found


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Start programs that end with the test, whatever becomes of it."""
    started = Processes(tmp_path)
    yield started
    started.stop()


@pytest.fixture
def free_port() -> int:
    """Return a loopback port on which nothing listens."""
    return find_free_port()


@pytest.fixture
def taken_port() -> Iterator[int]:
    """Yield a loopback port where somebody else hangs up on every caller."""
    handler = socketserver.BaseRequestHandler
    with socketserver.TCPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture(params=JOURNAL_MODES)
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Files]:
    """Make both databases, empty, and close them after the test."""
    with Files(tmp_path, request.param) as made:
        yield made


@pytest.fixture
def command(processes: Processes, tmp_path: Path, free_port: int) -> Command:
    """Return the exporter as a process over ``tmp_path``, not started yet."""
    return Command(processes, free_port, *file_flags(tmp_path))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with both databases, empty, that nobody has open."""
    Files(tmp_path).close()
    return tmp_path


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Yield a folder that other users can reach; tmp_path is its owner's only."""
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        yield Path(made)
        os.chmod(made, 0o755)


@pytest.fixture
def web(tmp_path: Path) -> Web:
    """Make certificates in ``tmp_path``; ``web.yml`` is not written yet."""
    return Web(tmp_path)
