"""Reading beside HAK/GAL: it never waits, and finds nothing changed."""

import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.database.reading import COUNT, INSERT, make, read, refusal
from tests.databases import JOURNAL_MODES, App, traces
from tests.exporters import other_user

SPILL = (
    "INSERT INTO query_times (query_time) WITH RECURSIVE n(i) AS"
    " (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000) SELECT i FROM n"
)


def side_files(path: Path) -> set[str]:
    names = (name.removeprefix(path.name) for name in os.listdir(path.parent))
    return {name for name in names if name.startswith("-")}


def spill(app: App) -> None:
    """Begin a transaction that is larger than the cache: it writes to the file."""
    app.run("PRAGMA cache_size = 1")
    app.run("BEGIN")
    app.run(SPILL)


@pytest.mark.parametrize("user", [nullcontext, other_user], ids=["owner", "other"])
@pytest.mark.parametrize("mode", [0o755, 0o777], ids=["read-only", "writable"])
@pytest.mark.parametrize("journal_mode", JOURNAL_MODES)
@pytest.mark.parametrize("state", ["closed", "open", "written", "crashed"])
def test_reading_leaves_no_trace(
    open_folder: Path,
    state: str,
    journal_mode: str,
    mode: int,
    user: Callable[[], AbstractContextManager[None]],
) -> None:
    path = make(open_folder, journal_mode)
    with App(path) as app:
        if state != "open":
            app.run(INSERT)
        {"closed": app.close, "crashed": app.kill}.get(state, int)()
        open_folder.chmod(mode)
        before = traces(open_folder)
        with user():
            assert read(path) == (3 if state == "open" else 4)
        assert traces(open_folder) == before


def test_writer_that_closes_just_before_the_file_is_opened(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite would make a log anew, as our user: the writer could not write again."""
    path, connect = make(open_folder), sqlite3.connect
    open_folder.chmod(0o777)
    with App(path) as app:
        app.run(INSERT)

        def close_and_connect(*arguments: Any, **options: Any) -> Any:
            app.close()
            return connect(*arguments, **options)

        with monkeypatch.context() as patch, other_user():
            patch.setattr(sqlite3, "connect", close_and_connect)
            assert read(path) == 4
    assert {one.stat().st_uid for one in open_folder.iterdir()} == {path.stat().st_uid}
    with App(path) as app:
        app.run(INSERT)
    assert (read(path), side_files(path)) == (5, set())


def test_last_close_removes_its_files_unless_it_comes_during_a_read(
    wal_path: Path,
) -> None:
    with App(wal_path) as app:
        app.run(INSERT)
        read(wal_path, work=lambda db, file: app.close())
    assert side_files(wal_path) == {"-wal", "-shm"}
    with App(wal_path) as app:
        app.run(INSERT)
        assert read(wal_path) == 5
    assert side_files(wal_path) == set()


def test_writer_in_wal_mode_never_waits_for_a_reader(wal_path: Path) -> None:
    with App(wal_path, timeout=0) as app, ThreadPoolExecutor(1) as pool:
        written = pool.submit(lambda: [app.run(INSERT) for _ in range(500)])
        counts = [read(wal_path)]
        while not written.done():
            counts.append(read(wal_path))
        assert len(written.result()) == 500  # no SQLITE_BUSY
        assert counts == sorted(counts)
        assert app.run("PRAGMA wal_checkpoint(TRUNCATE)") == [[0, 0, 0]]
        assert read(wal_path) == 503


@pytest.mark.parametrize("how", ["exclusive", "spilling"])
def test_locked_in_rollback_mode_is_refused_while_it_lasts(
    tmp_path: Path, how: str
) -> None:
    path = make(tmp_path, "delete")
    with App(path) as app:
        spill(app) if how == "spilling" else app.run("BEGIN EXCLUSIVE")
        assert "another connection has locked it" in refusal(path)
        app.run("ROLLBACK")
        assert read(path) == 3


def test_waits_no_longer_for_a_lock_than_the_deadline(path: Path) -> None:
    assert 0 < read(path, "PRAGMA busy_timeout", seconds=60) <= 15_000
    assert read(path, "PRAGMA busy_timeout", seconds=0.1) <= 25


def test_hot_journal_is_refused_and_kept(tmp_path: Path) -> None:
    path = make(tmp_path, "delete")
    with App(path) as app:
        spill(app)
        app.kill()
    before = traces(tmp_path)
    assert "its writer crashed" in refusal(path)
    assert traces(tmp_path) == before
    with App(path) as app:
        assert app.run(COUNT) == [[3]]  # rolled back
    assert read(path) == 3
