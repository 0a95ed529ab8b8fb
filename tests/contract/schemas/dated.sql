-- By the set-up script, whose audit log has events instead of operations.
CREATE TABLE IF NOT EXISTS facts (
    id INTEGER PRIMARY KEY AUTOINCREMENT, statement TEXT NOT NULL UNIQUE,
    confidence REAL DEFAULT 1.0, source TEXT, metadata TEXT,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, updated_at TIMESTAMP
);
CREATE TABLE IF NOT EXISTS audit_log (
    id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT NOT NULL,
    event TEXT NOT NULL, details TEXT, hash TEXT
);
