"""Reading beside a writer: what is found, what is refused, and that nothing changes."""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from exporter.database import MAGIC, Database, Look, WalIndex
from exporter.errors import DatabaseError
from tests.databases import JOURNAL_MODES, App, Files
from tests.users import open_folder, other_user

__all__ = ["open_folder"]  # a fixture

COUNT = "SELECT COUNT(*) FROM query_times"
INSERT = "INSERT INTO query_times (query_time) VALUES (0.05)"
# Never ends: each row makes the next.
ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    " SELECT COUNT(*) FROM n"
)
SPILL = (
    "INSERT INTO query_times (query_time) WITH RECURSIVE n(i) AS"
    " (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000) SELECT i FROM n"
)
# An application that opens the database for each row.
RESTLESS = """
import sqlite3, sys
rows, errors = 0, set()
for _ in range(100):
    db = sqlite3.connect(sys.argv[1], isolation_level=None)
    try:
        rows += db.execute(
            "INSERT INTO query_times (query_time) VALUES (0.05)"
        ).rowcount
    except sqlite3.Error as error:
        errors.add(str(error))
    db.close()
print(f"{rows} rows, {errors or 'no errors'}")
"""


@pytest.fixture(params=JOURNAL_MODES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a performance database with three queries that nobody has open."""
    return make(tmp_path, request.param)


@pytest.fixture
def wal_path(tmp_path: Path) -> Path:
    return make(tmp_path, "wal")


def owners_in(folder: Path) -> set[int]:
    """Return the owners of the files in a folder, where files come and go."""
    found = set()
    for name in os.listdir(folder):
        with suppress(FileNotFoundError):
            found.add(os.stat(folder / name).st_uid)
    return found


def make(folder: Path, journal_mode: str, rows: int = 3) -> Path:
    with Files(folder, journal_mode) as files:
        for _ in range(rows):
            files.add_query()
    return files.performance.path


def read(path: Path, sql: str = COUNT, seconds: float = 5.0, work: Any = None) -> Any:
    def ask(db: sqlite3.Connection, look: Look) -> Any:
        return db.execute(sql).fetchone()[0]

    database = Database("performance", path)
    return database.read(work or ask, time.monotonic() + seconds)


def look(path: Path) -> Look:
    return Database("performance", path).look()


def refusal(path: Path) -> str:
    with pytest.raises(DatabaseError) as caught:
        read(path, seconds=1)
    return str(caught.value)


def traces(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return what a reader might have changed of each file in a folder."""
    with os.scandir(folder) as entries:
        found = {entry.name: entry.stat() for entry in entries}
    return {
        name: (s.st_ino, s.st_uid, s.st_gid, s.st_mode, s.st_size, s.st_mtime_ns)
        for name, s in found.items()
    }


def sibling(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def sibling_names(path: Path) -> set[str]:
    names = (name.removeprefix(path.name) for name in os.listdir(path.parent))
    return {name for name in names if name.startswith("-")}


def copy_in_use(path: Path) -> Path:
    """Return a copy of a file with a row in its log, and of what lies beside it."""
    folder = path.with_name("copy")
    folder.mkdir()
    with App(path) as app:
        app.run(INSERT)
        for suffix in ("", "-wal", "-shm"):
            shutil.copy(sibling(path, suffix), folder)
    return folder / path.name


def lock(app: App, transaction: str) -> None:
    """Begin a transaction that keeps readers out of a file in rollback mode."""
    if transaction == "spilling":  # more than its cache holds: it writes to the file
        app.run("PRAGMA cache_size = 1")
        app.run("BEGIN")
        app.run(SPILL)
    else:
        app.run(transaction)


def test_counts_what_is_committed(path: Path) -> None:
    assert read(path) == 3


def test_sees_what_an_open_writer_has_committed(path: Path) -> None:
    with App(path) as app:
        app.run(INSERT)
        assert read(path) == 4


def test_does_not_see_what_an_open_writer_has_not_committed(path: Path) -> None:
    with App(path) as app:
        app.run("BEGIN")
        app.run(INSERT)
        assert read(path) == 3


def test_never_opened_as_immutable_where_a_log_has_content(wal_path: Path) -> None:
    with App(wal_path) as app:
        app.run(INSERT)
        assert not look(wal_path).immutable
    assert look(wal_path).immutable


def test_log_beside_the_target_of_a_link_is_seen(wal_path: Path) -> None:
    (link := wal_path.with_name("elsewhere") / "link.db").parent.mkdir()
    link.symlink_to(wal_path)
    with App(wal_path) as app:
        app.run(INSERT)
        assert read(link) == 4
        assert look(link).path == str(wal_path)


def test_what_a_crash_left_is_read_with_its_log(wal_path: Path) -> None:
    with App(wal_path) as app:
        app.run(INSERT)
        app.kill()
    before = traces(wal_path.parent)
    assert f"{wal_path.name}-wal" in before
    assert read(wal_path) == 4
    assert traces(wal_path.parent) == before


@pytest.mark.parametrize(
    "index",
    [b"", bytes(100), bytes(32768), b"\x5a" * 32768],
    ids=["empty", "short", "zero", "nonsense"],
)
def test_useless_index_of_a_crash_does_not_matter(wal_path: Path, index: bytes) -> None:
    copy = copy_in_use(wal_path)
    sibling(copy, "-shm").write_bytes(index)
    assert read(copy) == 4


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 4151], ids=str)
def test_log_without_a_whole_frame_is_no_obstacle(wal_path: Path, size: int) -> None:
    copy = copy_in_use(wal_path)
    os.truncate(sibling(copy, "-wal"), size)
    started = time.monotonic()
    assert read(copy) == 3
    assert time.monotonic() - started < 5  # SQLite itself would try for 10


