"""The command ``check``: what it finds, and how it says it."""

import os
import time
from pathlib import Path

import pytest

from tests.databases import App, Files
from tests.exporters import NOBODY, Command, file_flags, run, run_as_nobody
from tests.webs import CLIENTS, TLS, Web, users

ANY_PORT = "--web.listen-address=127.0.0.1:0"
USER = NOBODY if os.geteuid() == 0 else os.geteuid()
NOW = int(time.time())
WRITTEN = "min from the last write of its file:"
UTC = "HAK/GAL's times must be UTC, or name their zone"
NO_NUMBERS = "import os; del os.geteuid; import exporter.__main__ as m; exit(m.main())"


def check(folder: Path, *flags: str | Path) -> list[str]:
    """Return what is said of a folder, which must stay as it is."""
    before = sorted(os.listdir(folder))
    done = run("check", *file_flags(folder), ANY_PORT, *flags)
    assert (sorted(os.listdir(folder)), done.stderr) == (before, "")
    lines = done.stdout.splitlines()
    assert done.returncode == (0 if lines[-1] == "no problems" else 2)
    return lines


def check_as_nobody(folder: Path, mode: int) -> list[str]:
    """Return what names a user, if permissions apply to whoever asks."""
    folder.chmod(0o777)
    Files(folder, "delete").close()
    folder.chmod(mode)
    lines = run_as_nobody("check", *file_flags(folder), ANY_PORT).stdout.splitlines()
    return [line for line in lines if " user " in line]


def test_what_is_there_and_what_it_gives(folder: Path) -> None:
    place = f"ok       {folder}/hakgal_performance.db:"
    flags = "--database.knowledge-base=none", "--no-collector.queries"
    assert check(folder, *flags) == [
        f"{place} journal mode wal, owner {os.geteuid()}",
        f"{place} table cache_events (id, timestamp, hit, cache_key, response_time)",
        f"{place} cache_events gives hakgal_cache_hits_total,"
        " hakgal_cache_misses_total, hakgal_cache_response_seconds",
        f"{place} cache_events has no rows",
        f"ok       state file {folder}/exporter-state.json, not there yet",
        "ok       can listen on 127.0.0.1:0",
        "no problems",
    ]


def test_all_problems_are_listed_at_once(folder: Path, taken_port: int) -> None:
    state, facts = folder / "exporter-state.json", folder / "hexagonal_kb.db"
    state.write_text("no state\n")
    facts.write_text("a text, not a database" * 9)
    (folder / "hakgal_performance.db").unlink()

    lines = check(folder, address := f"--web.listen-address=127.0.0.1:{taken_port}")

    texts = [line[9:] for line in lines if line.startswith("PROBLEM  ")]
    assert [text.partition("; ")[0] for text in texts] == [
        f"cannot read the knowledge_base database {facts}: the file is not a SQLite"
        " database",
        f"cannot read the performance database {folder}/hakgal_performance.db: the file"
        " does not exist (yet)",
        f"state file {state}: damaged, its checksum differs",
        f"cannot listen on {address.partition('=')[2]}: Address already in use, want a"
        " free port above 1023 and an address of this machine, or :PORT",
    ]
    assert lines[-1] == "4 problems"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            "ALTER TABLE query_times RENAME TO queries",
            "ok       no table query_times: no hakgal_query_duration_seconds",
        ),
        (
            "ALTER TABLE query_times DROP COLUMN timestamp",
            "ok       query_times lacks timestamp or created_at: no"
            " hakgal_last_event_timestamp_seconds",
        ),
        (
            "ALTER TABLE cache_events RENAME hit TO found",
            "ok       cache_events lacks hit: no hakgal_cache_hits_total,"
            " hakgal_cache_misses_total, hakgal_cache_response_seconds",
        ),
    ],
)
def test_lack_is_said_with_its_cost(folder: Path, change: str, line: str) -> None:
    with Files(folder) as files:
        files.performance.run(change)
    place = f"{folder}/hakgal_performance.db: "
    assert line in [said.replace(place, "") for said in check(folder)]


def utc(seconds: int, zone: str = "") -> str:
    """Return the time of a row, so long after its file was written."""
    return time.strftime(f"%Y-%m-%d %H:%M:%S{zone}", time.gmtime(NOW + seconds))


