"""What the exporter says about itself."""

import platform
import sqlite3
from pathlib import Path

from exporter import __version__
from tests.databases import Files
from tests.exporters import make_config, make_exporter, scrape

SAVED = "hakgal_exporter_checkpoint_timestamp_seconds"


def test_build_info_says_what_is_running(folder: Path) -> None:
    page = scrape(make_exporter(make_config(folder)))

    (sample,) = page.families["hakgal_exporter_build_info"].samples
    assert sample.value == 1
    assert sample.labels.pop("revision")
    assert sample.labels == {
        "version": __version__,
        "python_version": platform.python_version(),
        "sqlite_version": sqlite3.sqlite_version,
    }


def test_checkpoint_is_written_with_new_rows_and_only_then(folder: Path) -> None:
    config = make_config(folder)
    exporter, inodes = make_exporter(config), []
    assert config.state_file
    for rows in (0, 0, 1):
        with Files(folder) as files:
            for _ in range(rows):
                files.add_cache()
        page, status = scrape(exporter), config.state_file.stat()
        inodes.append(status.st_ino)
        assert abs((page(SAVED) or 0) - status.st_mtime) < 0.01
    assert inodes[0] == inodes[1] != inodes[2]
