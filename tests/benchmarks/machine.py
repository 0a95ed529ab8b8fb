"""What it was measured on, when, and who else used the machine meanwhile."""

import os
import platform
import resource
import sqlite3
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from exporter import __version__
from exporter.collectors.exporter import build_info
from tests.benchmarks import peers
from tests.benchmarks.report import show

IDLE_COLUMNS = (3, 4)  # idle and iowait in the first line of /proc/stat
COUNTED_TWICE = slice(8, None)  # guest time is in user time already


class Machine:
    """The machine from now on."""

    def __init__(self) -> None:
        self._started = datetime.now(UTC)
        self._clock = time.monotonic()
        self._others = _busy_seconds() - _own_seconds()
        self._load = os.getloadavg()

    def describe(self) -> dict[str, object]:
        """Return date, machine, versions, and how busy others have kept it."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        (info,) = build_info().samples
        took = time.monotonic() - self._clock
        others = (_busy_seconds() - _own_seconds() - self._others) / took
        return {
            "date": self._started.isoformat(timespec="seconds"),
            "took": f"{took:.0f} s",
            "processors": f"{os.cpu_count()} x {_processor()}",
            "memory": show(memory, "B"),
            "system": f"{platform.system()} {platform.release()}",
            "load before and after": f"{_loads(self._load)}; {_loads(os.getloadavg())}",
            "processors used by other programs, on average": round(others, 2),
            "exporter": f"{__version__}, revision {info.labels['revision']}",
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "prometheus_client": version("prometheus-client"),
            "psutil": version("psutil"),
            **peers.versions(),
        }


def _busy_seconds() -> float:
    """Return the seconds that all processors together have worked since the boot."""
    line, _, _ = Path("/proc/stat").read_text().partition("\n")
    ticks = [int(text) for text in line.split()[1:]]
    del ticks[COUNTED_TWICE]
    idle = sum(ticks[column] for column in IDLE_COLUMNS)
    return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """Return the processor time of this process and of all that it has ended."""
    used = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    times = [resource.getrusage(who) for who in used]
    return sum(t.ru_utime + t.ru_stime for t in times)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.partition(":")[2].strip() for line in lines if "model name" in line)
    return next(models, platform.machine())


def _loads(loads: tuple[float, float, float]) -> str:
    return " ".join(f"{load:.2f}" for load in loads)
