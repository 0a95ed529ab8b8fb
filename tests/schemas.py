"""The knowledge bases that people really have, and what the application does to them.

The documented schema is one of many: installations have what their version, their
migration scripts or their repairs left behind.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, cycle
from pathlib import Path

from tests.databases import File, at


@dataclass(frozen=True)
class Facts:
    """The table that facts come from, and the tables ``beside`` it.

    ``dated`` is whether the application writes the time where there is a column for it.
    """

    ddl: str
    table: str = "facts"
    beside: str = ""
    dated: bool = True

    @property
    def has_id(self) -> bool:
        return "id INTEGER PRIMARY KEY" in self.ddl

    @property
    def autoincrement(self) -> bool:
        return "AUTOINCREMENT" in self.ddl

    @property
    def has_confidence(self) -> bool:
        return "confidence" in self.ddl

    @property
    def time(self) -> str | None:
        """Return the column with the time at which a fact was added."""
        return next((c for c in ("timestamp", "created_at") if c in self.ddl), None)

    @property
    def lacks(self) -> set[str]:
        """Return words for what this table does not have."""
        words = {"INTEGER PRIMARY KEY": self.has_id, "confidence": self.has_confidence}
        words["created_at"] = self.time is not None
        return {word for word, is_there in words.items() if not is_there}


@dataclass(frozen=True)
class Audit:
    """The audit log: which column says what was done, and which has room for more."""

    ddl: str
    label: str = "operation"
    details: str = "details"
    dated: bool = True


DOCUMENTED = Facts("""
    CREATE TABLE IF NOT EXISTS facts (
        id INTEGER PRIMARY KEY AUTOINCREMENT, statement TEXT NOT NULL, source TEXT,
        timestamp TEXT DEFAULT CURRENT_TIMESTAMP, tags TEXT, confidence REAL DEFAULT 1.0
    );
""")
CONTENT_ADDRESSED = Facts("""
    CREATE TABLE IF NOT EXISTS facts (
        statement TEXT PRIMARY KEY, context TEXT, fact_metadata TEXT, confidence REAL
    );
""")
CONTENT_ADDRESSED_WIDE = Facts(
    """
    CREATE TABLE IF NOT EXISTS facts (
        statement TEXT PRIMARY KEY, context TEXT, fact_metadata TEXT, confidence REAL,
        predicate TEXT, subject TEXT, object TEXT, statement_hash TEXT, source TEXT
    );
    """,
    beside="CREATE VIRTUAL TABLE IF NOT EXISTS facts_fts USING fts5(statement);",
)
DATED_WITH_METADATA = Facts("""
    CREATE TABLE IF NOT EXISTS facts (
        id INTEGER PRIMARY KEY AUTOINCREMENT, statement TEXT NOT NULL UNIQUE,
        confidence REAL DEFAULT 1.0, source TEXT, metadata TEXT,
        created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, updated_at TIMESTAMP
    );
""")
DATED_WITH_CONTEXT = Facts("""
    CREATE TABLE IF NOT EXISTS facts (
        id INTEGER PRIMARY KEY AUTOINCREMENT, statement TEXT UNIQUE NOT NULL,
        context TEXT DEFAULT '{}', source TEXT, confidence REAL DEFAULT 0.9,
        created_at DATETIME DEFAULT CURRENT_TIMESTAMP, updated_at DATETIME
    );
""")
PLAIN = Facts("""
    CREATE TABLE IF NOT EXISTS facts (
        id INTEGER PRIMARY KEY, statement TEXT, source TEXT, timestamp TEXT,
        agent_id TEXT, fact_type TEXT
    );
""")
PLAIN_WITHOUT_TIMES = replace(PLAIN, dated=False)
EXTENDED_ALONE = Facts(
    """
    CREATE TABLE IF NOT EXISTS facts_extended (
        id INTEGER PRIMARY KEY AUTOINCREMENT, statement TEXT UNIQUE NOT NULL,
        predicate TEXT, arg_count INTEGER, args_json TEXT, fact_type TEXT, domain TEXT,
        complexity INTEGER, confidence REAL, source TEXT,
        created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
    );
    """,
    table="facts_extended",
)
EXTENDED_BESIDE_EMPTY = replace(EXTENDED_ALONE, beside=DOCUMENTED.ddl)
EXTENDED_BESIDE_FILLED = replace(
    DOCUMENTED,
    beside=EXTENDED_ALONE.ddl
    + """
    WITH RECURSIVE ids(id) AS
        (SELECT 1 UNION ALL SELECT id + 1 FROM ids LIMIT 331)
    INSERT OR IGNORE INTO facts_extended (id, statement, confidence)
        SELECT id, 'IsOfNoInterest(' || id || ').', 0.125 FROM ids;
    """,
)

AUDIT_DOCUMENTED = Audit("""
    CREATE TABLE IF NOT EXISTS audit_log (
        id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT DEFAULT CURRENT_TIMESTAMP,
        operation TEXT NOT NULL, details TEXT, user_id TEXT, session_id TEXT
    );
