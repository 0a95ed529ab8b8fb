"""The knowledge bases that people really have, and what the application does to them.

The documented schema is one of many: installations have what their version, their
migration scripts or their repairs left behind. ``schemas/`` has a file for each.
"""

import re
from collections.abc import Iterator
from itertools import count, cycle
from pathlib import Path

from tests.databases import File, at

SCHEMAS = {file.stem: file for file in Path(__file__).parent.glob("schemas/*.sql")}
# Of the table of facts, the first in the file, and of the audit log.
TABLE = r"TABLE IF NOT EXISTS (facts\w*|audit_log) \((.*?)\n\)"


class Application(File):
    """HAK/GAL at work on its knowledge base, in WAL mode.

    Each row gets a number of its own, as source or as details, and that number's time.
    """

    def __init__(self, folder: Path, schema: str) -> None:
        ddl = SCHEMAS[schema].read_text()
        columns = re.findall(TABLE, ddl, re.DOTALL)
        self.table, facts = columns[0]
        self.has_id = "id INTEGER PRIMARY KEY" in facts
        self.has_confidence = "confidence" in facts
        times = [column for column in ("timestamp", "created_at") if column in facts]
        self.time = times[0] if times else None
        audit = dict(columns).get("audit_log", "")
        names = [
            column for column in ("operation", "event") if f"{column} TEXT" in audit
        ]
        self.operation = names[0] if names else None
        self.is_dated = "no times" not in ddl
        self._numbers = count(1)
        self._confidences: Iterator[float | None] = cycle((0.25, None, 0.5, 1.0))
        super().__init__(folder / "hexagonal_kb.db", ddl)

    def add(self, rows: int = 1) -> None:
        """Add facts that are new, in one transaction, and say so in the audit log."""
        new = [f"Is(Fact, {next(self._numbers)})." for _ in range(rows)]
        self._insert_or_ignore(new)
        for row in range(rows):
            self._log("add_fact" if row % 3 else "bulk_import")

    def add_known(self) -> None:
        """Add facts that are known already; their ids may be used up for nothing."""
        self._insert_or_ignore([*self._statements("ASC"), *self._statements("DESC")])

    def update_statement(self) -> None:
        """Rewrite the oldest and the newest facts."""
        sql = f"UPDATE {self.table} SET statement = ? WHERE statement = ?"
        for known in (*self._statements("ASC"), *self._statements("DESC")):
            self.run(sql, f"Revised({known})", known)
        self._log("update_fact")

    def delete(self, order: str) -> None:
        """Delete the two oldest facts, or the two newest."""
        for statement in self._statements(order):
            self.run(f"DELETE FROM {self.table} WHERE statement = ?", statement)
        self._log("delete_fact")

    def _insert_or_ignore(self, statements: list[str]) -> None:
        self.run("BEGIN")
        for statement in statements:
            number = next(self._numbers)
            columns: dict[str, object] = {"statement": statement}
            if self.has_id:
                columns["source"] = str(number)
            if self.has_confidence:
                columns["confidence"] = next(self._confidences)
            if self.time and self.is_dated:
                columns[self.time] = at(number)
            names, marks = ", ".join(columns), ", ".join("?" * len(columns))
            sql = f"INSERT OR IGNORE INTO {self.table} ({names}) VALUES ({marks})"
            self.run(sql, *columns.values())
        self.run("COMMIT")

    def _log(self, operation: str) -> None:
        if self.operation:
            number = next(self._numbers)
            columns = {self.operation: operation, "details": str(number)}
            if self.is_dated:
                columns["timestamp"] = at(number)
            self.insert("audit_log", **columns)

    def _statements(self, order: str) -> list[str]:
        sql = f"SELECT statement FROM {self.table} ORDER BY rowid {order} LIMIT 2"
        return [statement for (statement,) in self.run(sql)]
