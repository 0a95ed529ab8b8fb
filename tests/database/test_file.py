"""What is told about a file: its version, which any write changes, and its log."""

from pathlib import Path

import pytest

from tests.database.reading import (
    COUNT,
    INSERT,
    beside,
    copy_in_use,
    read_file,
)
from tests.databases import App

WRITES = (
    "UPDATE query_times SET query_time = 1 WHERE id = 2",
    "DELETE FROM query_times WHERE id = 1",
    "VACUUM",
    "DROP TABLE cache_events",
    "PRAGMA user_version = 7",
)


def frames(path: Path) -> tuple[int | None, int | None]:
    file = read_file(path)
    return file.wal_frames, file.wal_checkpointed_frames


def test_version_changes_with_any_write_and_only_then(path: Path) -> None:
    versions = set()
    with App(path) as app:
        for write in (INSERT, INSERT, *WRITES):
            app.run(write)
            version = read_file(path).version
            versions.add(version)
            app.run(COUNT)
            assert read_file(path).version == version
    assert len(versions) == 2 + len(WRITES)


def test_version_changes_with_the_file_and_while_a_log_is_used_again(
    wal_path: Path,
) -> None:
    versions = {read_file(wal_path).version}
    wal_path.with_name("copy").write_bytes(wal_path.read_bytes())
    wal_path.with_name("copy").replace(wal_path)
    versions.add(read_file(wal_path).version)
    with App(wal_path) as app:
        for _ in range(20):
            app.run(INSERT)
            app.run("PRAGMA wal_checkpoint(RESTART)")
            versions.add(read_file(wal_path).version)
    assert len(versions) == 22


@pytest.mark.parametrize("commits", [0, 1, 7, 40], ids=str)
def test_log_figures_are_what_a_checkpoint_says(wal_path: Path, commits: int) -> None:
    with App(wal_path) as app:
        app.run(COUNT)
        for _ in range(commits):
            app.run(INSERT)
        unsaved = frames(wal_path)
        ((_, written, checkpointed),) = app.run("PRAGMA wal_checkpoint(PASSIVE)")
        assert unsaved == (written, 0)
        assert frames(wal_path) == (written, checkpointed)
        size = beside(wal_path, "-wal").stat().st_size
        assert read_file(wal_path).wal_size_bytes == size


def test_log_figures_show_a_starved_checkpoint(wal_path: Path) -> None:
    with App(wal_path) as app, App(wal_path) as reader:
        app.run(INSERT)
        reader.run("BEGIN")
        reader.run(COUNT)
        app.run(INSERT)
        ((_, written, checkpointed),) = app.run("PRAGMA wal_checkpoint(PASSIVE)")
        assert 0 < checkpointed < written
        assert frames(wal_path) == (written, checkpointed)


def test_log_figures_begin_anew_with_the_log(wal_path: Path) -> None:
    with App(wal_path) as app:
        for _ in range(5):
            app.run(INSERT)
        app.run("PRAGMA wal_checkpoint(RESTART)")
        app.run(INSERT)
        ((_, written, checkpointed),) = app.run("PRAGMA wal_checkpoint(PASSIVE)")
        assert frames(wal_path) == (written, checkpointed)
        # The file keeps its size.
        assert read_file(wal_path).wal_size_bytes > 4152 * written


def test_log_figures_of_a_closed_file_are_zero(path: Path) -> None:
    assert frames(path) == (0, 0)
    assert read_file(path).wal_size_bytes == 0
    assert read_file(path).size_bytes == path.stat().st_size


@pytest.mark.parametrize("position", [0, 12, 16, 47, 48, 95], ids=str)
def test_log_figures_of_a_torn_index_are_unknown(wal_path: Path, position: int) -> None:
    copy = copy_in_use(wal_path)
    index = bytearray(beside(copy, "-shm").read_bytes())
    index[position] ^= 0xFF
    beside(copy, "-shm").write_bytes(index)
    assert frames(copy) == (None, None)
    assert read_file(copy).wal_size_bytes > 0
