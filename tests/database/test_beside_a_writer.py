"""Reading beside HAK/GAL: it never waits, and finds nothing changed."""

import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.database.reading import (
    COUNT,
    INSERT,
    make,
    read,
    read_file,
    refusal,
    traces,
)
from tests.databases import JOURNAL_MODES, App
from tests.users import open_folder, other_user

__all__ = ["open_folder"]  # a fixture

SPILL = (
    "INSERT INTO query_times (query_time) WITH RECURSIVE n(i) AS"
    " (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000) SELECT i FROM n"
)
# An application that opens the database for each row.
RESTLESS = """
import sqlite3, sys
rows, errors = 0, set()
for _ in range(100):
    db = sqlite3.connect(sys.argv[1], isolation_level=None)
    try:
        rows += db.execute(
            "INSERT INTO query_times (query_time) VALUES (0.05)"
        ).rowcount
    except sqlite3.Error as error:
        errors.add(str(error))
    db.close()
print(f"{rows} rows, {errors or 'no errors'}")
"""


def side_files(path: Path) -> set[str]:
    names = (name.removeprefix(path.name) for name in os.listdir(path.parent))
    return {name for name in names if name.startswith("-")}


def owners_in(folder: Path) -> set[int]:
    """Return the owners of the files in a folder, where files come and go."""
    found = set()
    for name in os.listdir(folder):
        with suppress(FileNotFoundError):
            found.add(os.stat(folder / name).st_uid)
    return found


def spill(app: App) -> None:
    """Begin a transaction that is larger than the cache: it writes to the file."""
    app.run("PRAGMA cache_size = 1")
    app.run("BEGIN")
    app.run(SPILL)


@pytest.mark.parametrize("state", ["closed", "open", "written", "crashed"])
def test_reading_leaves_no_trace(path: Path, state: str) -> None:
    app = App(path)
    if state != "open":
        app.run(INSERT)
    {"closed": app.close, "crashed": app.kill}.get(state, int)()
    before = traces(path.parent)
    expected = 3 if state == "open" else 4
    assert read(path) == expected
    assert traces(path.parent) == before
    app.close()


@pytest.mark.parametrize("mode", [0o755, 0o777], ids=["read-only", "writable"])
@pytest.mark.parametrize("journal_mode", JOURNAL_MODES)
@pytest.mark.parametrize("is_open", [True, False], ids=["open", "closed"])
def test_other_user_leaves_no_trace(
    open_folder: Path, mode: int, journal_mode: str, is_open: bool
) -> None:
    path = make(open_folder, journal_mode)
    with App(path) as app:
        app.run(INSERT)
        if not is_open:
            app.close()
        open_folder.chmod(mode)
        before = traces(open_folder)
        with other_user():
            assert read(path) == 4
        assert traces(open_folder) == before


def test_immutable_only_while_nobody_has_it_open(wal_path: Path) -> None:
    assert read_file(wal_path).is_immutable
    with App(wal_path) as app:
        app.run(INSERT)
        assert not read_file(wal_path).is_immutable
        app.kill()
    assert not read_file(wal_path).is_immutable  # its log has content


def test_writer_that_comes_and_goes_is_not_disturbed(open_folder: Path) -> None:
    """Once, a log that vanished before SQLite looked was made anew as our user."""
    path = make(open_folder)
    open_folder.chmod(0o777)
    owners, counts = {path.stat().st_uid}, []
    with subprocess.Popen(
        [sys.executable, "-c", RESTLESS, path], stdout=subprocess.PIPE, text=True
    ) as app:
        while app.poll() is None:
            with other_user():
                counts.append(read(path))
            owners |= owners_in(open_folder)
        assert app.communicate()[0] == "100 rows, no errors\n"
    assert owners == {path.stat().st_uid}
    assert counts == sorted(counts)
    assert read(path) == 103


def test_last_close_removes_its_files_after_reads(wal_path: Path) -> None:
    with App(wal_path) as app:
        for count in range(4, 8):
            app.run(INSERT)
            assert read(wal_path) == count
        assert side_files(wal_path) == {"-wal", "-shm"}
    assert side_files(wal_path) == set()


def test_close_during_a_read_leaves_its_files_to_the_next(wal_path: Path) -> None:
    app = App(wal_path)
    app.run(INSERT)
    read(wal_path, work=lambda db, file: app.close())
    assert read(wal_path) == 4
    with App(wal_path) as app:
        assert app.run(COUNT) == [[4]]
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
        assert "another connection has it locked" in refusal(path)
        app.run("ROLLBACK")
        assert read(path) == 3


def test_waits_no_longer_for_a_lock_than_the_deadline(path: Path) -> None:
    assert 0 < read(path, "PRAGMA busy_timeout", seconds=60) <= 15_000
    assert read(path, "PRAGMA busy_timeout", seconds=0.1) <= 25


def test_exclusive_transaction_in_wal_mode_is_no_obstacle(wal_path: Path) -> None:
    with App(wal_path) as app:
        app.run("BEGIN EXCLUSIVE")
        app.run(INSERT)
        assert read(wal_path) == 3


@pytest.mark.parametrize("is_open", [True, False], ids=["later", "from-the-start"])
def test_exclusive_locking_mode_is_refused_with_a_reason(
    path: Path, is_open: bool
) -> None:
    with App(path) as app:
        if is_open:
            app.run(INSERT)
        app.run("PRAGMA locking_mode = EXCLUSIVE")
        app.run(INSERT)
        before = traces(path.parent)
        assert "locked" in refusal(path)
        assert traces(path.parent) == before
    assert read(path) == 4 + is_open


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


class Torn(sqlite3.OperationalError):
    """What SQLite says of an index that was looked at while it was written."""

    sqlite_errorname = "SQLITE_READONLY_RECOVERY"


def test_index_that_is_just_being_written_is_read_again(wal_path: Path) -> None:
    seen: list[int] = []

    def work(db: sqlite3.Connection, file: object) -> int:
        seen.append(1)
        if len(seen) < 3:
            raise Torn("attempt to write a readonly database")
        return len(seen)

    assert read(wal_path, work=work) == 3
