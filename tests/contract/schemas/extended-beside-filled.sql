CREATE TABLE IF NOT EXISTS facts (
    id INTEGER PRIMARY KEY AUTOINCREMENT, statement TEXT NOT NULL, source TEXT,
    timestamp TEXT DEFAULT CURRENT_TIMESTAMP, tags TEXT, confidence REAL DEFAULT 1.0
);
CREATE TABLE IF NOT EXISTS facts_extended (
    id INTEGER PRIMARY KEY AUTOINCREMENT, statement TEXT UNIQUE NOT NULL,
    fact_type TEXT, confidence REAL, source TEXT
);
WITH RECURSIVE ids(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids LIMIT 331)
INSERT OR IGNORE INTO facts_extended (id, statement, confidence)
    SELECT id, 'IsOfNoInterest(' || id || ').', 0.125 FROM ids;
CREATE TABLE IF NOT EXISTS audit_log (
    id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT DEFAULT CURRENT_TIMESTAMP,
    operation TEXT NOT NULL, details TEXT, user_id TEXT, session_id TEXT
);
