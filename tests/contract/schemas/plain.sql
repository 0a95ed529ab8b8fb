-- Ids that may be given out again, and no confidence.
CREATE TABLE IF NOT EXISTS facts (
    id INTEGER PRIMARY KEY, statement TEXT, source TEXT, timestamp TEXT,
    agent_id TEXT, fact_type TEXT
);
CREATE TABLE IF NOT EXISTS audit_log (
    id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT NOT NULL,
    event TEXT NOT NULL, details TEXT, hash TEXT
);
