"""What befalls the databases: locked, damaged, changed in shape, without room.

It is undone in the end, and rows are written on: all count as if nothing had been.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.databases import App
from tests.torture.scene import Scene
from tests.torture.stage import Stage
from tests.torture.state_file import fill, mounted

PAGE_BYTES = 4096
FULL = ("database or disk is full", "disk I/O error")


class Lock(NamedTuple):
    """How another process takes it, and whether nobody else may read then."""

    modes: tuple[str, ...]
    takes: tuple[str, ...]
    shuts_out: bool


ROLLBACK_MODES = ("delete", "truncate", "persist")
ALL_MODES = ("wal", *ROLLBACK_MODES)
EXCLUSIVE = "PRAGMA locking_mode = EXCLUSIVE"
WRITE = "INSERT INTO performance_metrics(metric_name, metric_value) VALUES ('a', 1)"
READ = "SELECT COUNT(*) FROM query_times"
TIDY = "PRAGMA journal_mode = delete"  # the others leave an empty journal
LOCKS = (
    Lock(ALL_MODES, ("BEGIN", READ), False),
    Lock(ALL_MODES, ("BEGIN IMMEDIATE", WRITE), False),
    Lock(("wal",), ("BEGIN EXCLUSIVE", WRITE), False),
    Lock(ROLLBACK_MODES, ("BEGIN EXCLUSIVE", WRITE), True),
    Lock(ALL_MODES, (EXCLUSIVE, WRITE), True),
    Lock(ROLLBACK_MODES, (EXCLUSIVE, READ), False),
)
KINDS = [(lock, mode) for lock in LOCKS for mode in lock.modes]


def lock(stage: Stage, number: int) -> None:
    """Every kind of lock is held by another process, in every journal mode."""
    kind, mode = KINDS[number % len(KINDS)]
    store = stage.stores[1]
    stage.write()
    store.close()
    with App(store.path, 30.0) as app, store.unharmed(f"{kind}"):
        for statement in (f"PRAGMA journal_mode = {mode}", *kind.takes):
            app.run(statement)
        stage.look(*(store.collectors if kind.shuts_out else ()))
        if kind.takes[0].startswith("BEGIN"):
            app.run(stage.rng.choice(("COMMIT", "ROLLBACK")))
        if stage.rng.random() < 0.5:
            stage.look(strict=False)
        for statement in ("PRAGMA locking_mode = NORMAL", READ, TIDY):
            app.run(statement)


def damage(stage: Stage, number: int) -> None:
    """A file is cut or overwritten, closed by HAK/GAL or not, and put back."""
    store, _ = stage.pick()
    store.close()
    store.mode = stage.rng.choice(("wal", "delete"))
    stage.write(store)
    if stage.rng.random() < 0.5:
        stage.settle()
    store.close()
    good = store.path.read_bytes()
    pages = len(good) // PAGE_BYTES
    noise = stage.rng.randbytes(stage.rng.randint(100, len(good)))
    cut = good[: PAGE_BYTES * stage.rng.randrange(pages)]
    bad = (cut, noise, noise + good[len(noise) :])[number % 3]
    _overwrite(store.path, bad)
    # What is empty is a new database, in which nothing is to be counted.
    stage.look(*(store.collectors if bad else ()), strict=bool(bad))
    _overwrite(store.path, good)
    stage.write(store)


def _overwrite(path: Path, content: bytes) -> None:
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()


class Change(NamedTuple):
    """Statements that change a table and take it back; whether its collector fails.

    Where HAK/GAL can, it writes meanwhile. What is counted may be gone meanwhile
    (``lacks``): it is absent, and goes on when the table is back.
    """

    does: tuple[str, ...]
    undoes: tuple[str, ...]
    fails: bool = False
    lacks: bool = False


COLUMN_OF = {
    "facts": "confidence",
    "audit_log": "operation",
    "query_times": "query_time",
    "cache_events": "response_time",
}
ASIDE, BACK = "ALTER TABLE {t} RENAME TO aside", "ALTER TABLE aside RENAME TO {t}"
ENDLESS = (
    "CREATE VIEW {t} AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1"
    " FROM n) SELECT aside.*, n.id AS n FROM n, aside"
)
UNDO_MORE = ("ALTER TABLE {t} DROP COLUMN more", "DROP INDEX one", "DROP TRIGGER two")
CHANGES = (
    Change((ASIDE,), (BACK,), fails=True),
    Change((ASIDE, ENDLESS), ("DROP VIEW {t}", BACK), fails=True),
    Change(
        (
            "ALTER TABLE {t} ADD COLUMN more TEXT DEFAULT 'x'",
            "CREATE INDEX one ON {t}(timestamp, {c})",
            "CREATE TRIGGER two AFTER INSERT ON {t} BEGIN SELECT 1; END",
        ),
        UNDO_MORE,
    ),
    Change(
        ("ALTER TABLE {t} RENAME COLUMN {c} TO other",),
        ("ALTER TABLE {t} RENAME COLUMN other TO {c}",),
        lacks=True,
    ),
    Change(
        (ASIDE, "CREATE TABLE {t} AS SELECT id || 'n' AS id, timestamp FROM aside"),
        ("DROP TABLE {t}", BACK),
        lacks=True,
    ),
)


def change_schema(stage: Stage, number: int) -> None:
    """Tables and columns are renamed, added, removed, replaced by views, and back."""
    change = CHANGES[number % len(CHANGES)]
    store, name = stage.pick()
    words = {"t": name, "c": COLUMN_OF[name]}
    stage.write(store)
    if change.lacks or stage.rng.random() < 0.5:
        stage.settle()
    for statement in change.does:
        store.run(statement.format(**words))
    stage.look(*([store.tables[name].spec.collector] if change.fails else []))
    if change.undoes is UNDO_MORE:
        stage.write(store)
        stage.look()
    for statement in change.undoes:
        store.run(statement.format(**words))
    stage.write(store)


def fill_disk(stage: Stage, number: int) -> None:
    """No room for the databases, HAK/GAL cannot write; then there is again."""
    for store in stage.stores:
        store.close()
        store.mode = ("wal", "delete")[number % 2]
        store.run("SELECT COUNT(*) FROM sqlite_schema")
    ballast = stage.victim.data / "ballast"
    fill(ballast)
    stage.write()
    stage.look(strict=False)
    ballast.unlink()
    for store in stage.stores:  # it would have had these errors alone as well
        store.harm[:] = [h for h in store.harm if not any(t in h for t in FULL)]
    stage.write()


_scene = partial(Scene, "files")
SCENES = (
    _scene(lock, 3 * len(KINDS)),
    _scene(damage, 120),
    _scene(change_schema, 100),
    _scene(fill_disk, 60, lambda stage: mounted(stage.victim.data, "8m")),
)
