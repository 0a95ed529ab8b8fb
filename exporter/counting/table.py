"""Which columns of a table are counted, and as what."""

from dataclasses import dataclass, replace

from exporter.database.schema import SYNONYMS, Layout

BEFORE_REPLACEMENT = "before_replacement"


@dataclass(frozen=True)
class Table:
    """What HAK/GAL calls a table, and what is read of it.

    Args:
        name, database: the values of the labels ``table`` and ``database``.
        sources: names in the file; the first table that has rows is read.
        label: text column; its values become a label, capped in number and length.
        flag: boolean column.
        value: number column, folded into ``buckets`` (upper bounds, inclusive).
        value_optional: NULL counts, but is observed in no bucket.
        required: columns without which nothing is counted.
        is_log: whether rows are never updated, and each id has had a row. Of facts,
            INSERT OR IGNORE burns ids.
        metric: the family whose label values are capped.
        source: the name in the file, if it is there; set by ``bind``, as what follows:
            the column of a row's time, whether there may be an AUTOINCREMENT, whether
            rows can be read on by their ids, and what would be needed to tell the rest.
    """

    name: str
    database: str
    sources: tuple[str, ...]
    label: str | None = None
    flag: str | None = None
    value: str | None = None
    value_optional: bool = False
    required: tuple[str, ...] = ()
    is_log: bool = True
    buckets: tuple[float, ...] = ()
    known_labels: tuple[str, ...] = ("",)
    label_limit: int = 100
    metric: str = ""
    source: str = ""
    time: str | None = "timestamp"
    has_sequences: bool = False
    is_followed: bool = True
    lacks: tuple[str, ...] = ()

    @property
    def counted(self) -> tuple[str, ...]:
        """Return the columns that are counted."""
        return tuple(c for c in (self.label, self.flag, self.value) if c)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Return why a row of this table may be rejected."""
        number = ("not_a_number", "negative", "infinite") if self.value else ()
        boolean = ("not_a_boolean",) if self.flag else ()
        may_be_null = self.flag or (self.value and not self.value_optional)
        null = ("null",) if may_be_null else ()
        return (*null, *number, *boolean, BEFORE_REPLACEMENT)

    def bind(self, layout: Layout | None) -> "Table":
        """Return the table with what it has there."""
        if layout is None:
            lacks = (f"table {' or '.join(self.sources)}",)
            return replace(self, is_followed=False, lacks=lacks)
        wanted = (*self.counted, "timestamp")
        missing = [column for column in wanted if not layout.column(column)]
        names = [" or ".join(SYNONYMS.get(column, (column,))) for column in missing]
        key = () if layout.has_key else ("INTEGER PRIMARY KEY",)
        value = layout.column(self.value)
        return replace(
            self,
            label=layout.column(self.label),
            value=value,
            value_optional=self.value_optional or value is None,
            source=layout.name,
            time=layout.column("timestamp"),
            has_sequences=layout.has_sequences,
            is_followed=layout.has_key and all(map(layout.column, self.required)),
            lacks=(*key, *names),
        )
