"""One file per subsystem: what it reads from HAK/GAL, and the families it yields."""

from exporter.collectors import audit, cache, facts, queries

TABLE_COLLECTORS = {"facts": facts, "audit": audit, "queries": queries, "cache": cache}