def test_log_without_its_index_is_refused_with_a_way_out(wal_path: Path) -> None:
    copy = copy_in_use(wal_path)
    sibling(copy, "-shm").unlink()
    before = traces(copy.parent)
    message = refusal(copy)
    assert "its -wal has content but its -shm is missing" in message
    assert f"sqlite3 '{copy}' 'PRAGMA wal_checkpoint(TRUNCATE)'" in message
    assert traces(copy.parent) == before


def test_the_way_out_works(wal_path: Path) -> None:
    copy = copy_in_use(wal_path)
    sibling(copy, "-shm").unlink()
    with App(copy) as owner:
        owner.run("PRAGMA wal_checkpoint(TRUNCATE)")
    assert read(copy) == 4


@pytest.mark.parametrize("state", ["closed", "open", "written", "crashed"])
def test_reading_leaves_no_trace(path: Path, state: str) -> None:
    app = App(path)
    if state != "open":
        app.run(INSERT)
    {"closed": app.close, "crashed": app.kill}.get(state, int)()
    before = traces(path.parent)
    expected = 3 if state == "open" else 4
    assert read(path) == expected
    assert traces(path.parent) == before
    app.close()


@pytest.mark.parametrize("mode", [0o755, 0o777], ids=["read-only", "writable"])
@pytest.mark.parametrize("journal_mode", JOURNAL_MODES)
@pytest.mark.parametrize("is_open", [True, False], ids=["open", "closed"])
def test_other_user_leaves_no_trace(
    open_folder: Path, mode: int, journal_mode: str, is_open: bool
) -> None:
    path = make(open_folder, journal_mode)
    with App(path) as app:
        app.run(INSERT)
        if not is_open:
            app.close()
        open_folder.chmod(mode)
        before = traces(open_folder)
        with other_user():
            assert read(path) == 4
        assert traces(open_folder) == before


def test_writer_that_comes_and_goes_is_not_disturbed(open_folder: Path) -> None:
    """Once, a log that vanished before SQLite looked was made anew as our user."""
    path = make(open_folder, "wal")
    open_folder.chmod(0o777)
    owners, counts = {path.stat().st_uid}, []
    with subprocess.Popen(
        [sys.executable, "-c", RESTLESS, path], stdout=subprocess.PIPE, text=True
    ) as app:
        while app.poll() is None:
            with other_user():
                counts.append(read(path))
            owners |= owners_in(open_folder)
        assert app.communicate()[0] == "100 rows, no errors\n"
    assert owners == {path.stat().st_uid}
    assert counts == sorted(counts)
    assert read(path) == 103


