"""Who else has a file open: counted after a scrape, shown in the next one."""

from pathlib import Path

import pytest

from exporter.scrape import Exporter
from tests.database.reading import COUNT, SECONDS
from tests.databases import App
from tests.exporters import make_config, make_exporter, scrape
from tests.servers import wait_until


def watch(path: Path) -> Exporter:
    config = make_config(path.parent, performance=path, state_file=None)
    return make_exporter(config)


def shown(exporter: Exporter) -> float | None:
    page = scrape(exporter, "storage")
    return page("hakgal_database_connections", database="performance")


def count(path: Path) -> float:
    """Return the number that a new exporter shows first."""
    exporter = watch(path)
    assert shown(exporter) is None
    found = wait_until(lambda: [n for n in [shown(exporter)] if n is not None], SECONDS)
    return found[0]


def test_each_connection_of_each_other_process_is_counted(path: Path) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    with App(path) as app, App(path) as other:
        app.run(COUNT)
        other.run(COUNT)
        assert count(path) == 2
        app.run(f"ATTACH '{path}' AS again")
        app.run("SELECT COUNT(*) FROM again.query_times")
        assert count(path) == count(link) == 3
    assert count(path) == 0


def test_nothing_is_told_where_no_process_can_be_seen(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getpid", lambda: 1)
    exporter = watch(path)
    assert {shown(exporter) for _ in range(20)} == {None}


def test_count_is_shown_while_it_is_fresh(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = watch(path)
    with App(path) as app:
        app.run(COUNT)
        wait_until(lambda: shown(exporter) == 1, SECONDS)
    wait_until(lambda: shown(exporter) == 0, SECONDS)
    monkeypatch.setattr("exporter.scrape.reader.CONNECTIONS_SECONDS", 0.0)
    assert shown(exporter) is None
