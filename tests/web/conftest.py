"""What the tests of the web share: a source, and a client of its server."""

from collections.abc import Iterator

import pytest

from tests.clients import Client, FakeSource, serving


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


@pytest.fixture
def client(source: FakeSource) -> Iterator[Client]:
    with serving(source) as address, Client(address) as client:
        yield client
