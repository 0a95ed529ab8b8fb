"""Each row once: rows to counts, reading on, recognising a table, the state file.

What reads a table raises sqlite3.Error: locked, damaged, or out of time.
"""
