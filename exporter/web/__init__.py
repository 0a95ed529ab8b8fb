"""HTTP and TLS by tornado: the pages, and who is let in; knows nothing of SQLite."""
