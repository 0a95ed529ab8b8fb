"""The old monitor's rows as samples: which, and which not; where they go to."""

import math
import re
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exporter.commands.backfill import BATCH_ROWS, MEASURES
from exporter.recorder import PERFORMANCE_SCHEMA
from tests.commands.old_monitor import collections, write_history
from tests.databases import EPOCH, App, File, at
from tests.exporters import parse_openmetrics, run
from tests.servers import ROOT, Servers

HOUR = 3600
TABLE = "performance_metrics"
# Any column takes anything.
LAX = re.sub(r" (TEXT|REAL)( NOT NULL| DEFAULT CURRENT\w+)", "", PERFORMANCE_SCHEMA)
# A fact each second.
MANY = f"""
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ? - 1)
INSERT INTO {TABLE}(metric_name, metric_value, timestamp)
SELECT iif(i % 3, 'system_cpu_percent', 'facts_count'), i,
    datetime({EPOCH} + i / 3, 'unixepoch') FROM n
"""
Series = dict[str, list[tuple[float, float]]]  # seconds after EPOCH, values


@pytest.fixture
def file(tmp_path: Path) -> Iterator[File]:
    made = File(tmp_path / "performance.db", LAX, "delete")
    yield made
    made.close()


def words(file: File) -> tuple[str, str]:
    return "backfill", f"--database.performance={file.path}"


def backfill(file: File, *flags: str, step: str = "") -> tuple[Series, list[str]]:
    """Return what a run has written, and what it said of the rows."""
    done = run(*words(file), *flags, HAKGAL_BACKFILL_STEP=step)
    series = defaultdict(list)
    assert done.returncode == 0, done.stderr
    for family in parse_openmetrics(done.stdout):
        for sample in family.samples:
            seconds = float(sample.timestamp) - EPOCH  # type: ignore[arg-type]
            series[sample.name].append((seconds, sample.value))
    return series, done.stderr.splitlines()