def test_last_close_removes_its_files_after_reads(wal_path: Path) -> None:
    with App(wal_path) as app:
        for count in range(4, 8):
            app.run(INSERT)
            assert read(wal_path) == count
        assert sibling_names(wal_path) == {"-wal", "-shm"}
    assert sibling_names(wal_path) == set()


def test_close_during_a_read_leaves_its_files_to_the_next(wal_path: Path) -> None:
    app = App(wal_path)
    app.run(INSERT)
    read(wal_path, work=lambda db, look: app.close())
    assert read(wal_path) == 4
    with App(wal_path) as app:
        assert app.run(COUNT) == [[4]]
    assert sibling_names(wal_path) == set()


def test_writer_in_wal_mode_never_waits_for_a_reader(wal_path: Path) -> None:
    with App(wal_path, timeout=0) as app, ThreadPoolExecutor(1) as pool:
        written = pool.submit(lambda: [app.run(INSERT) for _ in range(500)])
        counts = [read(wal_path)]
        while not written.done():
            counts.append(read(wal_path))
        assert len(written.result()) == 500  # no SQLITE_BUSY
        assert counts == sorted(counts)
        assert read(wal_path) == 503


def test_reader_does_not_stop_checkpoints(wal_path: Path) -> None:
    with App(wal_path) as app:
        app.run(INSERT)
        read(wal_path)
        assert app.run("PRAGMA wal_checkpoint(TRUNCATE)") == [[0, 0, 0]]


@pytest.mark.parametrize("transaction", ["BEGIN EXCLUSIVE", "spilling"])
def test_locked_in_rollback_mode(tmp_path: Path, transaction: str) -> None:
    path = make(tmp_path, "delete")
    with App(path) as app:
        lock(app, transaction)
        assert "another connection has it locked" in refusal(path)
        app.run("ROLLBACK")
        assert read(path) == 3


def test_waits_no_longer_for_a_lock_than_the_deadline(path: Path) -> None:
    assert 0 < read(path, "PRAGMA busy_timeout", seconds=60) <= 15_000
    assert read(path, "PRAGMA busy_timeout", seconds=0.1) <= 25


def test_exclusive_transaction_in_wal_mode_is_no_obstacle(wal_path: Path) -> None:
    with App(wal_path) as app:
        app.run("BEGIN EXCLUSIVE")
        app.run(INSERT)
        assert read(wal_path) == 3


def test_exclusive_locking_mode_is_refused_with_a_reason(path: Path) -> None:
    with App(path) as app:
        app.run("PRAGMA locking_mode = EXCLUSIVE")
        app.run(INSERT)
        before = traces(path.parent)
        assert "locked" in refusal(path)
        assert traces(path.parent) == before
    assert read(path) == 4


def test_exclusive_locking_of_an_open_log_is_refused(wal_path: Path) -> None:
    with App(wal_path) as app:
        app.run(INSERT)
        app.run("PRAGMA locking_mode = EXCLUSIVE")
        app.run(INSERT)
        assert "locked" in refusal(wal_path)