""")
AUDIT_REPAIRED = Audit(
    """
    CREATE TABLE IF NOT EXISTS audit_log (
        id INTEGER PRIMARY KEY, timestamp TEXT, operation TEXT, details TEXT
    );
    """,
    dated=False,
)
AUDIT_BY_SET_UP_SCRIPT = Audit(
    """
    CREATE TABLE IF NOT EXISTS audit_log (
        id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT NOT NULL,
        event TEXT NOT NULL, payload TEXT, hash TEXT
    );
    """,
    label="event",
    details="payload",
)

INSTALLATIONS: dict[str, tuple[Facts, Audit | None]] = {
    "documented": (DOCUMENTED, AUDIT_DOCUMENTED),
    "content-addressed": (CONTENT_ADDRESSED, None),
    "content-addressed-wide": (CONTENT_ADDRESSED_WIDE, AUDIT_REPAIRED),
    "dated-with-metadata": (DATED_WITH_METADATA, AUDIT_BY_SET_UP_SCRIPT),
    "dated-with-context": (DATED_WITH_CONTEXT, AUDIT_DOCUMENTED),
    "plain": (PLAIN, AUDIT_BY_SET_UP_SCRIPT),
    "plain-without-times": (PLAIN_WITHOUT_TIMES, AUDIT_REPAIRED),
    "extended-beside-empty": (EXTENDED_BESIDE_EMPTY, None),
    "extended-beside-filled": (EXTENDED_BESIDE_FILLED, AUDIT_DOCUMENTED),
    "extended-alone": (EXTENDED_ALONE, AUDIT_BY_SET_UP_SCRIPT),
}
# The public hakgal_performance.db: none of our tables.
PUBLIC_PERFORMANCE = """
    CREATE TABLE IF NOT EXISTS facts (statement TEXT PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS tools (name TEXT PRIMARY KEY, description TEXT);
"""


class Application(File):
    """HAK/GAL at work on its knowledge base, in WAL mode.

    Each row gets a number of its own, as source or as details, and that number's time.
    """

    def __init__(self, folder: Path, facts: Facts, audit: Audit | None) -> None:
        self.facts, self.audit = facts, audit
        self._numbers = count(1)
        self._confidences: Iterator[float | None] = cycle((0.25, None, 0.5, 1.0))
        ddl = facts.ddl + facts.beside + (audit.ddl if audit else "")
        super().__init__(folder / "hexagonal_kb.db", ddl)

    @property
    def is_dated(self) -> bool:
        """Whether the application writes the time of each row that can have one."""
        return self.facts.dated and (self.audit is None or self.audit.dated)

    def add(self, rows: int = 1) -> None:
        """Add facts that are new, in one transaction, and say so in the audit log."""
        self._insert_or_ignore(
            [f"Is(Fact, {next(self._numbers)})." for _ in range(rows)]
        )
        for row in range(rows):
            self._log("add_fact" if row % 3 else "bulk_import")

    def add_known(self) -> None:
        """Add facts that are known already; their ids may be used up for nothing."""
        self._insert_or_ignore([*self._statements("ASC"), *self._statements("DESC")])

    def update_statement(self) -> None:
        """Rewrite the oldest and the newest fact."""
        sql = f"UPDATE {self.facts.table} SET statement = ? WHERE statement = ?"
        for known in (*self._statements("ASC", 1), *self._statements("DESC", 1)):
            self.run(sql, f"Revised({known})", known)
        self._log("update_fact")

    def delete_old(self) -> None:
        """Delete the two oldest facts."""
        self._delete(self._statements("ASC"))

    def delete_newest(self) -> None:
        """Delete the two newest facts."""
        self._delete(self._statements("DESC"))

    def _insert_or_ignore(self, statements: list[str]) -> None:
        self.run("BEGIN")
        for statement in statements:
            number = next(self._numbers)
            columns: dict[str, object] = {"statement": statement}
            if self.facts.has_id:
                columns["source"] = str(number)
            if self.facts.has_confidence:
                columns["confidence"] = next(self._confidences)
            if self.facts.time and self.facts.dated:
                columns[self.facts.time] = at(number)
            names, marks = ", ".join(columns), ", ".join("?" * len(columns))
            sql = f"INSERT OR IGNORE INTO {self.facts.table} ({names}) VALUES ({marks})"
            self.run(sql, *columns.values())
        self.run("COMMIT")

    def _log(self, operation: str) -> None:
        if self.audit:
            number = next(self._numbers)
            columns = {self.audit.label: operation, self.audit.details: str(number)}
            if self.audit.dated:
                columns["timestamp"] = at(number)
            self.insert("audit_log", **columns)

    def _delete(self, statements: list[str]) -> None:
        for statement in statements:
            self.run(f"DELETE FROM {self.facts.table} WHERE statement = ?", statement)
        self._log("delete_fact")

    def _statements(self, order: str, rows: int = 2) -> list[str]:
        sql = f"SELECT statement FROM {self.facts.table} ORDER BY rowid {order} LIMIT ?"
        return [statement for (statement,) in self.run(sql, rows)]
