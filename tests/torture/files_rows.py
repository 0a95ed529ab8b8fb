"""Rows, ids, times and tables that HAK/GAL would not write, but somebody may."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random

from tests.faults.rows import (
    AUDIT,
    CACHE,
    CONFIDENCE_BUCKETS,
    FACTS,
    OPERATIONS,
    QUERIES,
    QUERY_BUCKETS,
    QUERY_TYPES,
    RESPONSE_BUCKETS,
    Drawn,
    Key,
    Spec,
    place_of,
)
from tests.faults.store import Store, write_time
from tests.torture.files_scene import Scene
from tests.torture.report import Effort, Fault, Found

MOST_ROWS = 40
WILD = (
    None,
    0,
    1,
    -1,
    2**63 - 1,
    -(2**63),
    0.5,
    1e308,
    1.7976931348623157e308,
    float("inf"),
    float("-inf"),
    5e-324,
    "",
    "0.5",
    "1",
    "much",
    "10.0",
    "-3",
    "\0",
    "a\0b",
    b"",
    b"\xff\xfe",
    b"0.5",
)
LABELS = (
    *WILD,
    "two\nlines",
    'quo"ted',
    "back\\slash",
    "\ud7ff\U0010ffff",
    "}{,=#",
    " ",
    "\x7f\x1b[31m",
    "x" * 5000,
    "search_knowledge",
)
TIMES = (
    *WILD,
    "1969-12-31 23:59:59",
    "0001-01-01 00:00:00",
    "9999-12-31 23:59:59",
    "2026-02-30 12:00:00",
    "2099-01-01T00:00:00+14:00",
    "2026-01-01 25:61:61",
    "now",
    1_767_225_600,
    1_767_225_600.5,
)
# Without types, a column keeps whatever it is given.
TYPELESS = {
    FACTS.name: "timestamp, statement, source, tags, confidence",
    AUDIT.name: "timestamp, operation, details, user_id, session_id",
    QUERIES.name: "timestamp, query_time, query_type, success",
    CACHE.name: "timestamp, hit, cache_key, response_time",
}


def play_values(effort: Effort) -> Found:
    """Write any type into any column of tables without types."""
    with Scene(effort) as scene:
        for store in scene.trial.stores:
            _retype(store, "")
        scene.trial.settle()
        for _ in range(effort.times(250)):
            with scene.attempt("wild values"):
                _write_wild(scene)
        return scene.finish()


def play_text(effort: Effort) -> Found:
    """Write numbers into columns that were made for text: they are no numbers."""
    with Scene(effort) as scene:
        for store in scene.trial.stores:
            _retype(store, " TEXT")
        scene.trial.settle()
        for _ in range(effort.times(100)):
            with scene.attempt("columns of text"):
                _write_wild(scene)
        return scene.finish()


def _retype(store: Store, kind: str) -> None:
    """Make the tables anew, each column but the id of one type or none."""
    for name, table in store.tables.items():
        columns = TYPELESS[name].replace(",", f"{kind},") + kind
        store.run(f"DROP TABLE {name}")
        store.run(
            f"CREATE TABLE {name}(id INTEGER PRIMARY KEY AUTOINCREMENT, {columns})"
        )
        table.spec = _wild(table.spec, is_text=bool(kind))


def _write_wild(scene: Scene) -> None:
    for store in scene.trial.stores:
        store.db.create_function("moment", 1, lambda _: scene.rng.choice(TIMES))
        for name in store.tables:
            scene.trial.insert(store, name, scene.rng.randint(1, MOST_ROWS))
    if scene.rng.random() < 0.3:
        scene.trial.performance.run("VACUUM")


def _wild(spec: Spec, *, is_text: bool) -> Spec:
    """Return the spec of a table that is given anything."""
    insert = spec.insert.replace("(?,", "(moment(?),")
    return replace(spec, insert=insert, draw=partial(DRAWS[spec.name], is_text))


def _query(is_text: bool, rng: Random) -> Drawn:
    value, label, flag = rng.choice(WILD), rng.choice(LABELS), rng.choice(WILD)
    known = label if label in QUERY_TYPES else "*"
    outcome = "success" if flag else "failure"
    key = _place(value, is_text, str(known), outcome, QUERY_BUCKETS)
    return _row((value, label, flag), _flag_reason(key, flag, is_text), value)


def _lookup(is_text: bool, rng: Random) -> Drawn:
    value, flag, name = rng.choice(WILD), rng.choice(WILD), rng.choice(LABELS)
    result = "hit" if flag else "miss"
    key: Key = ("counted", "", result, "none")
    if value is not None:
        key = _place(value, is_text, "", result, RESPONSE_BUCKETS)
    return _row((flag, name, value), _flag_reason(key, flag, is_text), value)


def _fact(is_text: bool, rng: Random) -> Drawn:
    value, statement = rng.choice(WILD), rng.choice(LABELS)
    key = _place(value, is_text, "", "", CONFIDENCE_BUCKETS)
    return _row((statement, value), key, value)


def _event(is_text: bool, rng: Random) -> Drawn:
    operation, details = rng.choice(LABELS), rng.choice(LABELS)
    label = str(operation) if operation in OPERATIONS else "*"
    return Drawn((operation, details), ("counted", label, "", ""))


DRAWS: dict[str, Callable[[bool, Random], Drawn]] = {
    FACTS.name: _fact,
    AUDIT.name: _event,
    QUERIES.name: _query,
    CACHE.name: _lookup,
}


def _row(columns: tuple[object, ...], key: Key, value: object) -> Drawn:
    is_counted = key[0] == "counted" and isinstance(value, int | float)
    return Drawn(columns, key, value if is_counted else 0.0)  # type: ignore[arg-type]


def _flag_reason(key: Key, flag: object, is_text: bool) -> Key:
    """Return what becomes of a row whose value says this."""
    if key[0] == "rejected":
        return key
    if flag is None:
        return "rejected", "null"
    is_number = isinstance(flag, int | float) and not is_text
    return key if is_number else ("rejected", "not_a_boolean")


def _place(
    value: object, is_text: bool, label: str, outcome: str, buckets: tuple[float, ...]
) -> Key:
    """Return what must become of a row by its value."""
    if value is None:
        return "rejected", "null"
    if is_text or not isinstance(value, int | float):
        return "rejected", "not_a_number"
    if value < 0:
        return "rejected", "negative"
    if math.isinf(value):
        return "rejected", "infinite"
    return place_of(label, outcome, buckets, value)


def play_ids(effort: Effort) -> Found:
    """Give ids by hand, and edit what SQLite remembers of them."""
    with Scene(effort) as scene:
        scene.trial.settle()
        for _ in range(effort.times(250)):
            with scene.attempt("ids"):
                store, name = scene.trial.pick()
                scene.trial.write(most=MOST_ROWS)
                if scene.rng.random() < 0.5:
                    scene.trial.settle()
                scene.rng.choice(ID_FAULTS)(scene, store, name)
                scene.trial.write(most=MOST_ROWS)
        return scene.finish()


def _insert_by_hand(scene: Scene, store: Store, name: str, ids: list[int]) -> None:
    """Write rows with these ids, in this order, in one transaction."""
    table = store.tables[name]
    drawn = [table.spec.draw(scene.rng) for _ in ids]
    statement = table.spec.insert.replace("(timestamp", "(id, timestamp")
    statement = statement.replace("(?,", "(?, ?,")
    with store.unharmed("insert by hand"):
        rows = (
            (n, write_time(store.clock.seconds), *d.columns)
            for n, d in zip(ids, drawn, strict=True)
        )
        store.db.execute("BEGIN IMMEDIATE")
        store.db.executemany(statement, rows)
        store.db.execute("COMMIT")
    newest = max(ids)
    if newest > table.last:
        above = {n: d for n, d in zip(ids, drawn, strict=True) if n > table.last}
        table.ledger.pass_over(newest - table.last - len(above))
        store.commit(table, store.clock.seconds, above)


def _has_last(store: Store, name: str) -> bool:
    """Say whether the last id given out has a row."""
    last = store.tables[name].last
    return bool(store.value(f"SELECT COUNT(*) FROM {name} WHERE id = {last}"))


def leave_gap(scene: Scene, store: Store, name: str) -> None:
    last = store.tables[name].last
    gap = scene.rng.choice((2, 10, 5001, 1_000_000))
    _insert_by_hand(scene, store, name, [last + gap])


def insert_out_of_order(scene: Scene, store: Store, name: str) -> None:
    last = store.tables[name].last
    ids = scene.rng.sample(range(last + 1, last + 60), 30)
    _insert_by_hand(scene, store, name, ids)


def insert_below_one(scene: Scene, store: Store, name: str) -> None:
    """Rows that AUTOINCREMENT cannot have written are never counted: a limit."""
    lowest = store.value(f"SELECT MIN(id) FROM {name}")
    _insert_by_hand(scene, store, name, [min(lowest, 1) - 1])


def edit_sequence(scene: Scene, store: Store, name: str) -> None:
    """What SQLite takes for 0, or for less than the largest id, changes nothing."""
    if not _has_last(store, name):
        return
    value = scene.rng.choice(("'text'", "NULL", "x'ff'", "-5", "0", "'12'", "1.5"))
    store.run(f"UPDATE sqlite_sequence SET seq = {value} WHERE name = '{name}'")


def forget_sequence(scene: Scene, store: Store, name: str) -> None:
    if _has_last(store, name):  # or ids would be given out again
        store.run(f"DELETE FROM sqlite_sequence WHERE name = '{name}'")


def raise_sequence(scene: Scene, store: Store, name: str) -> None:
    """Ids that SQLite will never give out are taken for rows that were pruned."""
    ids = scene.rng.randint(1, 10_000)
    table = store.tables[name]
    if not store.value(f"SELECT COUNT(*) FROM sqlite_sequence WHERE name = '{name}'"):
        return
    table.last += ids
    table.ledger.pass_over(ids)
    store.run(f"UPDATE sqlite_sequence SET seq = {table.last} WHERE name = '{name}'")


ID_FAULTS = (
    leave_gap,
    insert_out_of_order,
    insert_below_one,
    edit_sequence,
    forget_sequence,
    raise_sequence,
)
FAULTS = (
    Fault("files", "any type of value and time in any column", play_values),
    Fault("files", "columns made for text", play_text),
    Fault("files", "ids given by hand, sqlite_sequence edited", play_ids),
)
