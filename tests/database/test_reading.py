"""What is read, what is refused and why, and that nothing can be written."""

import os
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from exporter.database import Database
from exporter.errors import DatabaseError
from tests.database.reading import (
    COUNT,
    INSERT,
    beside,
    copy_in_use,
    make,
    read,
    read_file,
    refusal,
    traces,
)
from tests.databases import App
from tests.users import open_folder, other_user

__all__ = ["open_folder"]  # a fixture

# Never ends: each row makes the next.
ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    " SELECT COUNT(*) FROM n"
)
HEADER = b"SQLite format 3\x00"


def test_counts_what_is_committed_and_only_that(path: Path) -> None:
    assert read(path) == 3
    with App(path) as app:
        app.run(INSERT)
        assert read(path) == 4
        app.run("BEGIN")
        app.run(INSERT)
        assert read(path) == 4


def test_log_beside_the_target_of_a_link_is_read(wal_path: Path) -> None:
    (link := wal_path.with_name("elsewhere") / "link.db").parent.mkdir()
    link.symlink_to(wal_path)
    with App(wal_path) as app:
        app.run(INSERT)
        assert read(link) == 4
        assert read_file(link).path == str(wal_path)


@pytest.mark.parametrize(
    "name", ["a b.db", "a#b.db", "a?mode=rwc.db", "a%20b.db", "ä€.db", "a&b;'\".db"]
)
def test_any_name_is_taken_as_it_is(path: Path, name: str) -> None:
    strange = path.rename(path.with_name(name))
    with App(strange) as app:
        app.run(INSERT)
        assert read(strange) == 4
    assert name in refusal(strange.rename(strange.with_name("moved")).with_name(name))


