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

    rounds: int = 15
    requests: int = 60
    scrapes: int = 4  # in each round, at Prometheus' rhythm
    scrape_seconds: float = 2.0
    slow_rounds: int = 5  # of what takes seconds each
    commit_seconds: float = 20.0
    idle_seconds: float = 60.0
    instances: int = 1000
    watch_seconds: float = 420.0
    settle_seconds: float = 2.0


FULL, SMOKE = Effort(), Effort(2, 5, 2, 0.1, 1, 0.5, 0.5, 3, 3.0, 0.1)


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


def prepare(sizes: Sequence[int], effort: Effort, cache: Path, folder: Path) -> Bench:
    """Return a run on copies of the data, which the exporter has read once."""
    files = []
    # A single size is copied twice, so that each comparison has two sides.
    for number, rows in enumerate(sizes if len(sizes) > 1 else [*sizes, *sizes]):
        say(f"data of {rows} rows, and a first fold to have a checkpoint")
        copied = data.copy(data.make(cache, rows), folder / f"{number}-{rows}")
        with data.application(copied), exporter(copied):
            files.append(copied)
    return Bench(files, effort, folder)


def say(text: str) -> None:
    """Show progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
