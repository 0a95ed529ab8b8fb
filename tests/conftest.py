"""Fixtures that every test may use."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import Processes, Servers, find_free_port, find_servers


@pytest.fixture(
    scope="session",
    params=[pytest.param(servers, id=servers.label) for servers in find_servers()],
)
def servers(request: pytest.FixtureRequest) -> Servers:
    """Run the test with each generation of the real servers; fail without them."""
    found: Servers = request.param
    try:
        found.program("prometheus")
    except FileNotFoundError as missing:
        pytest.fail(str(missing), pytrace=False)
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
