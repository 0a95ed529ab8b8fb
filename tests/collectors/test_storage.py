"""The storage collector: files, logs, and who has them open."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.databases import App, Files
from tests.exporters import Page, make_config, make_exporter, scrape

FAMILIES = {
    "hakgal_database_connections",
    "hakgal_database_free_bytes",
    "hakgal_database_size_bytes",
    "hakgal_wal_checkpointed_frames",
    "hakgal_wal_frames",
    "hakgal_wal_size_bytes",
}


@pytest.fixture
def path(files: Files) -> Path:
    """Return the performance database, which nobody has open."""
    files.close()
    return files.performance.path


def measure(folder: Path) -> Page:
    return scrape(make_exporter(make_config(folder)), "storage")


@pytest.mark.usefixtures("path")
def test_file_that_nobody_uses_has_no_log_and_no_connection(tmp_path: Path) -> None:
    exporter = make_exporter(make_config(tmp_path))
    page = scrape(exporter, "storage")
    # Connections are counted after a scrape.
    while len(page.by("database", "hakgal_database_connections")) < 2:
        page = scrape(exporter, "storage")

    for name in FAMILIES - {"hakgal_database_size_bytes"}:
        assert page.by("database", name) == {"knowledge_base": 0, "performance": 0}


def test_size_and_free_bytes_are_those_of_the_file(path: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            "INSERT INTO cache_events(hit, cache_key) VALUES (1, zeroblob(70000))"
        )
        db.execute("DELETE FROM cache_events")
        db.commit()
        (free,) = db.execute("PRAGMA freelist_count").fetchone()
        (page_size,) = db.execute("PRAGMA page_size").fetchone()

    page = measure(tmp_path)

    free_bytes = page("hakgal_database_free_bytes", database="performance") or 0
    assert free_bytes == free * page_size
    size = path.stat().st_size
    assert size > free_bytes > 60000
    assert page("hakgal_database_size_bytes", database="performance") == size


def test_log_figures_are_those_that_sqlite_gives(tmp_path: Path) -> None:
    with Files(tmp_path) as files:
        path = files.performance.path
    insert = "INSERT INTO query_times(query_time) VALUES (0.5)"
    with App(path) as app, App(path) as reader:
        app.run(insert)
        reader.run("BEGIN")
        reader.run("SELECT COUNT(*) FROM query_times")
        app.run(insert)
        ((_, frames, checkpointed),) = app.run("PRAGMA wal_checkpoint(PASSIVE)")
        page = measure(tmp_path)
        size = path.with_name(f"{path.name}-wal").stat().st_size

    labels = {"database": "performance"}
    assert page("hakgal_wal_size_bytes", **labels) == size
    assert page("hakgal_wal_frames", **labels) == frames
    assert page("hakgal_wal_checkpointed_frames", **labels) == checkpointed < frames


def test_file_that_is_missing_costs_its_own_figures_only(
    path: Path, tmp_path: Path
) -> None:
    path.unlink()

    page = measure(tmp_path)

    for name in FAMILIES - {"hakgal_database_connections"}:
        assert set(page.by("database", name)) == {"knowledge_base"}
    assert page.by("database", "hakgal_up") == {"knowledge_base": 1, "performance": 0}
    assert page.failed == {"storage"}
