"""System: processors, memory and disks of the machine that HAK/GAL runs on.

Source: psutil.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
from prometheus_client.core import Metric

from exporter.collectors.families import counter, gauge

# Linux includes guest time in user and nice as well, so a sum would count it twice.
COUNTED_TWICE = ("guest", "guest_nice")


def measure(database: Path) -> tuple[str, int, int] | None:
    """Return mount point, size and free space in bytes of a database's file system.

    None while its folder does not exist.

    Raises:
        OSError: the file system cannot be queried.
    """
    folder = os.path.dirname(os.path.realpath(database))
    if not os.path.isdir(folder):
        return None
    usage = psutil.disk_usage(folder)
    while not os.path.ismount(folder):
        folder = os.path.dirname(folder)
    return folder, usage.total, usage.free


class System:
    """hakgal_system_*."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def families(self, disks: Mapping[str, tuple[str, int, int]]) -> Iterator[Metric]:
        """Yield the current figures of the machine.

        hakgal_system_cpu_seconds_total{mode="idle"} 8123.4
        hakgal_system_memory_available_bytes 1.2e+10
        hakgal_system_disk_free_bytes{database="performance",mountpoint="/"} 8e+10
        """
        self._seconds = {  # iowait can decrease
            mode: max(seconds, self._seconds.get(mode, 0.0))
            for mode, seconds in psutil.cpu_times()._asdict().items()
            if mode not in COUNTED_TWICE
        }
        spent = "CPU time of all processors in seconds, by mode."
        yield counter("hakgal_system_cpu_seconds", spent, self._seconds, "mode")
        memory, name = psutil.virtual_memory(), "hakgal_system_memory_total_bytes"
        yield gauge(name, "Total memory of the machine.", {"": memory.total})
        name = "hakgal_system_memory_available_bytes"
        available = "Memory available without swapping."
        yield gauge(name, available, {"": memory.available})
        sizes = {(name, place): size for name, (place, size, _) in disks.items()}
        free = {(name, place): free for name, (place, _, free) in disks.items()}
        labels = "database", "mountpoint"
        size = "Size of the file system that holds the database."
        yield gauge("hakgal_system_disk_size_bytes", size, sizes, *labels)
        left = "Space available to HAK/GAL on the file system that holds the database."
        yield gauge("hakgal_system_disk_free_bytes", left, free, *labels)
