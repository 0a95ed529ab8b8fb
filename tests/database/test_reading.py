"""What is read, what is refused and why, and that nothing can be written."""

import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.errors import DatabaseError
from tests.database.reading import (
    COUNT,
    INSERT,
    copy_in_use,
    make,
    read,
    read_file,
    refusal,
)
from tests.databases import App, beside, traces
from tests.exporters import other_user

# Takes some ten seconds: each row makes the next.
LONG = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000000)"
    " SELECT COUNT(*) FROM n"
)
HEADER = b"SQLite format 3\x00"


def test_counts_what_is_committed_and_only_that(path: Path) -> None:
    with App(path) as app:
        app.run(INSERT)
        assert read(path) == 4
        app.run("BEGIN")
        app.run(INSERT)
        assert read(path) == 4


def test_any_name_is_taken_as_it_is(path: Path) -> None:
    strange = path.rename(path.with_name("ä b#c?mode=rwc&d%20;'\".db"))
    with App(strange) as app:
        app.run(INSERT)
        assert read(strange) == 4


@pytest.mark.parametrize(
    "content",
    [b"hello" * 1000, HEADER + b"\xff" * 1000, HEADER + b"\2" * 4],
    ids=["text", "nonsense", "20-bytes"],
)
def test_other_content_is_refused(tmp_path: Path, content: bytes) -> None:
    (path := tmp_path / "x.db").write_bytes(content)
    assert re.search("not a (SQLite )?database", refusal(path))
    assert path.read_bytes() == content


def test_empty_file_is_a_database_without_tables(tmp_path: Path) -> None:
    (path := tmp_path / "x.db").touch()
    assert read(path, "SELECT COUNT(*) FROM sqlite_schema") == 0
    assert "no such table: query_times" in refusal(path)


@pytest.mark.parametrize("size", [100, 4096], ids=str)
def test_truncated_file_is_refused(path: Path, size: int) -> None:
    os.truncate(path, size)
    assert "the file is damaged" in refusal(path)


@pytest.mark.parametrize(
    ("create", "reason"),
    [
        (Path.mkdir, "it is not a regular file"),
        (os.mkfifo, "it is not a regular file"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.symlink_to("nowhere"), "does not exist"),
    ],
    ids=["directory", "fifo", "loop", "dangling"],
)
def test_what_is_no_file_is_refused_and_not_made(
    tmp_path: Path, create: Callable[[Path], None], reason: str
) -> None:
    create(path := tmp_path / "x.db")
    before = traces(tmp_path)
    message = refusal(path)
    assert message.startswith(f"cannot read the performance database {path}: ")
    assert reason in message
    assert traces(tmp_path) == before


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


@pytest.mark.parametrize("seconds", [0.2, -1.0], ids=str)
def test_deadline_stops_a_long_query(path: Path, seconds: float) -> None:
    with pytest.raises(DatabaseError, match="the read exceeded the scrape deadline"):
        read(path, LONG, seconds)


@pytest.mark.parametrize("sql", ["DELETE FROM query_times", "PRAGMA user_version = 7"])
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


def test_whatever_was_read_while_the_file_changed_is_read_again(wal_path: Path) -> None:
    counts: list[int] = []

    def work(db: sqlite3.Connection, file: object) -> int:
        counts.append(db.execute(COUNT).fetchone()[0])
        if len(counts) == 1:
            with App(wal_path) as writer:
                writer.run(INSERT)
            raise sqlite3.DatabaseError("torn")  # not to be taken for damage
        return counts[-1]

    assert read(wal_path, work=work) == 4
    assert counts == [3, 4]


def test_useless_log_and_index_of_a_crash_do_not_matter(wal_path: Path) -> None:
    copy = copy_in_use(wal_path)
    for index in (b"", bytes(100), b"\x5a" * 32768):
        beside(copy, "-shm").write_bytes(index)
        assert read(copy) == 4
    for size in (4151, 33, 32, 31, 0):  # less than a frame
        os.truncate(beside(copy, "-wal"), size)
        assert read(copy, seconds=9) == 3  # SQLite itself would try for 10 s


@pytest.mark.parametrize("position", [12, 16, 48], ids=str)
def test_log_figures_of_a_torn_index_are_unknown(wal_path: Path, position: int) -> None:
    copy = copy_in_use(wal_path)
    index = bytearray(beside(copy, "-shm").read_bytes())
    index[position] ^= 0xFF
    beside(copy, "-shm").write_bytes(index)
    file = read_file(copy)
    assert (file.wal_frames, file.wal_checkpointed_frames) == (None, None)
    assert file.wal_size_bytes > 0


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
