"""What the documents say: it is so, and it works."""
