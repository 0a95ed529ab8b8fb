"""The system collector: processor, memory and disk."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from exporter.collectors.system import System
from tests.exporters import Page, make_config, make_exporter, scrape

CPU = "hakgal_system_cpu_seconds_total"
DISK_SIZE, DISK_FREE = "hakgal_system_disk_size_bytes", "hakgal_system_disk_free_bytes"


def measure(folder: Path, **paths: Path) -> Page:
    config = make_config(folder, **paths)
    return scrape(make_exporter(config), "system")


def cpu_seconds(system: System) -> dict[str, float]:
    cpu = next(iter(system.families({})))
    return {sample.labels["mode"]: sample.value for sample in cpu.samples}


def test_cpu_modes_are_the_machines_without_those_counted_twice(
    tmp_path: Path,
) -> None:
    before = psutil.cpu_times()

    seconds = measure(tmp_path).by("mode", CPU)

    assert set(seconds) == set(before._fields) - {"guest", "guest_nice"}
    after = psutil.cpu_times()
    assert before.user <= seconds["user"] <= after.user
    assert before.idle <= seconds["idle"] <= after.idle


def test_cpu_seconds_never_fall_when_the_kernels_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    readings = iter([(5.0, 3.0), (6.0, 2.5), (7.0, 3.5)])

    def read() -> SimpleNamespace:
        user, iowait = next(readings)
        return SimpleNamespace(_asdict=lambda: {"user": user, "iowait": iowait})

    system = System()
    monkeypatch.setattr(psutil, "cpu_times", read)

    shown = [cpu_seconds(system) for _ in range(3)]

    assert [seconds["user"] for seconds in shown] == [5, 6, 7]
    assert [seconds["iowait"] for seconds in shown] == [3, 3, 3.5]


def test_memory_is_the_machines(tmp_path: Path) -> None:
    page = measure(tmp_path)

    total = psutil.virtual_memory().total
    assert page("hakgal_system_memory_total_bytes") == total
    assert 0 < (page("hakgal_system_memory_available_bytes") or 0) < total


def test_disk_is_the_one_that_holds_the_database(tmp_path: Path) -> None:
    page = measure(tmp_path)

    mounts = [m for m in (tmp_path, *tmp_path.parents) if os.path.ismount(m)]
    labels = {"database": "performance", "mountpoint": str(mounts[0])}
    usage = shutil.disk_usage(tmp_path)
    assert page(DISK_SIZE, **labels) == usage.total
    assert page(DISK_FREE, **labels) == pytest.approx(usage.free, rel=0.05)


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
