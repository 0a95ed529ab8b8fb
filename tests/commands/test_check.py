"""The command ``check``: what it finds, and how it says it."""

import os
import time
from pathlib import Path

import pytest

from tests.databases import App, Files
from tests.exporters import NOBODY, Command, file_flags, run, run_as_nobody
from tests.webs import CLIENTS, Web, users

ANY_PORT = "--web.listen-address=127.0.0.1:0"
STATE = "exporter-state.json"
NOW = int(time.time())
WRITTEN = "min from the last write of its file:"
LOCAL = "looks like local time; HAK/GAL's times must be in UTC, or name their zone"


def check(folder: Path, *flags: str) -> list[str]:
    """Return what is said of a folder, which must stay as it is."""
    before = sorted(os.listdir(folder))
    words = "check", *file_flags(folder), ANY_PORT, *flags
    done = run(*words, HAKGAL_STATEFILE="misspelt")
    assert (sorted(os.listdir(folder)), done.stderr) == (before, "")
    lines = done.stdout.splitlines()
    assert done.returncode == (0 if lines[-1] == "no problems" else 2)
    return lines


def test_what_is_there_and_what_it_gives(folder: Path) -> None:
    place = f"ok       {folder}/hakgal_performance.db:"
    flags = "--database.knowledge-base=none", "--no-collector.queries"
    assert check(folder, *flags) == [
        f"{place} journal mode wal, owner {os.geteuid()}",
        f"{place} table cache_events (id, timestamp, hit, cache_key, response_time)",
        f"{place} cache_events provides hakgal_cache_hits_total,"
        " hakgal_cache_misses_total, hakgal_cache_response_seconds",
        f"{place} cache_events: no rows",
        f"ok       state file {folder}/{STATE} does not exist yet",
        "ok       can listen on 127.0.0.1:0",
        "ok       unknown setting HAKGAL_STATEFILE; did you mean HAKGAL_STATE_FILE?",
        "no problems",
    ]


def test_all_problems_are_listed_at_once(folder: Path, taken_port: int) -> None:
    (folder / STATE).write_text("no state\n")
    (folder / "hexagonal_kb.db").write_text("a text, not a database" * 9)
    (folder / "hakgal_performance.db").unlink()

    lines = check(folder, f"--web.listen-address=127.0.0.1:{taken_port}")

    texts = [line[9:] for line in lines if line.startswith("PROBLEM  ")]
    assert [text.replace(f"{folder}/", "").partition("; ")[0] for text in texts] == [
        "cannot read the knowledge_base database hexagonal_kb.db: the file is not a"
        " SQLite database",
        "cannot read the performance database hakgal_performance.db: the file does not"
        " exist",
        f"state file {STATE}: it is damaged: the checksum differs",
        f"cannot listen on 127.0.0.1:{taken_port}: Address already in use, want a"
        " free port above 1023 and an address of this machine, or :PORT",
    ]
    assert lines[-1] == "4 problems"


def test_lack_is_said_with_its_cost(folder: Path) -> None:
    with Files(folder) as files:
        files.performance.run("ALTER TABLE query_times DROP COLUMN timestamp")
        files.performance.run("ALTER TABLE cache_events RENAME hit TO found")
        files.knowledge_base.run("DROP TABLE audit_log")
        files.knowledge_base.run("CREATE TABLE facts_extended AS SELECT * FROM facts")
    assert {line.partition("db: ")[2] for line in check(folder)} >= {
        "query_times lacks timestamp or created_at: no"
        " hakgal_last_event_timestamp_seconds",
        "cache_events lacks hit: no hakgal_cache_hits_total,"
        " hakgal_cache_misses_total, hakgal_cache_response_seconds",
        "no table audit_log: no hakgal_audit_events_total",
        "facts_extended has 0 rows",
    }


def utc(seconds: int, zone: str = "") -> str:
    """Return the time of a row, so long after its file was written."""
    return time.strftime(f"%Y-%m-%d %H:%M:%S{zone}", time.gmtime(NOW + seconds))


@pytest.mark.parametrize(
    ("timestamp", "verdict", "remark"),
    [
        (utc(-5000), "ok     ", ""),
        (utc(7200, "+02:00"), "ok     ", ""),
        (utc(-21600), "ok     ", f", -360 {WRITTEN} {LOCAL}"),
        (utc(7200), "PROBLEM", f", +120 {WRITTEN} {LOCAL}"),
        ("x", "PROBLEM", ", not a time; use CURRENT_TIMESTAMP or ISO 8601"),
    ],
    ids=range(5),
)
def test_newest_row_is_not_newer_than_its_file(
    folder: Path, timestamp: str, verdict: str, remark: str
) -> None:
    with Files(folder) as files:
        files.add_audit(timestamp=timestamp)
    path = files.knowledge_base.path
    os.utime(path, (NOW, NOW))
    row = f"{path}: newest row of audit_log is from {timestamp!r}{remark}"
    assert f"{verdict}  {row}" in check(folder)


def test_last_write_may_be_that_of_the_log(folder: Path) -> None:
    with App(folder / "hexagonal_kb.db") as app:
        app.run("INSERT INTO audit_log(operation) VALUES ('add_fact')")
        os.utime(folder / "hexagonal_kb.db", (0, 0))
        assert check(folder)[-1] == "no problems"


def test_what_the_state_file_lacks_rights_on_is_named(open_folder: Path) -> None:
    open_folder.chmod(0o555)
    done = run_as_nobody("check", *file_flags(open_folder), ANY_PORT)
    text = f"state file {open_folder / STATE}: user {os.geteuid() or NOBODY} cannot"
    text += f" write to {open_folder}; change its owner, or choose another"
    assert f"PROBLEM  {text} --state.file\n" in done.stdout


def test_exporter_that_runs_is_recognised(command: Command) -> None:
    done = run("check", *command.start().flags)
    address = "{}:{}".format(*command.address)
    assert f"ok       an exporter is already running on {address}\n" in done.stdout


def test_protection_is_told(folder: Path) -> None:
    web = Web(folder)
    web.key.chmod(0o644)
    path = web.write(CLIENTS, users(alice="a"))
    assert check(folder, f"--web.config.file={path}")[-5:-3] == [
        f"ok       {path}: TLS, client certificates, users",
        f"ok       {web.key}: every user can read this key; run chmod o= {web.key}",
    ]
