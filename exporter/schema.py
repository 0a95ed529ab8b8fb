"""HAK/GAL's own tables, for simulated databases and for tests.

HAK/GAL fixes and writes them; the exporter itself only ever reads them.
"""

KNOWLEDGE_BASE = """
CREATE TABLE IF NOT EXISTS facts (
    id INTEGER PRIMARY KEY AUTOINCREMENT, statement TEXT NOT NULL, source TEXT,
    timestamp TEXT DEFAULT CURRENT_TIMESTAMP, tags TEXT, confidence REAL DEFAULT 1.0
);
CREATE TABLE IF NOT EXISTS audit_log (
    id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT DEFAULT CURRENT_TIMESTAMP,
    operation TEXT NOT NULL, details TEXT, user_id TEXT, session_id TEXT
);
"""

PERFORMANCE = """
CREATE TABLE IF NOT EXISTS performance_metrics (
    id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT DEFAULT CURRENT_TIMESTAMP,
    metric_name TEXT NOT NULL, metric_value REAL NOT NULL,
    metric_type TEXT DEFAULT 'gauge', tags TEXT
);
CREATE TABLE IF NOT EXISTS query_times (
    id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT DEFAULT CURRENT_TIMESTAMP,
    query_time REAL NOT NULL, query_type TEXT, success BOOLEAN DEFAULT TRUE
);
CREATE TABLE IF NOT EXISTS cache_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT DEFAULT CURRENT_TIMESTAMP,
    hit BOOLEAN NOT NULL, cache_key TEXT, response_time REAL
);
"""
