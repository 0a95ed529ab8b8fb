"""Which tables and columns are found, and whether their rows can be followed."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from exporter.database.schema import Layout, Schema
from tests.database.reading import find_layout


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as db:
        yield db


def find_after(db: sqlite3.Connection, ddl: str) -> Layout:
    db.execute(ddl)
    layout = find_layout(db, "facts")
    assert layout
    return layout


@pytest.mark.parametrize(
    ("key", "has_key"),
    [
        ("id INTEGER PRIMARY KEY", True),
        ("id INTEGER PRIMARY KEY AUTOINCREMENT", True),
        ("id integer, x, PRIMARY KEY (id)", True),
        ("number INTEGER PRIMARY KEY", True),
        # Called an id, but no name of a row that VACUUM keeps.
        ("id INT PRIMARY KEY", False),
        ("id INTEGER PRIMARY KEY DESC", False),
        ("id INTEGER UNIQUE", False),
        ("id INTEGER, x INTEGER, PRIMARY KEY (id, x)", False),
        ("statement TEXT PRIMARY KEY", False),
    ],
)
def test_only_an_integer_primary_key_names_a_row_for_good(
    db: sqlite3.Connection, key: str, has_key: bool
) -> None:
    layout = find_after(db, f"CREATE TABLE facts ({key})")
    assert (layout.has_key, layout.objection) == (has_key, None)


@pytest.mark.parametrize(
    ("ddl", "objection"),
    [
        ("VIEW facts AS SELECT 1 AS id", "it is a view, not a table"),
        ("VIRTUAL TABLE facts USING fts5(id)", "it is a virtual table"),
        (
            "TABLE facts (id INTEGER PRIMARY KEY) WITHOUT ROWID",
            "it is a WITHOUT ROWID table",
        ),
    ],
    ids=["view", "virtual", "without-rowid"],
)
def test_what_has_no_rows_of_its_own_is_objected_to(
    db: sqlite3.Connection, ddl: str, objection: str
) -> None:
    assert find_after(db, f"CREATE {ddl}").objection == objection


def test_names_are_found_in_any_case(db: sqlite3.Connection) -> None:
    layout = find_after(
        db, 'CREATE TABLE "Facts" (ID Integer Primary Key, "TimeStamp")'
    )
    assert (layout.name, layout.columns) == ("facts", ("id", "timestamp"))
    assert layout.has_key


def test_columns_are_known_by_their_synonyms(db: sqlite3.Connection) -> None:
    layout = find_after(db, "CREATE TABLE facts (event, created_at, confidence)")
    asked = ("operation", "timestamp", "confidence", "event", "absent", None)
    found = [layout.column(name) for name in asked]
    assert found == ["event", "created_at", "confidence", "event", None, None]


def test_first_table_with_rows_is_taken(db: sqlite3.Connection) -> None:
    found = []
    for ddl in (
        "CREATE TABLE facts_extended (id INTEGER PRIMARY KEY)",
        "CREATE TABLE facts (id INTEGER PRIMARY KEY)",
        "INSERT INTO facts_extended DEFAULT VALUES",
        "INSERT INTO facts DEFAULT VALUES",
    ):
        db.execute(ddl)
        layout = find_layout(db, "facts", "facts_extended")
        found.append(layout and layout.name)
    assert found == ["facts_extended", "facts", "facts_extended", "facts"]


def test_change_of_the_schema_is_noticed(db: sqlite3.Connection) -> None:
    schema = Schema(["facts"])
    columns = []
    for ddl in (
        "CREATE TABLE facts (a)",
        "ALTER TABLE facts ADD COLUMN b",
        "ALTER TABLE facts RENAME a TO c",
        "DROP TABLE facts",
    ):
        db.execute(ddl)
        layout = schema.find(db, ("facts",))
        columns.append(layout and layout.columns)
    assert columns == [("a",), ("a", "b"), ("c", "b"), None]
