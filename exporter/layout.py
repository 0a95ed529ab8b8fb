"""Which of HAK/GAL's tables a database has, and which columns they have.

Installations differ: their tables are as old as the version, the migration script or
the repair that made them.
"""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

# Column names that mean the same in tables of different ages; lower case.
SYNONYMS = {
    "timestamp": ("timestamp", "created_at"),
    "operation": ("operation", "event"),
}
KEY = "INTEGER PRIMARY KEY"

_OBJECTS = (
    "SELECT lower(name), type, rootpage, sql FROM sqlite_schema"
    " WHERE type IN ('table', 'view')"
)
_COLUMNS = "SELECT lower(name), upper(type), pk FROM pragma_table_xinfo(?)"
_KEY_INDEXES = "SELECT COUNT(*) FROM pragma_index_list(?) WHERE origin = 'pk'"


@dataclass(frozen=True)
class Layout:
    """A table as it is in a file.

    Args:
        columns: their names in lower case, in order.
        has_key: whether an INTEGER PRIMARY KEY names each row for good. Other rowids
            are given out anew by VACUUM.
        objection: why its rows cannot be read one by one, None if they can.
    """

    name: str
    columns: tuple[str, ...]
    has_key: bool
    objection: str | None = None

    def column(self, name: str) -> str | None:
        """Return the column that holds this, under whichever name."""
        names = SYNONYMS.get(name, (name,))
        return next((known for known in names if known in self.columns), None)


class Layouts:
    """The tables of one database; looks closely only when the schema has changed."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._schema: list[tuple[object, ...]] | None = None
        self._found: dict[str, Layout] = {}

    def read(self, db: sqlite3.Connection) -> dict[str, Layout]:
        """Return the tables that are there, by name.

        Raises:
            sqlite3.Error: locked, damaged, or out of time.
        """
        rows = [row for row in db.execute(_OBJECTS) if row[0] in self._names]
        if rows != self._schema:
            self._found = {row[0]: _layout(db, *row[:3]) for row in rows}
            self._schema = rows
        return self._found


def wanted(column: str) -> str:
    """Return the names under which a column is looked for, for a message."""
    return " or ".join(SYNONYMS.get(column, (column,)))


def _layout(db: sqlite3.Connection, name: str, kind: str, root: int) -> Layout:
    if kind == "view":
        return Layout(name, (), False, "it is a view, not a table")
    if not root:
        return Layout(name, (), False, "it is a virtual table")
    columns = db.execute(_COLUMNS, (name,)).fetchall()
    names = tuple(column for column, _, _ in columns)
    try:
        db.execute(f"SELECT rowid FROM {name} LIMIT 0")
    except sqlite3.OperationalError:
        return Layout(name, names, False, "it is a WITHOUT ROWID table")
    keys = [kind for _, kind, place in columns if place]
    # With an index of its own it is no alias of the rowid (INTEGER PRIMARY KEY DESC).
    (indexes,) = db.execute(_KEY_INDEXES, (name,)).fetchone()
    return Layout(name, names, keys == ["INTEGER"] and not indexes)


def choose(
    db: sqlite3.Connection, layouts: Mapping[str, Layout], names: tuple[str, ...]
) -> Layout | None:
    """Return the first of these tables that has rows, else the first that is there.

    Raises:
        sqlite3.Error: locked, damaged, or out of time.
    """
    found = [layouts[name] for name in names if name in layouts]
    for layout in found if len(found) > 1 else ():
        is_filled = f"SELECT 1 FROM {layout.name} LIMIT 1"
        if layout.objection or db.execute(is_filled).fetchone():
            return layout
    return found[0] if found else None