def test_relative_path_does_not_move_with_the_process(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    database = Database("performance", Path(path.name))
    monkeypatch.chdir("/")
    found = database.read(lambda db, file: file.path, time.monotonic() + 5)
    assert found == str(path)


def test_text_that_is_no_utf_8_can_be_read(path: Path) -> None:
    assert read(path, "SELECT CAST(x'41ff42' AS TEXT)") == "A\ufffdB"


@pytest.mark.parametrize(
    "content",
    [b"hello" * 1000, HEADER + b"\xff" * 1000, HEADER[:1], HEADER, HEADER + b"\2" * 4],
    ids=["text", "nonsense", "1-byte", "16-bytes", "20-bytes"],
)
def test_other_content_is_refused(tmp_path: Path, content: bytes) -> None:
    (path := tmp_path / "x.db").write_bytes(content)
    assert re.search("not a (SQLite )?database", refusal(path))
    assert path.read_bytes() == content


def test_empty_file_is_a_database_without_tables(tmp_path: Path) -> None:
    (path := tmp_path / "x.db").touch()
    assert read(path, "SELECT COUNT(*) FROM sqlite_schema") == 0
    assert "no such table: query_times" in refusal(path)


@pytest.mark.parametrize("size", [100, 512, 4096, 12288], ids=str)
def test_truncated_file_is_refused(path: Path, size: int) -> None:
    os.truncate(path, size)
    assert "the file is damaged" in refusal(path)


def test_file_that_is_truncated_during_a_read_is_refused(path: Path) -> None:
    def work(db: sqlite3.Connection, file: object) -> int:
        os.truncate(path, 512)
        return len(db.execute("SELECT * FROM query_times, cache_events").fetchall())

    with pytest.raises(DatabaseError, match=r"damaged|changed while it was read"):
        read(path, work=work)


@pytest.mark.parametrize(
    ("create", "reason"),
    [
        (Path.mkdir, "it is not a regular file"),
        (os.mkfifo, "it is not a regular file"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.symlink_to("nowhere"), "does not exist (yet)"),
        (lambda path: None, "does not exist (yet)"),
    ],
    ids=["directory", "fifo", "loop", "dangling", "missing"],
)
def test_what_is_no_file_is_refused_and_not_made(
    tmp_path: Path, create: Callable[[Path], None], reason: str
) -> None:
    create(path := tmp_path / "x.db")
    before = traces(tmp_path)
    message = refusal(path)
    assert reason in message
    assert f"cannot read the performance database {path}: " in message
    assert traces(tmp_path) == before


@pytest.mark.parametrize("versions", [b"\1\2", b"\2\1"], ids=["read", "write"])
def test_header_that_says_two_things_leaves_no_trace(
    path: Path, versions: bytes
) -> None:
    """A flipped bit: one version is that of a log, the other of a rollback journal."""
    content = path.read_bytes()
    path.write_bytes(content[:18] + versions + content[20:])
    before = traces(path.parent)
    assert read(path) == 3
    assert traces(path.parent) == before


def test_damaged_name_in_the_schema_is_refused(tmp_path: Path) -> None:
    """SQLite's message quotes it, and Python cannot read that message."""
    path = make(tmp_path, "delete")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute(
            "UPDATE sqlite_schema SET name = CAST(x'f2' AS TEXT), sql = 'CREATE x'"
            " WHERE name = 'cache_events'"
        )
    assert "the file is damaged" in refusal(path)


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_unreadable_file_is_refused_with_a_reason(
    open_folder: Path, suffix: str
) -> None:
    path = make(open_folder)
    with App(path) as app:
        app.run(INSERT)
        beside(path, suffix).chmod(0)
        with other_user():
            assert "permission" in refusal(path)


def test_unreachable_folder_is_refused_with_a_reason(open_folder: Path) -> None:
    path = make(open_folder)
    open_folder.chmod(0)
    try:
        with other_user():
            assert "Permission denied; give this user" in refusal(path)
    finally:
        open_folder.chmod(0o755)


@pytest.mark.parametrize("seconds", [0.2, 0.0, -1.0], ids=str)
def test_deadline_stops_an_endless_query(path: Path, seconds: float) -> None:
    started = time.monotonic()
    with pytest.raises(DatabaseError, match="the scrape's time was up"):
        read(path, ENDLESS, seconds)
    assert seconds <= time.monotonic() - started < 2


@pytest.mark.parametrize(
    "sql",
    ["DELETE FROM query_times", "CREATE TABLE x (y)", "PRAGMA user_version = 7"],
    ids=["delete", "create", "pragma"],
)
@pytest.mark.parametrize("is_open", [True, False], ids=["open", "closed"])
def test_nothing_can_be_written(path: Path, sql: str, is_open: bool) -> None:
    with App(path) as app:
        app.run(COUNT)
        if not is_open:
            app.close()
        with pytest.raises(DatabaseError):
            read(path, sql)
    assert read(path) == 3
    assert read(path, "PRAGMA user_version") == 0


def test_connection_does_not_outlive_the_read(path: Path) -> None:
    kept: list[sqlite3.Connection] = []
    read(path, work=lambda db, file: kept.append(db))
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        kept[0].execute(COUNT)


def test_whatever_was_read_while_the_file_changed_is_read_again(wal_path: Path) -> None:
    counts: list[int] = []

    def work(db: sqlite3.Connection, file: object) -> int:
        counts.append(db.execute(COUNT).fetchone()[0])
        if len(counts) == 1:
            with closing(sqlite3.connect(wal_path)) as writer, writer:
                writer.execute(INSERT)
            raise sqlite3.DatabaseError("torn")  # not to be taken for damage
        return counts[-1]

    assert read(wal_path, work=work) == 4
    assert counts == [3, 4]


def test_file_that_changes_all_the_time_is_given_up(wal_path: Path) -> None:
    def work(db: sqlite3.Connection, file: object) -> None:
        os.utime(wal_path)

    with pytest.raises(DatabaseError, match="it was changed while it was read"):
        read(wal_path, seconds=1, work=work)


def test_useless_log_and_index_of_a_crash_do_not_matter(wal_path: Path) -> None:
    copy = copy_in_use(wal_path)
    for index in (b"", bytes(100), bytes(32768), b"\x5a" * 32768):
        beside(copy, "-shm").write_bytes(index)
        assert read(copy) == 4
    started = time.monotonic()
    for size in (4151, 33, 32, 31, 1, 0):  # less than a frame
        os.truncate(beside(copy, "-wal"), size)
        assert read(copy) == 3
    assert time.monotonic() - started < 5  # SQLite itself would try for 10 s


def test_log_without_its_index_is_refused_with_a_way_out(wal_path: Path) -> None:
    copy = copy_in_use(wal_path)
    beside(copy, "-shm").unlink()
    before = traces(copy.parent)
    message = refusal(copy)
    assert "its -wal has content but its -shm is missing" in message
    assert f"sqlite3 '{copy}' 'PRAGMA wal_checkpoint(TRUNCATE)'" in message
    assert traces(copy.parent) == before
    with App(copy) as owner:
        owner.run("PRAGMA wal_checkpoint(TRUNCATE)")
    assert read(copy) == 4
