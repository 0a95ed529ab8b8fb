"""On every schema that people have, the page says what SQL says, or nothing."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.contract.application import SCHEMAS, Application
from tests.databases import File
from tests.exporters import Command, Page, make_config, make_exporter, scrape

SECONDS = "SELECT CAST(strftime('%s', MAX({})) AS REAL) FROM {}"
RESETS = "hakgal_exporter_resets_total"
CHANGES: dict[str, Callable[[Application], None]] = {
    "new facts": lambda app: app.add(5),
    "known facts": Application.add_known,
    "a fact after known ones": Application.add,
    "updates": Application.update_statement,
    "old facts deleted": lambda app: app.delete("ASC"),
    "newest facts deleted": lambda app: app.delete("DESC"),
    "VACUUM": Application.vacuum,
    "hundreds of facts": lambda app: app.add(300),
}
COLLECTORS = {"knowledge_base": ["facts", "audit"], "performance": ["queries", "cache"]}


class Truth:
    """What SQL says of an installation.

    A row counts once it has been there at a scrape, so ``check`` reads the tables when
    the exporter just has.
    """

    def __init__(self, app: Application) -> None:
        self._app = app
        self._added: dict[str, float | None] = {}
        self._operations: dict[str, str] = {}

    def check(self, page: Page, after: str = "the start") -> None:
        """Compare a page that was made just now."""
        self._read()
        truth = self._of_facts() | self._of_audit()
        samples = [line for line in page.text.splitlines() if line[0] != "#"]
        shown = {name: float(n) for name, n in (s.rsplit(" ", 1) for s in samples)}
        assert {name: shown.get(name) for name in truth} == truth, f"after {after}"
        assert page.failed == set()
        if not self._app.has_id:
            about = [n for n in shown if n.startswith("hakgal_fact") or '"facts"' in n]
            assert [n for n in about if "collector=" not in n] == ["hakgal_facts"]

    def _read(self) -> None:
        app = self._app
        if app.has_id:
            confidence = "confidence" if app.has_confidence else "NULL"
            self._added |= dict(
                app.run(f"SELECT source, {confidence} FROM {app.table}")
            )
        if app.operation:
            sql = f"SELECT details, {app.operation} FROM audit_log"
            self._operations |= dict(app.run(sql))

    def _of_facts(self) -> dict[str, Any]:
        app, zero = self._app, 0 if self._app.has_id else None
        newest = app.value(SECONDS.format(app.time, app.table)) if app.time else None
        truth = {
            "hakgal_facts": app.value(f"SELECT COUNT(*) FROM {app.table}"),
            "hakgal_facts_last_added_timestamp_seconds": newest,
            'hakgal_last_event_timestamp_seconds{table="facts"}': newest,
            'hakgal_exporter_backlog_rows{table="facts"}': zero,
            'hakgal_exporter_missed_rows_total{table="facts"}': zero,
        }
        added = self._added.values()
        sure = [n for n in added if n is not None]
        is_sure = app.has_confidence
        if app.has_id:
            truth["hakgal_facts_added_total"] = len(added)
            truth["hakgal_fact_confidence_count"] = len(sure) if is_sure else None
            truth["hakgal_fact_confidence_sum"] = sum(sure) if is_sure else None
        return truth

    def _of_audit(self) -> dict[str, Any]:
        if not self._app.operation:
            return {}
        rows = Counter(self._operations.values()).items()
        truth = {f'hakgal_audit_events_total{{operation="{o}"}}': n for o, n in rows}
        newest = self._app.value(SECONDS.format("timestamp", "audit_log"))
        truth['hakgal_last_event_timestamp_seconds{table="audit_log"}'] = newest
        truth['hakgal_exporter_missed_rows_total{table="audit_log"}'] = 0
        return truth


@pytest.fixture(params=SCHEMAS)
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Application]:
    """Fill a knowledge base; the other file has no table of ours, as the public."""
    other = tmp_path / "hakgal_performance.db"
    File(other, "CREATE TABLE IF NOT EXISTS tools (name TEXT)").close()
    with closing(Application(tmp_path, request.param)) as app:
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


@pytest.mark.parametrize("place", ["beside", "over, and a restart"])
def test_rows_of_a_restored_copy_count_once(app: Application, place: str) -> None:
    truth, scrape_it = Truth(app), start(app)
    scrape_it()
    yesterday = app.backup()
    app.add(4)
    before = scrape_it()
    truth.check(before)
    if place != "beside":
        scrape_it = start(app)
    app.restore(yesterday, same_inode=place != "beside")
    app.add(2 * app.is_dated)  # else only a scrape tells new rows from lost ones
    page = scrape_it()
    truth.check(page, "the restore")
    app.add(6)
    truth.check(scrape_it(), "rows that came later")
    followed = before.by("table", "hakgal_exporter_missed_rows_total")
    for table in followed.keys() if app.is_dated else ():
        assert page.sum(RESETS, table=table) > before.sum(RESETS, table=table)


@pytest.mark.parametrize("app", ["content-addressed"], indirect=True)
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