@pytest.mark.parametrize(
    ("timestamp", "verdict", "remark"),
    [
        (utc(0), "ok     ", ""),
        (utc(-5000), "ok     ", ""),
        (utc(7200, "+02:00"), "ok     ", ""),
        (utc(-21600), "ok     ", f", -360 {WRITTEN} looks like local time; {UTC}"),
        (utc(7200), "PROBLEM", f", +120 {WRITTEN} looks like local time; {UTC}"),
        (utc(5000), "PROBLEM", f", +83 {WRITTEN} {UTC}"),
        ("x", "PROBLEM", ", which is no time; write CURRENT_TIMESTAMP or ISO 8601"),
    ],
    ids=range(7),
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
    path = folder / "hexagonal_kb.db"
    with App(path) as app:
        app.run("INSERT INTO audit_log(operation) VALUES ('add_fact')")
        app.run("INSERT INTO facts(statement, timestamp) VALUES ('A.', NULL)")
        os.utime(path, (0, 0))
        lines = check(folder)
    assert f"ok       {path}: facts has rows without a time" in lines
    assert lines[-1] == "no problems"


def test_state_file_is_followed_through_a_link(command: Command, folder: Path) -> None:
    command.start().page()
    command.stop()
    state, link = folder / "exporter-state.json", folder / "link.json"
    link.symlink_to(state)
    assert f"ok       state file {state}" in check(folder, f"--state.file={link}")
    none = "ok       no state file: a restart counts anew"
    assert none in check(folder, "--state.file=")


@pytest.mark.parametrize(
    ("name", "mode", "verb"),
    [
        ("", 0o555, "write to"),
        ("exporter-state.json", 0o777, "read"),
        ("exporter-state.json.lock", 0o777, "write to"),
        ("exporter-state.json.tmp", 0o777, "write to"),
    ],
)
def test_what_the_state_file_lacks_rights_on_is_named(
    foreign_folder: Path, name: str, mode: int, verb: str
) -> None:
    place = foreign_folder / name
    foreign_folder.chmod(0o777)
    if name:
        place.touch(0)
    assert check_as_nobody(foreign_folder, mode)[-1:] == [
        f"PROBLEM  state file {foreign_folder}/exporter-state.json: user {USER} cannot"
        f" {verb} {place}; change its owner, or choose another --state.file"
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="nobody else can be two users")
def test_state_file_of_another_user_is_told_of(
    command: Command, folder: Path, foreign_folder: Path
) -> None:
    command.start().page()
    command.stop()
    name = "exporter-state.json"
    state = (folder / name).rename(foreign_folder / name)
    text = f"state file {state} belongs to user 0, not {NOBODY}"
    text += "; run as that user, or change its owner"
    for mode, verdict in ((0o777, "ok     "), (0o1777, "PROBLEM")):
        facts, _, said = check_as_nobody(foreign_folder, mode)
        assert facts.endswith(f"user {NOBODY} may write to its folder, and need not")
        assert said == f"{verdict}  {text}"


def test_system_may_not_number_its_users(folder: Path) -> None:
    done = run("check", *file_flags(folder), ANY_PORT, program=NO_NUMBERS)
    assert done.returncode == 0, done.stderr


def test_exporter_that_runs_is_recognised(command: Command) -> None:
    done = run("check", *command.start().flags)
    address = "{}:{}".format(*command.address)
    assert f"ok       an exporter is running already on {address}\n" in done.stdout


def test_environment_is_read(folder: Path) -> None:
    names = {
        "HAKGAL_DATABASE_KNOWLEDGE_BASE": "hexagonal_kb.db",
        "HAKGAL_DATABASE_PERFORMANCE": "none",
        "HAKGAL_STATEFILE": "misspelt",
    }
    done = run("check", ANY_PORT, cwd=folder, **names)
    assert f"ok       {folder}/hexagonal_kb.db: table facts (id, " in done.stdout
    assert "ok       HAKGAL_STATEFILE is no setting; HAKGAL_STATE_" in done.stdout


def test_protection_is_told(folder: Path) -> None:
    web = Web(folder)
    web.key.chmod(0o644)
    path = web.write(CLIENTS, users(alice="a"))
    assert check(folder, "--web.config.file", path)[-4:-2] == [
        f"ok       {path}: TLS, client certificates, users",
        f"ok       {web.key}: every user here may read the key; chmod o= {web.key}",
    ]
    path = web.write(f"{TLS}  min_version: TLS10\nbasic_auth_users: {{a: b}}\n")
    lines = check(folder, "--web.config.file", path)
    setting = f"PROBLEM  {path}: tls_server_config.min_version"
    assert setting in [line.partition(": got ")[0] for line in lines]
    assert lines[-1] == "2 problems"
