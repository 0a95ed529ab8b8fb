CREATE TABLE IF NOT EXISTS facts_extended (
    id INTEGER PRIMARY KEY AUTOINCREMENT, statement TEXT UNIQUE NOT NULL,
    predicate TEXT, arg_count INTEGER, args_json TEXT, fact_type TEXT, domain TEXT,
    complexity INTEGER, confidence REAL, source TEXT,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE IF NOT EXISTS audit_log (
    id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT NOT NULL,
    event TEXT NOT NULL, details TEXT, hash TEXT
);
