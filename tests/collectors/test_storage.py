"""The storage collector: files, logs, and who has them open."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
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
ANY_ROW = "SELECT COUNT(*) FROM query_times"


@pytest.fixture
def path(files: Files) -> Path:
    """Return the performance database, which nobody has open."""
    files.close()
    return files.performance.path


@pytest.fixture
def wal_path(tmp_path: Path) -> Path:
    """Return the performance database in WAL mode."""
    with Files(tmp_path, "wal") as files:
        return files.performance.path


@pytest.fixture
def log_writer(wal_path: Path) -> Iterator[App]:
    """Yield another process that never checkpoints by itself."""
    with App(wal_path) as app:
        app.run("PRAGMA wal_autocheckpoint = 0")
        yield app


def measure(folder: Path) -> Page:
    return scrape(make_exporter(make_config(folder)), "storage")


def write(app: App, times: int) -> None:
    for _ in range(times):
        app.run("INSERT INTO query_times(query_time) VALUES (0.5)")


@pytest.mark.usefixtures("path")
def test_file_that_nobody_uses_has_no_log_and_no_connection(tmp_path: Path) -> None:
    page = measure(tmp_path)

    assert page.names >= FAMILIES
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


@pytest.mark.parametrize("number", [1, 3])
def test_connections_of_other_processes_are_counted(
    number: int, path: Path, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(App(path)).run(ANY_ROW)
        page = measure(tmp_path)
        counts = page.by("database", "hakgal_database_connections")
        assert counts == {"knowledge_base": 0, "performance": number}

    page = measure(tmp_path)
    assert page("hakgal_database_connections", database="performance") == 0


def test_each_connection_of_a_process_is_counted(path: Path, tmp_path: Path) -> None:
    with App(path) as app:
        app.run(f"ATTACH '{path}' AS again")
        app.run("SELECT COUNT(*) FROM again.query_times")
        app.run(ANY_ROW)

        page = measure(tmp_path)

    assert page("hakgal_database_connections", database="performance") == 2


def test_no_connections_are_shown_where_no_process_can_be_seen(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.connections.os.getpid", lambda: 1)
    with App(path) as app:
        app.run(ANY_ROW)

        page = measure(tmp_path)

    assert page.by("database", "hakgal_database_connections") == {}


def test_connections_are_counted_behind_a_link(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path, target_is_directory=True)
    config = make_config(tmp_path, performance=link / path.name)
    with App(path) as app:
        app.run(ANY_ROW)

        page = scrape(make_exporter(config))

    assert page("hakgal_database_connections", database="performance") == 1


def test_log_figures_are_those_that_sqlite_gives(
    log_writer: App, wal_path: Path, tmp_path: Path
) -> None:
    write(log_writer, 7)
    ((_, frames, checkpointed),) = log_writer.run("PRAGMA wal_checkpoint")
    assert frames == checkpointed > 0

    page = measure(tmp_path)

    assert page("hakgal_wal_frames", database="performance") == frames
    assert (
        page("hakgal_wal_checkpointed_frames", database="performance") == checkpointed
    )
    size = os.stat(f"{wal_path}-wal").st_size
    assert page("hakgal_wal_size_bytes", database="performance") == size > 0


def test_log_that_is_not_checkpointed_shows(log_writer: App, tmp_path: Path) -> None:
    write(log_writer, 3)
    before = measure(tmp_path)
    write(log_writer, 5)

    page = measure(tmp_path)

    labels = {"database": "performance"}
    assert page("hakgal_wal_checkpointed_frames", **labels) == 0
    frames = before("hakgal_wal_frames", **labels), page("hakgal_wal_frames", **labels)
    assert 0 < (frames[0] or 0) < (frames[1] or 0)


def test_log_that_begins_anew_keeps_its_size(
    log_writer: App, wal_path: Path, tmp_path: Path
) -> None:
    write(log_writer, 20)
    log_writer.run("PRAGMA wal_checkpoint(RESTART)")
    write(log_writer, 1)

    page = measure(tmp_path)

    labels = {"database": "performance"}
    assert 0 < (page("hakgal_wal_frames", **labels) or 0) < 20
    assert page("hakgal_wal_size_bytes", **labels) == os.stat(f"{wal_path}-wal").st_size


def test_file_that_is_missing_costs_its_own_figures_only(
    path: Path, tmp_path: Path
) -> None:
    path.unlink()

    page = measure(tmp_path)

    for name in FAMILIES:
        assert set(page.by("database", name)) == {"knowledge_base"}
    assert page.by("database", "hakgal_up") == {"knowledge_base": 1, "performance": 0}
    assert page.failed == {"storage"}
