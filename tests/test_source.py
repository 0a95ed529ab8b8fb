"""One database: what is read in a scrape, what after it, what a failure costs."""

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from sqlite3 import Connection

import pytest

from exporter import source
from exporter.collectors import TABLE_COLLECTORS, Storage
from exporter.config import Config
from exporter.count import INLINE_IDS
from exporter.database import Database, Look
from exporter.errors import DatabaseError
from exporter.source import Pass, Source
from exporter.tail import SLICE_ROWS, State, Tail
from tests.databases import JOURNAL_MODES, App, Files
from tests.servers import wait_until

SECONDS = 30.0
BOTH = {"performance": ("queries", "cache"), "knowledge_base": ("facts", "audit")}
MANY = (
    "INSERT INTO query_times (query_time) WITH RECURSIVE n(i) AS"
    " (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?) SELECT 0.05 FROM n"
)


@pytest.fixture(params=JOURNAL_MODES)
def files(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Files]:
    with Files(tmp_path, request.param) as files:
        yield files


@pytest.fixture
def config(files: Files) -> Config:
    return config_of(files)


def config_of(files: Files) -> Config:
    return Config(
        knowledge_base=files.knowledge_base.path,
        performance=files.performance.path,
        state_file=None,
        listen_addresses=(),
        telemetry_path="/metrics",
        web_config_file=None,
        max_requests=0,
        collectors=frozenset(TABLE_COLLECTORS),
        query_buckets=(0.1, 1.0),
        label_limit=100,
        log_level="info",
        log_format="logfmt",
    )


@contextmanager
def paused(reader: "Reader") -> Iterator[None]:
    """Let calls pile up, so that nothing is done between them."""
    end = threading.Event()
    reader.source._worker.submit(lambda: end.wait(SECONDS))
    try:
        yield
    finally:
        end.set()


class Reader:
    """A source of both tables of one database, and what it is asked."""

    def __init__(
        self,
        config: Config,
        database: str = "performance",
        reason: str = "state_missing",
    ) -> None:
        self.names = BOTH[database]
        collectors = {name: TABLE_COLLECTORS[name](config) for name in self.names}
        tables = [collector.table for collector in collectors.values()]
        states = {table.name: Tail(table).start(reason) for table in tables}
        path: Path = getattr(config, database)
        self.source = Source(Database(database, path), collectors, Storage(), states)

    def scrape(self, *names: str, seconds: float = SECONDS) -> Pass:
        """Return what a scrape of these collectors finds, of all if none is named."""
        wanted = names or (*self.names, "storage")
        return self.ask(wanted, seconds).result(SECONDS)

    def ask(self, names: tuple[str, ...], seconds: float) -> Future[Pass]:
        return self.source.request(names, time.monotonic() + seconds)

    def rows(self, table: str) -> int:
        """Return how many rows of a table have been read."""
        return self.state(table).rows

    def state(self, table: str) -> State:
        return self.source.states[table]

    def catch_up(self, table: str, rows: int) -> None:
        """Wait until so many rows have been read, without asking."""
        wait_until(lambda: self.rows(table) >= rows, SECONDS)


@pytest.fixture
def reader(config: Config) -> Reader:
    return Reader(config)


def backlog(found: Pass, name: str) -> int:
    reading = found.readings[name].result
    assert reading
    return reading.backlog


def error(found: Pass, name: str) -> str:
    """Return why a collector failed; it must be an error that says what to do."""
    failure = found.readings[name].error
    assert isinstance(failure, DatabaseError)
    return str(failure)


def test_table_that_never_ends_costs_only_itself(files: Files, reader: Reader) -> None:
    files.add_cache()
    files.performance.run("DROP TABLE query_times")
    files.performance.run(
        "CREATE TABLE query_times (id INTEGER PRIMARY KEY, timestamp, query_type,"
        " success, query_time AS (length(hex(zeroblob(100000 + id))) * 0.0))"
    )
    files.performance.run(
        "INSERT INTO query_times (success) WITH RECURSIVE n(i) AS"
        " (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000) SELECT 1 FROM n"
    )
    found = reader.scrape(seconds=0.5)
    assert "the scrape's time was up" in error(found, "queries")
    assert reader.rows("cache_events") == 1
    assert found.storage
    assert found.storage.error is None


def test_scrape_reads_what_is_new(files: Files, reader: Reader) -> None:
    for number in (1, 2, 3):
        files.add_query()
        files.add_cache()
        found = reader.scrape()
        assert {name: o.error for name, o in found.readings.items()} == {
            "queries": None,
            "cache": None,
        }
        assert (reader.rows("query_times"), reader.rows("cache_events")) == (
            number,
        ) * 2


