"""How long a start takes: the first one, over all rows, and those with a checkpoint."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tests.benchmarks.bench import Bench
from tests.benchmarks.client import PROMETHEUS, TEXT, Client
from tests.benchmarks.data import application, count_queries
from tests.benchmarks.programs import Program, started_exporter
from tests.benchmarks.report import (
    Line,
    compare,
    interleave,
    limit,
    none_of,
    percentile,
)
from tests.exporters import Page
from tests.servers import ROOT
from tests.webs import TLS, Web

FOLD_RATIO = 3.5  # one thread a database, which looks at every row
ANSWER_SECONDS = 0.1
START_SECONDS = 0.5
MEMORY_BYTES = 45e6
SAMPLE_SECONDS = 0.005
QUERIES = "hakgal_query_duration_seconds"


def first_fold(bench: Bench) -> Iterator[Line]:
    """Yield the time until ready without a checkpoint, against the fastest pass."""
    large = bench.large
    facts, events = large.both
    with application(large):
        what = f"first fold, {large.size} queries"
        yield _against_pass(bench, what, (events,), "--no-collector.facts")
        what = f"first fold, {large.size} queries and as many facts"
        yield _against_pass(bench, what, (events, facts))


def _against_pass(
    bench: Bench, what: str, databases: tuple[Path, ...], *flags: str
) -> Line:
    """Compare first starts with the reference over the same tables."""

    def start() -> list[float]:
        with started_exporter(bench.large, _new_state(bench), *flags) as program:
            return [program.wait_for("/-/ready")]

    def reference() -> list[float]:
        started = time.perf_counter()
        command = [sys.executable, "-m", "tests.benchmarks.reference"]
        command += map(str, databases)
        subprocess.run(command, stdout=subprocess.DEVNULL, cwd=ROOT, check=True)
        return [time.perf_counter() - started]

    pairs = interleave(bench.effort.slow_rounds, start, reference)
    return compare(what, pairs, "fastest pass, 2 threads", FOLD_RATIO)


def meanwhile(bench: Bench) -> Iterator[Line]:
    """Yield how the product answers while it folds, and that nothing is lost."""
    taken: dict[str, list[float]] = {"/-/healthy": [], "/metrics": []}
    with application(bench.large):
        with started_exporter(bench.large, _new_state(bench)) as program:
            _ask_until_ready(program, taken)
            with Client(program.port, headers=TEXT) as client:
                page = Page(client.page().text)
        rows, seconds = count_queries(bench.large)
    for target, answers in taken.items():
        what = f"{target} during the first fold, p99"
        note = f"{len(answers)} answers, slowest {max(answers) * 1e3:.3g} ms"
        yield limit(what, percentile(answers, 0.99), "s", ANSWER_SECONDS, note)
    counted, total = page.sum(f"{QUERIES}_count"), page.sum(f"{QUERIES}_sum")
    wrong = abs(counted - rows) + (abs(total - seconds) > 1e-6 * seconds)
    yield none_of("rows counted wrong by the first fold", int(wrong), f"{rows} rows")


def _ask_until_ready(program: Program, taken: dict[str, list[float]]) -> None:
    """Note the latencies by target."""
    program.wait_for("/-/healthy")
    with Client(program.port, "/-/ready") as ready:
        while (status := ready.get().status) != 200 or not taken["/metrics"]:
            assert status in (200, 503)
            for target, answers in taken.items():
                with Client(program.port, target) as client:
                    answers += client.timed(1)
                time.sleep(SAMPLE_SECONDS)


def restart(bench: Bench) -> Iterator[Line]:
    """Yield the time until ready with a checkpoint."""
    taken = []
    with application(bench.large):
        for _ in range(2 * bench.effort.slow_rounds):
            with started_exporter(bench.large) as program:
                taken.append(program.wait_for("/-/ready"))
    what = f"start to ready with a checkpoint, {bench.large.size} rows"
    yield limit(what, median(taken), "s", START_SECONDS)


def memory(bench: Bench) -> Iterator[Line]:
    """Yield the peak of resident memory over a first fold and many pages."""
    web = Web(bench.folder)
    web.write(TLS)
    flag = f"--web.config.file={web.file}"
    for name, flags, tls in (("plain", (), None), ("TLS", (flag,), web.trusting())):
        state = _new_state(bench)
        with (
            application(bench.large),
            started_exporter(bench.large, state, *flags) as program,
        ):
            program.wait_for("/-/ready", tls)
            program.wait_until_counted(tls)
            for headers in (TEXT, PROMETHEUS):
                with Client(program.port, "/metrics", headers, tls) as client:
                    client.timed(2 * bench.effort.requests)
            peak = program.peak_bytes()
        note = "a first fold, the count of facts, pages in both formats"
        what = f"most memory, {bench.large.size} rows, {name}"
        yield limit(what, peak, "B", MEMORY_BYTES, note)


def _new_state(bench: Bench) -> str:
    """Return the flag of a state file that is not there."""
    file = bench.folder / "new-state.json"
    file.unlink(missing_ok=True)
    return f"--state.file={file}"
