"""The fire drill, ``make drill``: docs/drill.md tells how to read what it prints."""