def test_hot_journal_is_refused_and_kept(tmp_path: Path) -> None:
    path = make(tmp_path, "delete")
    with App(path) as app:
        lock(app, "spilling")
        app.kill()
    before = traces(tmp_path)
    assert "its writer crashed inside a transaction; start HAK/GAL" in refusal(path)
    assert traces(tmp_path) == before
    with App(path) as app:
        assert app.run(COUNT) == [[3]]  # rolled back
    assert read(path) == 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"hello" * 1000, "not a SQLite database"),
        (MAGIC + b"\xff" * 1000, "not a SQLite database"),
        *((MAGIC[:n], "not a SQLite database") for n in (1, 15, 16)),
        (MAGIC + b"\x10\x00\x02\x02", "not a SQLite database"),
        (b"", "no such table: query_times; the schema must be HAK/GAL's"),
    ],
    ids=["text", "header", "1-byte", "15-bytes", "16-bytes", "20-bytes", "empty"],
)
def test_other_content_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (path := tmp_path / "x.db").write_bytes(content)
    assert reason in refusal(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("size", [100, 512, 4096, 8192, 12288], ids=str)
def test_truncated_file_is_refused(path: Path, size: int) -> None:
    os.truncate(path, size)
    assert "the file is damaged" in refusal(path)


@pytest.mark.parametrize(
    ("create", "reason"),
    [
        (Path.mkdir, "it is not a regular file"),
        (os.mkfifo, "it is not a regular file"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.symlink_to("nowhere"), "does not exist (yet)"),
        (lambda path: None, "does not exist (yet)"),
    ],
    ids=["directory", "fifo", "loop", "dangling", "missing"],
)
def test_what_is_no_file_is_refused(
    tmp_path: Path, create: Callable[[Path], None], reason: str
) -> None:
    create(path := tmp_path / "x.db")
    message = refusal(path)
    assert reason in message
    assert f"cannot read the performance database {path}: " in message


@pytest.mark.parametrize("versions", [b"\1\2", b"\2\1"], ids=["read", "write"])
@pytest.mark.parametrize("journal_mode", JOURNAL_MODES)
def test_header_that_says_two_things_leaves_no_trace(
    tmp_path: Path, journal_mode: str, versions: bytes
) -> None:
    """A flipped bit: one version is that of a log, the other of a rollback journal."""
    path = make(tmp_path, journal_mode)
    content = path.read_bytes()
    path.write_bytes(content[:18] + versions + content[20:])
    before = traces(tmp_path)
    assert read(path) == 3
    assert traces(tmp_path) == before


def test_damaged_name_in_the_schema_is_refused(tmp_path: Path) -> None:
    """SQLite's message quotes it, and Python cannot read that message."""
    path = make(tmp_path, "delete")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute(
            "UPDATE sqlite_schema SET name = CAST(x'f2' AS TEXT), sql = 'CREATE x'"
            " WHERE name = 'cache_events'"
        )
    assert "the file is damaged" in refusal(path)


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_pipe_beside_the_file_is_never_opened(wal_path: Path, suffix: str) -> None:
    """To open it would wait for ever for somebody who writes."""
    for side in ("-wal", "-shm"):
        sibling(wal_path, side).unlink(missing_ok=True)
    os.mkfifo(sibling(wal_path, suffix))
    assert f"its {suffix} is not a regular file" in refusal(wal_path)


def test_missing_folder_is_not_made(tmp_path: Path) -> None:
    assert "does not exist (yet)" in refusal(tmp_path / "folder" / "x.db")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_unreadable_file_is_refused_with_a_reason(
    open_folder: Path, suffix: str
) -> None:
    path = make(open_folder, "wal")
    with App(path) as app:
        app.run(INSERT)
        sibling(path, suffix).chmod(0)
        with other_user():
            assert "permission" in refusal(path)


def test_unreachable_folder_is_refused_with_a_reason(open_folder: Path) -> None:
    path = make(open_folder, "wal")
    open_folder.chmod(0)
    try:
        with other_user():
            assert "Permission denied; check the path's permissions" in refusal(path)
    finally:
        open_folder.chmod(0o755)


@pytest.mark.parametrize(
    "name",
    [
        "a b.db",
        "a#b.db",
        "a?mode=rwc.db",
        "a%20b.db",
        "ä öü€.db",
        "a&b;'\".db",
        "-a.db",
    ],
)
def test_any_name_is_taken_as_it_is(path: Path, name: str) -> None:
    strange = path.rename(path.with_name(name))
    assert read(strange) == 3
    with App(strange) as app:
        app.run(INSERT)
        assert read(strange) == 4
    assert name in refusal(strange.rename(strange.with_name("moved")).with_name(name))


def test_relative_path_does_not_move_with_the_process(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    database = Database("performance", Path(path.name))
    monkeypatch.chdir("/")
    assert database.look().path == str(path)


def test_deadline_stops_an_endless_query(path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(DatabaseError, match="the scrape's time was up"):
        read(path, ENDLESS, seconds=0.2)
    assert 0.2 <= time.monotonic() - started < 2


def test_deadline_in_the_past_reads_nothing_long(path: Path) -> None:
    with pytest.raises(DatabaseError, match="the scrape's time was up"):
        read(path, ENDLESS, seconds=-1)


@pytest.mark.parametrize(
    "sql",
    ["DELETE FROM query_times", "CREATE TABLE x (y)", "PRAGMA user_version = 7"],
    ids=["delete", "create", "pragma"],
)
@pytest.mark.parametrize("is_open", [True, False], ids=["open", "closed"])
def test_nothing_can_be_written(path: Path, sql: str, is_open: bool) -> None:
    with App(path) as app:
        app.run(COUNT)
        if not is_open:
            app.close()
        with pytest.raises(DatabaseError, match="readonly"):
            read(path, sql)
    assert read(path) == 3


def test_text_that_is_no_utf_8_can_be_read(path: Path) -> None:
    assert read(path, "SELECT CAST(x'41ff42' AS TEXT)") == "A\ufffdB"


def test_missing_table_and_column_are_named(path: Path) -> None:
    with pytest.raises(DatabaseError, match="no such table: absent; the schema"):
        read(path, "SELECT 1 FROM absent")
    with pytest.raises(DatabaseError, match="no such column: absent; the schema"):
        read(path, "SELECT absent FROM query_times")


def test_result_is_thrown_away_if_the_file_changes_meanwhile(wal_path: Path) -> None:
    counts: list[int] = []

    def work(db: sqlite3.Connection, look: Look) -> int:
        counts.append(db.execute(COUNT).fetchone()[0])
        if len(counts) == 1:
            with App(wal_path) as app:
                app.run(INSERT)
        return counts[-1]

    assert read(wal_path, work=work) == 4
    assert counts == [3, 4]


def test_file_that_changes_all_the_time_is_given_up(wal_path: Path) -> None:
    def work(db: sqlite3.Connection, look: Look) -> None:
        with App(wal_path) as app:
            app.run(INSERT)

    with pytest.raises(DatabaseError, match="it was changed while it was read"):
        read(wal_path, seconds=1, work=work)


def test_error_in_a_file_that_changes_is_not_taken_for_damage(wal_path: Path) -> None:
    done: list[int] = []

    def work(db: sqlite3.Connection, look: Look) -> str:
        if not done:
            done.append(1)
            os.utime(wal_path)
            raise sqlite3.DatabaseError("torn")
        return "whole"

    assert read(wal_path, work=work) == "whole"


def test_connection_does_not_outlive_the_read(path: Path) -> None:
    kept: list[sqlite3.Connection] = []
    read(path, work=lambda db, look: kept.append(db))
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        kept[0].execute(COUNT)


def test_version_changes_at_each_commit_and_only_then(path: Path) -> None:
    with App(path) as app:
        app.run(COUNT)
        versions = [look(path).version]
        for _ in range(5):
            app.run(INSERT)
            versions.append(look(path).version)
            read(path)
            app.run(COUNT)
            assert look(path).version == versions[-1]
    assert len(set(versions)) == 6


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE query_times SET query_time = 1 WHERE id = 2",
        "DELETE FROM query_times WHERE id = 1",
        "VACUUM",
        "DROP TABLE cache_events",
        "PRAGMA user_version = 7",
    ],
)
def test_version_changes_with_any_write(path: Path, sql: str) -> None:
    with App(path) as app:
        app.run(INSERT)
        before = look(path).version
        app.run(sql)
        assert look(path).version != before


def test_version_changes_while_the_log_is_used_again(wal_path: Path) -> None:
    with App(wal_path) as app:
        versions = set()
        for _ in range(20):
            app.run(INSERT)
            app.run("PRAGMA wal_checkpoint(RESTART)")
            versions.add(look(wal_path).version)
    assert len(versions) == 20


def test_version_changes_with_the_file(path: Path) -> None:
    before = look(path).version
    path.with_name("copy").write_bytes(path.read_bytes())
    path.with_name("copy").replace(path)
    assert look(path).version != before


@pytest.mark.parametrize("commits", [0, 1, 7, 40], ids=str)
def test_wal_figures_are_what_a_checkpoint_says(wal_path: Path, commits: int) -> None:
    with App(wal_path) as app:
        app.run(COUNT)
        for _ in range(commits):
            app.run(INSERT)
        unsaved = look(wal_path).wal
        ((_, frames, checkpointed),) = app.run("PRAGMA wal_checkpoint(PASSIVE)")
        size = sibling(wal_path, "-wal").stat().st_size
        assert unsaved == WalIndex(size, frames, 0)
        assert look(wal_path).wal == WalIndex(size, frames, checkpointed)


def test_wal_figures_show_a_starved_checkpoint(wal_path: Path) -> None:
    with App(wal_path) as app, App(wal_path) as reader:
        app.run(INSERT)
        reader.run("BEGIN")
        reader.run(COUNT)
        app.run(INSERT)
        ((_, frames, checkpointed),) = app.run("PRAGMA wal_checkpoint(PASSIVE)")
        assert 0 < checkpointed < frames
        wal = look(wal_path).wal
        assert (wal.frames, wal.checkpointed) == (frames, checkpointed)


def test_wal_figures_begin_anew_with_the_log(wal_path: Path) -> None:
    with App(wal_path) as app:
        for _ in range(5):
            app.run(INSERT)
        app.run("PRAGMA wal_checkpoint(RESTART)")
        app.run(INSERT)
        ((_, frames, checkpointed),) = app.run("PRAGMA wal_checkpoint(PASSIVE)")
        wal = look(wal_path).wal
        assert (wal.frames, wal.checkpointed) == (frames, checkpointed)
        assert wal.size_bytes > 4152 * frames  # the file keeps its size


def test_wal_figures_of_a_closed_file_are_zero(path: Path) -> None:
    assert look(path).wal == WalIndex(0, 0, 0)


@pytest.mark.parametrize("position", [0, 12, 16, 47, 48, 95], ids=str)
def test_wal_figures_of_a_torn_index_are_unknown(wal_path: Path, position: int) -> None:
    copy = copy_in_use(wal_path)
    index = bytearray(sibling(copy, "-shm").read_bytes())
    index[position] ^= 0xFF
    sibling(copy, "-shm").write_bytes(index)
    wal = look(copy).wal
    assert wal.size_bytes > 0
    assert (wal.frames, wal.checkpointed) == (None, None)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ENOMEM])
