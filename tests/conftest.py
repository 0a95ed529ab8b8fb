"""Fixtures that every test may use."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import JOURNAL_MODES, Files
from tests.exporters import Command, file_flags
from tests.servers import Processes, Servers, find_free_port, find_servers


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--renew-golden", action="store_true", help="write tests/golden anew"
    )


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
    """Yield a loopback port on which somebody listens, and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(params=JOURNAL_MODES)
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Files]:
    """Make both databases, empty, and close them after the test."""
    with Files(tmp_path, request.param) as made:
        yield made


@pytest.fixture
def command(processes: Processes, tmp_path: Path, free_port: int) -> Command:
    """Return the exporter as a process over ``tmp_path``, not started yet."""
    return Command(processes, free_port, *file_flags(tmp_path))
