"""What all measurements share: the files, how much is measured, where to report."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import data
from tests.benchmarks.data import Files
from tests.benchmarks.programs import exporter


@dataclass(frozen=True)
class Effort:
    """How much is measured: rounds of A and B in turn, requests in each, seconds."""

    rounds: int
    requests: int
    scrapes: int  # in each round, at Prometheus' rhythm
    scrape_seconds: float
    slow_rounds: int  # of what takes seconds each
    commit_rounds: int
    commit_seconds: float
    new_rows: int
    instances: int
    watch_seconds: float
    settle_seconds: float


FULL = Effort(
    rounds=15,
    requests=60,
    scrapes=4,
    scrape_seconds=2.0,
    slow_rounds=5,
    commit_rounds=6,
    commit_seconds=12.0,
    new_rows=1_000_000,
    instances=1000,
    watch_seconds=420.0,
    settle_seconds=2.0,
)
SMOKE = Effort(
    rounds=2,
    requests=5,
    scrapes=2,
    scrape_seconds=0.1,
    slow_rounds=1,
    commit_rounds=1,
    commit_seconds=0.5,
    new_rows=20_000,
    instances=3,
    watch_seconds=3.0,
    settle_seconds=0.1,
)


@dataclass(frozen=True)
class Bench:
    """One run: its files by size, smallest first, and its own folder."""

    files: Sequence[Files]
    effort: Effort
    folder: Path

    @property
    def small(self) -> Files:
        """The least rows."""
        return self.files[0]

    @property
    def large(self) -> Files:
        """The most rows: what nearly everything is measured with."""
        return self.files[-1]

    def settle(self) -> None:
        """Let what has just been started come to rest."""
        time.sleep(self.effort.settle_seconds)


def prepare(sizes: Sequence[int], effort: Effort, cache: Path, folder: Path) -> "Bench":
    """Return a run on copies of the data, which the exporter has read once.

    A single size is copied twice, so that each comparison has two sides.
    """
    files = []
    for number, rows in enumerate(sizes if len(sizes) > 1 else [*sizes, *sizes]):
        say(f"data of {size(rows)} rows")
        copied = data.copy(data.make(cache, rows), folder / f"{number}-{size(rows)}")
        say(f"first fold of {size(rows)} rows, to have a checkpoint")
        with data.application(copied), exporter(copied):
            files.append(copied)
    return Bench(files, effort, folder)


def size(rows: int) -> str:
    """Return a number of rows as it is written on the command line: 10k, 1M."""
    for unit, letter in ((1_000_000, "M"), (1_000, "k")):
        if rows % unit == 0:
            return f"{rows // unit}{letter}"
    return str(rows)


def say(text: str) -> None:
    """Show progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
