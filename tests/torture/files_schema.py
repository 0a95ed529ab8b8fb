"""Tables changed under the exporter, and rows too many or too long for comfort."""

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from tests.exporters import read_state
from tests.faults.store import Store
from tests.torture.files_scene import Scene, failed
from tests.torture.report import Effort, Fault, Found

LAST_ID = 2**63 - 1
MOST_ROWS = 40
MEGABYTE = 1 << 20
LONG_ROWS = 100  # a slice that takes longer than a scrape may is never read: a limit
DISTINCT_ROWS = 1_000_000
# SQLite's sorter holds some of the texts, 230 MB at 100 MB a table and at 400 MB.
MOST_MEMORY = 320 * MEGABYTE
MOST_PAGE_SAMPLES = 2_000
CATCH_UP_SECONDS = 120.0


@dataclass(frozen=True)
class Change:
    """Statements that change a table, and take it back; whether its collector fails.

    ``writable`` if HAK/GAL could go on to write meanwhile. ``lacks`` if what is counted
    cannot be had meanwhile: it is absent, and goes on when the table is back.
    """

    name: str
    does: tuple[str, ...]
    undoes: tuple[str, ...]
    fails: bool
    writable: bool = False
    lacks: bool = False


COLUMN_OF = {
    "facts": "confidence",
    "audit_log": "operation",
    "query_times": "query_time",
    "cache_events": "response_time",
}
ASIDE = ("ALTER TABLE {t} RENAME TO aside",)
BACK = ("DROP TABLE {t}", "ALTER TABLE aside RENAME TO {t}")
VIEW_BACK = ("DROP VIEW {t}", "ALTER TABLE aside RENAME TO {t}")
CHANGES = (
    Change("renamed", ASIDE, ("ALTER TABLE aside RENAME TO {t}",), True),
    Change(
        "column added",
        ("ALTER TABLE {t} ADD COLUMN more TEXT DEFAULT 'x'",),
        ("ALTER TABLE {t} DROP COLUMN more",),
        False,
        True,
    ),
    Change(
        "column renamed",
        ("ALTER TABLE {t} RENAME COLUMN {c} TO other",),
        ("ALTER TABLE {t} RENAME COLUMN other TO {c}",),
        False,
        lacks=True,
    ),
    Change(
        "column removed",
        (*ASIDE, "CREATE TABLE {t} AS SELECT id, timestamp FROM aside"),
        BACK,
        False,
        lacks=True,
    ),
    Change(
        "a view", (*ASIDE, "CREATE VIEW {t} AS SELECT * FROM aside"), VIEW_BACK, True
    ),
    Change(
        "an endless view",
        (
            *ASIDE,
            "CREATE VIEW {t} AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT"
            " id + 1 FROM n) SELECT aside.*, n.id AS n FROM n, aside",
        ),
        VIEW_BACK,
        True,
    ),
    Change(
        "ids of text",
        (
            *ASIDE,
            "CREATE TABLE {t} AS SELECT * FROM aside",
            "UPDATE {t} SET id = 'n' || id",
            "INSERT INTO {t}(id) VALUES ('n')",
        ),
        BACK,
        False,
        lacks=True,
    ),
    Change(
        "an index on each column",
        ("CREATE INDEX one ON {t}({c})", "CREATE INDEX two ON {t}(timestamp, id)"),
        ("DROP INDEX one", "DROP INDEX two"),
        False,
        True,
    ),
    Change(
        "a trigger",
        ("CREATE TRIGGER one AFTER INSERT ON {t} BEGIN SELECT 1; END",),
        ("DROP TRIGGER one",),
        False,
        True,
    ),
)


def play_changes(effort: Effort) -> Found:
    """Change a table, look, write if that can be, take it back; all kinds in turn."""
    with Scene(effort) as scene:
        _fill(scene)
        for number in range(effort.times(30 * len(CHANGES))):
            change = CHANGES[number % len(CHANGES)]
            with scene.attempt(change.name):
                _change(scene, change)
        return scene.finish()


def _change(scene: Scene, change: Change) -> None:
    store, name = scene.trial.pick()
    words = {"t": name, "c": COLUMN_OF[name]}
    scene.trial.write(store, most=MOST_ROWS)
    if change.lacks or scene.rng.random() < 0.5:
        scene.trial.settle()
    for statement in change.does:
        store.run(statement.format(**words))
    failing = (store.tables[name].spec.collector,) if change.fails else ()
    scene.look(*failing)
    if change.writable:
        scene.trial.write(store, most=MOST_ROWS)
        scene.look()
    for statement in change.undoes:
        store.run(statement.format(**words))
    scene.trial.write(store, most=MOST_ROWS)


KEYED = "CREATE TABLE {t}(id INTEGER PRIMARY KEY AUTOINCREMENT, {c})"
UNKEYED = "CREATE TABLE {t}(id INTEGER, {c})"
NO_ROWID = "CREATE TABLE {t}(id INTEGER NOT NULL PRIMARY KEY, {c}) WITHOUT ROWID"


def play_without_rowid(effort: Effort) -> Found:
    """Make a table WITHOUT ROWID or without a key, rows and ids kept; and back."""
    with Scene(effort) as scene:
        _fill(scene)
        for number in range(effort.times(60)):
            create = (NO_ROWID, UNKEYED)[number % 2]
            with scene.attempt(create):
                store, name = scene.trial.pick()
                scene.trial.settle()
                _remake(store, name, create)
                spec = store.tables[name].spec
                scene.look(*([spec.collector] if create is NO_ROWID else []))
                _remake(store, name, KEYED)
                scene.trial.write(store, most=MOST_ROWS)
        return scene.finish()


