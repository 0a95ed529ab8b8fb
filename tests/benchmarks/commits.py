"""What HAK/GAL feels of the exporter: its own commits, with and without it."""

import struct
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from tests.benchmarks import peers, writer
from tests.benchmarks.bench import Bench, say, size
from tests.benchmarks.client import PROMETHEUS, Client
from tests.benchmarks.data import Files, set_journal_mode
from tests.benchmarks.figures import Pairs
from tests.benchmarks.programs import Program, exporter, running
from tests.benchmarks.report import Line, none_of
from tests.benchmarks.writer import Commit

RATE = 500
SCRAPE_SECONDS = 1.0
LOOK_SECONDS = 0.02
MODES = {"wal": ("WAL", 1.05), "delete": ("rollback", 1.2)}
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
NO_LARGER = 1.01


@dataclass
class Segment:
    """A stretch of time, and what happened in it."""

    began: float
    ended: float
    log_frames: int
    cpu_share: float = 0.0
    commits: list[Commit] = field(default_factory=list)

    def seconds(self, facts: bool = False) -> list[float]:
        """Return how long its commits took: those of facts, or all."""
        return [c.seconds for c in self.commits if c.is_fact or not facts]


def commits(bench: Bench) -> Iterator[Line]:
    """Yield the writer's commit latency and log with an exporter against without."""
    for mode, (name, goal) in MODES.items():
        say(f"HAK/GAL's commits, {name}")
        set_journal_mode(bench.large, mode)
        without, with_it, beside_peer = _measure(bench)
        yield from _latencies(name, goal, without, with_it)
        if beside_peer:
            yield from _peer(name, without, beside_peer)
        busy = sum(c.is_busy for segment in with_it for c in segment.commits)
        reached = f"{_rate(with_it):.0f} commits/s with, {_rate(without):.0f} without"
        yield none_of(f"SQLITE_BUSY in a commit, {name}", busy, reached)
        what = f"exporter meanwhile, scraped every second, {name}"
        percent = 100 * fmean(segment.cpu_share for segment in with_it)
        note = f"{size(bench.large.rows)} facts are counted anew meanwhile"
        yield Line(what, percent, "% of a core", "", None, None, None, note)
        if mode == "wal":
            yield _log(without, with_it)
    set_journal_mode(bench.large, "wal")


def _measure(bench: Bench) -> tuple[list[Segment], list[Segment], list[Segment]]:
    """Return the segments without an exporter, with it, with a peer, taken in turn."""
    output = bench.folder / "commits.doubles"
    files, without, with_it = bench.large, list[Segment](), list[Segment]()
    beside_peer = list[Segment]()
    command = (sys.executable, "-m", "tests.benchmarks.writer", f"--rate={RATE}")
    paths = (files.knowledge_base, files.performance, f"--output={output}")
    with running(bench.folder / "commits.log", *command, *paths):
        bench.settle()
        for number in range(bench.effort.commit_rounds):
            say(f"  round {number + 1} of {bench.effort.commit_rounds}")
            without.append(_segment(bench))
            with exporter(files) as program:
                bench.settle()
                with_it.append(_segment(bench, program))
            with peers.node_exporter(bench.folder) as peer:
                bench.settle()
                if peer:
                    beside_peer.append(_segment(bench, peer))
            bench.settle()
        without.append(_segment(bench))
    done = writer.read(output)
    for segment in (*without, *with_it, *beside_peer):
        inside = (c for c in done if segment.began <= c.began < segment.ended)
        segment.commits = list(inside)
    return without, with_it, beside_peer


def _segment(bench: Bench, program: Program | None = None) -> Segment:
    """Let time pass; scrape the exporter every second if there is one."""
    began = scrape_at = now = time.monotonic()
    ends, frames = began + bench.effort.commit_seconds, 0
    cpu = program.cpu_seconds() if program else 0.0
    with ExitStack() as stack:
        client = None
        if program:
            client = stack.enter_context(Client(program.port, headers=PROMETHEUS))
        while (now := time.monotonic()) < ends:
            if client and now >= scrape_at:
                client.page()
                scrape_at += SCRAPE_SECONDS
            frames = max(frames, _frames(bench.large))
            time.sleep(LOOK_SECONDS)
    used = program.cpu_seconds() - cpu if program else 0.0
    return Segment(began, now, frames, used / (now - began))


def _frames(files: Files) -> int:
    """Return the pages in the longer one of both logs, 0 without any."""
    return max(_log_frames(path) for path in (files.knowledge_base, files.performance))


def _log_frames(path: Path) -> int:
    """Read a field of SQLite's WAL index; this process holds no locks to lose."""
    try:
        with open(f"{path}-shm", "rb") as file:
            index = file.read(20)
    except FileNotFoundError:
        return 0
    return int(struct.unpack_from("=I", index, 16)[0]) if len(index) == 20 else 0


def _latencies(
    name: str, goal: float, without: list[Segment], with_it: list[Segment]
) -> Iterator[Line]:
    for facts in (False, True):
        which = "fact commit" if facts else "commit"
        pairs = _pairs(with_it, without[:-1], facts)
        noise = _pairs(without[1:], without[:-1], facts)
        for percentile, share in PERCENTILES.items():
            yield _line(
                f"{which} {percentile}, {RATE}/s, {name}",
                pairs,
                share,
                goal if percentile == "p99" else None,
                f"without to without: {noise.spread(share)}",
                noise=noise.ratios(share),
            )


def _peer(
    name: str, without: list[Segment], beside_peer: list[Segment]
) -> Iterator[Line]:
    """Yield what any exporter costs that is scraped as often, this one or not."""
    pairs = _pairs(beside_peer, without[:-1], facts=False)
    for percentile in ("p50", "p99"):
        yield _line(
            f"commit {percentile}, {RATE}/s, {name}, node_exporter instead",
            pairs,
            PERCENTILES[percentile],
            None,
            "scraped every second as well",
        )


def _line(
    what: str,
    pairs: Pairs,
    share: float,
    goal: float | None,
    note: str,
    **details: object,
) -> Line:
    """Return a percentile beside somebody against the same without anybody."""
    ours, theirs = pairs.values(share)
    return Line(
        what,
        ours,
        "s",
        "without exporter",
        theirs,
        pairs.ratio(share),
        goal,
        f"{pairs.spread(share)}; {note}",
        {"ratios": pairs.ratios(share)} | details,
    )


def _pairs(ours: list[Segment], theirs: list[Segment], facts: bool) -> Pairs:
    return Pairs(*([s.seconds(facts) for s in side] for side in (ours, theirs)))


def _rate(segments: list[Segment]) -> float:
    return fmean(len(s.commits) / (s.ended - s.began) for s in segments)


def _log(without: list[Segment], with_it: list[Segment]) -> Line:
    """Return how long the log became; it is begun anew when all is copied back."""
    ours, theirs = (
        max(segment.log_frames for segment in side) for side in (with_it, without)
    )
    what, note = "longest WAL", "in pages, of either database"
    ratio = ours / theirs
    return Line(what, ours, "", "without exporter", theirs, ratio, NO_LARGER, note)
