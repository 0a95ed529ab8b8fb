"""Who else has a file open: counted after a scrape, shown in the next one."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from exporter.scrape import Exporter
from tests.database.reading import COUNT, make
from tests.databases import App
from tests.exporters import make_config, make_exporter, scrape
from tests.servers import wait_until
from tests.users import open_folder, other_user

__all__ = ["open_folder"]  # a fixture


def watch(path: Path) -> Exporter:
    config = make_config(path.parent, performance=path, state_file=None)
    return make_exporter(config)


def shown(exporter: Exporter) -> float | None:
    page = scrape(exporter, "storage")
    return page("hakgal_database_connections", database="performance")


def count(path: Path) -> float | None:
    """Return the number that a new exporter shows first."""
    exporter = watch(path)
    assert shown(exporter) is None
    found = wait_until(lambda: [n for n in [shown(exporter)] if n is not None], 5)
    return found[0]


@pytest.mark.parametrize("number", [0, 1, 3], ids=str)
def test_connections_of_other_processes_are_counted(path: Path, number: int) -> None:
    with ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(App(path)).run(COUNT)
        assert count(path) == number
    assert count(path) == 0


def test_each_connection_of_a_process_is_counted(path: Path) -> None:
    with App(path) as app:
        app.run(f"ATTACH '{path}' AS again")
        app.run("SELECT COUNT(*) FROM again.query_times")
        app.run(COUNT)
        assert count(path) == 2


def test_connections_are_counted_behind_a_link(path: Path) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    with App(path) as app:
        app.run(COUNT)
        assert count(link) == 1


def test_process_whose_files_may_not_be_seen_counts_by_its_lock(
    open_folder: Path,
) -> None:
    path = make(open_folder)
    with App(path) as app:
        app.run(COUNT)
        app.run(f"ATTACH '{path}' AS again")
        with other_user():
            assert count(path) == 1


def test_nothing_is_told_where_no_process_can_be_seen(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getpid", lambda: 1)
    exporter = watch(path)
    assert {shown(exporter) for _ in range(20)} == {None}


def test_connections_that_come_and_go_are_seen_while_the_count_is_fresh(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = watch(path)
    with App(path) as app:
        app.run(COUNT)
        wait_until(lambda: shown(exporter) == 1, 5)
    wait_until(lambda: shown(exporter) == 0, 5)
    monkeypatch.setattr("exporter.scrape.reader.CONNECTIONS_SECONDS", 0.0)
    assert shown(exporter) is None
