"""One file a subsystem: what is read of HAK/GAL, and which families that gives."""

from exporter.collectors import audit, cache, facts, queries

TABLE_COLLECTORS = {"facts": facts, "audit": audit, "queries": queries, "cache": cache}
