"""One file a subsystem: where it is read in HAK/GAL, and which families it gives."""

from exporter.collectors.audit import Audit
from exporter.collectors.base import TableCollector
from exporter.collectors.cache import Cache
from exporter.collectors.facts import Facts
from exporter.collectors.queries import Queries
from exporter.collectors.storage import Storage
from exporter.collectors.system import System

TABLE_COLLECTORS: dict[str, type[TableCollector]] = {
    "facts": Facts,
    "audit": Audit,
    "queries": Queries,
    "cache": Cache,
}

__all__ = ["TABLE_COLLECTORS", "Storage", "System", "TableCollector"]