def test_refused_system_call_is_explained(path: Path, number: int) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(DatabaseError, match=os.strerror(number)):
        read(path, work=fail)


def test_refused_system_call_makes_nothing_unchanged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    database = Database("test", path)
    with App(path) as app:
        app.run(INSERT)
        version = look(path).version
        monkeypatch.setattr(Database, "_shared_lock", fail)
        assert database.unchanged(version) is None


class Torn(sqlite3.OperationalError):
    """What SQLite says of an index that was looked at while it was written."""

    sqlite_errorname = "SQLITE_READONLY_RECOVERY"


def test_index_that_is_just_being_written_is_read_again(wal_path: Path) -> None:
    seen: list[int] = []

    def work(db: sqlite3.Connection, look: Look) -> int:
        seen.append(1)
        if len(seen) < 3:
            raise Torn("attempt to write a readonly database")
        return len(seen)

    database = Database("performance", wal_path)
    assert database.read(work, time.monotonic() + 5.0) == 3


def test_index_that_stays_damaged_is_told_of(wal_path: Path) -> None:
    def work(db: sqlite3.Connection, look: Look) -> int:
        raise Torn("attempt to write a readonly database")

    database = Database("performance", wal_path)
    with pytest.raises(DatabaseError, match="the index of its log is damaged; start"):
        database.read(work, time.monotonic() + 5.0)
