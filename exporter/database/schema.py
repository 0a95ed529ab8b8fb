"""Find the tables and columns of a database: installations differ in them."""

from collections.abc import Iterable
from dataclasses import dataclass
from sqlite3 import Connection

# Names, in lower case, of the same column in different versions of a table.
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
    """The structure of a table in a file.

    ``columns`` are in lower case. ``has_key``: the table has an INTEGER PRIMARY KEY,
    whose values last, while VACUUM may renumber other rowids. ``has_sequences``: some
    table has AUTOINCREMENT. ``objection``: why the rows cannot be read one by one.
    """

    name: str
    columns: tuple[str, ...]
    has_key: bool
    has_sequences: bool
    objection: str | None = None

    def column(self, name: str | None) -> str | None:
        """Return the name of this column in the table, None if it has none."""
        names = SYNONYMS.get(name or "", (name,))
        return next((known for known in names if known in self.columns), None)


class Schema:
    """The tables of one database; inspected again only when the schema changes."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {*names, _SEQUENCES}
        self._objects: list[tuple[str, str]] = []
        self._layouts: dict[str, Layout] = {}

    def find(self, db: Connection, names: tuple[str, ...]) -> Layout | None:
        """Return the first of these tables with rows, or just the first that exists."""
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
    # A key with an index is no alias of the rowid, such as INTEGER PRIMARY KEY DESC.
    (indexes,) = db.execute(_KEY_INDEXES, (name,)).fetchone()
    has_key = keys == ["INTEGER"] and not indexes
    return Layout(
        name, tuple(column for column, _, _ in columns), has_key, has_sequences
    )
