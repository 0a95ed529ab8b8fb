"""How long a start takes: the first one, over all rows, and those with a checkpoint."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from tests.benchmarks.bench import Bench, say, size
from tests.benchmarks.client import PROMETHEUS, TEXT, Client
from tests.benchmarks.data import Files, application, count_queries
from tests.benchmarks.figures import interleave, percentile
from tests.benchmarks.programs import started_exporter
from tests.benchmarks.report import Line, limit, none_of
from tests.servers import ROOT

FOLD_RATIO = 3.5  # one thread a database, which looks at every row
ANSWER_SECONDS = 0.05
START_SECONDS = 0.5
MEMORY_BYTES = 45e6
SAMPLE_SECONDS = 0.005


def first_fold(bench: Bench) -> Iterator[Line]:
    """Yield the time until ready without a checkpoint, against the fastest pass."""
    large = bench.large
    rows = size(large.rows)
    with application(large):
        what = f"first fold, {rows} queries"
        yield _against_pass(bench, what, [large.performance], "--no-collector.facts")
        what = f"first fold, {rows} queries and {rows} facts"
        yield _against_pass(bench, what, [large.performance, large.knowledge_base])


def meanwhile(bench: Bench) -> Iterator[Line]:
    """Yield how the product answers while it folds, and that nothing is lost."""
    say("answers during the first fold")
    state = bench.folder / "meanwhile-state.json"
    with application(bench.large):
        taken, statuses, text = _watch(bench.large, state)
        rows, seconds = count_queries(bench.large)
    state.unlink()
    early = statuses.total() - statuses[503] - 1
    for target, answers in taken.items():
        what = f"{target} during the first fold, p99"
        p99, note = percentile(answers, 0.99), f"{len(answers)} answers"
        slowest = f"{note}, slowest {max(answers) * 1e3:.3g} ms"
        yield limit(what, p99, "s", ANSWER_SECONDS, slowest)
    note = f"/-/ready answered 503 {statuses[503]} times before it said 200"
    yield none_of("/-/ready, neither 503 nor 200", early, note)
    counted, total = totals(text)
    wrong = abs(counted - rows) + (abs(total - seconds) > 1e-6 * seconds)
    yield none_of("rows counted wrong by the first fold", int(wrong), f"{rows} rows")


def restart(bench: Bench) -> Iterator[Line]:
    """Yield the time until ready with a checkpoint."""
    say("start with a checkpoint")
    taken, library = [], []
    with application(bench.large):
        for _ in range(2 * bench.effort.slow_rounds):
            with started_exporter(bench.large) as program:
                taken.append(program.wait_for("/-/ready"))
            imports = "import prometheus_client, psutil, yaml, sqlite3"
            library.append(_run("-c", imports)[0])
    note = f"an interpreter that only imports the libraries: {median(library):.3g} s"
    what = f"start to ready with a checkpoint, {size(bench.large.rows)} rows"
    yield limit(what, median(taken), "s", START_SECONDS, note, slowest=max(taken))


def memory(bench: Bench) -> Iterator[Line]:
    """Yield resident memory after a first fold of everything, and its peak."""
    rows = size(bench.large.rows)
    say(f"memory, {rows} rows")
    state = bench.folder / "memory-state.json"
    with application(bench.large), started_exporter(bench.large, state) as program:
        program.wait_for("/-/ready")
        program.wait_until_counted()
        for headers in (TEXT, PROMETHEUS):
            with Client(program.port, headers=headers) as client:
                client.timed(2 * bench.effort.requests)
        now, peak = (program.memory_bytes(field) for field in ("VmRSS", "VmHWM"))
    state.unlink()
    note = "a fresh process: first fold, count of facts, pages in both formats"
    yield limit(f"resident memory, {rows} rows", now, "B", MEMORY_BYTES)
    yield limit(f"its peak, {rows} rows", peak, "B", MEMORY_BYTES, note)


def totals(text: str) -> tuple[int, float]:
    """Return the queries that a page has counted, and the sum of their durations."""
    found = {"count": 0.0, "sum": 0.0}
    for line in text.splitlines():
        name, _, value = line.partition("{")
        if name.startswith("hakgal_query_duration_seconds_"):
            field = name.rpartition("_")[2]
            if field in found:
                found[field] += float(value.split("} ")[1].split()[0])
    return int(found["count"]), found["sum"]


def _against_pass(
    bench: Bench, what: str, databases: Sequence[Path], *flags: str
) -> Line:
    """Compare first starts with the reference over the same tables."""
    say(what)
    state = bench.folder / "fold-state.json"

    def start() -> list[float]:
        with started_exporter(bench.large, state, *flags) as program:
            taken = program.wait_for("/-/ready")
        state.unlink(missing_ok=True)  # written by a scrape, and nobody has scraped
        return [taken]

    pairs = interleave(bench.effort.slow_rounds, start, lambda: [_pass(databases)])
    ours, theirs = pairs.values()
    alone = _pass(databases, "--threads=1")
    note = f"{pairs.spread()}; the same pass with one thread {alone:.3g} s"
    peer = "fastest pass, 2 threads"
    return Line(what, ours, "s", peer, theirs, pairs.ratio(), FOLD_RATIO, note)


def _watch(
    files: Files, state: Path
) -> tuple[dict[str, list[float]], Counter[int], str]:
    """Return latencies by target, the statuses of readiness, and the page after it."""
    taken: dict[str, list[float]] = {"/-/healthy": [], "/metrics": []}
    statuses: Counter[int] = Counter()
    with started_exporter(files, state) as program:
        program.wait_for("/-/healthy")
        with Client(program.port, "/-/ready") as ready:
            while not statuses[200]:
                for target, answers in taken.items():
                    with Client(program.port, target, PROMETHEUS) as client:
                        answers += client.timed(1)
                    time.sleep(SAMPLE_SECONDS)
                statuses[ready.get().status] += 1
        with Client(program.port) as client:
            text = client.page().text
    return taken, statuses, text


def _pass(databases: Sequence[Path], *flags: str) -> float:
    seconds, output = _run("-m", "tests.benchmarks.reference", *databases, *flags)
    assert int(output) > 0
    return seconds


def _run(*words: str | Path) -> tuple[float, str]:
    """Run the interpreter to its end; return the seconds and the output."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return time.perf_counter() - started, done.stdout