def test_only_what_is_asked_for_is_read(files: Files, reader: Reader) -> None:
    files.add_query()
    files.add_cache()
    found = reader.scrape("cache")
    assert list(found.readings) == ["cache"]
    assert found.storage is None
    assert (reader.rows("query_times"), reader.rows("cache_events")) == (0, 1)


def test_storage_is_measured_in_the_same_look(files: Files, reader: Reader) -> None:
    outcome = reader.scrape("storage").storage
    assert outcome
    assert outcome.result
    assert outcome.result.size_bytes == files.performance.path.stat().st_size


def test_serves_the_collectors_of_its_database(reader: Reader) -> None:
    assert reader.source.serves(frozenset({"queries"}))
    assert reader.source.serves(frozenset({"storage", "facts"}))
    assert not reader.source.serves(frozenset({"facts", "audit", "system"}))


def test_backlog_is_caught_up_between_scrapes(files: Files, reader: Reader) -> None:
    files.performance.run(MANY, 12 * SLICE_ROWS)
    found = reader.scrape()
    assert backlog(found, "queries") == 11 * SLICE_ROWS
    reader.catch_up("query_times", 12 * SLICE_ROWS)
    assert backlog(reader.scrape(), "queries") == 0
    assert reader.state("query_times").complete


def test_scrape_is_answered_while_a_backlog_is_caught_up(
    files: Files, reader: Reader
) -> None:
    files.performance.run(MANY, 20 * SLICE_ROWS)
    rounds = 0
    while backlog(reader.scrape(), "queries"):
        rounds += 1
    assert rounds > 1
    assert reader.rows("query_times") == 20 * SLICE_ROWS


def test_scrape_spends_but_a_share_of_its_time_on_a_backlog(
    files: Files, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "FOLD_SHARE", 0.0)
    files.add_query()
    reader.scrape()
    files.performance.run(MANY, 5 * SLICE_ROWS)
    found = reader.scrape()
    assert backlog(found, "queries") == 4 * SLICE_ROWS
    assert found.readings["cache"].error is None
    assert found.storage
    assert found.storage.error is None


def test_both_tables_are_caught_up(files: Files, reader: Reader) -> None:
    files.performance.run(MANY, 3 * SLICE_ROWS)
    files.performance.run("INSERT INTO cache_events (hit) SELECT 1 FROM query_times")
    reader.scrape()
    reader.catch_up("query_times", 3 * SLICE_ROWS)
    reader.catch_up("cache_events", 3 * SLICE_ROWS)


@pytest.mark.parametrize("rows", [0, 1], ids=["empty", "rows"])
def test_table_that_is_gone_costs_its_own_collector_only(
    files: Files, reader: Reader, rows: int
) -> None:
    for _ in range(rows):
        files.add_query()
    reader.scrape()
    files.add_cache()
    files.performance.run("DROP TABLE query_times")
    found = reader.scrape()
    assert "table query_times is gone; it was there before" in error(found, "queries")
    assert found.readings["cache"].error is None
    assert found.storage
    assert found.storage.error is None
    assert reader.rows("cache_events") == 1


def test_table_that_was_never_there_is_no_failure(files: Files, reader: Reader) -> None:
    files.performance.run("DROP TABLE query_times")
    files.add_cache()
    for _ in range(2):
        found = reader.scrape()
        assert [outcome.error for outcome in found.readings.values()] == [None, None]
        assert found.readings["queries"].result is None
        assert reader.source.not_ready() is None
    assert reader.rows("cache_events") == 1


def test_table_that_comes_back_is_read(files: Files, reader: Reader) -> None:
    reader.scrape()
    files.performance.run("ALTER TABLE query_times RENAME TO away")
    assert reader.scrape().readings["queries"].error
    files.performance.run("ALTER TABLE away RENAME TO query_times")
    files.add_query()
    assert reader.scrape().readings["queries"].error is None
    assert reader.rows("query_times") == 1


@pytest.mark.parametrize(
    ("ddl", "what"),
    [
        ("VIEW query_times AS SELECT * FROM away", "it is a view"),
        ("VIRTUAL TABLE query_times USING fts5(id)", "it is a virtual table"),
        (
            "TABLE query_times (id INTEGER PRIMARY KEY, query_time, query_type,"
            " success) WITHOUT ROWID",
            "it is a WITHOUT ROWID table",
        ),
    ],
    ids=["view", "virtual", "without-rowid"],
)
def test_what_is_no_table_is_refused(
    files: Files, reader: Reader, ddl: str, what: str
) -> None:
    files.performance.run("ALTER TABLE query_times RENAME TO away")
    files.performance.run(f"CREATE {ddl}")
    files.add_cache()
    found = reader.scrape()
    assert what in error(found, "queries")
    assert found.readings["cache"].error is None
    assert reader.source.not_ready() is None