def _remake(store: Store, name: str, create: str) -> None:
    found = store.db.execute(f"SELECT name FROM pragma_table_info('{name}')").fetchall()
    columns = ", ".join(column for (column,) in found if column != "id")
    store.run(f"CREATE TEMP TABLE kept AS SELECT * FROM {name}")
    store.run("BEGIN IMMEDIATE")
    store.run(f"DROP TABLE {name}")
    store.run(create.format(t=name, c=columns))
    store.run(f"INSERT INTO {name}(id, {columns}) SELECT id, {columns} FROM kept")
    store.run("COMMIT")
    store.run("DROP TABLE kept")


def play_last_id(effort: Effort) -> Found:
    """Give out the last id there is: SQLite then refuses rows, with and without us."""
    found = Found()
    for number in range(effort.times(8)):
        folder = effort.folder / str(number)
        folder.mkdir()
        with Scene(Effort(folder, effort.rng)) as scene:
            scene.trial.write(most=MOST_ROWS)
            scene.trial.settle()
            with scene.attempt("last id"):
                _exhaust(scene)
            found += scene.finish()
    return found


def _exhaust(scene: Scene) -> None:
    store, name = scene.trial.pick()
    scene.trial.insert(store, name, 1)
    near = LAST_ID - scene.rng.randint(3, 2000)
    store.tables[name].last = near
    store.run(f"UPDATE sqlite_sequence SET seq = {near} WHERE name = '{name}'")
    scene.trial.insert(store, name, 2)
    if scene.rng.random() < 0.5:
        scene.look(strict=False)
    scene.trial.insert(store, name, LAST_ID - near - 2)
    rows = store.value(f"SELECT COUNT(*) FROM {name}")
    scene.look(strict=False)
    assert _is_full(store, name)
    store.put(store.copy())
    page = scene.look(strict=False)
    # A float on a page cannot tell these ids apart: the state file does.
    state = read_state(scene.target.state.parent)[name]
    scene.is_readable = False
    right = (LAST_ID, rows, LAST_ID - rows)
    if (state["cursor"], state["rows"], state["missed"]) != right:
        scene.found.note("lost", f"{name}: not {right} in {state}")
    if page is None or failed(page):
        scene.found.note("crashed", f"{page and failed(page)}")


def _is_full(store: Store, name: str) -> bool:
    try:
        store.db.execute(f"INSERT INTO {name}({COLUMN_OF[name]}) VALUES (1)")
    except sqlite3.Error as error:
        return "full" in str(error)
    return False


def play_long(effort: Effort) -> Found:
    """Write four megabytes into each text: far less than all of them is held."""
    with Scene(effort) as scene:
        scene.trial.settle()
        rows = effort.times(LONG_ROWS)
        with scene.attempt("texts of four megabytes"):
            for store, columns in (
                (scene.trial.performance, "query_times(query_time, query_type)"),
                (scene.trial.knowledge_base, "audit_log(details, operation)"),
            ):
                _write_long(scene, store, columns, rows)
            _watch(scene)
            scene.is_readable = False  # these rows are none of the ledger's
        expect = scene.misled["doubled"]
        if expect != 2 * rows:
            scene.found.note("lost", f"{expect} of {2 * rows} long rows counted")
        scene.found.tried = 2 * rows
        return scene.finish()


def _write_long(scene: Scene, store: Store, columns: str, rows: int) -> None:
    store.run(
        f"WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT {rows})"
        f" INSERT INTO {columns} SELECT 1, n || replace(zeroblob({MEGABYTE}), x'00',"
        " 'long') FROM n"
    )


def play_distinct(effort: Effort) -> Found:
    """Write a million query types: memory and page stay small."""
    with Scene(effort) as scene:
        scene.trial.settle()
        rows = effort.times(DISTINCT_ROWS)
        with scene.attempt("distinct types"):
            scene.trial.performance.run(
                "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT"
                f" {rows}) INSERT INTO query_times(query_time, query_type)"
                " SELECT 0.5, 'type' || n FROM n"
            )
            _watch(scene)
            scene.is_readable = False
        if scene.misled["doubled"] != rows:
            found = scene.misled["doubled"]
            scene.found.note("lost", f"{found} of {rows} distinct types counted")
        scene.found.tried = rows
        return scene.finish()


def _watch(scene: Scene) -> None:
    """Scrape until all is counted, and look at page and memory."""
    until = time.monotonic() + CATCH_UP_SECONDS
    while time.monotonic() < until:
        page = scene.look(strict=False)
        if page:
            backlogs = page.samples["hakgal_exporter_backlog_rows"].values()
            if len(backlogs) == 4 and not any(backlogs):
                break
        time.sleep(0.05)
    samples = sum(len(found) for found in page.samples.values()) if page else 0
    if samples > MOST_PAGE_SAMPLES:
        scene.target.crashes.append(f"{samples} samples on the page")
    status = Path(f"/proc/{scene.target.pid}/status").read_text()
    (peak,) = (line.split()[1] for line in status.splitlines() if "VmHWM" in line)
    if int(peak) * 1024 > MOST_MEMORY:
        scene.target.crashes.append(f"memory rose to {int(peak) // 1024} MB")


def _fill(scene: Scene) -> None:
    for store in scene.trial.stores:
        for name in store.tables:
            scene.trial.insert(store, name, 100)
    scene.trial.settle()


FAULTS = (
    Fault("files", f"{len(CHANGES)} changes of a table and back", play_changes),
    Fault("files", "table made anew WITHOUT ROWID, without key", play_without_rowid),
    Fault("files", "last id of all, 2^63-1", play_last_id),
    Fault("files", "rows with texts of four megabytes", play_long),
    Fault("files", "rows each with a type of its own", play_distinct),
)
