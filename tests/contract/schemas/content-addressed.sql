-- The statement is the key: a migration made it so, and left a table for searching.
CREATE TABLE IF NOT EXISTS facts (
    statement TEXT PRIMARY KEY, context TEXT, fact_metadata TEXT, confidence REAL,
    predicate TEXT, subject TEXT, object TEXT, statement_hash TEXT, source TEXT
);
CREATE VIRTUAL TABLE IF NOT EXISTS facts_fts USING fts5(statement);
