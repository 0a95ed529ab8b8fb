"""Runs of the command over a performance database, and what they wrote.

The client library's parser of OpenMetrics drops all but the first bucket of a
histogram's later moments, so the lines are read here. Real promtools read them as well.
"""

import io
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import NamedTuple

from exporter.cli import main
from tests.databases import File
from tests.exporters import run

Labels = frozenset[tuple[str, str]]
TARGET = {"job": "hakgal", "instance": "localhost:8000"}
SUFFIXES = ("", "_total", "_bucket", "_count", "_sum")
_SAMPLE = re.compile(r"([a-z0-9_:]+)\{(.*)\} (\S+) (\S+)")
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


class Sample(NamedTuple):
    """A line of the text."""

    family: str
    name: str
    labels: dict[str, str]
    value: float
    moment: float


class Written(NamedTuple):
    """What a run has written, and what it said of the rows."""

    samples: list[Sample]
    report: list[str]

    def series(self, name: str, **labels: str) -> list[tuple[float, float]]:
        """Return moments and values of a series, in the order of the text."""
        wanted = labels | TARGET
        found = (s for s in self.samples if s.name == name and s.labels == wanted)
        return [(sample.moment, sample.value) for sample in found]

    def all_series(self) -> dict[tuple[str, Labels], list[tuple[float, float]]]:
        """Return moments and values of all series."""
        found: dict[tuple[str, Labels], list[tuple[float, float]]] = {}
        for _, name, labels, value, moment in self.samples:
            key = name, frozenset(labels.items())
            found.setdefault(key, []).append((moment, value))
        return found

    @property
    def names(self) -> list[str]:
        """Return the families, in the order of the text."""
        return list(dict.fromkeys(sample.family for sample in self.samples))


def backfill(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run the command over the performance database in a folder."""
    database = f"--database.performance={folder / 'hakgal_performance.db'}"
    return run("backfill", database, *flags)


def written(folder: Path, *flags: str) -> Written:
    """Run the command in this process; it must succeed. Return what it wrote."""
    said = io.StringIO()
    database = f"--database.performance={folder / 'hakgal_performance.db'}"
    with tempfile.TemporaryDirectory() as made, redirect_stderr(said):
        output = Path(made, "history.om")
        code = main(["backfill", database, f"--output={output}", *flags])
        assert code == 0, said.getvalue()
        samples = list(parse(output.read_text()))
    report = said.getvalue().splitlines()
    assert " samples" in report[-1]
    return Written(samples, report[:-1])


def parse(text: str) -> Iterator[Sample]:
    """Yield the samples; families must come as a whole, under type and help."""
    *lines, end = text.removesuffix("\n").split("\n")
    assert end == "# EOF"
    seen: list[str] = []
    for line in lines:
        if line.startswith("# TYPE "):
            seen.append(line.split()[2])
            assert seen.count(seen[-1]) == 1
        elif line.startswith("# "):
            assert line.startswith(f"# HELP {seen[-1]} ")
        else:
            found = _SAMPLE.fullmatch(line)
            assert found, line
            name, labels, value, moment = found.groups()
            assert name.removeprefix(seen[-1]) in SUFFIXES, line
            pairs = dict(_LABEL.findall(labels))
            yield Sample(seen[-1], name, pairs, float(value), float(moment))


def add_metric(file: File, name: object, value: object, moment: object) -> None:
    """Add a row as the old monitor did."""
    file.insert(
        "performance_metrics", metric_name=name, metric_value=value, timestamp=moment
    )
