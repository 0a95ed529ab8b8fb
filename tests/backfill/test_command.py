"""The command itself: settings, where it writes, what it costs."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from exporter import schema
from tests.backfill.old_monitor import collections, write_history
from tests.backfill.running import backfill
from tests.databases import EPOCH, File
from tests.exporters import run
from tests.servers import ROOT, wait_until

HOUR = 3600
MISTAKES = {
    "events without until": (
        ["--backfill.events"],
        "flag --backfill.events: got no --backfill.until, want the moment of the"
        " exporter's first start, as 2026-11-25T12:00:00Z: what is newer it counts"
        " itself, and Prometheus would count it twice",
    ),
    "no time": (
        ["--backfill.until=soon"],
        "flag --backfill.until: got 'soon', want a time as 2026-11-25T12:00:00Z",
    ),
    "future": (
        ["--backfill.until=2999-01-01"],
        "flag --backfill.until: got '2999-01-01', want a time before now (",
    ),
    "step": (
        ["--backfill.step=300"],
        "flag --backfill.step: got '300', want a whole number of seconds from 1 to 240",
    ),
    "job": (["--backfill.job="], "flag --backfill.job: got '', want a name"),
    "bytes": (
        ["--backfill.job=\udcff"],
        "flag --backfill.job: got '\\udcff', want a name",
    ),
}
# Prints the most memory that it had, in KB.
MEASURED = """
import os, resource, sys
from exporter.cli import main
code = main()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""
# No file of it can grow above 1 MB.
FULL = """
import resource, sys
from exporter.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
sys.exit(main())
"""
MANY = """
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {rows} - 1)
INSERT INTO performance_metrics(metric_name, metric_value, timestamp)
SELECT CASE i % 3 WHEN 0 THEN 'facts_count' WHEN 1 THEN 'cache_hits'
    ELSE 'system_cpu_percent' END, i, datetime({epoch} + i / 3, 'unixepoch') FROM n
"""


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_wrong_setting_is_one_line(
    mistake: tuple[list[str], str], folder: Path
) -> None:
    flags, message = mistake

    done = backfill(folder, *flags)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"hakgal-exporter: {message}")
    assert done.stderr.count("\n") == 1


def test_settings_come_from_the_environment_too(folder: Path) -> None:
    variables = {"STEP": "no", "EVENTS": "maybe", "JOB": " ", "UNTIL": "2999-01-01"}
    named = {f"HAKGAL_BACKFILL_{name}": text for name, text in variables.items()}

    done = run("backfill", cwd=None, program="", **named)

    assert done.returncode == 2
    said = sorted(line.split(": ")[1] for line in done.stderr.splitlines())
    assert said == [f"environment variable {name}" for name in sorted(named)]


@pytest.mark.parametrize("content", [None, "no database" * 20], ids=["none", "text"])
def test_a_database_that_cannot_be_read_is_one_line(
    content: str | None, tmp_path: Path
) -> None:
    if content:
        (tmp_path / "hakgal_performance.db").write_text(content)

    done = backfill(tmp_path, f"--output={tmp_path / 'history.om'}")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("hakgal-exporter: cannot read the performance")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*history.om*"))


def test_a_database_without_history_gives_an_empty_text(folder: Path) -> None:
    done = backfill(folder)

    assert (done.returncode, done.stdout) == (0, "# EOF\n")
    assert done.stderr.startswith("performance_metrics: 0 rows\n0 samples in ")


def test_the_file_is_the_same_as_standard_output(folder: Path) -> None:
    write_history(folder / "hakgal_performance.db", collections(EPOCH, HOUR))
    output = folder / "history.om"
    output.write_text("what was here before")

    assert backfill(folder, f"--output={output}").stdout == ""

    assert output.read_text() == backfill(folder).stdout
    assert output.stat().st_mode & 0o777 == 0o666 & ~umask()
    assert sorted(p.name for p in folder.glob("*")) == [
        "hakgal_performance.db",
        "hexagonal_kb.db",
        "history.om",
    ]


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_folder_that_is_not_there_is_one_line(folder: Path) -> None:
    done = backfill(folder, f"--output={folder}/none/history.om")

    assert done.returncode == 1
    assert done.stderr == (
        f"hakgal-exporter: cannot write to {folder}/none/history.om:"
        " No such file or directory\n"
    )


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_a_database_is_never_replaced(suffix: str, folder: Path) -> None:
    database = folder / "hexagonal_kb.db"
    before = database.read_bytes()
    (folder / "link").symlink_to(f"{database}{suffix}")

    for output in (f"{database}{suffix}", folder / "link"):
        done = backfill(folder, f"--output={output}")

        assert done.returncode == 1
        assert done.stderr == (
            f"hakgal-exporter: cannot write to {output}: it is of a SQLite database;"
            " choose another file\n"
        )
    assert database.read_bytes() == before


