"""HAK/GAL's files: opening one without being in its way, and what is in it."""
