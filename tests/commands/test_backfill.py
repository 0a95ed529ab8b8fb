"""The old monitor's rows as samples: which, and which not; where they go to."""

import math
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from exporter.commands.backfill import BATCH_ROWS, MEASURES, History
from exporter.database import Database
from exporter.recorder import PERFORMANCE_SCHEMA
from tests.commands.old_monitor import collections, write_history
from tests.databases import EPOCH, App, File, at
from tests.exporters import parse_openmetrics, run
from tests.grafana import dashboards
from tests.servers import ROOT, Servers

HOUR = 3600
TABLE = "performance_metrics"
# Any column takes anything.
LAX = re.sub(r" (TEXT|REAL)( NOT NULL| DEFAULT CURRENT\w+)", "", PERFORMANCE_SCHEMA)
MANY = f"""
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ? - 1)
INSERT INTO {TABLE}(metric_name, metric_value, timestamp)
SELECT iif(i % 3, 'system_cpu_percent', 'facts_count'), i,
    datetime({EPOCH} + i / 3, 'unixepoch') FROM n
"""
# Prints the most memory that it had, in KB. (ru_maxrss begins with the parent's.)
MEASURED = """
import re, sys
from exporter.__main__ import main
code = main()
status = open("/proc/self/status").read()
print(*re.findall(r"VmHWM:\\s+(\\d+)", status), file=sys.stderr)
"""


class Written(NamedTuple):
    """What a run has written, and what it said of the rows."""

    text: str
    report: list[str]

    @property
    def series(self) -> dict[str, list[tuple[float, float]]]:
        """Return seconds after the test's epoch, and values, by name."""
        found: dict[str, list[tuple[float, float]]] = {}
        for family in parse_openmetrics(self.text):
            for sample in family.samples:
                seconds = float(sample.timestamp) - EPOCH  # type: ignore[arg-type]
                found.setdefault(sample.name, []).append((seconds, sample.value))
        return found


@pytest.fixture
def file(tmp_path: Path) -> Iterator[File]:
    made = File(tmp_path / "performance.db", LAX)
    yield made
    made.close()


def words(file: File) -> tuple[str, str]:
    return "backfill", f"--database.performance={file.path}"


