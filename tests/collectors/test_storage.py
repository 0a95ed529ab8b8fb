"""The storage collector: files, logs, and who has them open."""

from pathlib import Path

from tests.databases import App, Files
from tests.exporters import make_config, make_exporter, scrape

PERFORMANCE = {"database": "performance"}


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
