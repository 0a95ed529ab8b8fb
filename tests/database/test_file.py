"""What is told about a file: its version, which any write changes, and its log."""

from pathlib import Path

import pytest

from tests.database.reading import COUNT, INSERT, beside, copy_in_use, read_file
from tests.databases import App

WRITES = (
    INSERT,
    INSERT,
    "UPDATE query_times SET query_time = 1 WHERE id = 2",
    "VACUUM",
    "DROP TABLE cache_events",
)


def frames(path: Path) -> tuple[int | None, int | None]:
    file = read_file(path)
    return file.wal_frames, file.wal_checkpointed_frames


def test_version_changes_with_any_write_and_only_then(path: Path) -> None:
    versions = set()
    with App(path) as app:
        for write in WRITES:
            app.run(write)
            version = read_file(path).version
            versions.add(version)
            app.run(COUNT)
            assert read_file(path).version == version
    path.with_name("copy").write_bytes(path.read_bytes())
    path.with_name("copy").replace(path)
    versions.add(read_file(path).version)
    assert len(versions) == len(WRITES) + 1


@pytest.mark.parametrize("position", [12, 16, 48], ids=str)
def test_log_figures_of_a_torn_index_are_unknown(wal_path: Path, position: int) -> None:
    copy = copy_in_use(wal_path)
    index = bytearray(beside(copy, "-shm").read_bytes())
    index[position] ^= 0xFF
    beside(copy, "-shm").write_bytes(index)
    assert frames(copy) == (None, None)
    assert read_file(copy).wal_size_bytes > 0
