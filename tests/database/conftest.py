"""Fixtures for tests of exporter/database."""

from pathlib import Path

import pytest

from tests.database.reading import make
from tests.databases import JOURNAL_MODES


@pytest.fixture(params=JOURNAL_MODES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a performance database with three queries that nobody has open."""
    return make(tmp_path, request.param)


@pytest.fixture
def wal_path(tmp_path: Path) -> Path:
    return make(tmp_path)