@contextmanager
def held_up(file: File) -> Iterator[subprocess.Popen[bytes]]:
    """Run it on more than fits into a pipe, until it waits for us to read on."""
    file.run(MANY, 3 * BATCH_ROWS)
    with subprocess.Popen(
        [sys.executable, "-m", "exporter", *words(file), "--backfill.step=1"],
        bufsize=0,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        # Background jobs of a shell ignore it, and so, perhaps, does this run.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"# TYPE hakgal_facts gauge\n"
        yield process


def add(
    file: File, value: object, time: object, name: object = "facts_count", **more: int
) -> None:
    """Add a row as the old monitor did."""
    row = {"metric_name": name, "metric_value": value, "timestamp": time}
    file.insert(TABLE, **row, **more)


def test_every_row_of_the_old_monitor_is_a_sample_of_the_new_name(file: File) -> None:
    found = list(collections(EPOCH, HOUR))
    write_history(file.path, found)
    add(file, 1, at(0), b"\x1b[2J")

    series, report = backfill(file)

    assert series == {
        name: [(moment - EPOCH, values[old] / divisor) for moment, values in found]
        for old, (name, divisor) in MEASURES.items()
    }
    assert report[3] == "facts_count: 60 rows, 60 samples of hakgal_facts"
    names = "system_disk_percent", "database_connections", "wal_size_bytes"
    left_out = [*(f"{name}: 60" for name in names), "others: 1"]
    assert [x.split(" rows")[0] for x in report if ", left out" in x] == left_out


SKIPPED: dict[str, list[tuple[object, ...]]] = {
    "not a number": [(value, at(0)) for value in (None, math.nan, "5", b"1")],
    "infinite": [(math.inf, at(0)), (-math.inf, at(0))],
    "negative": [(-0.5, at(0))],
    "mean of no queries": [(0.0, at(0), "avg_query_time")],
    "unreadable time": [(5, t) for t in (None, "", "soon", EPOCH, b"")],
    "time before 2020-01-01T00:00:00Z, from an unset clock": [(5, "1970-01-01")],
    "time after 2026-01-01T01:00:00Z": [(5, at(HOUR + 1)), (5, "9999-12-31")],
    "time before the previous row's": [(8, at(0)), (9, at(HOUR - 1))],
}


def test_a_row_that_is_no_measurement_is_skipped_and_counted(file: File) -> None:
    add(file, 6, at(HOUR))
    for rows in SKIPPED.values():
        for row in rows:
            add(file, *row)
    add(file, 7, at(HOUR))  # of two rows with one time, the later one is right

    series, report = backfill(file, "--backfill.until=2026-01-01T01:00:00Z")

    assert series == {"hakgal_facts": [(HOUR, 7)]}
    said = {f"skipped: {len(rows)} rows, {reason}" for reason, rows in SKIPPED.items()}
    assert {line for line in report if "skip" in line} == said


def test_of_each_step_the_newest_sample_is_kept(file: File) -> None:
    for second in range(60):
        add(file, second, at(second))

    newest = [(second, second) for second in (14, 29, 44, 59)]
    assert backfill(file)[0] == {"hakgal_facts": newest}
    assert len(backfill(file, step="1")[0]["hakgal_facts"]) == 60


def test_old_counters_do_not_leap_to_those_of_the_exporter(file: File) -> None:
    add(file, 5, at(0), "cache_hits")
    assert backfill(file)[0] == {"hakgal_cache_hits_total": [(0, 5)]}
    file.insert("cache_events", hit=1)

    reason = "the exporter counts all rows of cache_events"
    assert backfill(file) == ({}, [f"cache_hits: 1 rows, left out: {reason}"])


def test_each_row_is_read_once_whatever_the_ids(file: File) -> None:
    ids = (-(2**63), -5, 0, 1, 2, BATCH_ROWS * 3, 2**62, 2**63 - 1)
    for number, row in enumerate(ids):
        add(file, number, at(number * 15), id=row)

    samples = [(number * 15, number) for number in range(len(ids))]
    assert backfill(file)[0] == {"hakgal_facts": samples}


def test_a_writer_is_let_in_between_two_reads(file: File) -> None:
    """And what it deletes then has not been read yet, nor is in memory."""
    with held_up(file) as process:
        with App(file.path) as app:
            app.run(f"DELETE FROM {TABLE} WHERE id > {BATCH_ROWS + 300}")
        text, _ = process.communicate()

    assert text.count(b"hakgal_facts{") == BATCH_ROWS // 3 + 101


def test_ctrl_c_ends_it_without_a_word(file: File) -> None:
    with held_up(file) as process:
        process.send_signal(signal.SIGINT)
        text, errors = process.communicate()

    assert (process.returncode, errors) == (-signal.SIGINT, b"")
    assert not text.endswith(b"# EOF\n")


def test_both_promtools_take_any_value_time_and_label(
    servers: Servers, file: File, tmp_path: Path
) -> None:
    add(file, 0, "2026-01-01 00:00:00")
    add(file, 2**62, "2026-01-01T02:00:15.25+02:00")
    add(file, 5e-324, "2025-12-31 19:00:45.5-05:00")
    file.run(f"ALTER TABLE {TABLE} RENAME COLUMN timestamp TO created_at")
    labels = "--backfill.job=hák", '--backfill.instance=a "b"\\'

    text = run(*words(file), *labels, PYTHONIOENCODING="utf-8").stdout

    (tmp_path / "history.om").write_text(text, "utf-8")
    command = "tsdb", "create-blocks-from", "openmetrics", tmp_path / "history.om"
    code, output = servers.run("promtool", *command, tmp_path / "data")
    assert code == 0, output
    (tmp_path / "data" / "wal").mkdir()
    _, dump = servers.run("promtool", "tsdb", "dump", tmp_path / "data")
    series = r'{__name__="hakgal_facts", instance="a \"b\"\\", job="hák"}'
    assert [line for line in dump.splitlines() if "hakgal" in line] == [
        f"{series} 0 {EPOCH}000",
        f"{series} 4.611686018427388e+18 {EPOCH + 15}250",
        f"{series} 5e-324 {EPOCH + 45}500",
    ]


def test_a_table_that_is_not_there_is_one_line(file: File) -> None:
    file.run(f"DROP TABLE {TABLE}")

    done = run(*words(file))

    assert (done.returncode, "# EOF" in done.stdout) == (1, False)
    place, reason = f"the performance database {file.path}", "there is no such table"
    assert done.stderr == f"hakgal-exporter: cannot read {place}: {TABLE}: {reason}\n"


@pytest.mark.parametrize("rows", [3, 60_000], ids=["at the last flush", "before"])
def test_an_output_that_cannot_be_written_is_one_line(rows: int, file: File) -> None:
    file.run(MANY, rows)
    script = f"exec {sys.executable} -m exporter {' '.join(words(file))} >/dev/full"

    done = subprocess.run(["sh", "-c", script], cwd=ROOT, stderr=subprocess.PIPE)

    reason = "No space left on device; the text is incomplete, run it again"
    message = f"hakgal-exporter: cannot write to standard output: {reason}\n"
    assert (done.returncode, done.stderr.decode()) == (1, message)


def test_a_wrong_setting_is_refused(file: File) -> None:
    wanted = {"until=soon": "a time before now", "step=61": "a whole number"}
    for flag, expected in wanted.items():
        done = run(*words(file), f"--backfill.{flag}")
        name, _, text = flag.partition("=")
        assert (done.returncode, done.stdout) == (2, "")
        assert f"--backfill.{name}: got {text!r}, want {expected}" in done.stderr
