"""The commands ``check`` and ``healthcheck``: what they find and how they say it."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.databases import App, Files
from tests.exporters import NOBODY, Command, file_flags, run, run_as_nobody
from tests.webs import CLIENTS, TLS, Web, users

ANY_PORT = "--web.listen-address=127.0.0.1:0"


def test_check_finds_nothing_wrong(folder: Path) -> None:
    done = run("check", *file_flags(folder), ANY_PORT)

    assert (done.returncode, done.stderr) == (0, "")
    facts, events = f"{folder}/hexagonal_kb.db", f"{folder}/hakgal_performance.db"
    assert done.stdout.splitlines() == [
        f"ok       {facts}: table facts"
        " (id, statement, source, timestamp, tags, confidence)",
        f"ok       {facts}: facts gives hakgal_facts, hakgal_facts_added_total,"
        " hakgal_facts_last_added_timestamp_seconds, hakgal_fact_confidence",
        f"ok       {facts}: table audit_log"
        " (id, timestamp, operation, details, user_id, session_id)",
        f"ok       {facts}: audit_log gives hakgal_audit_events_total",
        f"ok       {events}: table query_times"
        " (id, timestamp, query_time, query_type, success)",
        f"ok       {events}: query_times gives hakgal_query_duration_seconds",
        f"ok       {events}: table cache_events"
        " (id, timestamp, hit, cache_key, response_time)",
        f"ok       {events}: cache_events gives hakgal_cache_hits_total,"
        " hakgal_cache_misses_total, hakgal_cache_response_seconds",
        f"ok       state file {folder}/exporter-state.json",
        "ok       can listen on 127.0.0.1:0",
        "no problems",
    ]


def test_check_leaves_nothing_behind(folder: Path) -> None:
    before = sorted(os.listdir(folder))

    run("check", *file_flags(folder), ANY_PORT)

    assert sorted(os.listdir(folder)) == before


def break_everything(folder: Path) -> Path:
    """Damage all three files; return the one that still is a database."""
    (folder / "exporter-state.json").write_text("no state\n")
    (folder / "hexagonal_kb.db").write_text("a text, not a database" * 9)
    events = folder / "hakgal_performance.db"
    with closing(sqlite3.connect(events)) as db, db:
        db.execute("DROP TABLE query_times")
        db.execute("CREATE VIEW query_times AS SELECT * FROM cache_events")
        db.execute("ALTER TABLE cache_events RENAME hit TO found")
    return events


def test_check_lists_all_problems_at_once(folder: Path, taken_port: int) -> None:
    events = break_everything(folder)
    address = f"127.0.0.1:{taken_port}"

    done = run("check", *file_flags(folder), f"--web.listen-address={address}")

    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.splitlines() == [
        f"PROBLEM  cannot read the knowledge_base database {folder}/hexagonal_kb.db:"
        " the file is not a SQLite database; check the path",
        f"PROBLEM  {events}: cannot read query_times: it is a view, not a table",
        f"ok       {events}: table cache_events"
        " (id, timestamp, found, cache_key, response_time)",
        f"ok       {events}: cache_events gives nothing",
        f"ok       {events}: cache_events lacks hit: no hakgal_cache_hits_total,"
        " hakgal_cache_misses_total, hakgal_cache_response_seconds",
        f"PROBLEM  state file {folder}/exporter-state.json: damaged, its checksum"
        " differs; restore it, or counting starts anew",
        f"PROBLEM  cannot listen on {address}: Address already in use, want a free port"
        " above 1023 and an address of this machine, or :PORT",
        "4 problems",
    ]


def test_check_says_what_a_missing_table_costs(folder: Path) -> None:
    with Files(folder) as files:
        files.performance.run("DROP TABLE query_times")

    done = run("check", *file_flags(folder), ANY_PORT)

    assert done.returncode == 0, done.stdout
    events = f"{folder}/hakgal_performance.db"
    assert (
        f"ok       {events}: no table query_times: no hakgal_query_duration_seconds\n"
    ) in done.stdout


def test_check_does_not_ask_for_a_database_that_is_none(folder: Path) -> None:
    (folder / "hakgal_performance.db").unlink()

    flags = [*file_flags(folder), "--database.performance=none", ANY_PORT]
    done = run("check", *flags)

    assert done.returncode == 0, done.stdout
    assert "query_times" not in done.stdout
    assert "performance" not in done.stdout


def test_check_finds_files_that_are_not_there(tmp_path: Path) -> None:
    done = run("check", *file_flags(tmp_path), ANY_PORT)

    assert done.returncode == 2
    assert done.stdout.count("the file does not exist (yet); it is picked up") == 2
    assert done.stdout.endswith("2 problems\n")


def test_one_problem_is_not_called_problems(folder: Path) -> None:
    (folder / "hakgal_performance.db").unlink()

    done = run("check", *file_flags(folder), ANY_PORT)

    assert done.stdout.endswith("1 problem\n")


def test_check_finds_a_crashed_writer(folder: Path) -> None:
    path = folder / "hakgal_performance.db"
    with App(path) as app:
        app.run("INSERT INTO cache_events(hit) VALUES (1)")
        app.kill()
    Path(f"{path}-shm").unlink()

    done = run("check", *file_flags(folder), ANY_PORT)

    assert done.returncode == 2
    assert "its -wal has content but its -shm is missing" in done.stdout
    assert f"sqlite3 '{path}' 'PRAGMA wal_checkpoint(TRUNCATE)'" in done.stdout


def test_check_looks_only_at_what_is_switched_on(folder: Path) -> None:
    with Files(folder) as files:
        files.performance.run("DROP TABLE query_times")

    done = run("check", *file_flags(folder), ANY_PORT, "--no-collector.queries")

    assert done.returncode == 0, done.stdout
    assert "query_times" not in done.stdout


def test_check_without_state_file_says_what_that_means(folder: Path) -> None:
    done = run("check", *file_flags(folder), "--state.file=", ANY_PORT)

    assert done.returncode == 0
    assert "ok       no state file: a restart counts anew\n" in done.stdout


def test_check_recognises_a_running_exporter(command: Command, folder: Path) -> None:
    command.start()

    done = run("check", *command.flags)

    assert done.returncode == 0, done.stdout
    host, port = command.address
    assert f"ok       an exporter is running already on {host}:{port}\n" in done.stdout


def test_check_finds_a_folder_that_it_may_not_write(foreign_folder: Path) -> None:
    Files(foreign_folder, "delete").close()

    done = run_as_nobody("check", *file_flags(foreign_folder), ANY_PORT)

    user = NOBODY if os.geteuid() == 0 else os.geteuid()
    assert done.returncode == 2
    assert (
        f"PROBLEM  state file {foreign_folder}/exporter-state.json: user {user} cannot"
        f" write to {foreign_folder}; change its owner, or choose another --state.file"
    ) in done.stdout.splitlines()
    assert done.stdout.endswith("1 problem\n")


def test_check_finds_a_state_file_that_is_somebody_elses(
    foreign_folder: Path,
) -> None:
    Files(foreign_folder, "delete").close()
    foreign_folder.chmod(0o777)
    state = foreign_folder / "exporter-state.json"
    state.touch()
    state.chmod(0o000)

    check = run_as_nobody("check", *file_flags(foreign_folder), ANY_PORT)
    serve = run_as_nobody(*file_flags(foreign_folder), ANY_PORT)

    assert f"PROBLEM  state file {state}: user " in check.stdout
    assert f" cannot write to {state}; change its owner" in check.stdout
    assert (check.returncode, serve.returncode) == (2, 1)


def test_relative_paths_start_at_the_working_directory(folder: Path) -> None:
    names = {
        "HAKGAL_DATABASE_KNOWLEDGE_BASE": "hexagonal_kb.db",
        "HAKGAL_DATABASE_PERFORMANCE": "hakgal_performance.db",
        "HAKGAL_STATE_FILE": "",
    }

    done = run("check", ANY_PORT, cwd=folder, **names)

    assert done.returncode == 0, done.stdout
    assert f"ok       {folder}/hexagonal_kb.db: table facts (id, " in done.stdout


def test_healthcheck_succeeds_while_the_exporter_runs(
    command: Command, folder: Path
) -> None:
    command.start()

    for address in (f"127.0.0.1:{command.address[1]}", f":{command.address[1]}"):
        done = run("healthcheck", f"--web.listen-address={address}")
        assert (done.returncode, done.stdout, done.stderr) == (0, "healthy\n", "")


def test_healthcheck_fails_when_nothing_listens(free_port: int) -> None:
    done = run("healthcheck", f"--web.listen-address=127.0.0.1:{free_port}")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"not healthy: nothing answers on 127.0.0.1:{free_port}"
        " ([Errno 111] Connection refused)\n"
    )


def test_healthcheck_fails_when_somebody_else_listens(taken_port: int) -> None:
    done = run("healthcheck", f"--web.listen-address=127.0.0.1:{taken_port}")

    assert done.returncode == 1
    assert done.stderr.startswith("not healthy: nothing answers on ")


def test_check_shows_what_protects(folder: Path) -> None:
    web = Web(folder)
    flags = [*file_flags(folder), ANY_PORT, "--web.config.file"]

    done = run("check", *flags, web.write(CLIENTS, users(alice="a")))

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-4:] == [
        f"ok       {web.file}: TLS with client certificates, 1 user",
        f"ok       {web.certificate}: valid for 9 more days",
        "ok       can listen on 127.0.0.1:0",
        "no problems",
    ]


def test_check_lists_all_problems_of_the_web_configuration(folder: Path) -> None:
    web = Web(folder)
    flags = [*file_flags(folder), ANY_PORT, "--web.config.file"]
    text = f"{TLS}  min_version: TLS10\nbasic_auth_users: {{a: b}}\n"

    done = run("check", *flags, web.write(text))

    assert done.returncode == 2
    assert [line for line in done.stdout.splitlines() if "web.yml" in line] == [
        f"PROBLEM  {web.file}:4: tls_server_config.min_version: got text 'TLS10', want"
        " TLS12 or TLS13",
        f"PROBLEM  {web.file}:5: basic_auth_users.a: got something else, want a bcrypt"
        " hash, cost 04 to 16: $2y$10$…",
    ]


def test_check_finds_an_expired_certificate(folder: Path) -> None:
    web = Web(folder)
    web.servers.issue("server", days=0)
    flags = [*file_flags(folder), ANY_PORT, "--web.config.file"]

    done = run("check", *flags, web.write(TLS))

    assert done.returncode == 2
    assert f"PROBLEM  {web.certificate}: certificate has expired; renew it\n" in (
        done.stdout
    )


def test_check_sees_a_key_that_everybody_may_read(folder: Path) -> None:
    web = Web(folder)
    web.key.chmod(0o644)
    flags = [*file_flags(folder), ANY_PORT, "--web.config.file"]

    done = run("check", *flags, web.write(TLS))

    assert done.returncode == 0
    assert (
        f"ok       {web.key}: every user of this machine may read the key;"
        f" chmod o= {web.key}\n"
    ) in done.stdout