def test_broken_table_does_not_stop_another_from_catching_up(
    files: Files, reader: Reader
) -> None:
    """The table that broke has a backlog, which cannot be caught up any more."""
    files.performance.run(MANY, 2 * SLICE_ROWS)
    files.performance.run("INSERT INTO cache_events (hit) SELECT 1 FROM query_times")
    with paused(reader):
        first = reader.ask((*reader.names,), SECONDS)
        broken = reader.source._worker.submit(lambda: drop(files.performance.path))
    first.result(SECONDS)
    broken.result(SECONDS)
    reader.catch_up("cache_events", 2 * SLICE_ROWS)


def drop(path: Path) -> None:
    with App(path) as app:
        app.run("DROP TABLE query_times")


def test_error_that_is_none_of_the_database_is_isolated_too(
    files: Files, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(reader.source.collectors["queries"], "count", fail)
    found = reader.scrape()
    assert isinstance(found.readings["queries"].error, ValueError)
    assert found.readings["cache"].error is None


def test_missing_database_fails_as_a_whole_until_it_appears(
    files: Files, reader: Reader
) -> None:
    files.close()
    away = files.performance.path.rename(files.performance.path.with_name("away"))
    with pytest.raises(DatabaseError, match=r"does not exist \(yet\)"):
        reader.scrape()
    away.rename(files.performance.path)
    files.open()
    files.add_query()
    assert reader.scrape().readings["queries"].error is None
    assert reader.rows("query_times") == 1


def test_locked_database_fails_and_recovers(tmp_path: Path) -> None:
    with Files(tmp_path, "delete") as files:
        files.add_query()
    reader = Reader(config_of(files))
    with App(files.performance.path) as app:
        app.run("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseError, match="another connection has it locked"):
            reader.scrape(seconds=1.0)
        assert "has not been read yet" in (reader.source.not_ready() or "")
        app.run("ROLLBACK")
    assert reader.scrape().readings["queries"].error is None
    assert reader.source.not_ready() is None


def test_lock_in_the_midst_of_catching_up_loses_nothing(tmp_path: Path) -> None:
    with Files(tmp_path, "delete") as files:
        files.performance.run(MANY, 3 * SLICE_ROWS)
    reader = Reader(config_of(files))
    with App(files.performance.path) as app:
        with paused(reader):
            first = reader.ask(reader.names, SECONDS)
            lock = reader.source._worker.submit(lambda: app.run("BEGIN EXCLUSIVE"))
        assert backlog(first.result(SECONDS), "queries")
        lock.result(SECONDS)
        assert reader.rows("query_times") == SLICE_ROWS
    while backlog(reader.scrape(), "queries"):
        pass
    assert reader.rows("query_times") == 3 * SLICE_ROWS


def test_time_that_is_up_is_said_and_loses_nothing(
    files: Files, reader: Reader
) -> None:
    files.performance.run(MANY, SLICE_ROWS)
    found = reader.source.request(reader.names, 0.0).result(SECONDS)
    assert "time was up" in error(found, "queries")
    assert reader.rows("query_times") == 0
    reader.scrape()
    assert reader.rows("query_times") == SLICE_ROWS


@pytest.mark.parametrize("database", BOTH)
def test_not_ready_until_every_table_was_read_to_its_end(
    config: Config, database: str
) -> None:
    reader = Reader(config, database)
    assert reader.source.not_ready() in {
        "table query_times has not been read yet",
        "table cache_events has not been read yet",
        "table facts has not been read yet",
        "table audit_log has not been read yet",
    }
    reader.scrape(reader.names[0])
    assert "has not been read yet" in (reader.source.not_ready() or "")
    reader.scrape(reader.names[1])
    assert reader.source.not_ready() is None


def test_not_ready_while_a_backlog_is_first_read(files: Files, reader: Reader) -> None:
    files.performance.run(MANY, 2 * SLICE_ROWS)
    with paused(reader):
        first = reader.ask((*reader.names,), SECONDS)
        reason = reader.source._worker.submit(reader.source.not_ready)
    first.result(SECONDS)
    is_read = f"table query_times is being read: {SLICE_ROWS} rows to go"
    assert reason.result(SECONDS) == is_read
    wait_until(lambda: reader.source.not_ready() is None, SECONDS)


def test_once_ready_stays_ready(files: Files, reader: Reader) -> None:
    reader.scrape()
    files.performance.run("DROP TABLE query_times")
    reader.scrape()
    assert reader.source.not_ready() is None


def test_large_table_of_facts_is_counted_between_scrapes(
    files: Files, config: Config
) -> None:
    files.add_fact()
    files.add_fact(id=INLINE_IDS + 1)
    reader = Reader(config, "knowledge_base")
    reader.scrape()
    rows = wait_until(lambda: number_of_facts(reader), SECONDS)
    assert rows == 2
    files.add_fact()
    assert number_of_facts(reader) == 3


def number_of_facts(reader: Reader) -> int | None:
    reading = reader.scrape().readings["facts"].result
    assert reading
    return reading.rows


def test_file_that_did_not_change_is_not_read_again(
    files: Files, reader: Reader
) -> None:
    files.add_query()
    first = reader.scrape().readings["queries"].result
    again = reader.scrape().readings["queries"].result
    assert first
    assert again
    assert again.state is first.state


@pytest.mark.parametrize(
    ("reason", "level"),
    [("state_missing", logging.INFO), ("state_damaged", logging.WARNING)],
)
def test_counting_anew_is_logged_once(
    files: Files,
    config: Config,
    caplog: pytest.LogCaptureFixture,
    reason: str,
    level: int,
) -> None:
    caplog.set_level(logging.INFO)
    files.add_query()
    reader = Reader(config, reason=reason)
    for _ in range(3):
        reader.scrape("queries")
    (record,) = logged(caplog, "counting anew")
    assert record.levelno == level
    assert vars(record)["fields"]["reason"] == reason
    assert vars(record)["fields"]["table"] == "query_times"


def test_missed_rows_are_logged_once(
    files: Files, reader: Reader, caplog: pytest.LogCaptureFixture
) -> None:
    files.add_query()
    reader.scrape()
    for _ in range(3):
        files.add_query()
    files.performance.prune("query_times", keep=1)
    for _ in range(3):
        reader.scrape()
    (record,) = logged(caplog, "rows pruned before they were read")
    assert vars(record)["fields"] == {"table": "query_times", "rows": 2}


def logged(caplog: pytest.LogCaptureFixture, message: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.message == message]


def connections_opened(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> list[Look]:
    """Return the list to which every connection adds its look from now on."""
    opened: list[Look] = []
    connect = reader.source.database.connection

    def noted(look: Look, deadline: float) -> AbstractContextManager[Connection]:
        opened.append(look)
        return connect(look, deadline)

    monkeypatch.setattr(reader.source.database, "connection", noted)
    return opened


def test_file_that_did_not_change_is_not_opened_again(
    reader: Reader, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.add_query()
    files.add_cache(1)
    first = reader.scrape()
    opened = connections_opened(reader, monkeypatch)
    again = reader.scrape()
    assert opened == []
    assert again.readings.keys() == first.readings.keys()
    assert [o.result for o in again.readings.values()] == [
        o.result for o in first.readings.values()
    ]
    assert again.storage
    assert first.storage
    assert again.storage.result == first.storage.result
    files.add_query()
    reader.scrape()
    assert len(opened) == 1
    assert reader.rows("query_times") == 2


def test_part_of_a_file_that_did_not_change_is_not_read_again(
    reader: Reader, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader.scrape()
    opened = connections_opened(reader, monkeypatch)
    part = reader.scrape("queries")
    assert (opened, list(part.readings), part.storage) == ([], ["queries"], None)


def test_unchanged_file_that_somebody_locks_is_not_readable(tmp_path: Path) -> None:
    with Files(tmp_path, "delete") as files:
        reader = Reader(config_of(files))
        reader.scrape()
        with App(files.performance.path) as app:
            app.run("BEGIN EXCLUSIVE")
            with pytest.raises(DatabaseError, match="locked"):
                reader.scrape(seconds=0.5)
            app.run("ROLLBACK")
            reader.scrape()


def test_unchanged_file_that_is_gone_is_not_readable(
    reader: Reader, files: Files
) -> None:
    reader.scrape()
    files.performance.path.unlink()
    with pytest.raises(DatabaseError, match="does not exist"):
        reader.scrape()


def test_failure_is_looked_at_again_though_nothing_changed(
    reader: Reader, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.add_query()
    reader.scrape()
    files.performance.run("DROP TABLE cache_events")
    for _ in range(2):
        assert "cache_events" in error(reader.scrape(), "cache")


def test_count_that_ends_shows_though_nothing_changed(
    config: Config, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(config, "knowledge_base")
    files.knowledge_base.insert("facts", id=INLINE_IDS + 1, statement="Is(Large).")

    def rows() -> int | None:
        reading = reader.scrape().readings["facts"].result
        assert reading
        return reading.rows

    reader.scrape()
    opened = connections_opened(reader, monkeypatch)
    wait_until(lambda: rows() == 1, SECONDS)
    assert len(opened) <= 1  # for the only slice
