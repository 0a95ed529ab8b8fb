"""One file a subsystem: what is read of HAK/GAL, and which families that gives."""

from types import ModuleType

from exporter.collectors import audit, cache, facts, queries

TABLE_COLLECTORS: dict[str, ModuleType] = {
    "facts": facts,
    "audit": audit,
    "queries": queries,
    "cache": cache,
}
