"""Which tables a database has, and which columns: each installation has its own."""

from collections.abc import Iterable
from dataclasses import dataclass
from sqlite3 import Connection

# Column names that mean the same in tables of different ages; lower case.
SYNONYMS = {
    "timestamp": ("timestamp", "created_at"),
    "operation": ("operation", "event"),
}

_OBJECTS = "SELECT lower(name), sql FROM sqlite_schema WHERE type IN ('table', 'view')"
_KIND = "SELECT type, wr FROM pragma_table_list(?) WHERE schema = 'main'"
_COLUMNS = "SELECT lower(name), upper(type), pk FROM pragma_table_xinfo(?)"
_KEY_INDEXES = "SELECT COUNT(*) FROM pragma_index_list(?) WHERE origin = 'pk'"
_SEQUENCES = "sqlite_sequence"
_OBJECTIONS = {"view": "it is a view, not a table", "virtual": "it is a virtual table"}


@dataclass(frozen=True)
class Layout:
    """A table as it is in a file.

    ``columns`` are in lower case. ``has_key``: an INTEGER PRIMARY KEY names each row
    for good, while VACUUM gives out other rowids anew. ``has_sequences``: some table of
    the file has AUTOINCREMENT. ``objection`` is why its rows cannot be read one by one.
    """

    name: str
    columns: tuple[str, ...]
    has_key: bool
    has_sequences: bool
    objection: str | None = None

    def column(self, name: str | None) -> str | None:
        """Return the column that holds this, under whichever name."""
        names = SYNONYMS.get(name or "", (name,))
        return next((known for known in names if known in self.columns), None)


class Schema:
    """The tables of one database; looks closely only when the schema has changed."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {*names, _SEQUENCES}
        self._objects: list[tuple[str, str]] = []
        self._layouts: dict[str, Layout] = {}

    def find(self, db: Connection, names: tuple[str, ...]) -> Layout | None:
        """Return the first of these tables that has rows, else the first at all."""
        objects = [row for row in db.execute(_OBJECTS) if row[0] in self._names]
        if objects != self._objects:
            found = dict(objects)
            has_sequences = found.pop(_SEQUENCES, None) is not None
            self._layouts = {name: _layout(db, name, has_sequences) for name in found}
            self._objects = objects
        there = [self._layouts[name] for name in names if name in self._layouts]
        layouts = [one for one in there if not one.objection] or there
        for layout in layouts if len({*layouts}) > 1 else ():
            if db.execute(f"SELECT 1 FROM {layout.name} LIMIT 1").fetchone():
                return layout
        return layouts[0] if layouts else None


def _layout(db: Connection, name: str, has_sequences: bool) -> Layout:
    kind, is_without_rowid = db.execute(_KIND, (name,)).fetchone()
    if kind in _OBJECTIONS or is_without_rowid:
        objection = _OBJECTIONS.get(kind, "it is a WITHOUT ROWID table")
        return Layout(name, (), False, has_sequences, objection)
    columns = db.execute(_COLUMNS, (name,)).fetchall()
    keys = [type_ for _, type_, place in columns if place]
    # With an index of its own it is no alias of the rowid (INTEGER PRIMARY KEY DESC).
    (indexes,) = db.execute(_KEY_INDEXES, (name,)).fetchone()
    has_key = keys == ["INTEGER"] and not indexes
    return Layout(
        name, tuple(column for column, _, _ in columns), has_key, has_sequences
    )