def backfill(file: File, *flags: str, encoding: str = "utf-8") -> Written:
    """Run the command, which must succeed."""
    done = run(*words(file), *flags, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    return Written(done.stdout, done.stderr.splitlines())


def add(
    file: File, value: object, time: object, name: object = "facts_count", **more: int
) -> None:
    """Add a row as the old monitor did."""
    row = {"metric_name": name, "metric_value": value, "timestamp": time}
    file.insert(TABLE, **row, **more)


def test_every_row_of_the_old_monitor_is_a_sample_of_the_new_name(file: File) -> None:
    found = list(collections(EPOCH, HOUR))
    write_history(file.path, found)

    written = backfill(file)

    assert written.series == {
        name: [(moment - EPOCH, values[old] / divisor) for moment, values in found]
        for old, (name, divisor) in MEASURES.items()
    }
    assert written.report[3] == "facts_count: 60 rows, 60 samples of hakgal_facts"
    left_out = [line.partition(": it")[0] for line in written.report if "left" in line]
    names = "system_disk_percent", "database_connections", "wal_size_bytes"
    assert left_out == [f"{name}: 60 rows, left out" for name in names]


@pytest.mark.parametrize("name", [name for name, _ in MEASURES.values()])
def test_dashboards_ask_for_the_new_names(name: str) -> None:
    asked = [t["expr"] for panel in dashboards.panels() for t in panel.targets]

    assert any(re.search(rf"(?<![\w:]){name}\{{", query) for query in asked)


def test_a_row_that_is_no_measurement_is_skipped_and_counted(file: File) -> None:
    bad: dict[str, list[tuple[object, object]]] = {
        "not a number": [(v, at(0)) for v in (None, math.nan, "5", "x" * 99, b"1")],
        "infinite": [(math.inf, at(0)), (-math.inf, at(0))],
        "negative": [(-1, at(0)), (-0.5, at(0))],
        "with a time that cannot be read": [
            (5, time) for time in (None, "", "yesterday", EPOCH, b"1", at(0)[:9])
        ],
        "before 2020-01-01T00:00:00Z, by a clock that was not set": [
            (5, time) for time in ("1970-01-01", "1969-12-31 23:59:59")
        ],
        "after 2026-01-01T01:00:00Z": [(5, at(HOUR + 1)), (5, "9999-12-31")],
    }
    for rows in bad.values():
        for row in rows:
            add(file, *row)
    add(file, 0.0, at(0), "avg_query_time")
    add(file, 7, at(HOUR))

    written = backfill(file, "--backfill.until=2026-01-01T01:00:00Z")

    assert written.series == {"hakgal_facts": [(HOUR, 7)]}
    said = [f"skipped: {len(rows)} rows {reason}" for reason, rows in bad.items()]
    said.append("skipped: 1 rows means of no query")
    assert sorted(line for line in written.report if "skip" in line) == sorted(said)


def test_times_that_run_backwards_are_skipped_and_counted(file: File) -> None:
    for value, second in enumerate((0, 60, 120, 60, 119, 120, 180)):
        add(file, value, at(second))

    written = backfill(file)

    # Of two rows with one time, the later one is right.
    assert written.series == {"hakgal_facts": [(0, 0), (60, 1), (120, 5), (180, 6)]}
    assert written.report[-1] == "skipped: 2 rows with times that run backwards"


def test_of_each_step_the_newest_sample_is_kept(file: File) -> None:
    for second in range(60):
        add(file, second, at(second))

    newest = [(second, second) for second in (14, 29, 44, 59)]
    assert backfill(file).series == {"hakgal_facts": newest}
    assert len(backfill(file, "--backfill.step=1").series["hakgal_facts"]) == 60


def test_old_counters_do_not_leap_to_those_of_the_exporter(file: File) -> None:
    add(file, 5, at(0), "cache_hits")
    assert backfill(file).series == {"hakgal_cache_hits_total": [(0, 5)]}
    file.insert("cache_events", hit=1)

    reason = "the exporter counts all rows of cache_events"
    report = [f"cache_hits: 1 rows, left out: {reason}"]
    assert backfill(file) == ("# EOF\n", report)


def test_unknown_names_are_counted_together(file: File) -> None:
    for name in ("\x1b[2J", b"facts_count", None, 7, "facts_count"):
        add(file, 1, at(0), name)

    assert backfill(file).report == [
        "others: 4 rows, left out: no metric of the old monitor",
        "facts_count: 1 rows, 1 samples of hakgal_facts",
    ]


def test_each_row_is_read_once_whatever_the_ids(file: File) -> None:
    ids = (-(2**63), -5, 0, 1, 2, BATCH_ROWS * 3, 2**62, 2**63 - 1)
    for number, row in enumerate(ids):
        add(file, number, at(number * 15), id=row)

    samples = [(number * 15, number) for number in range(len(ids))]
    assert backfill(file).series == {"hakgal_facts": samples}


def test_a_writer_is_let_in_between_two_reads(tmp_path: Path) -> None:
    """And what it deletes then has not been read yet."""
    file = File(tmp_path / "performance.db", LAX, "delete")
    file.run(MANY, 3 * BATCH_ROWS)
    file.close()
    database = Database("performance", file.path)
    lines = History(database, {}, step=1, until=EPOCH + 86400).text()
    assert next(lines) == "# TYPE hakgal_facts gauge\n"
    next(lines)

    with App(file.path, timeout=0) as app:
        app.run(f"DELETE FROM {TABLE} WHERE id > {BATCH_ROWS + 300}")

    assert len([line for line in lines if "facts" in line]) == BATCH_ROWS // 3 + 100


def test_memory_grows_neither_with_rows_nor_with_what_is_in_them(file: File) -> None:
    file.run(MANY, 30_000)
    few = memory(file)
    file.run(MANY, 300_000)
    many = memory(file)
    for number, column in enumerate(("metric_name", "metric_value", "timestamp")):
        change = f"UPDATE {TABLE} SET {column} = ? WHERE id < 300 AND id % 3 = ?"
        file.run(change, "x" * 200_000, number)

    assert many - few < 2000
    assert memory(file) - many < 8000


def memory(file: File) -> int:
    """Return the most that a run needs, in KB."""
    done = run(*words(file), "--backfill.step=1", program=MEASURED)
    assert done.stdout.endswith("# EOF\n")
    return int(done.stderr.splitlines()[-1])


def test_both_promtools_take_any_value_time_and_label(
    servers: Servers, file: File, tmp_path: Path
) -> None:
    add(file, 0, "2026-01-01 00:00:00")
    add(file, 2**62, "2026-01-01T02:00:15.25+02:00")
    add(file, 1e300, "2026-01-01T00:00:30.125Z")
    add(file, 5e-324, "2025-12-31 19:00:45.5-05:00")
    file.run(f"ALTER TABLE {TABLE} RENAME COLUMN timestamp TO created_at")
    labels = "--backfill.job=hák", '--backfill.instance=a "b"\\'

    text = backfill(file, *labels, encoding="ascii").text

    assert make_blocks(servers, tmp_path, text)[0] == 0
    (tmp_path / "data" / "wal").mkdir()
    _, dump = servers.run("promtool", "tsdb", "dump", tmp_path / "data")
    series = r'{__name__="hakgal_facts", instance="a \"b\"\\", job="hák"}'
    assert [line for line in dump.splitlines() if "hakgal" in line] == [
        f"{series} 0 {EPOCH}000",
        f"{series} 4.611686018427388e+18 {EPOCH + 15}250",
        f"{series} 1e+300 {EPOCH + 30}125",
        f"{series} 5e-324 {EPOCH + 45}500",
    ]


def test_both_promtools_refuse_a_text_that_is_not_complete(
    servers: Servers, file: File, tmp_path: Path
) -> None:
    assert backfill(file) == ("# EOF\n", [])
    assert make_blocks(servers, tmp_path, "# EOF\n")[0] == 0
    add(file, 5, at(0))

    text = backfill(file).text.removesuffix("# EOF\n")

    code, output = make_blocks(servers, tmp_path, text)
    assert code == 1
    assert "data does not end with # EOF" in output


def make_blocks(servers: Servers, folder: Path, text: str) -> tuple[int, str]:
    (folder / "history.om").write_text(text, "utf-8")
    command = "tsdb", "create-blocks-from", "openmetrics", folder / "history.om"
    return servers.run("promtool", *command, folder / "data")


UNREADABLE = {
    "DROP TABLE {t}": "{t}: there is no such table",
    "ALTER TABLE {t} RENAME TO a; CREATE VIEW {t} AS SELECT * FROM a": (
        "{t}: it is a view, not a table"
    ),
    "DROP TABLE {t}; CREATE TABLE {t} (metric_name PRIMARY KEY) WITHOUT ROWID": (
        "{t}: it is a WITHOUT ROWID table"
    ),
    "ALTER TABLE {t} DROP COLUMN metric_value": "no such column: metric_value",
}


@pytest.mark.parametrize(("script", "reason"), UNREADABLE.items(), ids=range(4))
def test_a_table_that_cannot_be_read_is_one_line(
    script: str, reason: str, file: File
) -> None:
    add(file, 5, at(0))
    file.db.executescript(script.format(t=TABLE))

    done = run(*words(file))

    assert (done.returncode, "# EOF" in done.stdout) == (1, False)
    place = f"the performance database {file.path}"
    message = f"cannot read {place}: {reason.format(t=TABLE)}"
    assert done.stderr == f"hakgal-exporter: {message}\n"


TARGETS = {
    "full disk": (">/dev/full", "No space left on device"),
    "reader gone": ("| exec 0<&- sleep 0", "Broken pipe"),
    "closed": (">&-", "Bad file descriptor"),
}


# A short text fails only at the last flush.
@pytest.mark.parametrize("rows", [3, 60_000], ids=["short", "long"])
@pytest.mark.parametrize(("target", "reason"), TARGETS.values(), ids=TARGETS)
def test_an_output_that_cannot_be_written_is_one_line(
    target: str, reason: str, rows: int, file: File, tmp_path: Path
) -> None:
    file.run(MANY, rows)
    command = f"{sys.executable} -m exporter {' '.join(words(file))}"
    # The pipe's reader has gone before anything is written.
    script = f"{{ sleep 0.1; {command}; echo $? >{tmp_path}/code; }} {target}"

    done = subprocess.run(
        ["sh", "-c", script], cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False
    )

    assert (tmp_path / "code").read_text() == "1\n"
    message = f"cannot write to standard output: {reason}: the text is not complete"
    assert done.stderr == f"hakgal-exporter: {message}\n"


def test_ctrl_c_ends_it_without_a_word(file: File) -> None:
    file.run(MANY, 300_000)
    command, pipe = [sys.executable, "-m", "exporter", *words(file)], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe) as process:
        assert process.stdout
        assert process.stdout.readline() == b"# TYPE hakgal_facts gauge\n"
        process.send_signal(signal.SIGINT)
        text, errors = process.communicate()

    assert (process.returncode, errors) == (-signal.SIGINT, b"")
    assert not text.endswith(b"# EOF\n")


MISTAKES = {
    "backfill.until=0001-01-01": "got '0001-01-01', want a time before now, 20",
    "backfill.until=soon": "got 'soon', want a time before now, 20",
    "backfill.step=61": "got '61', want 1 to 60",
    "backfill.step=0": "got '0', want 1 to 60",
    "database.performance=none": "got none, want the file to read",
}


@pytest.mark.parametrize("flag", MISTAKES)
def test_a_wrong_setting_is_refused(flag: str, file: File) -> None:
    done = run(*words(file), f"--{flag}")

    assert (done.returncode, done.stdout) == (2, "")
    assert f"{flag.partition('=')[0]}: {MISTAKES[flag]}" in done.stderr


def test_settings_come_from_the_environment_too(file: File) -> None:
    add(file, 1, at(0))
    settings = {"HAKGAL_BACKFILL_JOB": " ", "HAKGAL_BACKFILL_INSTANCE": "a:1"}

    text = run(*words(file), cwd=None, program="", **settings).stdout

    assert f'hakgal_facts{{instance="a:1",job="hakgal"}} 1.0 {EPOCH}\n' in text
