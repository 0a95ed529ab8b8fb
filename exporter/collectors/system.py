"""System: processor, memory and disk of the machine that HAK/GAL runs on.

Source: psutil.
"""

import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

# Linux counts guest time in user and nice as well; it would count twice in a sum.
COUNTED_TWICE = ("guest", "guest_nice")


class System:
    """hakgal_system_*."""

    def __init__(self, databases: Mapping[str, Path]) -> None:
        self._databases = databases
        self._seconds: dict[str, float] = {}

    def families(self) -> Iterator[Metric]:
        """Yield the machine's figures as of now.

        hakgal_system_cpu_seconds_total{mode="idle"} 8123.4
        hakgal_system_memory_available_bytes 1.2e+10
        hakgal_system_disk_free_bytes{database="performance",mountpoint="/"} 8e+10

        Raises:
            OSError: a file system does not answer properly.
        """
        yield self._cpu()
        memory = psutil.virtual_memory()
        yield GaugeMetricFamily(
            "hakgal_system_memory_total_bytes", "Memory of the machine.", memory.total
        )
        yield GaugeMetricFamily(
            "hakgal_system_memory_available_bytes",
            "Memory that can be had without swapping.",
            memory.available,
        )
        yield from self._disks()

    def _cpu(self) -> Metric:
        """Return the seconds by mode; the kernel's iowait is known to run backwards."""
        family = CounterMetricFamily(
            "hakgal_system_cpu_seconds",
            "Seconds that all processors together have spent, by mode.",
            labels=["mode"],
        )
        for mode, seconds in psutil.cpu_times()._asdict().items():
            if mode not in COUNTED_TWICE:
                self._seconds[mode] = max(seconds, self._seconds.get(mode, 0.0))
                family.add_metric([mode], self._seconds[mode])
        return family

    def _disks(self) -> Iterator[Metric]:
        labels = ["database", "mountpoint"]
        size = GaugeMetricFamily(
            "hakgal_system_disk_size_bytes",
            "Size of the file system that holds the database.",
            labels=labels,
        )
        free = GaugeMetricFamily(
            "hakgal_system_disk_free_bytes",
            "Space left for HAK/GAL on the file system that holds the database.",
            labels=labels,
        )
        for name, path in self._databases.items():
            folder = os.path.dirname(os.path.realpath(path))
            if os.path.isdir(folder):
                mount_point = _mount_point(folder, os.stat(folder).st_dev)
                usage = psutil.disk_usage(folder)
                size.add_metric([name, mount_point], usage.total)
                free.add_metric([name, mount_point], usage.free)
        yield size
        yield free


@lru_cache(maxsize=8)
def _mount_point(folder: str, device: int) -> str:
    """Return where the folder's file system is mounted, looked up once a device."""
    while not os.path.ismount(folder):
        folder = os.path.dirname(folder)
    return folder
