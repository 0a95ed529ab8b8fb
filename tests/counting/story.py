"""What may befall a table, and whether a page counts each of its rows once.

Each row that is written carries a number of its own as its value. The count and the sum
of these on the page then tell which rows are counted.
"""

from dataclasses import dataclass, field
from typing import Any

from tests.databases import File, Files, at
from tests.exporters import Page, make_config, make_exporter, scrape

HISTOGRAMS = {
    "query_times": "hakgal_query_duration_seconds",
    "cache_events": "hakgal_cache_response_seconds",
    "facts": "hakgal_fact_confidence",
}


@dataclass
class Story:
    """One table, its writer, and a new exporter for each page.

    ``expected`` are the numbers of the rows to be counted, ``missed`` and ``rejected``
    how many rows are to be reported, ``resets`` how often the table is to be taken for
    another. Rows are written a second apart.
    """

    files: Files
    table: str = "query_times"
    expected: list[int] = field(default_factory=list)
    missed: int = 0
    rejected: int = 0
    resets: int = 0
    written: int = 0

    def __post_init__(self) -> None:
        files = self.files
        is_facts = self.table == "facts"
        self.file: File = files.knowledge_base if is_facts else files.performance
        self.config = make_config(self.file.path.parent)

    def write(self, rows: int = 1, **columns: Any) -> list[int]:
        """Write rows that are to be counted, and return their ids."""
        self.file.run("BEGIN")
        ids = [self._write_row(columns) for _ in range(rows)]
        self.file.run("COMMIT")
        return ids

    def _write_row(self, columns: dict[str, Any]) -> int:
        self.written += 1
        self.expected.append(self.written)
        columns = {"timestamp": at(self.written)} | columns
        if self.table == "facts":
            return self.files.add_fact("Is(Fact).", self.written, **columns)
        if self.table == "cache_events":
            return self.files.add_cache(1, self.written, **columns)
        return self.files.add_query(self.written, **columns)

    def forget(self, rows: int) -> None:
        """Take the newest rows back from what is to be counted."""
        del self.expected[len(self.expected) - rows :]

    def run(self, sql: str, *parameters: object) -> None:
        """Execute a statement; ``{}`` is the table."""
        self.file.run(sql.format(self.table), *parameters)

    def prune(self, keep: int = 0) -> None:
        self.file.prune(self.table, keep)

    def scrape(self) -> Page:
        """Return a page on which nothing is left to be read."""
        exporter = make_exporter(self.config)
        page = scrape(exporter)
        while page("hakgal_exporter_backlog_rows", table=self.table):
            page = scrape(exporter)
        return page

    def check(self) -> Page:
        """Compare the rows that are counted with those written, and what is said."""
        page, table = self.scrape(), {"table": self.table}
        name = HISTOGRAMS[self.table]
        rejected = table | {"reason": "before_replacement"}
        found = {
            "count": page.sum(f"{name}_count"),
            "sum": page.sum(f"{name}_sum"),
            "missed": page("hakgal_exporter_missed_rows_total", **table),
            "rejected": page("hakgal_exporter_rejected_rows_total", **rejected),
            "resets": page.sum("hakgal_exporter_resets_total", **table),
            "failed": page.failed,
        }
        assert found == {
            "count": len(self.expected),
            "sum": sum(self.expected),
            "missed": float(self.missed if self.table != "facts" else 0),
            "rejected": self.rejected,
            "resets": self.resets,
            "failed": set(),
        }
        return page
