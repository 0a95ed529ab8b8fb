"""On every schema that people have, the page says what SQL says, or nothing."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.databases import File
from tests.exporters import (
    Command,
    Page,
    fetch,
    file_flags,
    make_config,
    make_exporter,
    run,
    scrape,
    serving,
)
from tests.schemas import INSTALLATIONS, PUBLIC_PERFORMANCE, Application
from tests.test_golden import GOLDEN, keep_stable

SECONDS = "SELECT CAST(strftime('%s', MAX({})) AS REAL) FROM {}"
RESETS = "hakgal_exporter_resets_total"
CHANGES: dict[str, Callable[[Application], None]] = {
    "new facts": lambda app: app.add(5),
    "known facts": Application.add_known,
    "a fact after known ones": Application.add,
    "updates": Application.update_statement,
    "old facts deleted": Application.delete_old,
    "newest facts deleted": Application.delete_newest,
    "VACUUM": Application.vacuum,
    "hundreds of facts": lambda app: app.add(300),
}
GAPS = ("known facts", "old facts deleted", "newest facts deleted")
# Called an id, but no name of a row that VACUUM keeps.
NO_IDS = (
    "id INT PRIMARY KEY",
    "id INTEGER PRIMARY KEY DESC",
    "id INTEGER UNIQUE",
    "id INTEGER, PRIMARY KEY (id, statement)",
)
IMPOSTORS = {
    "view": "CREATE VIEW {} AS SELECT 1 AS id, 'now' AS timestamp",
    "virtual": "CREATE VIRTUAL TABLE {} USING fts5(statement)",
    "WITHOUT ROWID": "CREATE TABLE {} (statement TEXT PRIMARY KEY) WITHOUT ROWID",
}
COLLECTORS = {"knowledge_base": ["facts", "audit"], "performance": ["queries", "cache"]}


class Truth:
    """What SQL says of an installation.

    A row counts once it has been there at a scrape, so ``check`` reads the tables when
    the exporter just has. If ids are missing at its first start, no fact counts yet.
    """

    def __init__(self, app: Application) -> None:
        self._app, self._facts, self._audit = app, app.facts, app.audit
        self._added: dict[str, float | None] = {}
        self._operations: dict[str, str] = {}
        self._read()
        self._before = set(self._added) if self._misses_ids() else set()

    def check(self, page: Page, after: str = "the start") -> None:
        """Compare a page that was made just now."""
        self._read()
        truth = self._of_facts() | self._of_audit()
        samples = [line for line in page.text.splitlines() if line[0] != "#"]
        shown = {name: float(n) for name, n in (s.rsplit(" ", 1) for s in samples)}
        assert {name: shown.get(name) for name in truth} == truth, f"after {after}"
        assert page.failed == set()
        if not self._facts.has_id:
            assert about_facts(page) == {"hakgal_facts"}

    def _read(self) -> None:
        if self._facts.has_id:
            confidence = "confidence" if self._facts.has_confidence else "NULL"
            sql = f"SELECT source, {confidence} FROM {self._facts.table}"
            self._added |= dict(self._app.run(sql))
        if self._audit:
            sql = f"SELECT {self._audit.details}, {self._audit.label} FROM audit_log"
            self._operations |= dict(self._app.run(sql))

    def _misses_ids(self) -> bool:
        largest, table = "0", self._facts.table
        if self._facts.has_id:
            largest = f"SELECT MAX(id) FROM {table}"
        if self._facts.autoincrement:
            largest = f"SELECT seq FROM sqlite_sequence WHERE name = '{table}'"
        sql = f"SELECT COUNT(*) < ifnull(({largest}), 0) FROM {table}"
        return bool(self._app.value(sql))

    def _of_facts(self) -> dict[str, Any]:
        facts, value = self._facts, self._app.value
        newest = value(SECONDS.format(facts.time, facts.table)) if facts.time else None
        added = [n for row, n in self._added.items() if row not in self._before]
        sure = [n for n in added if n is not None]
        is_sure, zero = facts.has_confidence, 0 if facts.has_id else None
        truth = {
            "hakgal_facts": value(f"SELECT COUNT(*) FROM {facts.table}"),
            "hakgal_facts_last_added_timestamp_seconds": newest,
            'hakgal_last_event_timestamp_seconds{table="facts"}': newest,
            'hakgal_exporter_backlog_rows{table="facts"}': zero,
            'hakgal_exporter_missed_rows_total{table="facts"}': zero,
        }
        if facts.has_id:
            truth["hakgal_facts_added_total"] = len(added)
            truth["hakgal_fact_confidence_count"] = len(sure) if is_sure else None
            truth["hakgal_fact_confidence_sum"] = sum(sure) if is_sure else None
        if facts.has_id and is_sure:
            name = 'hakgal_exporter_rejected_rows_total{reason="null",table="facts"}'
            truth[name] = len(added) - len(sure)
        return truth

    def _of_audit(self) -> dict[str, Any]:
        if not self._audit:
            return {}
        rows = Counter(self._operations.values()).items()
        truth = {f'hakgal_audit_events_total{{operation="{o}"}}': n for o, n in rows}
        newest = self._app.value(SECONDS.format("timestamp", "audit_log"))
        truth['hakgal_last_event_timestamp_seconds{table="audit_log"}'] = newest
        truth['hakgal_exporter_missed_rows_total{table="audit_log"}'] = 0
        return truth


def labelled(page: Page, table: str) -> set[str]:
    """Return the names of all samples with this table as a label."""
    samples = [s for family in page.families.values() for s in family.samples]
    return {s.name for s in samples if s.labels.get("table") == table}


def about_facts(page: Page) -> set[str]:
    found = {name for name in page.names if name.startswith("hakgal_fact")}
    return found | labelled(page, "facts")


def only(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("app", names, indirect=True)


@pytest.fixture(params=INSTALLATIONS)
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Application]:
    """Fill a knowledge base; the other file is the public one, without our tables."""
    File(tmp_path / "hakgal_performance.db", PUBLIC_PERFORMANCE).close()
    with closing(Application(tmp_path, *INSTALLATIONS[request.param])) as app:
        app.add(20)
        yield app


def start(app: Application) -> Callable[[], Page]:
    """Start an exporter in this process; return what makes its next page."""
    return partial(scrape, make_exporter(make_config(app.path.parent)))


def test_every_value_is_what_sql_says(app: Application, command: Command) -> None:
    truth = Truth(app)
    command.start().wait_until_ready()
    truth.check(command.page())
    for name, change in CHANGES.items():
        change(app)
        truth.check(command.page(), name)
        truth.check(command.page(), "nothing")
    command.stop()
    for change in CHANGES.values():
        change(app)
    command.start().wait_until_ready()
    truth.check(command.page(), "all of it while stopped")
    command.kill()
    app.add(2)
    command.start().wait_until_ready()
    truth.check(command.page(), "a crash")


@pytest.mark.parametrize("restarts", [False, True], ids=["beside", "restart"])
@pytest.mark.parametrize("same_inode", [False, True], ids=["renamed", "overwritten"])
def test_rows_of_a_restored_copy_count_once(
    app: Application, same_inode: bool, restarts: bool
) -> None:
    truth, scrape_it = Truth(app), start(app)
    scrape_it()
    yesterday = app.backup()
    app.add(4)
    before = scrape_it()
    truth.check(before)
    if restarts:
        scrape_it = start(app)
    app.restore(yesterday, same_inode)
    app.add(2 * app.is_dated)  # else only a scrape tells new rows from lost ones
    page = scrape_it()
    truth.check(page, "the restore")
    app.add(6)
    truth.check(scrape_it(), "rows that came later")
    for table in {"facts", "audit_log"} if app.is_dated else ():
        was = before.sum(RESETS, table=table)
        assert page.sum(RESETS, table=table) > was or not labelled(before, table)


@pytest.mark.parametrize("gap", GAPS)
def test_first_start_with_gaps_counts_from_now(app: Application, gap: str) -> None:
    CHANGES[gap](app)
    truth, scrape_it = Truth(app), start(app)
    truth.check(scrape_it())
    app.add(3)
    app.add_known()
    truth.check(scrape_it(), "more facts")


@only("documented", "plain", "plain-without-times")
def test_audit_rows_deleted_unread_are_missed(app: Application) -> None:
    scrape_it = start(app)
    scrape_it()
    app.add(5)
    app.run("DELETE FROM audit_log WHERE id BETWEEN 22 AND 24")
    page = scrape_it()

    assert page("hakgal_exporter_missed_rows_total", table="audit_log") == 3
    assert page.sum("hakgal_audit_events_total") == 22


@only("documented")
@pytest.mark.parametrize("key", NO_IDS)
def test_what_is_only_called_id_is_none(app: Application, key: str) -> None:
    app.run("DROP TABLE IF EXISTS facts")
    app.run(f"CREATE TABLE facts (statement TEXT, confidence REAL, {key})")
    app.run("INSERT INTO facts (id, statement) VALUES (7, 'Is(Id, Seven).')")
    page = start(app)()

    shown = about_facts(page), page("hakgal_facts"), page.failed
    assert shown == ({"hakgal_facts"}, 1, set())


@only("extended-alone")
@pytest.mark.parametrize("sql", ["AS SELECT * FROM {}", "AS SELECT * FROM gone"])
def test_view_beside_the_table_is_no_obstacle(app: Application, sql: str) -> None:
    app.run(f"CREATE VIEW facts {sql.format(app.facts.table)}")
    page = start(app)()

    assert page.failed == set()
    assert page("hakgal_facts") == app.value(f"SELECT COUNT(*) FROM {app.facts.table}")


@only("content-addressed")
def test_tables_that_were_never_there_are_no_failure(app: Application) -> None:
    app.run("DROP TABLE facts")
    page = start(app)()

    assert page.failed == set()
    for table in ("facts", "audit_log", "query_times", "cache_events"):
        assert labelled(page, table) == set()
    assert not [n for n in page.names if re.match("hakgal_(fact|audit|query|cache)", n)]


@only("documented", "plain-without-times", "extended-alone")
def test_tables_that_come_later_count_from_the_first_row(app: Application) -> None:
    scrape_it = start(app)
    for table in (app.facts.table, "audit_log"):
        app.run(f"DROP TABLE {table}")
    scrape_it()
    app.db.executescript(app.schema)
    truth = Truth(app)
    app.add(3)
    truth.check(scrape_it(), "the tables came")


@only("documented", "content-addressed", "plain", "extended-alone")
def test_table_that_is_gone_fails_its_collector(app: Application) -> None:
    scrape_it = start(app)
    scrape_it()
    for table in (app.facts.table, "audit_log"):
        app.run(f"DROP TABLE IF EXISTS {table}")
    page = scrape_it()

    assert page.failed == ({"facts", "audit"} if app.audit else {"facts"})
    assert not {"hakgal_facts", "hakgal_audit_events"} & page.names
    assert page("hakgal_up", database="knowledge_base") == 1


@only("documented", "content-addressed", "extended-beside-empty", "extended-alone")
def test_table_without_facts_holds_none(app: Application) -> None:
    app.run(f"DELETE FROM {app.facts.table}")
    page = start(app)()

    assert page("hakgal_facts") == 0
    assert page("hakgal_facts_added_total") == (0 if app.facts.has_id else None)


@only("documented")
@pytest.mark.parametrize("kind", IMPOSTORS)
def test_what_is_no_table_fails(app: Application, command: Command, kind: str) -> None:
    for table in ("facts", "audit_log"):
        app.run(f"DROP TABLE {table}")
        app.run(IMPOSTORS[kind].format(table))
    command.start().wait_until_ready()
    page = command.page()

    assert page.failed == {"facts", "audit"}
    assert not {"hakgal_facts", "hakgal_audit_events"} & page.names
    for table in ("facts", "audit_log"):
        said = [line for line in command.output.splitlines() if table in line]
        assert [line for line in said if kind in line], said


@only("content-addressed")
@pytest.mark.parametrize("none", COLLECTORS)
def test_none_leaves_a_file_out(app: Application, command: Command, none: str) -> None:
    command.flags += (f"--database.{none.replace('_', '-')}=none",)
    command.start().wait_until_ready()
    page = command.page()
    ((other, collectors),) = (item for item in COLLECTORS.items() if item[0] != none)

    success = page.by("collector", "hakgal_exporter_collector_success")
    assert success == dict.fromkeys([*collectors, "storage", "system"], 1)
    assert page.by("database", "hakgal_up") == {other: 1}
    assert page.by("database", "hakgal_database_size_bytes").keys() == {other}
    assert page.by("database", "hakgal_system_disk_size_bytes").keys() == {other}


@only("documented", "content-addressed", "plain")
def test_what_cannot_be_told_is_said_once(app: Application, command: Command) -> None:
    command.start().wait_until_ready()
    for _ in range(3):
        app.add()
        command.page()
    lines = command.output.splitlines()
    absent = {"query_times"} if app.audit else {"query_times", "audit_log"}
    words = {"INTEGER PRIMARY KEY", "created_at", "confidence"} | absent
    said = Counter(word for line in lines for word in words if word in line)

    assert said == dict.fromkeys(absent | app.facts.lacks, 1)
    assert all("level=info" in line for line in lines)


def test_check_says_what_is_there_and_what_is_not(app: Application) -> None:
    app.add(197)
    words = {app.facts.table, "audit_log", "query_times", "cache_events"}
    words |= {app.facts.time or "statement", app.audit.label if app.audit else ""}
    if "331" in app.facts.beside:  # of rows; so it says how many each table has
        words |= {"217", "331"}
    done = run("check", *file_flags(app.path.parent), "--web.listen-address=:0")

    report = done.stdout.replace(str(app.path.parent), "")
    assert done.returncode == 0, report
    assert [word for word in words | app.facts.lacks if word not in report] == []


def test_page_is_golden(app: Application, request: pytest.FixtureRequest) -> None:
    with serving(make_exporter(make_config(app.path.parent))) as address:
        fetch(address)
        app.delete_old()
        app.add(3)
        target = "/metrics?collect[]=facts&collect[]=audit"
        page = keep_stable(fetch(address, target, Accept="text/plain").text)
    golden = GOLDEN / "schemas" / f"{request.node.callspec.params['app']}.txt"
    if request.config.getoption("--renew-golden"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(page)

    assert page == golden.read_text()
