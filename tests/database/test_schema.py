"""Whether the rows of a table can be followed by their ids."""

import sqlite3
from contextlib import closing

import pytest

from exporter.database.schema import Schema


@pytest.mark.parametrize(
    ("key", "has_key"),
    [
        ("id INTEGER PRIMARY KEY AUTOINCREMENT", True),
        ("id integer, x, PRIMARY KEY (id)", True),
        ("number INTEGER PRIMARY KEY", True),
        # Called an id, but no name of a row that VACUUM keeps.
        ("id INT PRIMARY KEY", False),
        ("id INTEGER PRIMARY KEY DESC", False),
        ("id INTEGER UNIQUE", False),
        ("id INTEGER, x INTEGER, PRIMARY KEY (id, x)", False),
    ],
)
def test_only_an_integer_primary_key_names_a_row_for_good(
    key: str, has_key: bool
) -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute(f"CREATE TABLE facts ({key})")
        layout = Schema(["facts"]).find(db, ("facts",))
    assert layout
    assert (layout.has_key, layout.objection) == (has_key, None)
