"""Measure, show progress, print the table, and write it into a file."""

import argparse
import os
import platform
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import psutil

from tests.benchmarks import peers, report
from tests.benchmarks.bench import FULL, SMOKE, Bench, prepare, say
from tests.benchmarks.commits import commits
from tests.benchmarks.dashboards import dashboards
from tests.benchmarks.pages import flatness, idle, query_exporter, rhythm
from tests.benchmarks.recording import recording
from tests.benchmarks.report import Line
from tests.benchmarks.starting import first_fold, meanwhile, memory, restart
from tests.servers import ROOT

GROUPS: Mapping[str, Callable[[Bench], Iterator[Line]]] = {
    measure.__name__: measure
    for measure in (
        *(rhythm, flatness, query_exporter, first_fold, meanwhile, restart, memory),
        *(idle, commits, recording, dashboards),
    )
}


def main() -> int:
    """Return 0 if everything could be measured, whether or not goals are reached."""
    words = _parse()
    if not words.smoke:
        peers.install()
    words.cache.mkdir(parents=True, exist_ok=True)
    lines: list[Line] = []
    began, load = time.time(), os.getloadavg()
    # Beside the cache, in the same file system: temporary folders may be in memory.
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=words.cache))
    try:
        effort = SMOKE if words.smoke else FULL
        bench = prepare(words.sizes, effort, words.cache.absolute(), folder.absolute())
        for name in words.only or GROUPS:
            say(name)
            for line in GROUPS[name](bench):
                say(", ".join(cell for cell in line.cells() if cell))
                lines.append(line)
    finally:  # be it only a part that has been measured
        shutil.rmtree(folder)
        about = _describe(began, load) | {"sizes": words.sizes}
        print(text := report.as_text(lines, about), end="")
        if words.output:
            words.output.mkdir(parents=True, exist_ok=True)
            (words.output / "benchmarks.txt").write_text(text)
    return 0


def _describe(began: float, load: tuple[float, float, float]) -> dict[str, object]:
    """Return date, machine, versions, and how busy it was before and after."""
    libraries = ("hakgal-exporter", "prometheus-client", "psutil", "tornado")
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "took": f"{time.time() - began:.0f} s",
        "processors": f"{os.cpu_count()} x {platform.machine()}",
        "memory": report.show(psutil.virtual_memory().total, "B"),
        "system": f"{platform.system()} {platform.release()}",
        "load before and after": f"{load[0]:.2f}; {os.getloadavg()[0]:.2f}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{name: version(name) for name in libraries},
        "peers": f"node_exporter of Debian 12, {peers.QUERY_EXPORTER_VERSION}",
    }


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, allow_abbrev=False
    )
    text = "rows in facts and query_times; default: 10k,1M,10M, or 10k with --smoke"
    parser.add_argument("--sizes", type=_sizes, help=text)
    text = "measure only this; may be repeated"
    parser.add_argument("--only", choices=GROUPS, action="append", help=text)
    parser.add_argument("--output", type=Path, help="write the table into a folder")
    text, cache = "keep the made databases here", ROOT / "data" / "bench"
    parser.add_argument("--cache", type=Path, default=cache, help=text)
    text = "see that everything works, in seconds; fetches no peer, proves nothing"
    parser.add_argument("--smoke", action="store_true", help=text)
    words = parser.parse_args()
    words.sizes = words.sizes or _sizes("10k" if words.smoke else "10k,1M,10M")
    return words


def _sizes(text: str) -> list[int]:
    units = {"k": 1_000, "M": 1_000_000}
    return sorted({int(x.rstrip("kM")) * units.get(x[-1], 1) for x in text.split(",")})


if __name__ == "__main__":
    sys.exit(main())
