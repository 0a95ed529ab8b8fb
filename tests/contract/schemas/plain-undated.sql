-- Repaired by hand: what writes here writes no times.
CREATE TABLE IF NOT EXISTS facts (
    id INTEGER PRIMARY KEY, statement TEXT, source TEXT, timestamp TEXT,
    agent_id TEXT, fact_type TEXT
);
CREATE TABLE IF NOT EXISTS audit_log (
    id INTEGER PRIMARY KEY, timestamp TEXT, operation TEXT, details TEXT
);
