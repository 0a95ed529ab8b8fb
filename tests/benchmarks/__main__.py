"""Measure, show progress, print the table, and write it as text and as JSON."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tests.benchmarks import peers, report
from tests.benchmarks.bench import FULL, SMOKE, Bench, prepare, say
from tests.benchmarks.catching_up import catching_up
from tests.benchmarks.commits import commits
from tests.benchmarks.dashboards import dashboards
from tests.benchmarks.machine import Machine
from tests.benchmarks.pages import flatness, query_exporter, rhythm
from tests.benchmarks.recording import recording
from tests.benchmarks.report import Line
from tests.benchmarks.starting import first_fold, meanwhile, memory, restart
from tests.servers import ROOT

GROUPS: Mapping[str, Callable[[Bench], Iterator[Line]]] = {
    "rhythm": rhythm,
    "flatness": flatness,
    "query_exporter": query_exporter,
    "first_fold": first_fold,
    "meanwhile": meanwhile,
    "restart": restart,
    "memory": memory,
    "commits": commits,
    "catching_up": catching_up,
    "recording": recording,
    "dashboards": dashboards,
}
CACHE = ROOT / "data" / "bench"


def main() -> int:
    """Return 0 if everything could be measured, whether or not goals are reached."""
    words = _parse()
    if not words.smoke:
        say("peers")
        peers.install()
    words.cache.mkdir(parents=True, exist_ok=True)
    lines: list[Line] = []
    machine = Machine()
    # Beside the cache, in the same file system: temporary folders may be in memory.
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=words.cache))
    try:
        effort = SMOKE if words.smoke else FULL
        bench = prepare(words.sizes, effort, words.cache, folder)
        for name in words.only:
            for line in GROUPS[name](bench):
                say(f"  {line.brief()}")
                lines.append(replace(line, group=name))
    finally:
        shutil.rmtree(folder)
        _publish(lines, machine.describe() | {"sizes": words.sizes}, words.output)
    return 0


def _publish(
    lines: Sequence[Line], about: Mapping[str, object], folder: Path | None
) -> None:
    """Print and write what has been measured, be it only a part."""
    text = report.as_text(lines, about)
    print(text, end="")
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "benchmarks.txt").write_text(text)
        (folder / "benchmarks.json").write_text(report.as_json(lines, about))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, allow_abbrev=False
    )
    parser.add_argument(
        "--sizes",
        type=_sizes,
        help="rows in facts and query_times, such as 10k,1M; default: 10k,1M,10M",
    )
    parser.add_argument(
        "--only",
        type=_groups,
        default=tuple(GROUPS),
        help=f"measure only some of {','.join(GROUPS)}",
    )
    parser.add_argument("--output", type=Path, help="write the results into a folder")
    parser.add_argument(
        "--cache", type=Path, default=CACHE, help="keep the made databases here"
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="see that everything works, in seconds; fetches no peer, proves nothing",
    )
    words = parser.parse_args()
    words.sizes = words.sizes or _sizes("10k" if words.smoke else "10k,1M,10M")
    return words


def _sizes(text: str) -> list[int]:
    units = {"k": 1_000, "M": 1_000_000}
    return sorted({int(x.rstrip("kM")) * units.get(x[-1], 1) for x in text.split(",")})


def _groups(text: str) -> list[str]:
    unknown = set(text.split(",")) - GROUPS.keys()
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
    return [name for name in GROUPS if name in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
