"""The system collector: processor, memory and disk."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tests.exporters import Page, make_config, make_exporter, scrape

CPU = "hakgal_system_cpu_seconds_total"
DISK_SIZE, DISK_FREE = "hakgal_system_disk_size_bytes", "hakgal_system_disk_free_bytes"


def measure(folder: Path, **paths: Path) -> Page:
    return scrape(make_exporter(make_config(folder, **paths)), "system")


def test_cpu_modes_are_the_machines_without_those_counted_twice(tmp_path: Path) -> None:
    before = psutil.cpu_times()
    seconds = measure(tmp_path).by("mode", CPU)
    after = psutil.cpu_times()

    assert set(seconds) == set(before._fields) - {"guest", "guest_nice"}
    assert before.user <= seconds["user"] <= after.user


def test_cpu_seconds_never_fall_when_the_kernels_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = [{"user": 5.0, "iowait": 3.0}, {"user": 6.0, "iowait": 2.5}]
    exporter, shown = make_exporter(make_config(tmp_path)), []
    for reading in readings:
        times = SimpleNamespace(_asdict=reading.copy)
        monkeypatch.setattr(psutil, "cpu_times", lambda times=times: times)
        shown.append(scrape(exporter, "system").by("mode", CPU))

    assert shown == [{"user": 5, "iowait": 3}, {"user": 6, "iowait": 3}]


def test_disk_is_the_one_that_holds_the_database(tmp_path: Path) -> None:
    page = measure(tmp_path)

    mounts = [m for m in (tmp_path, *tmp_path.parents) if os.path.ismount(m)]
    labels = {"database": "performance", "mountpoint": str(mounts[0])}
    usage = shutil.disk_usage(tmp_path)
    assert page(DISK_SIZE, **labels) == usage.total
    assert page(DISK_FREE, **labels) == pytest.approx(usage.free, rel=0.2)


def test_each_database_has_the_disk_that_its_path_leads_to(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/proc", target_is_directory=True)

    page = measure(tmp_path, performance=link / "hakgal_performance.db")

    assert page.by("mountpoint", DISK_SIZE, database="performance") == {"/proc": 0}
    assert "/proc" not in page.by("mountpoint", DISK_SIZE, database="knowledge_base")


def test_disk_of_a_folder_that_does_not_exist_is_absent(tmp_path: Path) -> None:
    page = measure(tmp_path, performance=tmp_path / "none" / "hakgal_performance.db")

    assert set(page.by("database", DISK_SIZE)) == {"knowledge_base"}
    assert set(page.by("database", DISK_FREE)) == {"knowledge_base"}
    assert page.failed == set()