def test_a_folder_is_refused_before_anything_is_read(folder: Path) -> None:
    done = backfill(folder, f"--output={folder}")

    assert done.returncode == 1
    assert done.stderr == (
        f"hakgal-exporter: cannot write to {folder}:"
        " it is a folder; name a file in it\n"
    )


def test_a_pipe_stays_a_pipe_and_a_link_a_link(folder: Path, tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "history.om")
    # Open at both ends, so that neither waits for the other; the text is short.
    with open(pipe, "r+b", buffering=0) as reader:
        assert backfill(folder, f"--output={pipe}").returncode == 0
        assert reader.read(100) == b"# EOF\n"
    assert pipe.is_fifo()

    assert backfill(folder, f"--output={link}").returncode == 0

    assert link.is_symlink()
    assert link.read_text() == "# EOF\n"


def test_a_reader_that_goes_away_is_one_line(folder: Path) -> None:
    write_history(folder / "hakgal_performance.db", collections(EPOCH, 20 * HOUR))
    command = [sys.executable, "-m", "exporter", "backfill"]
    command.append(f"--database.performance={folder / 'hakgal_performance.db'}")
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout
    process.stdout.close()
    _, errors = process.communicate()

    assert process.returncode == 1
    assert errors.decode().splitlines()[-1] == (
        "hakgal-exporter: cannot write to standard output: its reader has gone"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_stops_it_finds_nothing_half_done(
    number: signal.Signals, tmp_path: Path
) -> None:
    output = tmp_path / "out" / "history.om"
    output.parent.mkdir()
    command = [sys.executable, "-m", "exporter", "backfill", f"--output={output}"]
    command.append(f"--database.performance={fill(tmp_path, 200_000)}")
    # Not measured: a signal within what measures coverage leaves its lock taken.
    own = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, env=own | {"PYTHONPATH": str(ROOT)}
    )
    wait_until(lambda: any(output.parent.iterdir()), 10)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)

    assert process.returncode == 1
    assert errors.decode().splitlines() == [
        "hakgal-exporter: stopped by a signal: the text is not complete"
    ]
    assert not [*output.parent.iterdir()]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (20_000, "cannot write to {output}: File too large"),
        (200_000, "cannot keep samples in a temporary file: "),
    ],
    ids=["output", "scratch"],
)
def test_a_full_disk_is_one_line(rows: int, said: str, tmp_path: Path) -> None:
    database = fill(tmp_path, rows)
    output = tmp_path / "history.om"
    flags = f"--database.performance={database}", "--backfill.step=1"

    done = run("backfill", *flags, f"--output={output}", program=FULL)

    assert done.returncode == 1
    *_, last = done.stderr.splitlines()
    assert last.startswith(f"hakgal-exporter: {said.format(output=output)}")
    assert [path.name for path in tmp_path.iterdir()] == [database.name]


def test_memory_does_not_grow_with_the_history(tmp_path: Path) -> None:
    kilobytes = []
    for rows in (20_000, 200_000):
        folder = tmp_path / str(rows)
        kilobytes.append(measure(folder, fill(folder, rows)))

    assert kilobytes[1] - kilobytes[0] < 2000


def test_memory_does_not_grow_with_what_is_in_a_row(tmp_path: Path) -> None:
    kilobytes = []
    for length in (1, 200_000):
        folder = tmp_path / str(length)
        database = fill(folder, 300)
        with closing(sqlite3.connect(database)) as db, db:
            columns = "metric_name", "metric_value", "timestamp"
            for number, column in enumerate(columns):
                change = f"UPDATE performance_metrics SET {column} = ? WHERE id % 3 = ?"
                db.execute(change, ("x" * length, number))
        kilobytes.append(measure(folder, database))

    assert kilobytes[1] - kilobytes[0] < 8000


def measure(folder: Path, database: Path) -> int:
    """Return the memory that a backfill needs."""
    flags = f"--database.performance={database}", "--backfill.step=1"
    done = run("backfill", *flags, f"--output={folder / 'o'}", program=MEASURED)
    assert done.returncode == 0, done.stderr
    return int(done.stderr.splitlines()[-1])


def fill(folder: Path, rows: int) -> Path:
    """Make a performance database with so many rows of history."""
    folder.mkdir(exist_ok=True)
    file = File(folder / "hakgal_performance.db", schema.PERFORMANCE)
    file.run(MANY.format(rows=rows, epoch=EPOCH))
    file.close()
    return file.path
