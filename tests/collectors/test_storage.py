"""The storage collector: files, logs, and who has them open."""

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.databases import App, Files
from tests.exporters import make_config, make_exporter, scrape

PERFORMANCE = {"database": "performance"}


def test_size_and_free_bytes_are_those_of_the_file(folder: Path) -> None:
    path = folder / "hakgal_performance.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("INSERT INTO cache_events(hit, cache_key) VALUES (1, zeroblob(7e4))")
        db.execute("DELETE FROM cache_events")
        db.commit()
        (free,) = db.execute("PRAGMA freelist_count").fetchone()
        (page_size,) = db.execute("PRAGMA page_size").fetchone()

    page = scrape(make_exporter(make_config(folder)), "storage")

    assert page("hakgal_database_free_bytes", **PERFORMANCE) == free * page_size > 60000
    size = page("hakgal_database_size_bytes", **PERFORMANCE)
    assert size == path.stat().st_size


def test_log_figures_show_a_starved_checkpoint(tmp_path: Path) -> None:
    with Files(tmp_path) as files:
        path = files.performance.path
    insert = "INSERT INTO query_times(query_time) VALUES (0.5)"
    with App(path) as app, App(path) as reader:
        app.run(insert)
        reader.run("BEGIN")
        reader.run("SELECT COUNT(*) FROM query_times")
        app.run(insert)
        ((_, frames, checkpointed),) = app.run("PRAGMA wal_checkpoint(PASSIVE)")
        page = scrape(make_exporter(make_config(tmp_path)), "storage")
        size = path.with_name(f"{path.name}-wal").stat().st_size

    assert page("hakgal_wal_size_bytes", **PERFORMANCE) == size
    assert page("hakgal_wal_frames", **PERFORMANCE) == frames
    shown = page("hakgal_wal_checkpointed_frames", **PERFORMANCE)
    assert shown == checkpointed < frames
