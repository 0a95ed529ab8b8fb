"""What it was measured on, and when."""

import os
import platform
import sqlite3
import time
from importlib.metadata import version

import psutil

from tests.benchmarks import peers
from tests.benchmarks.report import show


def describe(began: float, load: tuple[float, float, float]) -> dict[str, object]:
    """Return date, machine, versions, and how busy it was before and after."""
    libraries = ("hakgal-exporter", "prometheus-client", "psutil", "tornado")
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "took": f"{time.time() - began:.0f} s",
        "processors": f"{os.cpu_count()} x {platform.machine()}",
        "memory": show(psutil.virtual_memory().total, "B"),
        "system": f"{platform.system()} {platform.release()}",
        "load before and after": f"{load[0]:.2f}; {os.getloadavg()[0]:.2f}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{name: version(name) for name in libraries},
        "peers": f"node_exporter of Debian 12, {peers.QUERY_EXPORTER_VERSION}",
    }
